//! A request that has ended as spans: its own, and one of a client for each attempt.
//!
//! Names, attributes and statuses follow OpenTelemetry's semantic conventions for HTTP and for
//! generative AI; what they have no name for begins with `nantian.`. Everything comes from the
//! access record and from what was noted beside it; bodies, prompts and credentials are in neither.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Active, Attempt};
use crate::access_log::{GenAi, Record, is_fault_of_backend};
use crate::grpc_status::GrpcStatus;
use crate::reason::Reason;
use crate::trace_context::{Remote, read_w3c};

/// Methods that have a name of their own; all others are one.
const METHODS: [&str; 10] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE",
];

/// Query parameters that grant access; the conventions name them.
const SECRET_PARAMETERS: [&str; 4] = ["AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"];

/// Longer texts are cut.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

pub(super) fn spans(
    record: &Record<'_>,
    active: &Active,
    config: &str,
    scope: &InstrumentationScope,
) -> Vec<SpanData> {
    let attempts = &active.attempts;
    let maker = Maker {
        record,
        state: active.state.parse().unwrap_or_default(),
        active,
        scope,
    };
    let mut spans = Vec::with_capacity(1 + attempts.len());
    let last = attempts.len().checked_sub(1);
    for (at, attempt) in attempts.iter().enumerate() {
        // The attempt that was made last is the one whose answer the record tells of.
        let call = record.gen_ai.filter(|_| Some(at) == last);
        spans.push(maker.attempt(attempt, at, call));
    }
    let call = record.gen_ai.filter(|_| attempts.is_empty());
    spans.push(maker.request(config, call));
    spans
}

struct Maker<'a> {
    record: &'a Record<'a>,
    active: &'a Active,
    state: TraceState,
    scope: &'a InstrumentationScope,
}

impl Maker<'_> {
    /// The span of the request itself.
    fn request(&self, config: &str, call: Option<&GenAi<'_>>) -> SpanData {
        let Self { record, active, .. } = *self;
        let method = method(record.method);
        let mut attributes = Attributes(Vec::with_capacity(28));
        attributes.method(record.method);
        attributes.text("url.scheme", record.scheme);
        let target = String::from_utf8_lossy(record.path);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        attributes.text("url.path", path);
        attributes.text("url.query", &redacted(query));
        let host = String::from_utf8_lossy(record.host);
        let (address, port) = host_and_port(&host, record.scheme);
        attributes.text("server.address", address);
        attributes.number("server.port", port.into());
        attributes.text("client.address", &record.client_ip.to_string());
        attributes.text("network.protocol.version", version(record.protocol));
        attributes.bytes("user_agent.original", record.user_agent);
        if let Some(route) = &active.http_route {
            attributes.text("http.route", route);
        }
        attributes.status(record.status);
        if let Some(status) = record.grpc_status {
            attributes.number("rpc.grpc.status_code", status.code().into());
        }
        if let Some(version) = record.tls_version {
            attributes.text("tls.protocol.version", version.trim_start_matches("TLSv"));
        }
        attributes.text("nantian.listener", record.listener);
        attributes.text(
            "nantian.route",
            record.destination.route.unwrap_or_default(),
        );
        if let Some(rule) = record.destination.rule {
            attributes.number("nantian.rule", i64::try_from(rule).unwrap_or(i64::MAX));
        }
        attributes.text(
            "nantian.backend",
            record.destination.backend.unwrap_or_default(),
        );
        attributes.text("nantian.reason", record.reason.as_str());
        attributes.text("nantian.config.version", record.snapshot_version);
        attributes.bytes("nantian.request_id", record.request_id);
        attributes.number("nantian.attempts", record.destination.attempts.into());
        if let Some(call) = call {
            attributes.asked_model(call.operation, call.provider, call.request_model);
            attributes.model_answer(call);
        }
        let status = attributes.server_status(record.status, record.grpc_status, record.reason);
        let mut links = SpanLinks::default();
        links.links.extend(link(config));
        let name = match &active.http_route {
            Some(route) => Cow::Owned(format!("{method} {}", cut(route))),
            None => Cow::Borrowed(method),
        };
        SpanData {
            span_kind: SpanKind::Server,
            name,
            parent_span_id: active.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: active.parent.is_some(),
            links,
            ..self.span(
                active.span_id,
                (Duration::ZERO, record.latency),
                attributes,
                status,
            )
        }
    }

    /// The span of one attempt.
    fn attempt(&self, attempt: &Attempt, at: usize, call: Option<&GenAi<'_>>) -> SpanData {
        let Self { record, active, .. } = *self;
        let mut attributes = Attributes(Vec::with_capacity(16));
        attributes.method(record.method);
        let scheme = if attempt.is_tls { "https" } else { "http" };
        let mut host = String::from_utf8_lossy(record.upstream_host);
        let mut path = String::from_utf8_lossy(record.upstream_path);
        // Providers have hosts and paths of their own.
        let model = attempt.model.as_deref();
        if let Some(model) = model {
            (host, path) = ((&*model.server).into(), (&*model.path).into());
        }
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let mark = if query.is_empty() { "" } else { "?" };
        let full = format!("{scheme}://{host}{path}{mark}{}", redacted(query));
        attributes.text("url.full", &full);
        let (address, port) = host_and_port(&host, scheme);
        attributes.text("server.address", address);
        attributes.number("server.port", port.into());
        if let Some(endpoint) = attempt.endpoint {
            attributes.text("network.peer.address", &endpoint.ip().to_string());
            attributes.number("network.peer.port", endpoint.port().into());
        }
        if at > 0 {
            let count = i64::try_from(at).unwrap_or(i64::MAX);
            attributes.number("http.request.resend_count", count);
        }
        attributes.status(attempt.status);
        attributes.text(
            "nantian.backend",
            record.destination.backend.unwrap_or_default(),
        );
        let name = match model {
            Some(model) if !model.name.is_empty() => {
                Cow::Owned(format!("{} {}", model.operation, cut(&model.name)))
            }
            _ => Cow::Borrowed(method(record.method)),
        };
        if let Some(model) = model {
            attributes.asked_model(model.operation, &model.provider, &model.name);
        }
        if let Some(call) = call {
            attributes.model_answer(call);
        }
        let mut status = attributes.client_status(attempt.status, attempt.failure);
        // An answer that broke off has begun well.
        let began_well = attempt.failure.is_none() && attempt.status < 400;
        if let Some(call) = call.filter(|call| began_well && !call.error.is_empty()) {
            attributes.text("error.type", call.error);
            status = Status::error(call.error);
        }
        let ended = attempt.ended.unwrap_or(record.latency).max(attempt.began);
        SpanData {
            span_kind: SpanKind::Client,
            name,
            parent_span_id: SpanId::from(active.span_id),
            ..self.span(attempt.span_id, (attempt.began, ended), attributes, status)
        }
    }

    /// What both have in common; times count from the request's beginning.
    fn span(
        &self,
        span_id: u64,
        (began, ended): (Duration, Duration),
        attributes: Attributes,
        status: Status,
    ) -> SpanData {
        let begin = self.record.timestamp;
        let at = |offset| begin.checked_add(offset).unwrap_or(begin);
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(self.active.trace_id),
                SpanId::from(span_id),
                TraceFlags::SAMPLED,
                false,
                self.state.clone(),
            ),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(""),
            start_time: at(began),
            end_time: SystemTime::max(at(ended), at(began)),
            attributes: attributes.0,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// Attributes as they gather; empty texts are left out.
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            self.0.push(KeyValue::new(key, cut(value).to_owned()));
        }
    }

    fn bytes(&mut self, key: &'static str, value: &[u8]) {
        self.text(key, &String::from_utf8_lossy(value));
    }

    fn number(&mut self, key: &'static str, value: i64) {
        self.0.push(KeyValue::new(key, value));
    }

    fn method(&mut self, written: &str) {
        if METHODS.contains(&written) {
            self.text("http.request.method", written);
        } else {
            self.text("http.request.method", "_OTHER");
            self.text("http.request.method_original", written);
        }
    }

    fn status(&mut self, status: u16) {
        if status > 0 {
            self.number("http.response.status_code", status.into());
        }
    }

    /// Servers: what the client did wrong is no error of ours.
    fn server_status(
        &mut self,
        status: u16,
        grpc_status: Option<GrpcStatus>,
        reason: Reason,
    ) -> Status {
        if reason.is_fault() {
            self.text("error.type", reason.as_str());
            return Status::error(reason.as_str());
        }
        let of_grpc = grpc_status.filter(|_| is_fault_of_backend(reason, grpc_status));
        let code = of_grpc.map(GrpcStatus::code);
        if let Some(code) = code.or_else(|| (status >= 500).then_some(status)) {
            self.text("error.type", &code.to_string());
            return Status::error("");
        }
        if reason == Reason::ClientAborted {
            self.text("error.type", reason.as_str());
        }
        Status::Unset
    }

    /// Clients: every status from 400 on is an error.
    fn client_status(&mut self, status: u16, failure: Option<Reason>) -> Status {
        match failure {
            Some(reason) => {
                self.text("error.type", reason.as_str());
                if reason == Reason::ClientAborted {
                    return Status::Unset;
                }
                Status::error(reason.as_str())
            }
            None if status >= 400 => {
                self.text("error.type", &status.to_string());
                Status::error("")
            }
            None => Status::Unset,
        }
    }

    /// Which language model is asked, and for what.
    fn asked_model(&mut self, operation: &str, provider: &str, model: &str) {
        self.text("gen_ai.operation.name", operation);
        self.text("gen_ai.provider.name", provider);
        self.text("gen_ai.request.model", model);
    }

    /// What is known of its answer; never what was said.
    fn model_answer(&mut self, call: &GenAi<'_>) {
        self.text("gen_ai.response.model", call.response_model);
        let counts = [
            ("gen_ai.usage.input_tokens", call.input_tokens),
            ("gen_ai.usage.cache_read.input_tokens", call.cached_tokens),
            (
                "gen_ai.usage.cache_creation.input_tokens",
                call.cache_write_tokens,
            ),
            ("gen_ai.usage.output_tokens", call.output_tokens),
            (
                "gen_ai.usage.reasoning.output_tokens",
                call.reasoning_tokens,
            ),
        ];
        if call.is_stream {
            self.0.push(KeyValue::new("gen_ai.request.stream", true));
        }
        for (key, count) in counts {
            if let Some(count) = count {
                self.number(key, i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        if !call.finish_reason.is_empty() {
            let reasons = vec![StringValue::from(call.finish_reason.to_owned())];
            let reasons = Value::Array(Array::String(reasons));
            self.0
                .push(KeyValue::new("gen_ai.response.finish_reasons", reasons));
        }
        if let Some(first) = call.first_token {
            let seconds = first.as_secs_f64();
            self.0.push(KeyValue::new(
                "gen_ai.response.time_to_first_chunk",
                seconds,
            ));
        }
        if let Some(cost) = call.cost {
            self.0.push(KeyValue::new("nantian.gen_ai.cost", cost));
        }
        self.text("nantian.gen_ai.error", call.error);
        if call.redacted > 0 {
            let count = i64::try_from(call.redacted).unwrap_or(i64::MAX);
            self.number("nantian.gen_ai.redacted", count);
        }
    }
}

/// As much of a text as a span may hold.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// What a span is called by.
fn method(written: &str) -> &'static str {
    let known = METHODS.into_iter().find(|known| *known == written);
    known.unwrap_or("HTTP")
}

/// The trace that brought the configuration.
fn link(traceparent: &str) -> Option<Link> {
    let Remote { parent, is_sampled } = read_w3c(traceparent.as_bytes())?;
    let parent = parent?;
    let flags = match is_sampled {
        Some(true) => TraceFlags::SAMPLED,
        _ => TraceFlags::default(),
    };
    let context = SpanContext::new(
        TraceId::from(parent.trace_id),
        SpanId::from(parent.span_id),
        flags,
        true,
        TraceState::default(),
    );
    let what = KeyValue::new("nantian.link", "config");
    Some(Link::new(context, vec![what], 0))
}

/// `1.1`, `2`.
fn version(protocol: &str) -> &str {
    let version = protocol.strip_prefix("HTTP/").unwrap_or(protocol);
    version
        .strip_suffix(".0")
        .filter(|it| *it != "1")
        .unwrap_or(version)
}

/// A host without brackets, and its port or that of the scheme.
fn host_and_port<'a>(authority: &'a str, scheme: &str) -> (&'a str, u16) {
    let usual = if scheme == "https" { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(usual)),
        _ => (authority, usual),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// A query with the values blanked that grant access.
fn redacted(query: &str) -> Cow<'_, str> {
    let name = |parameter: &'_ str| -> bool {
        let name = parameter.split('=').next().unwrap_or_default();
        SECRET_PARAMETERS.contains(&name)
    };
    if !query.split('&').any(name) {
        return Cow::Borrowed(query);
    }
    let parameters = query.split('&').map(|parameter| match name(parameter) {
        true => {
            let name = parameter.split('=').next().unwrap_or_default();
            Cow::Owned(format!("{name}=REDACTED"))
        }
        false => Cow::Borrowed(parameter),
    });
    Cow::Owned(parameters.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests;
