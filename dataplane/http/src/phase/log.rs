//! One access record and the figures; runs for every request, whatever happened.

use std::time::{Duration, SystemTime};

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, StatusCode};

use dataplane_telemetry::Reason;
use dataplane_telemetry::access_log::{ClientCertificate, Destination, GenAi, Record};

use crate::arrival::Arrival;
use crate::context::{AiCall, Context};
use crate::forwarded::Scheme;
use crate::message::Request;
use crate::request_id;
use crate::worker::Worker;

/// What the two directions carried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// Counts the request and writes it down, as a line and as spans.
pub(crate) fn record(
    ctx: &mut Context<'_>,
    request: &Request,
    arrival: &Arrival,
    carried: Carried,
    worker: &Worker,
) {
    let latency = ctx.started.elapsed();
    let status = ctx.status.map_or(0, |status| status.as_u16());
    let Carried { received, sent } = carried;
    match (ctx.rule, ctx.listener) {
        (Some(rule), _) => rule
            .metrics
            .observe(status, ctx.reason, latency, received, sent),
        (None, Some(listener)) => {
            listener
                .unrouted
                .observe(status, ctx.reason, latency, received, sent);
        }
        (None, None) => {}
    }
    if let Some(grpc_status) = ctx.grpc_status {
        match (ctx.rule, ctx.listener) {
            (Some(rule), _) => rule.metrics.grpc_ended(grpc_status),
            (None, Some(listener)) => listener.unrouted.grpc_ended(grpc_status),
            (None, None) => {}
        }
    }
    if ctx.attempts > 0 {
        let is_well = (1..500).contains(&status);
        let upstream = &worker.metrics.upstream;
        upstream.attempted(ctx.attempts, ctx.connect_time, is_well);
    }
    let trace = ctx.trace.take();
    if let (Some(trace), Some(rule)) = (&trace, ctx.rule)
        && trace.is_exported
    {
        rule.metrics.exemplify(trace.trace_id, latency);
    }
    let own = ctx.rule.and_then(|rule| rule.settings.log.as_deref());
    let has_line = worker.log.takes(status, ctx.reason, ctx.grpc_status, own);
    if !has_line && trace.is_none() {
        return;
    }
    let Noted {
        request_id,
        user_agent,
        referer,
    } = noted(&request.headers);
    let was_dialled = !ctx.connect_time.is_zero();
    let span = |us: u32| (us > 0).then(|| Duration::from_micros(us.into()));
    let gen_ai = ctx.ai.as_deref().map(gen_ai);
    let forwarded = (request.authority.as_bytes(), request.target.as_str());
    let asked = ctx.asked.as_deref();
    let asked = asked.map_or(forwarded, |it| {
        (it.authority.as_bytes(), it.target.as_str())
    });
    let record = Record {
        timestamp: SystemTime::now() - latency,
        latency,
        listener: ctx.listener.map_or("", |listener| &listener.listener.name),
        client_ip: ctx.client,
        client_port: arrival.client.port(),
        scheme: ctx.scheme(arrival).as_str(),
        method: request.method.as_str(),
        host: asked.0,
        path: asked.1.as_bytes(),
        upstream_host: forwarded.0,
        upstream_path: forwarded.1.as_bytes(),
        protocol: protocol(request.version),
        status,
        grpc_status: ctx.grpc_status,
        bytes_received: received,
        bytes_sent: sent,
        destination: Destination {
            route: ctx.rule.map(|rule| &*rule.route),
            rule: ctx.rule.map(|rule| rule.index),
            backend: ctx.backend.map(|backend| &*backend.display),
            upstream_addr: ctx.endpoint.as_ref().map(|endpoint| endpoint.address()),
            upstream_connect_time: was_dialled.then_some(ctx.connect_time),
            attempts: ctx.attempts,
        },
        routing_time: span(ctx.routing_us),
        first_byte_time: span(ctx.first_byte_us),
        trace: trace
            .as_ref()
            .filter(|it| it.is_exported)
            .map(|it| (it.trace_id, it.span_id)),
        request_id: request_id.unwrap_or_default(),
        user_agent: user_agent.unwrap_or_default(),
        referer: referer.unwrap_or_default(),
        reason: ctx.reason,
        snapshot_version: ctx.config.version().as_str(),
        tls_version: arrival.tls.as_ref().map(|tls| tls.version),
        sni: arrival.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
        client_certificate: client_certificate(arrival),
        gen_ai: gen_ai.as_ref(),
    };
    if has_line {
        worker.log.write_taken(&record, own);
    }
    if let Some(trace) = trace {
        let config = ctx.config.snapshot.traceparent.as_deref();
        worker.tracer.finish(trace, &record, config);
    }
}

/// The fields that are written down, as the first of each name says.
#[derive(Default)]
struct Noted<'a> {
    request_id: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    referer: Option<&'a [u8]>,
}

/// One look at all fields, of which there are few, costs less than a search for each.
fn noted(headers: &HeaderMap) -> Noted<'_> {
    let mut noted = Noted::default();
    for (name, value) in headers {
        let place = if *name == USER_AGENT {
            &mut noted.user_agent
        } else if *name == request_id::NAME {
            &mut noted.request_id
        } else if *name == REFERER {
            &mut noted.referer
        } else {
            continue;
        };
        place.get_or_insert(value.as_bytes());
    }
    noted
}

fn gen_ai(call: &AiCall) -> GenAi<'_> {
    GenAi {
        operation: call.operation,
        provider: &call.provider,
        request_model: &call.request_model,
        response_model: &call.response_model,
        is_stream: call.is_stream,
        input_tokens: call.usage.input,
        cached_tokens: call.usage.cached,
        cache_write_tokens: call.usage.cache_write,
        output_tokens: call.usage.output,
        reasoning_tokens: call.usage.reasoning,
        is_estimated: call.is_estimated,
        finish_reason: call.finish,
        cost: call.cost,
        first_token: call.first_token,
        output_chunk: call.output_chunk,
        error: call.error,
        redacted: call.redacted,
    }
}

/// The same for a head that could not be read as a request, with what is known.
pub(crate) fn refused(
    worker: &Worker,
    arrival: &Arrival,
    version: http::Version,
    reason: Reason,
    status: Option<StatusCode>,
    sent: u64,
) {
    let config = worker.config();
    // Over TLS the listener is known by its server name, in plain text only the socket is.
    let listener = match &arrival.tls {
        Some(tls) => config
            .listeners
            .get(&tls.listener)
            .map(|config| config.unrouted.clone()),
        None => config
            .binds
            .get(&arrival.bind)
            .map(|bind| bind.metrics.clone()),
    };
    let status = status.map_or(0, |status| status.as_u16());
    if let Some(listener) = &listener {
        listener.observe(status, reason, Duration::ZERO, 0, sent);
    }
    worker.log.write(&Record {
        timestamp: SystemTime::now(),
        listener: listener.as_ref().map_or("", |listener| listener.name()),
        client_ip: arrival.client.ip(),
        client_port: arrival.client.port(),
        scheme: match arrival.tls {
            Some(_) => Scheme::Https.as_str(),
            None => Scheme::Http.as_str(),
        },
        protocol: protocol(version),
        status,
        bytes_sent: sent,
        reason,
        snapshot_version: config.version().as_str(),
        tls_version: arrival.tls.as_ref().map(|tls| tls.version),
        sni: arrival.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
        client_certificate: client_certificate(arrival),
        ..Record::unknown()
    });
}

fn client_certificate(arrival: &Arrival) -> Option<ClientCertificate<'_>> {
    let facts = arrival.client_facts()?;
    Some(ClientCertificate {
        subject: &facts.subject,
        name: facts
            .uris
            .first()
            .or_else(|| facts.dns_names.first())
            .map_or("", String::as_str),
        fingerprint: &facts.fingerprint,
    })
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}
