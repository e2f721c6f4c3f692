//! What a line of the access log says, as JSON written by hand.
//!
//! A general serialiser would cost several times as much per request. Text from clients and
//! backends may hold any bytes: quotes, backslashes and control characters are escaped, bytes that
//! are not UTF-8 are replaced by U+FFFD, long fields are cut, so a line is always one line of JSON.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::grpc_status::GrpcStatus;
use crate::reason::Reason;
use crate::trace_context::{span_text, trace_text};

mod gen_ai;
mod handshake;
mod place;
mod stream;
mod template;

pub use gen_ai::GenAi;
pub use handshake::HandshakeRecord;
pub use stream::StreamRecord;
pub use template::{DEFAULT_FORMAT, FormatError, Template, variables};

pub(super) use template::Facts;

use place::{Place, Places};

/// How much of a field from a client or backend is written; the rest is cut.
const FIELD_BYTES_MAX: usize = 4096;

/// Room for a line with fields of usual length.
pub(super) const LINE_USUAL: usize = 1024;

/// What is known about a request when it has ended. Empty and absent fields are left out.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When the request began.
    pub timestamp: SystemTime,
    /// From there to the last byte of the response.
    pub latency: Duration,
    /// The listener's name.
    pub listener: &'a str,
    /// The client's address.
    pub client_ip: IpAddr,
    /// The port of the connection's other end.
    pub client_port: u16,
    /// `http` or `https`, as the client spoke.
    pub scheme: &'static str,
    /// The request's method.
    pub method: &'a str,
    /// Host or authority, as sent.
    pub host: &'a [u8],
    /// Path with query, as sent.
    pub path: &'a [u8],
    /// The host that backends are told, which filters and plugins may change.
    pub upstream_host: &'a [u8],
    /// The path with query that backends are told.
    pub upstream_path: &'a [u8],
    /// `HTTP/1.1` and the like.
    pub protocol: &'static str,
    /// The status sent, 0 when none was.
    pub status: u16,
    /// With which code a call over gRPC ended, when the client was told one.
    pub grpc_status: Option<GrpcStatus>,
    /// Bytes received from the client.
    pub bytes_received: u64,
    /// Bytes sent to the client.
    pub bytes_sent: u64,
    /// Where it went.
    pub destination: Destination<'a>,
    /// From the beginning until the first attempt began.
    pub routing_time: Option<Duration>,
    /// From the beginning until the head of the response was there.
    pub first_byte_time: Option<Duration>,
    /// The ids of its trace and span, when it is recorded.
    pub trace: Option<(u128, u64)>,
    /// The request's id.
    pub request_id: &'a [u8],
    /// The field of that name.
    pub user_agent: &'a [u8],
    /// The field of that name.
    pub referer: &'a [u8],
    /// How the request ended.
    pub reason: Reason,
    /// The version of the configuration that served it.
    pub snapshot_version: &'a str,
    /// `TLSv1.3` and the like.
    pub tls_version: Option<&'a str>,
    /// The name the client asked for in its handshake.
    pub sni: Option<&'a str>,
    /// Who the client is by its certificate.
    pub client_certificate: Option<ClientCertificate<'a>>,
    /// The call, when it was one to an AI service.
    pub gen_ai: Option<&'a GenAi<'a>>,
}

impl Record<'_> {
    /// A request of which nothing is known; whoever knows something fills it in by struct update.
    pub const fn unknown() -> Self {
        Self {
            timestamp: SystemTime::UNIX_EPOCH,
            latency: Duration::ZERO,
            listener: "",
            client_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            client_port: 0,
            scheme: "http",
            method: "",
            host: b"",
            path: b"",
            upstream_host: b"",
            upstream_path: b"",
            protocol: "HTTP/1.1",
            status: 0,
            grpc_status: None,
            bytes_received: 0,
            bytes_sent: 0,
            destination: Destination::NOWHERE,
            routing_time: None,
            first_byte_time: None,
            trace: None,
            request_id: b"",
            user_agent: b"",
            referer: b"",
            reason: Reason::Ok,
            snapshot_version: "",
            tls_version: None,
            sni: None,
            client_certificate: None,
            gen_ai: None,
        }
    }
}

/// Where a request or a session went; what lines of both say alike. Absent parts are left out.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// `Kind/namespace/name` or `namespace/name` of the route that matched.
    pub route: Option<&'a str>,
    /// Which of the route's rules, counted from 0.
    pub rule: Option<usize>,
    /// The cluster's key.
    pub backend: Option<&'a str>,
    /// The endpoint of the last attempt.
    pub upstream_addr: Option<SocketAddr>,
    /// How long the last attempt's connection took to come up; absent when it was a pooled one.
    pub upstream_connect_time: Option<Duration>,
    /// Attempts made; 0 when it went nowhere.
    pub attempts: u32,
}

impl Destination<'_> {
    /// Nowhere.
    pub const NOWHERE: Self = Self {
        route: None,
        rule: None,
        backend: None,
        upstream_addr: None,
        upstream_connect_time: None,
        attempts: 0,
    };
}

/// What a client's verified certificate says of it.
#[derive(Clone, Copy, Debug)]
pub struct ClientCertificate<'a> {
    /// As in `CN=worker,O=Shop`.
    pub subject: &'a str,
    /// The first of its alternative names, a URI before a DNS name; empty when it has none.
    pub name: &'a str,
    /// SHA-256 in hexadecimal.
    pub fingerprint: &'a str,
}

/// Writes records as lines; keeps the date of the second it wrote last, and what lines of the same
/// rule have in common.
#[derive(Debug, Default)]
pub(super) struct JsonFormat {
    pub(super) clock: ClockText,
    places: Places,
}

impl JsonFormat {
    /// Appends one line, with its line feed.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, record: &Record<'_>) {
        out.extend_from_slice(b"{\"timestamp\":\"");
        self.clock.write(out, record.timestamp);
        out.extend_from_slice(b"\",\"event\":\"http_request\"");
        write_request(out, record);
        write_response(out, record);
        self.write_destination(
            out,
            record.listener,
            &record.destination,
            record.snapshot_version,
        );
        write_rewritten(out, record);
        write_tls(out, record.tls_version, record.sni);
        if let Some((trace, span)) = record.trace {
            out.extend_from_slice(b",\"trace_id\":\"");
            out.extend_from_slice(&trace_text(trace));
            out.extend_from_slice(b"\",\"span_id\":\"");
            out.extend_from_slice(&span_text(span));
            out.push(b'"');
        }
        if let Some(certificate) = &record.client_certificate {
            text(
                out,
                b",\"client_cert_subject\":\"",
                certificate.subject.as_bytes(),
            );
            text(out, b",\"client_cert_san\":\"", certificate.name.as_bytes());
            plain(out, b",\"client_cert_sha256\":\"", certificate.fingerprint);
        }
        if let Some(call) = record.gen_ai {
            gen_ai::write(out, call);
        }
        out.extend_from_slice(b"}\n");
    }

    /// Where a request or session went, and by which configuration.
    fn write_destination(
        &mut self,
        out: &mut Vec<u8>,
        listener: &str,
        destination: &Destination<'_>,
        snapshot_version: &str,
    ) {
        let place = Place::of(listener, destination, snapshot_version);
        self.places.write(out, place);
        write_attempts(out, destination);
    }
}

fn write_request(out: &mut Vec<u8>, record: &Record<'_>) {
    plain(out, b",\"protocol\":\"", record.protocol);
    out.extend_from_slice(b",\"client_ip\":\"");
    address(out, record.client_ip);
    number(out, b"\",\"client_port\":", u64::from(record.client_port));
    plain(out, b",\"scheme\":\"", record.scheme);
    text(out, b",\"host\":\"", record.host);
    text(out, b",\"method\":\"", record.method.as_bytes());
    text(out, b",\"path\":\"", record.path);
    text(out, b",\"request_id\":\"", record.request_id);
    text(out, b",\"user_agent\":\"", record.user_agent);
    text(out, b",\"referer\":\"", record.referer);
    number(out, b",\"bytes_received\":", record.bytes_received);
}

fn write_response(out: &mut Vec<u8>, record: &Record<'_>) {
    number(out, b",\"status\":", u64::from(record.status));
    if let Some(status) = record.grpc_status {
        number(out, b",\"grpc_status\":", u64::from(status.code()));
    }
    number(out, b",\"bytes_sent\":", record.bytes_sent);
    milliseconds(out, b",\"latency_ms\":", record.latency);
    if let Some(time) = record.routing_time {
        milliseconds(out, b",\"routing_time_ms\":", time);
    }
    if let Some(time) = record.first_byte_time {
        milliseconds(out, b",\"first_byte_ms\":", time);
    }
    plain(out, b",\"reason\":\"", record.reason.as_str());
    plain(out, b",\"response_flags\":\"", record.reason.flag());
}

/// Host and path, where the backend was told other ones than the client asked for.
fn write_rewritten(out: &mut Vec<u8>, record: &Record<'_>) {
    if record.destination.attempts == 0 {
        return;
    }
    if record.upstream_host != record.host {
        text(out, b",\"upstream_host\":\"", record.upstream_host);
    }
    if record.upstream_path != record.path {
        text(out, b",\"upstream_path\":\"", record.upstream_path);
    }
}

fn write_attempts(out: &mut Vec<u8>, record: &Destination<'_>) {
    if let Some(upstream) = record.upstream_addr {
        out.extend_from_slice(b",\"upstream_addr\":\"");
        endpoint(out, upstream);
        out.push(b'"');
    }
    if let Some(time) = record.upstream_connect_time {
        milliseconds(out, b",\"upstream_connect_time_ms\":", time);
    }
    if record.attempts > 0 {
        number(out, b",\"retry_attempts\":", u64::from(record.attempts - 1));
    }
}

/// Kind, namespace and name; what is not said is empty.
fn route_parts(route: &str) -> (&str, &str, &str) {
    let (rest, name) = route.rsplit_once('/').unwrap_or(("", route));
    let (kind, namespace) = rest.rsplit_once('/').unwrap_or(("", rest));
    (kind, namespace, name)
}

fn endpoint(out: &mut Vec<u8>, endpoint: SocketAddr) {
    let brackets = endpoint.is_ipv6();
    if brackets {
        out.push(b'[');
    }
    address(out, endpoint.ip());
    if brackets {
        out.push(b']');
    }
    number(out, b":", u64::from(endpoint.port()));
}

fn write_tls(out: &mut Vec<u8>, version: Option<&str>, sni: Option<&str>) {
    if let Some(version) = version {
        text(out, b",\"tls_version\":\"", version.as_bytes());
    }
    if let Some(sni) = sni {
        text(out, b",\"sni\":\"", sni.as_bytes());
    }
}

/// `opening` holds the comma, the name and the quote; nothing is written for an empty value.
///
/// Inlined, as are the others with an `opening`, so that its copy has a length known in advance.
#[inline(always)]
fn text(out: &mut Vec<u8>, opening: &[u8], value: &[u8]) {
    if value.is_empty() {
        return;
    }
    out.extend_from_slice(opening);
    escape(out, value.get(..FIELD_BYTES_MAX).unwrap_or(value));
    out.push(b'"');
}

/// Text of ours that needs no escaping.
#[inline(always)]
fn plain(out: &mut Vec<u8>, opening: &[u8], value: &str) {
    out.extend_from_slice(opening);
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.extend_from_slice(bytes);
    // With blanks behind it, all of it is looked at in whole blocks.
    out.extend_from_slice(&[b' '; BLOCK]);
    let (blocks, _) = out[start..].as_chunks::<BLOCK>();
    if blocks.iter().all(is_ordinary) {
        out.truncate(start + bytes.len());
    } else {
        out.truncate(start);
        escape_slowly(out, bytes);
    }
}

/// What the compiler can look at with one instruction.
const BLOCK: usize = 16;

/// Printable ASCII without the two that JSON reserves.
fn is_ordinary(block: &[u8; BLOCK]) -> bool {
    block.iter().fold(true, |all, &byte| {
        all & (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\')
    })
}

#[cold]
fn escape_slowly(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                // C0, DEL and C1 would move a terminal's cursor, the two separators end a line in
                // JavaScript. All are below U+FFFF.
                '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                    let digit = |shift: u32| HEX[(u32::from(c) >> shift & 0xf) as usize];
                    out.extend_from_slice(b"\\u");
                    out.extend_from_slice(&[digit(12), digit(8), digit(4), digit(0)]);
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !part.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[inline(always)]
fn number(out: &mut Vec<u8>, opening: &[u8], value: u64) {
    out.extend_from_slice(opening);
    digits(out, value);
}

fn digits(out: &mut Vec<u8>, value: u64) {
    match u32::try_from(value) {
        // As whole milliseconds and most counts.
        Ok(value @ 0..10) => out.push(PAIRS[value as usize][1]),
        Ok(value @ 10..EIGHT_DIGITS) => {
            // Eight are written in any case: zeros in front are shifted out, and as many go.
            let eight = eight_digits(value);
            let zeros = eight.trailing_zeros() / 8;
            let text = (eight | ZEROS) >> (8 * zeros);
            out.extend_from_slice(&text.to_le_bytes());
            out.truncate(out.len() - zeros as usize);
        }
        _ => many_digits(out, value),
    }
}

/// The first number that has more digits.
const EIGHT_DIGITS: u32 = 100_000_000;

#[cold]
fn many_digits(out: &mut Vec<u8>, value: u64) {
    digits(out, value / u64::from(EIGHT_DIGITS));
    let last = u32::try_from(value % u64::from(EIGHT_DIGITS));
    let last = eight_digits(last.unwrap_or_default()) | ZEROS;
    out.extend_from_slice(&last.to_le_bytes());
}

/// `00000000`.
const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);

/// The digits of a number below [`EIGHT_DIGITS`] from 0 to 9, the first one in the lowest byte: parts
/// are divided by 100 and by 10 side by side in one word, by multiplication.
fn eight_digits(value: u32) -> u64 {
    let fours = u64::from(value / 10_000) | u64::from(value % 10_000) << 32;
    let hundreds = (fours * 10_486) >> 20 & 0x0000_007f_0000_007f;
    let twos = hundreds | (fours - 100 * hundreds) << 16;
    let tens = (twos * 103) >> 10 & 0x000f_000f_000f_000f;
    tens | (twos - 10 * tens) << 8
}

/// A number below 10,000 with zeros in front.
fn four_digits(value: u32) -> [u8; 4] {
    let [a, b] = PAIRS[(value / 100 % 100) as usize];
    let [c, d] = PAIRS[(value % 100) as usize];
    [a, b, c, d]
}

/// From `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut at = 1;
    while at < 100 {
        let [tens, ones] = pairs[at - 1];
        pairs[at] = match ones {
            b'9' => [tens + 1, b'0'],
            _ => [tens, ones + 1],
        };
        at += 1;
    }
    pairs
};

/// From `0.` to `255.`, filled up behind the point.
static OCTETS: [[u8; 4]; 256] = {
    let mut octets = [*b"0.  "; 256];
    let mut octet = 1;
    while octet < octets.len() {
        let [hundreds, [tens, ones]] = [PAIRS[octet / 100], PAIRS[octet % 100]];
        octets[octet] = match octet {
            0..10 => [ones, b'.', b' ', b' '],
            10..100 => [tens, ones, b'.', b' '],
            _ => [hundreds[1], tens, ones, b'.'],
        };
        octet += 1;
    }
    octets
};

/// Milliseconds with three places.
fn milliseconds(out: &mut Vec<u8>, opening: &[u8], value: Duration) {
    let us = value.as_secs().saturating_mul(1_000_000);
    let us = us.saturating_add(value.subsec_micros().into());
    number(out, opening, us / 1000);
    out.extend_from_slice(&point_and_three(us));
}

/// The last three digits of a number behind a point.
fn point_and_three(value: u64) -> [u8; 4] {
    let [_, a, b, c] = four_digits(u32::try_from(value % 1000).unwrap_or_default());
    [b'.', a, b, c]
}

fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            // The longest is 255.255.255.255, and a point.
            let mut text = [0; 16];
            let mut end = 0;
            for octet in v4.octets() {
                let octet = usize::from(octet);
                // All of its place is written, and what is too much is written over.
                text[end..end + 4].copy_from_slice(&OCTETS[octet]);
                end += 2 + usize::from(octet >= 10) + usize::from(octet >= 100);
            }
            out.extend_from_slice(&text);
            out.truncate(out.len() - (17 - end));
        }
        IpAddr::V6(v6) => {
            use std::io::Write as _;
            // Writing to a Vec cannot fail.
            let _ = write!(out, "{v6}");
        }
    }
}

/// A point in time as RFC 3339 text in UTC, its date and time of day kept for the second.
#[derive(Debug, Default)]
pub(super) struct ClockText {
    second: i64,
    /// `2026-01-31T12:34:56`; empty before the first use.
    text: String,
}

impl ClockText {
    fn write(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let second = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        if self.second != second || self.text.is_empty() {
            // A clock past the year 9999 is shown as the last moment before.
            let timestamp = Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
            self.text = timestamp.strftime("%Y-%m-%dT%H:%M:%S").to_string();
            self.second = second;
        }
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(&point_and_three(since.subsec_millis().into()));
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests;
