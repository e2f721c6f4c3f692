//! What is known about one request while it runs.
//!
//! The configuration is loaded here, once: whatever is swapped in meanwhile, this request sees the
//! one it began with. What phases note is borrowed from it, so that no reference count shared by
//! all threads is touched on the way; the log phase writes the notes down.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane_ai::token::Usage;
use dataplane_config::{Backend, ClusterConfig, Limiter, ListenerConfig, Rule, RuntimeConfig};
use dataplane_resilience::circuit_breaker::{Breaker, Pass};
use dataplane_route::filter::cors::Asked;
use dataplane_telemetry::trace::Active;
use dataplane_telemetry::trace_context::Unrecorded;
use dataplane_telemetry::{GrpcStatus, Reason};
use dataplane_upstream::{Endpoint, Outcome};
use http::StatusCode;
use http::uri::PathAndQuery;
use tokio_util::sync::CancellationToken;

use crate::arrival::Arrival;
use crate::edit::Edit;
use crate::forwarded::{Front, Scheme};
use crate::h1::Authority;
use crate::message::{GrpcForm, Request, unshared};
use crate::mirror;
use crate::plugins::Running;
use crate::retry_policy::Policy;
use crate::session::Bound;

/// One request's facts.
pub(crate) struct Context<'c> {
    pub(crate) config: &'c RuntimeConfig,
    /// Cancelled when the client's connection shall end.
    pub(crate) drain: &'c CancellationToken,
    pub(crate) started: Instant,
    /// Whose request it is, as far as that is known: the connection's, or whom a trusted proxy
    /// speaks for.
    pub(crate) client: IpAddr,
    /// Where it came to, if a trusted proxy in front took it.
    pub(crate) front: Front,
    pub(crate) listener: Option<&'c ListenerConfig>,
    pub(crate) rule: Option<&'c Rule>,
    /// What was asked for, once something of it was changed.
    pub(crate) asked: Option<Box<AskedFor>>,
    /// Bytes of the path that a prefix match covered, for prefix rewrites.
    pub(crate) prefix_len: Option<usize>,
    /// What the request said about its origin, where a filter wants to know.
    pub(crate) cors: Option<Box<Asked>>,
    /// What a service that was asked wants changed in the response.
    pub(crate) response_edits: Vec<Edit>,
    /// What is also sent elsewhere once the request is forwarded.
    pub(crate) mirrors: Vec<mirror::Copy>,
    /// The one of the rule's backends that was chosen.
    pub(crate) backend: Option<&'c Backend>,
    pub(crate) cluster: Option<&'c ClusterConfig>,
    /// Of what the cluster's endpoints are chosen by, when that is a hash.
    pub(crate) hash: Option<u64>,
    /// The session it belongs to, where clients are kept at their endpoints.
    pub(crate) session: Option<Box<Bound<'c>>>,
    /// The endpoint of the last attempt.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// Endpoints that failed already.
    pub(crate) tried: Vec<SocketAddr>,
    /// What limits of rate said, for the response.
    pub(crate) rates: Vec<Rated<'c>>,
    /// How long the request waited, or waits, for them.
    pub(crate) queued: Duration,
    pub(crate) attempts: u32,
    /// Of them, how many a kept connection lost that was being closed.
    pub(crate) races: u8,
    /// Leave of the breaker for the last attempt.
    pub(crate) pass: Option<Pass<'c>>,
    /// What the head of its response says of the endpoint, when somebody wants to know.
    pub(crate) answered: Option<Outcome>,
    /// That response is one of gRPC, and somebody wants to know how it ends.
    pub(crate) answers_grpc: bool,
    /// How it ended was told.
    pub(crate) is_judged: bool,
    /// Something of the request may have left for the endpoint of the last attempt.
    pub(crate) request_sent: bool,
    /// The rule's retry policy; most have none.
    pub(crate) retry: Option<Box<Policy<'c>>>,
    pub(crate) connect_time: Duration,
    /// The plugins that it met; most meet none.
    pub(crate) plugins: Option<Box<Running>>,
    /// Microseconds until the first attempt began and until the head of the response was there; 0
    /// while they have not.
    pub(crate) routing_us: u32,
    pub(crate) first_byte_us: u32,
    /// Whether its trace is recorded has been decided.
    pub(crate) is_trace_decided: bool,
    /// Its trace, where it begins here and is not recorded, while the fields do not tell of it: the
    /// head is written with it, which costs less than a field.
    pub(crate) unrecorded: Option<Unrecorded>,
    /// What is kept for its spans, when it is.
    pub(crate) trace: Option<Box<Active>>,
    /// The call to an AI service that it was; most are none.
    pub(crate) ai: Option<Box<AiCall>>,
    pub(crate) status: Option<StatusCode>,
    /// The call over gRPC that it is, once it came as far as a backend may be asked.
    pub(crate) grpc: Option<GrpcForm>,
    /// What the client was told of the end of a call over gRPC.
    pub(crate) grpc_status: Option<GrpcStatus>,
    pub(crate) reason: Reason,
}

/// Whom and what a request asked for, as the client sent it.
#[derive(Clone, Debug)]
pub(crate) struct AskedFor {
    pub(crate) authority: Authority,
    pub(crate) target: PathAndQuery,
}

/// What one limit of rate said.
#[derive(Debug)]
pub(crate) struct Rated<'c> {
    pub(crate) limiter: &'c Limiter,
    pub(crate) remaining: u64,
    /// Until there is more.
    pub(crate) reset: Duration,
}

/// What is written down of a call to an AI service; never content.
#[derive(Debug, Default)]
pub(crate) struct AiCall {
    pub(crate) operation: &'static str,
    /// Of the provider that was asked last.
    pub(crate) provider: String,
    pub(crate) request_model: String,
    pub(crate) response_model: String,
    pub(crate) is_stream: bool,
    pub(crate) usage: Usage,
    /// Some counts are our own.
    pub(crate) is_estimated: bool,
    pub(crate) finish: &'static str,
    pub(crate) cost: Option<f64>,
    /// Until the first piece of the answer.
    pub(crate) first_token: Option<Duration>,
    /// Between two pieces of it, on average.
    pub(crate) output_chunk: Option<Duration>,
    pub(crate) error: &'static str,
    pub(crate) redacted: u64,
}

impl<'c> Context<'c> {
    pub(crate) fn new(config: &'c RuntimeConfig, arrival: &'c Arrival) -> Self {
        Self {
            config,
            drain: &arrival.drain,
            client: arrival.client.ip(),
            front: Front::default(),
            started: Instant::now(),
            listener: None,
            rule: None,
            asked: None,
            prefix_len: None,
            cors: None,
            response_edits: Vec::new(),
            mirrors: Vec::new(),
            backend: None,
            cluster: None,
            hash: None,
            session: None,
            endpoint: None,
            tried: Vec::new(),
            rates: Vec::new(),
            queued: Duration::ZERO,
            attempts: 0,
            races: 0,
            pass: None,
            answered: None,
            answers_grpc: false,
            is_judged: false,
            request_sent: false,
            retry: None,
            connect_time: Duration::ZERO,
            plugins: None,
            routing_us: 0,
            first_byte_us: 0,
            is_trace_decided: false,
            unrecorded: None,
            trace: None,
            ai: None,
            status: None,
            grpc: None,
            grpc_status: None,
            reason: Reason::Ok,
        }
    }

    /// Keeps what a request asks for that is changed, unless that happened before.
    pub(crate) fn keep_asked(&mut self, authority: &Authority, target: &PathAndQuery) {
        self.asked.get_or_insert_with(|| {
            Box::new(AskedFor {
                authority: authority.clone(),
                target: unshared(target),
            })
        });
    }

    /// Lets go of a head of unusual size, as [`Request::forget_large_head`] does, and of the part of it
    /// that is kept here.
    pub(crate) fn forget_large_head(&mut self, request: &mut Request) {
        if request.forget_large_head()
            && let Some(asked) = &mut self.asked
        {
            asked.authority = asked.authority.unshared();
        }
    }

    /// How long it has run, as it is kept for the record; never 0.
    pub(crate) fn micros(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.started).as_micros();
        u32::try_from(since).unwrap_or(u32::MAX).max(1)
    }

    /// The scheme that the client spoke, to us or to a trusted proxy in front.
    pub(crate) fn scheme(&self, arrival: &Arrival) -> Scheme {
        self.front.scheme.unwrap_or(match arrival.tls {
            Some(_) => Scheme::Https,
            None => Scheme::Http,
        })
    }

    /// The breaker that the chosen backend is behind: the route's own, or the cluster's.
    pub(crate) fn breaker(&self) -> Option<&'c Breaker> {
        let own = self.backend.and_then(|backend| backend.breaker.as_deref());
        own.or_else(|| self.cluster?.breaker.as_deref())
    }

    /// Whether anybody wants to know how an attempt ends.
    pub(crate) fn is_watched(&self) -> bool {
        self.pass.is_some() || self.cluster.is_some_and(|it| it.cluster.is_watched())
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use crate::h1::{self, HeadLimits};
    use crate::message::USUAL_HEAD_BYTES;

    use super::*;

    #[test]
    fn what_was_asked_for_does_not_hold_a_large_head() {
        let arrival = Arrival::plain();
        let config = RuntimeConfig::default();
        let mut ctx = Context::new(&config, &arrival);
        let large = "v".repeat(USUAL_HEAD_BYTES + 1);
        let text = format!("GET /p HTTP/1.1\r\nhost: a.test\r\nx-large: {large}\r\n\r\n");
        let mut buf = BytesMut::from(text.as_bytes());
        let head = h1::request_head(&mut buf, &mut 0, &HeadLimits::REQUEST);
        let mut request = Request::from_h1(head.unwrap().unwrap()).unwrap();
        ctx.keep_asked(&request.authority, &request.target);
        // A filter changes both; then the head goes out.
        request.authority = Authority::unnamed();
        ctx.forget_large_head(&mut request);
        // Memory is given again once nobody else has a part of it.
        assert!(buf.try_reclaim(text.len()));
        let asked = ctx.asked.unwrap();
        assert_eq!(asked.authority.as_str(), "a.test");
        assert_eq!(asked.target, "/p");
    }
}
