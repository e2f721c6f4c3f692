//! The trace a request belongs to: read from its fields, decided about, told to backends.
//!
//! Without traces, and while nobody watches, every function here is one branch. Of a request that is
//! not recorded the fields stay as they came; where there are none, backends are told that nobody
//! records, so that they decide alike. That is most requests, so it is a field only where somebody may
//! read the fields, and else a line of the head that is written. What was noted is handed on in the
//! log phase, to become spans and steps of the live trace.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use dataplane_config::{ClusterConfig, ClusterTls};
use dataplane_route::table::RouteKind;
use dataplane_telemetry::Reason;
use dataplane_telemetry::trace::{Active, AskedModel, Attempt, Seen, Tracer, Watcher};
use dataplane_telemetry::trace_context::{self as context, Forms, Remote, Unrecorded};

use crate::context::Context;
use crate::message::Request;
use crate::worker::Worker;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// What every party should pass on of `tracestate` (W3C Trace Context 3.3.1.1).
const STATE_BYTES_MAX: usize = 512;

/// Decides whether the request is recorded, and who wants to see it; comes once its rule is known.
pub(crate) fn begin(ctx: &mut Context<'_>, request: &mut Request, worker: &Worker) {
    let tracer = &worker.tracer;
    if !tracer.is_wanted() || std::mem::replace(&mut ctx.is_trace_decided, true) {
        return;
    }
    let is_watched = tracer.is_watched();
    let watchers = match is_watched {
        true => watchers(tracer, ctx, request),
        false => Vec::new(),
    };
    let recorded = match tracer.is_exporting() {
        true => recorded(tracer, ctx, request, worker),
        false => None,
    };
    if !is_watched {
        ctx.trace = recorded.map(Box::new);
        return;
    }
    if recorded.is_none() && watchers.is_empty() {
        return;
    }
    let kept = recorded.unwrap_or_else(unrecorded);
    let mut kept = Box::new(Active { watchers, ..kept });
    kept.note(ctx.started.elapsed(), "routed", || routed(ctx));
    ctx.trace = Some(kept);
}

/// Makes a field of what backends are told of a trace that nobody records; comes before whoever reads
/// the fields, changes them or copies them.
pub(crate) fn tell(ctx: &mut Context<'_>, request: &mut Request) {
    if let Some(Unrecorded { trace_id, span_id }) = ctx.unrecorded.take() {
        write(&mut request.headers, Forms::W3C, trace_id, span_id, false);
    }
}

/// Those who want to see it.
fn watchers(tracer: &Tracer, ctx: &Context<'_>, request: &Request) -> Vec<Arc<Watcher>> {
    let header = |name: &str| {
        let values = request.headers.get_all(name).iter();
        values.map(|it| it.as_bytes()).collect()
    };
    tracer.who_wants(&Seen {
        method: request.method.as_str(),
        host: request.authority.as_str(),
        target: request.target.as_str(),
        client: ctx.client,
        header: &header,
    })
}

/// Where it goes, for those who watch.
fn routed(ctx: &Context<'_>) -> String {
    match ctx.rule {
        Some(rule) => format!("to rule {} of {}", rule.index, rule.route),
        None => "to no route".to_owned(),
    }
}

/// What is kept of a request that is only watched.
fn unrecorded() -> Active {
    Active {
        is_exported: false,
        watchers: Vec::new(),
        steps: Vec::new(),
        trace_id: 0,
        span_id: 0,
        parent: None,
        state: String::new(),
        forms: Forms::default(),
        http_route: None,
        attempts: Vec::new(),
    }
}

/// What is kept of a request that is recorded; nothing of another one, of which backends are told so.
fn recorded(
    tracer: &Tracer,
    ctx: &mut Context<'_>,
    request: &mut Request,
    worker: &Worker,
) -> Option<Active> {
    let headers = &mut request.headers;
    let Read {
        remote,
        forms: came,
        has_state,
    } = read(headers);
    let trace_id = match remote.parent {
        Some(parent) => parent.trace_id,
        None => (u128::from(worker.draw()) << 64 | u128::from(worker.draw())).max(1),
    };
    let of_route = ctx.rule.and_then(|rule| rule.settings.trace_ratio);
    let forms = tracer.forms().and(came);
    if !tracer.samples(&remote, trace_id, of_route) {
        if remote.is_sampled.is_none() {
            if has_state {
                headers.remove(TRACESTATE);
            }
            let span_id = worker.draw().max(1);
            // A field that came is written over, and plugins have the fields at hand from here on.
            if forms == Forms::W3C && !came.w3c && ctx.plugins.is_none() {
                ctx.unrecorded = Some(Unrecorded { trace_id, span_id });
            } else {
                write(headers, forms, trace_id, span_id, false);
            }
        }
        return None;
    }
    let is_w3c = remote.parent.is_some() && came.w3c;
    let state = match headers.get(TRACESTATE) {
        // Longer ones still reach the backend, but wait for no collector.
        Some(state) if is_w3c && state.len() > STATE_BYTES_MAX => String::new(),
        Some(state) if is_w3c => state.to_str().unwrap_or_default().to_owned(),
        Some(_) => {
            headers.remove(TRACESTATE);
            String::new()
        }
        None => String::new(),
    };
    let path = request.target.path();
    let http_route = match (ctx.rule, ctx.prefix_len) {
        (Some(rule), _) if rule.kind == RouteKind::Grpc => Some(path),
        (_, Some(0)) => Some("/"),
        (_, Some(length)) => path.get(..length),
        _ => None,
    };
    Some(Active {
        is_exported: true,
        watchers: Vec::new(),
        steps: Vec::new(),
        trace_id,
        span_id: worker.draw().max(1),
        parent: remote.parent.map(|parent| parent.span_id),
        state,
        forms,
        http_route: http_route.map(str::to_owned),
        attempts: Vec::new(),
    })
}

/// Notes a step for those who watch.
pub(crate) fn note(ctx: &mut Context<'_>, what: &'static str, detail: impl FnOnce() -> String) {
    if let Some(trace) = &mut ctx.trace {
        trace.note(ctx.started.elapsed(), what, detail);
    }
}

/// Notes that an attempt at the endpoint in the context begins, and tells the endpoint in `headers`.
pub(crate) fn begin_attempt(ctx: &mut Context<'_>, headers: &mut HeaderMap, worker: &Worker) {
    let is_tls = |cluster: &ClusterConfig| matches!(cluster.tls, ClusterTls::Policy(_));
    let is_tls = ctx.cluster.is_some_and(is_tls);
    begin_one(ctx, headers, worker, is_tls, || None);
}

/// The same for a call to a language model, whose provider is not the cluster in the context.
pub(crate) fn begin_call(
    ctx: &mut Context<'_>,
    headers: &mut HeaderMap,
    worker: &Worker,
    is_tls: bool,
    model: impl FnOnce() -> AskedModel,
) {
    begin_one(ctx, headers, worker, is_tls, || Some(Box::new(model())));
}

fn begin_one(
    ctx: &mut Context<'_>,
    headers: &mut HeaderMap,
    worker: &Worker,
    is_tls: bool,
    model: impl FnOnce() -> Option<Box<AskedModel>>,
) {
    end_attempt(ctx, None);
    let Some(trace) = &mut ctx.trace else { return };
    let attempt = Attempt {
        span_id: worker.draw().max(1),
        began: ctx.started.elapsed(),
        ended: None,
        endpoint: ctx.endpoint.as_ref().map(|endpoint| endpoint.address()),
        is_tls,
        status: 0,
        failure: None,
        model: model(),
    };
    write(headers, trace.forms, trace.trace_id, attempt.span_id, true);
    trace.attempts.push(attempt);
}

/// Notes the status of its answer.
pub(crate) fn answered(ctx: &mut Context<'_>, status: http::StatusCode) {
    if let Some(attempt) = running(ctx) {
        attempt.status = status.as_u16();
    }
}

/// Notes that it ended, and by which failure.
pub(crate) fn end_attempt(ctx: &mut Context<'_>, failure: Option<Reason>) {
    let started = ctx.started;
    if let Some(attempt) = running(ctx) {
        attempt.ended = Some(started.elapsed());
        attempt.failure = failure;
    }
}

fn running<'a>(ctx: &'a mut Context<'_>) -> Option<&'a mut Attempt> {
    let last = ctx.trace.as_mut()?.attempts.last_mut()?;
    last.ended.is_none().then_some(last)
}

/// What the request says, in which forms, and whether it has a `tracestate`.
struct Read {
    remote: Remote,
    forms: Forms,
    has_state: bool,
}

fn read(headers: &HeaderMap) -> Read {
    // A field that comes twice says nothing.
    let field = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        let first = values.next()?;
        values.next().is_none().then(|| first.as_bytes())
    };
    let mut forms = Forms::default();
    let mut has_state = false;
    // One pass, since almost no request has any of them.
    for name in headers.keys() {
        let name = name.as_str();
        // Most names are told apart by how they begin.
        if !matches!(name.as_bytes(), [b't' | b'b', ..] | [b'x', b'-', b'b', ..]) {
            continue;
        }
        match name {
            "traceparent" => forms.w3c = true,
            "tracestate" => has_state = true,
            "b3" => forms.b3 = true,
            "x-b3-traceid" | "x-b3-sampled" => forms.b3_multi = true,
            _ => {}
        }
    }
    let w3c = || field(TRACEPARENT).and_then(context::read_w3c);
    let b3 = || field(B3).and_then(context::read_b3);
    let b3_multi = || {
        context::read_b3_multi(
            field(B3_TRACE),
            field(B3_SPAN),
            field(B3_SAMPLED),
            field(B3_FLAGS),
        )
    };
    let remote = forms.w3c.then(w3c).flatten();
    let remote = remote.or_else(|| forms.b3.then(b3).flatten());
    let remote = remote.or_else(|| forms.b3_multi.then(b3_multi).flatten());
    Read {
        remote: remote.unwrap_or_default(),
        forms,
        has_state,
    }
}

/// Tells a span as the parent of what follows.
fn write(headers: &mut HeaderMap, forms: Forms, trace_id: u128, span_id: u64, is_sampled: bool) {
    let value = |text: &[u8]| HeaderValue::from_bytes(text).ok();
    let mut put = |name: HeaderName, text: &[u8]| {
        if let Some(value) = value(text) {
            headers.insert(name, value);
        }
    };
    if forms.w3c {
        put(
            TRACEPARENT,
            &context::write_w3c(trace_id, span_id, is_sampled),
        );
    }
    if forms.b3 {
        put(B3, &context::write_b3(trace_id, span_id, is_sampled));
    }
    if forms.b3_multi {
        put(B3_TRACE, &context::trace_text(trace_id));
        put(B3_SPAN, &context::span_text(span_id));
        put(B3_SAMPLED, if is_sampled { b"1" } else { b"0" });
        headers.remove(B3_PARENT);
        headers.remove(B3_FLAGS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn fields(given: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn w3c_comes_before_b3_and_a_field_twice_says_nothing() {
        let w3c = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let other = "00-11111111111111111111111111111111-00f067aa0ba902b7-01";
        let b3 = "22222222222222222222222222222222-00f067aa0ba902b7-0";
        type Fields<'a> = &'a [(&'static str, &'a str)];
        let cases: [(Fields<'_>, Option<u8>); 6] = [
            (&[("traceparent", &w3c), ("b3", b3)], Some(0x4b)),
            (&[("b3", b3)], Some(0x22)),
            (&[("traceparent", "x"), ("b3", b3)], Some(0x22)),
            (&[("traceparent", &w3c), ("traceparent", other)], None),
            (
                &[("x-b3-traceid", TRACE), ("x-b3-spanid", "00f067aa0ba902b7")],
                Some(0x4b),
            ),
            (&[], None),
        ];
        for (given, first) in cases {
            let remote = read(&fields(given)).remote;
            let byte = remote.parent.map(|it| it.trace_id.to_be_bytes()[0]);
            assert_eq!(byte, first, "{given:?}");
        }
    }

    #[test]
    fn a_trace_is_told_in_the_forms_asked_for() {
        let forms = Forms {
            w3c: true,
            b3: false,
            b3_multi: true,
        };
        let mut headers = fields(&[("x-b3-flags", "1"), ("x-b3-parentspanid", "1")]);
        write(&mut headers, forms, 0xab, 0xcd, true);
        let mut told: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        told.sort();
        let expected = [
            "traceparent: 00-000000000000000000000000000000ab-00000000000000cd-01",
            "x-b3-sampled: 1",
            "x-b3-spanid: 00000000000000cd",
            "x-b3-traceid: 000000000000000000000000000000ab",
        ];
        assert_eq!(told, expected);
    }
}
