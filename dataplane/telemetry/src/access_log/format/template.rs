//! Format strings: which facts a line of text holds, and in which order.
//!
//! A format is read once, when settings or a route are; a line then costs its bytes and no search.
//! `%NAME%` stands for a fact of the contract, `$name` for the same in small letters or in nginx's
//! spelling, `%%` and `$$` for the signs themselves. What is not known is written as a dash.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use thiserror::Error;

use super::{
    ClientCertificate, ClockText, Destination, GenAi, HandshakeRecord, Record, StreamRecord,
    address, digits, escape, milliseconds,
};
use crate::reason::Reason;

/// The format of lines of text unless another is asked for.
pub const DEFAULT_FORMAT: &str = "%CLIENT_IP% - - [%TIMESTAMP%] \"%REQUEST%\" %STATUS% \
    %BYTES_SENT% \"%REFERER%\" \"%USER_AGENT%\" %LATENCY_MS%ms %UPSTREAM_ADDR% \
    uct=%UPSTREAM_CONNECT_TIME_MS%ms rt=%ROUTE_NAMESPACE%/%ROUTE_NAME% rid=%REQUEST_ID% \
    flags=%RESPONSE_FLAGS% retries=%RETRY_ATTEMPTS% sn=%SNAPSHOT_VERSION%";

/// Longest format; a route's owner writes it.
const FORMAT_BYTES_MAX: usize = 8192;

/// How much of a fact from a client or backend is written; the rest is cut.
const FACT_BYTES_MAX: usize = 4096;

/// Why a format cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// No fact has that name.
    #[error("{0} is no variable; docs/operations/access-log.md lists them")]
    Unknown(String),
    /// A percent sign that begins nothing.
    #[error("a percent sign begins no variable; write %% for the sign itself")]
    Percent,
    /// It is too long.
    #[error("longer than {FORMAT_BYTES_MAX} bytes")]
    TooLong,
}

/// A format that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<[u8]>),
    Variable(Variable),
}

impl Default for Template {
    fn default() -> Self {
        // A test reads the default format.
        Self::parse(DEFAULT_FORMAT).unwrap_or(Self(Vec::new()))
    }
}

impl Template {
    /// Reads a format.
    pub fn parse(format: &str) -> Result<Self, FormatError> {
        if format.len() > FORMAT_BYTES_MAX {
            return Err(FormatError::TooLong);
        }
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = format;
        while let Some(at) = rest.find(['%', '$']) {
            let (before, after) = rest.split_at(at);
            text.push_str(before);
            let (sign, after) = after.split_at(1);
            let (variable, after) = match sign {
                "%" => named(after)?,
                _ => short(after)?,
            };
            rest = after;
            match variable {
                None => text.push_str(sign),
                Some(variable) => {
                    if !text.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut text).into_bytes().into()));
                    }
                    pieces.push(Piece::Variable(variable));
                }
            }
        }
        text.push_str(rest);
        // A line is a line.
        text.push('\n');
        pieces.push(Piece::Text(text.into_bytes().into()));
        let is_broken = |piece: &Piece| matches!(piece, Piece::Text(text) if text.contains(&b'\r'));
        debug_assert!(!pieces.iter().any(is_broken) || format.contains('\r'));
        Ok(Self(pieces))
    }

    pub(in crate::access_log) fn write(
        &self,
        out: &mut Vec<u8>,
        clock: &mut ClockText,
        facts: &Facts<'_>,
    ) {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Variable(variable) => {
                    let before = out.len();
                    facts.write(*variable, out, clock);
                    if out.len() == before {
                        out.push(b'-');
                    }
                }
            }
        }
    }
}

/// What follows a percent sign; nothing for the sign itself.
fn named(rest: &str) -> Result<(Option<Variable>, &str), FormatError> {
    let (name, after) = rest.split_once('%').ok_or(FormatError::Percent)?;
    if name.is_empty() {
        return Ok((None, after));
    }
    let found = ALL.iter().find(|(known, _, _)| *known == name);
    let (_, _, variable) = found.ok_or_else(|| FormatError::Unknown(format!("%{name}%")))?;
    Ok((Some(*variable), after))
}

/// What follows a dollar sign; a sign before anything but a letter stands for itself.
fn short(rest: &str) -> Result<(Option<Variable>, &str), FormatError> {
    if let Some(after) = rest.strip_prefix('$') {
        return Ok((None, after));
    }
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let end = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    if name.is_empty() {
        return Ok((None, after));
    }
    let found = ALL
        .iter()
        .find(|(known, others, _)| known.eq_ignore_ascii_case(name) || others.contains(&name));
    let (_, _, variable) = found.ok_or_else(|| FormatError::Unknown(format!("${name}")))?;
    Ok((Some(*variable), after))
}

macro_rules! variables {
    ($( $variable:ident $name:literal [$($other:literal),*]; )+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Variable { $( $variable, )+ }

        /// Names, other names behind a dollar sign, and what they stand for.
        static ALL: &[(&str, &[&str], Variable)] =
            &[$( ($name, &[$($other),*], Variable::$variable), )+];
    };
}

variables! {
    Timestamp "TIMESTAMP" ["time_iso8601"];
    Event "EVENT" [];
    Protocol "PROTOCOL" ["server_protocol"];
    Listener "LISTENER" [];
    ClientIp "CLIENT_IP" ["remote_addr"];
    ClientPort "CLIENT_PORT" ["remote_port"];
    Scheme "SCHEME" [];
    Host "HOST" [];
    Method "METHOD" ["request_method"];
    Path "PATH" ["request_uri"];
    Request "REQUEST" [];
    RequestId "REQUEST_ID" [];
    Referer "REFERER" ["http_referer"];
    UserAgent "USER_AGENT" ["http_user_agent"];
    RouteKind "ROUTE_KIND" [];
    RouteNamespace "ROUTE_NAMESPACE" [];
    RouteName "ROUTE_NAME" [];
    Rule "RULE" [];
    Backend "BACKEND" [];
    UpstreamAddr "UPSTREAM_ADDR" [];
    UpstreamConnectTimeMs "UPSTREAM_CONNECT_TIME_MS" [];
    UpstreamHost "UPSTREAM_HOST" [];
    UpstreamPath "UPSTREAM_PATH" [];
    Status "STATUS" [];
    GrpcStatus "GRPC_STATUS" [];
    LatencyMs "LATENCY_MS" [];
    RequestTime "REQUEST_TIME" [];
    RoutingTimeMs "ROUTING_TIME_MS" [];
    FirstByteMs "FIRST_BYTE_MS" [];
    BytesReceived "BYTES_RECEIVED" ["request_length"];
    BytesSent "BYTES_SENT" ["body_bytes_sent"];
    DatagramsReceived "DATAGRAMS_RECEIVED" [];
    DatagramsSent "DATAGRAMS_SENT" [];
    SnapshotVersion "SNAPSHOT_VERSION" [];
    RetryAttempts "RETRY_ATTEMPTS" [];
    ResponseFlags "RESPONSE_FLAGS" [];
    Reason "REASON" [];
    Detail "DETAIL" [];
    TlsVersion "TLS_VERSION" ["ssl_protocol"];
    Sni "SNI" ["ssl_server_name"];
    ClientCertSubject "CLIENT_CERT_SUBJECT" [];
    ClientCertSan "CLIENT_CERT_SAN" [];
    ClientCertSha256 "CLIENT_CERT_SHA256" [];
    TraceId "TRACE_ID" [];
    SpanId "SPAN_ID" [];
    GenAiOperation "GEN_AI_OPERATION" [];
    GenAiProvider "GEN_AI_PROVIDER" [];
    GenAiRequestModel "GEN_AI_REQUEST_MODEL" [];
    GenAiResponseModel "GEN_AI_RESPONSE_MODEL" [];
    GenAiInputTokens "GEN_AI_INPUT_TOKENS" [];
    GenAiOutputTokens "GEN_AI_OUTPUT_TOKENS" [];
    GenAiFinishReason "GEN_AI_FINISH_REASON" [];
    GenAiCost "GEN_AI_COST" [];
    GenAiError "GEN_AI_ERROR" [];
}

/// The names of all variables, for the page of the reference.
pub fn variables() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _, _)| *name)
}

/// One of the kinds of records.
pub(in crate::access_log) enum Facts<'a> {
    Request(&'a Record<'a>),
    Stream(&'a StreamRecord<'a>),
    Handshake(&'a HandshakeRecord<'a>),
}

impl Facts<'_> {
    fn write(&self, variable: Variable, out: &mut Vec<u8>, clock: &mut ClockText) {
        if self.common().write(variable, out, clock) {
            return;
        }
        match self {
            Self::Request(record) => {
                if !destination(&record.destination, variable, out) {
                    request(record, variable, out);
                }
            }
            Self::Stream(record) => {
                if !destination(&record.destination, variable, out) {
                    stream(record, variable, out);
                }
            }
            Self::Handshake(record) => {
                if variable == Variable::Detail {
                    text(out, record.detail.as_bytes());
                }
            }
        }
    }

    fn common(&self) -> Common<'_> {
        match self {
            Self::Request(record) => Common {
                event: "http_request",
                timestamp: record.timestamp,
                took: record.latency,
                protocol: record.protocol,
                listener: record.listener,
                client: (record.client_ip, record.client_port),
                snapshot_version: record.snapshot_version,
                reason: record.reason,
                tls_version: record.tls_version,
                sni: record.sni,
            },
            Self::Stream(record) => Common {
                event: "stream_session",
                timestamp: record.timestamp,
                took: record.duration,
                protocol: record.protocol,
                listener: record.listener,
                client: (record.client.ip(), record.client.port()),
                snapshot_version: record.snapshot_version,
                reason: record.reason,
                tls_version: record.tls_version,
                sni: record.sni,
            },
            Self::Handshake(record) => Common {
                event: "tls_handshake",
                timestamp: record.timestamp,
                took: record.duration,
                protocol: "tls",
                listener: record.listener,
                client: (record.client.ip(), record.client.port()),
                snapshot_version: record.snapshot_version,
                reason: record.reason,
                tls_version: None,
                sni: record.sni,
            },
        }
    }
}

/// What records of all kinds say.
struct Common<'a> {
    event: &'static str,
    timestamp: SystemTime,
    took: Duration,
    protocol: &'a str,
    listener: &'a str,
    client: (IpAddr, u16),
    snapshot_version: &'a str,
    reason: Reason,
    tls_version: Option<&'a str>,
    sni: Option<&'a str>,
}

impl Common<'_> {
    /// False when the variable is none of these.
    fn write(&self, variable: Variable, out: &mut Vec<u8>, clock: &mut ClockText) -> bool {
        use Variable as V;
        match variable {
            V::Timestamp => clock.write(out, self.timestamp),
            V::Event => text(out, self.event.as_bytes()),
            V::Protocol => text(out, self.protocol.as_bytes()),
            V::Listener => text(out, self.listener.as_bytes()),
            V::ClientIp => address(out, self.client.0),
            V::ClientPort => digits(out, self.client.1.into()),
            V::LatencyMs => ms(out, Some(self.took)),
            V::RequestTime => seconds(out, self.took),
            V::SnapshotVersion => text(out, self.snapshot_version.as_bytes()),
            V::ResponseFlags => text(out, self.reason.flag().as_bytes()),
            V::Reason => text(out, self.reason.as_str().as_bytes()),
            V::TlsVersion => optional(out, self.tls_version),
            V::Sni => optional(out, self.sni),
            _ => return false,
        }
        true
    }
}

/// Where a request or session went; false when the variable is nothing of that.
fn destination(record: &Destination<'_>, variable: Variable, out: &mut Vec<u8>) -> bool {
    use Variable as V;
    match variable {
        V::RouteKind | V::RouteNamespace | V::RouteName => route(out, record.route, variable),
        V::Rule => count(out, record.rule.map(|rule| rule as u64)),
        V::Backend => optional(out, record.backend),
        V::UpstreamAddr => upstream(out, record.upstream_addr),
        V::UpstreamConnectTimeMs => ms(out, record.upstream_connect_time),
        V::RetryAttempts => digits(out, record.attempts.saturating_sub(1).into()),
        _ => return false,
    }
    true
}

fn request(record: &Record<'_>, variable: Variable, out: &mut Vec<u8>) {
    use Variable as V;
    match variable {
        V::Scheme => text(out, record.scheme.as_bytes()),
        V::Host => text(out, record.host),
        V::Method => text(out, record.method.as_bytes()),
        V::Path => text(out, record.path),
        V::Request if !record.method.is_empty() => {
            text(out, record.method.as_bytes());
            out.push(b' ');
            text(out, record.path);
            out.push(b' ');
            text(out, record.protocol.as_bytes());
        }
        V::UpstreamHost | V::UpstreamPath if record.destination.attempts == 0 => {}
        V::UpstreamHost => text(out, record.upstream_host),
        V::UpstreamPath => text(out, record.upstream_path),
        V::RequestId => text(out, record.request_id),
        V::Referer => text(out, record.referer),
        V::UserAgent => text(out, record.user_agent),
        V::Status => digits(out, record.status.into()),
        V::GrpcStatus => count(out, record.grpc_status.map(|it| it.code().into())),
        V::RoutingTimeMs => ms(out, record.routing_time),
        V::FirstByteMs => ms(out, record.first_byte_time),
        V::BytesReceived => digits(out, record.bytes_received),
        V::BytesSent => digits(out, record.bytes_sent),
        V::ClientCertSubject => certificate(out, record, |it| it.subject),
        V::ClientCertSan => certificate(out, record, |it| it.name),
        V::ClientCertSha256 => certificate(out, record, |it| it.fingerprint),
        V::TraceId => {
            if let Some((trace, _)) = record.trace {
                out.extend_from_slice(&super::trace_text(trace));
            }
        }
        V::SpanId => {
            if let Some((_, span)) = record.trace {
                out.extend_from_slice(&super::span_text(span));
            }
        }
        _ => {
            if let Some(call) = record.gen_ai {
                gen_ai(call, variable, out);
            }
        }
    }
}

fn stream(record: &StreamRecord<'_>, variable: Variable, out: &mut Vec<u8>) {
    use Variable as V;
    match variable {
        V::BytesReceived => digits(out, record.bytes_received),
        V::BytesSent => digits(out, record.bytes_sent),
        V::DatagramsReceived => count(out, record.datagrams.map(|(received, _)| received)),
        V::DatagramsSent => count(out, record.datagrams.map(|(_, sent)| sent)),
        _ => {}
    }
}

fn gen_ai(call: &GenAi<'_>, variable: Variable, out: &mut Vec<u8>) {
    use Variable as V;
    match variable {
        V::GenAiOperation => text(out, call.operation.as_bytes()),
        V::GenAiProvider => text(out, call.provider.as_bytes()),
        V::GenAiRequestModel => text(out, call.request_model.as_bytes()),
        V::GenAiResponseModel => text(out, call.response_model.as_bytes()),
        V::GenAiInputTokens => count(out, call.input_tokens),
        V::GenAiOutputTokens => count(out, call.output_tokens),
        V::GenAiFinishReason => text(out, call.finish_reason.as_bytes()),
        V::GenAiError => text(out, call.error.as_bytes()),
        V::GenAiCost => {
            if let Some(cost) = call.cost {
                text(out, cost.to_string().as_bytes());
            }
        }
        _ => {}
    }
}

/// Quotes, backslashes and what is no printable character are escaped as in JSON, so that nobody
/// else's bytes end a field or a line.
fn text(out: &mut Vec<u8>, value: &[u8]) {
    escape(out, value.get(..FACT_BYTES_MAX).unwrap_or(value));
}

fn optional(out: &mut Vec<u8>, value: Option<&str>) {
    text(out, value.unwrap_or_default().as_bytes());
}

fn count(out: &mut Vec<u8>, value: Option<u64>) {
    if let Some(value) = value {
        digits(out, value);
    }
}

fn ms(out: &mut Vec<u8>, value: Option<Duration>) {
    if let Some(value) = value {
        milliseconds(out, b"", value);
    }
}

/// Seconds with three places.
fn seconds(out: &mut Vec<u8>, value: Duration) {
    text(out, format!("{:.3}", value.as_secs_f64()).as_bytes());
}

fn certificate<'a>(
    out: &mut Vec<u8>,
    record: &Record<'a>,
    part: impl FnOnce(&ClientCertificate<'a>) -> &'a str,
) {
    optional(out, record.client_certificate.as_ref().map(part));
}

fn route(out: &mut Vec<u8>, route: Option<&str>, part: Variable) {
    let Some(route) = route else { return };
    let (kind, namespace, name) = super::route_parts(route);
    text(
        out,
        match part {
            Variable::RouteKind => kind,
            Variable::RouteNamespace => namespace,
            _ => name,
        }
        .as_bytes(),
    );
}

fn upstream(out: &mut Vec<u8>, endpoint: Option<std::net::SocketAddr>) {
    if let Some(endpoint) = endpoint {
        super::endpoint(out, endpoint);
    }
}

#[cfg(test)]
mod tests;
