//! Limits and deadlines of the request line, as the bootstrap file sets them.
//!
//! Every value has a default from the product's table of limits. `None` means no limit. The names
//! here are those of the bootstrap keys; which key sets which field is in `dataplane/bootstrap`.

use std::time::Duration;

use dataplane_upstream::admission::Limits;

use dataplane_resilience::admission::Gate;
use dataplane_resilience::retry::Allowance;

use crate::frame_guard::FrameLimits;
use crate::h1::HeadLimits;
use crate::io::Linger;
use crate::overload::InflightLimits;

/// Limits and deadlines; one value for the whole process, shared by all workers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Size and field count of request heads; larger ones are answered with 431 or 414.
    pub request_head: HeadLimits,
    /// Size and field count of response heads; larger ones are answered with 502.
    pub response_head: HeadLimits,
    /// Interim responses (1xx) that one attempt may bring; more are answered with 502.
    pub interim_responses_max: usize,
    /// What is held of a message for one direction of a client; then its sender waits.
    pub buffer_bytes: usize,
    /// From the accepted connection to the first byte of a request.
    pub first_byte_timeout: Duration,
    /// From the first byte of a request head to its last, in total.
    pub head_timeout: Duration,
    /// How long an HTTP/1.1 connection may wait for its next request.
    pub keepalive_idle: Duration,
    /// Requests on one HTTP/1.1 connection before it is closed; `None` for no limit.
    pub keepalive_requests_max: Option<u32>,
    /// Age of a connection after which it is closed behind the running request.
    pub connection_age_max: Option<Duration>,
    /// How long a connection that shall end may still bring a request: closing at once would lose
    /// the one that is on its way.
    pub drain_idle: Duration,
    /// What is read and dropped of a request body behind an early answer, so that the connection can
    /// be kept.
    pub request_rest_bytes_max: u64,
    /// How long that may take.
    pub request_rest_time: Duration,
    /// What is read and dropped behind our end of a client's connection, so that it gets the answer.
    pub linger: Linger,
    /// How long the last bytes of ours may take to leave, and a peer to be told of the end.
    pub shutdown_time: Duration,
    /// How long a client that sends no more waits for an endpoint that is silent.
    pub half_closed_max: Duration,
    /// How long a request waits at limits of rate that let requests wait.
    pub rate_queue_time: Duration,
    /// Requests that wait at one such limit.
    pub rate_queue_max: usize,
    /// How long an HTTP/2 connection may stay without streams before GOAWAY.
    pub h2_idle: Duration,
    /// Streams a client may have open at once on one HTTP/2 connection.
    pub h2_streams_max: u32,
    /// Frames of a client on one HTTP/2 connection that are neither requests nor bodies.
    pub h2_frames: FrameLimits,
    /// Streams of one HTTP/2 connection that a client may give up before we have looked at them.
    pub h2_pending_resets_max: usize,
    /// Streams of one HTTP/2 connection that a client may give up early, or make us reset.
    pub h2_early_resets_max: usize,
    /// HTTP/2 receive window of a stream, in bytes.
    pub h2_stream_window: u32,
    /// HTTP/2 receive window of a connection, in bytes.
    pub h2_connection_window: u32,
    /// Pause allowed while a client sends a request body.
    pub request_body_idle: Duration,
    /// Largest request body; larger ones are answered with 413. `None` for no limit.
    pub request_body_bytes_max: Option<u64>,
    /// Until a connection to an endpoint is up; a cluster may ask for less, a route for anything.
    pub connect_timeout: Duration,
    /// The same for the dialling alone, where another endpoint would be tried next.
    pub connect_timeout_elsewhere: Option<Duration>,
    /// From the end of the request to the head of the response, unless the route says otherwise.
    pub response_start_timeout: Duration,
    /// Pause allowed within a response body.
    pub stream_idle: Duration,
    /// Pause allowed in an upgraded connection (WebSocket).
    pub tunnel_idle: Duration,
    /// How long a client may refuse to take bytes.
    pub write_idle: Duration,
    /// How many further endpoints are tried when a connection cannot be made.
    pub connect_retries: u32,
    /// How long an authorization service may take in all.
    pub authorization_timeout: Duration,
    /// What is read of the answer of such a service, its head apart; a larger one is no answer where
    /// its body matters.
    pub authorization_bytes_max: usize,
    /// Room for requests that are copied to a mirror; further ones are not copied.
    pub mirrors: Gate,
    /// How long a mirror may take to do anything.
    pub mirror_timeout: Duration,
    /// How far a mirror may fall behind within a request body.
    pub mirror_buffer_bytes: usize,
    /// What is read of a mirror's answer, so that its connection can be used again.
    pub mirror_answer_bytes_max: usize,
    /// How many retries a cluster bears; `None` for any number.
    pub retry_budget: Option<Allowance>,
    /// The longest pause that a response may ask for before the attempt that stands in for it.
    pub retry_after_max: Duration,
    /// What is read and dropped of a response that another one stands in for, so that the
    /// endpoint's connection can be kept.
    pub discard_bytes_max: usize,
    /// How long that may take.
    pub discard_time: Duration,
    /// How much of a request body is kept for another attempt, unless the route says otherwise.
    pub request_body_buffer_bytes: usize,
    /// Largest request to an AI service, and largest answer of a provider that is not in pieces; both
    /// are gathered.
    pub ai_body_bytes_max: usize,
    /// Largest event of an answer of a provider that comes in pieces.
    pub ai_event_bytes_max: usize,
    /// The longest pause before the same provider is asked again; one that asks for more is not.
    pub ai_retry_pause_max: Duration,
    /// How long a call waits at a token policy that lets calls wait.
    pub ai_queue_time: Duration,
    /// How many members of its request that were left behind a client is told.
    pub ai_ignored_members: usize,
    /// Largest answer, or message of a gRPC answer, that a plugin's call may have.
    pub plugin_answer_bytes_max: usize,
    /// How long the other side of a plugin's gRPC call may take nothing, or give no head, once all
    /// was sent.
    pub plugin_call_idle: Duration,
    /// How long an upgraded connection goes on once its connection shall end.
    pub tunnel_drain: Duration,
    /// Idle connections kept per endpoint and worker.
    pub upstream_idle_max: usize,
    /// How long an idle connection to an endpoint is kept.
    pub upstream_idle_timeout: Duration,
    /// What each cluster carries at once, unless it says otherwise; more is answered with 503.
    pub upstream_limits: Limits,
    /// Room for connections to endpoints in the whole process, whichever cluster they are for.
    pub upstream_connections: Gate,
    /// Requests that may be served at once; more are answered with 503.
    pub inflight: InflightLimits,
    /// Heads on HTTP/1.1 that are large and not complete; further ones are refused.
    pub large_heads: Gate,
    /// When clients are told to come again that an overload turned away.
    pub overload_retry_after: Duration,
    /// Streams that are opened at once on one HTTP/2 connection to an endpoint.
    pub upstream_h2_streams_max: u16,
    /// HTTP/2 receive window of a stream to an endpoint: what one slow client can make us hold.
    pub upstream_h2_stream_window: u32,
    /// How long an endpoint may be silent on an HTTP/2 connection with running requests before it
    /// is asked for a sign of life.
    pub upstream_h2_ping_after: Duration,
    /// How long its answer may take before the connection is given up.
    pub upstream_h2_ping_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_head: HeadLimits::REQUEST,
            response_head: HeadLimits::RESPONSE,
            interim_responses_max: 32,
            buffer_bytes: 32 * 1024,
            first_byte_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            keepalive_idle: Duration::from_secs(75),
            keepalive_requests_max: None,
            connection_age_max: None,
            drain_idle: Duration::from_secs(2),
            request_rest_bytes_max: 64 * 1024,
            request_rest_time: Duration::from_secs(1),
            linger: Linger::DEFAULT,
            shutdown_time: Duration::from_secs(1),
            half_closed_max: Duration::from_secs(2),
            rate_queue_time: Duration::from_secs(5),
            rate_queue_max: 1024,
            h2_idle: Duration::from_secs(300),
            h2_streams_max: 100,
            h2_frames: FrameLimits::DEFAULT,
            h2_pending_resets_max: 100,
            h2_early_resets_max: 500,
            h2_stream_window: 64 * 1024,
            h2_connection_window: 1024 * 1024,
            request_body_idle: Duration::from_secs(30),
            request_body_bytes_max: None,
            connect_timeout: Duration::from_secs(5),
            connect_timeout_elsewhere: Some(Duration::from_secs(2)),
            response_start_timeout: Duration::from_secs(60),
            stream_idle: Duration::from_secs(300),
            tunnel_idle: Duration::from_secs(3600),
            write_idle: Duration::from_secs(30),
            connect_retries: 2,
            authorization_timeout: Duration::from_secs(5),
            authorization_bytes_max: 256 * 1024,
            mirrors: Gate::new(Some(1024)),
            mirror_timeout: Duration::from_secs(30),
            mirror_buffer_bytes: 256 * 1024,
            mirror_answer_bytes_max: 1024 * 1024,
            retry_budget: Some(Allowance::default()),
            retry_after_max: Duration::from_secs(5),
            discard_bytes_max: 64 * 1024,
            discard_time: Duration::from_millis(50),
            request_body_buffer_bytes: 64 * 1024,
            ai_body_bytes_max: 32 * 1024 * 1024,
            ai_event_bytes_max: 4 * 1024 * 1024,
            ai_retry_pause_max: Duration::from_secs(10),
            ai_queue_time: Duration::from_secs(10),
            ai_ignored_members: 32,
            plugin_answer_bytes_max: 1024 * 1024,
            plugin_call_idle: Duration::from_secs(300),
            tunnel_drain: Duration::from_secs(30),
            upstream_idle_max: 32,
            upstream_idle_timeout: Duration::from_secs(55),
            upstream_limits: Limits::default(),
            upstream_connections: Gate::new(None),
            inflight: InflightLimits::default(),
            large_heads: Gate::new(None),
            overload_retry_after: Duration::from_secs(1),
            upstream_h2_streams_max: 100,
            upstream_h2_stream_window: 128 * 1024,
            upstream_h2_ping_after: Duration::from_secs(15),
            upstream_h2_ping_timeout: Duration::from_secs(10),
        }
    }
}
