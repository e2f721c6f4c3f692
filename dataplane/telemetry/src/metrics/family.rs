//! Every metric family, declared once: name, type, labels, help.
//!
//! The groups in `metrics/*.rs` write their samples under these declarations, and the reference
//! page is generated from them by [`reference`]. Nothing else in the data plane names a metric.
//!
//! Series budget: label values come from configuration or from fixed lists, never from a request.
//! A pair of listener and route costs nothing until its first request; then 9 series of its histogram,
//! two of bytes, and one per status class and per status code seen: 13 with one code, 20 with four
//! classes and five codes. There are 6 classes, and of codes no more than 16 for each worker thread and
//! 6 for those beyond; with calls over gRPC one more per code of gRPC seen, at most 18. A backend costs
//! nothing until it is asked for something; then 5, one per endpoint, one per further status class, and
//! one per kind of what went wrong. A listener costs about 40, and 11 per pair of status class and
//! response flag.

/// The kind of a family, as the exposition format names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Only grows; restarts at zero with the process, or with its route.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations, or tokens, in buckets.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One declared family.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// What the reference page says about a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyDoc {
    /// The full name.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Label names, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

/// Every family this data plane can expose, in the order of the exposition.
pub fn reference() -> Vec<FamilyDoc> {
    ALL.iter()
        .map(
            |Family {
                 name,
                 kind,
                 labels,
                 help,
             }| FamilyDoc {
                name,
                kind: *kind,
                labels,
                help,
            },
        )
        .collect()
}

/// Whether a family has that name.
pub(super) fn is_declared(name: &str) -> bool {
    ALL.iter().any(|family| family.name == name)
}

/// Puts the common prefix before the names; those of the process are conventional and have none.
macro_rules! declare {
    (gateway { $( $id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal; )+ }
     process { $( $pid:ident: $pkind:ident $pname:literal [] $phelp:literal; )+ }) => {
        $(
            pub(super) static $id: Family = Family {
                name: concat!("nantian_gateway_dataplane_", $name),
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )+
        $(
            pub(super) static $pid: Family =
                Family { name: $pname, kind: Kind::$pkind, labels: &[], help: $phelp };
        )+
        static ALL: &[&Family] = &[$( &$id, )+ $( &$pid, )+];
    };
}

declare! {
    gateway {
        READY: Gauge "ready" []
            "1 while a complete configuration serves and the process is not draining.";
        LISTENERS: Gauge "listener_count" [] "Listeners in the applied configuration.";
        HTTP_ROUTES: Gauge "http_route_count" [] "HTTP routes in the applied configuration.";
        GRPC_ROUTES: Gauge "grpc_route_count" [] "gRPC routes in the applied configuration.";
        BACKENDS: Gauge "backend_count" [] "Clusters in the applied configuration.";
        SECRETS: Gauge "secret_count" [] "Secrets in the applied configuration.";

        REQUESTS: Counter "http_requests_total" ["listener", "route", "status_class"]
            "Requests ended, by class of the status sent; route is `none` when no route matched.";
        DURATION: Histogram "http_request_duration_seconds" ["listener", "route"]
            "Time from the first byte of a request to the last byte of its response.";
        RESPONSES: Counter "http_responses_total" ["listener", "route", "status_code"]
            "Requests ended, by status sent; `other` when none was, or one outside 100 to 599, and a class such as `4xx` for the codes behind the first sixteen that a worker thread met.";
        GRPC: Counter "grpc_requests_total" ["listener", "route", "grpc_status"]
            "Calls over gRPC ended, by the code that the client was sent, `other` for one that gRPC does not have; calls that broke off without a code are not among them, nor are those of gRPC-Web, whose code stands in the body.";
        RECEIVED: Counter "http_received_bytes_total" ["listener", "route"]
            "Bytes of requests received from clients.";
        SENT: Counter "http_sent_bytes_total" ["listener", "route"]
            "Bytes of responses sent to clients.";
        OUTCOMES: Counter "http_outcomes_total" ["listener", "reason"]
            "Requests ended, and connections refused before there was one, by outcome; the same names as `reason` in the access log.";
        FLAGS: Counter "http_response_flags_total" ["listener", "flag"]
            "Requests ended out of order, by response flag of the access log.";
        INFLIGHT: Gauge "http_global_inflight_current" [] "Requests being served.";
        LISTENER_INFLIGHT: Gauge "http_listener_inflight_current" ["listener"]
            "Requests being served, by listener.";

        DOWNSTREAM_ACTIVE: Gauge "downstream_connections_active" ["listener"]
            "Connections from clients that are open.";
        DOWNSTREAM: Counter "downstream_connections_total" ["listener"]
            "Connections accepted from clients.";
        DOWNSTREAM_REJECTED: Counter "downstream_connections_rejected_total" ["listener", "limit"]
            "Connections closed right after they were accepted, by the limit they met.";
        HTTP2_LIMITED: Counter "downstream_http2_limited_total" ["listener", "limit"]
            "HTTP/2 connections ended with ENHANCE_YOUR_CALM, by the limit their client broke.";
        HTTP2_REFUSED: Counter "downstream_http2_streams_refused_total" ["listener"]
            "Streams of HTTP/2 connections that were refused, because their client had as many open as it may.";
        DOWNSTREAM_ENDED: Counter "downstream_connections_ended_total" ["listener", "limit"]
            "Connections of HTTP clients that were ended because nothing came in time, because they waited too long for a next request, for their number of requests or their age, because more of a request body was to come behind its answer than is read for the connection's sake (`request_rest`), because their client did not end them behind our end (`linger`), or because they had to end and brought nothing more in time (`drain`, `tunnel_drain`).";

        ACCEPT_PAUSES: Counter "downstream_accept_pauses_total" ["listener", "cause"]
            "Times a socket stopped accepting for a while; its clients wait in the kernel.";
        LIMITS: Gauge "limit" ["key"]
            "What holds for each limit of the page of limits, by its key in the bootstrap file, in the unit that the key ends with; 0 means what it means there.";
        OVERLOAD_LEVEL: Gauge "overload_level" []
            "0 normal, 1 connections are not kept, 2 new requests are refused, 3 no new connections.";
        OVERLOAD_MEMORY: Gauge "overload_memory_bytes" []
            "Memory that the level is decided by, as last measured.";
        OVERLOAD_MEMORY_LIMIT: Gauge "overload_memory_limit_bytes" []
            "What it is compared with; 0 when there is no limit and nothing is decided.";
        OVERLOAD_RESETS: Counter "overload_connections_reset_total" []
            "HTTP/2 connections with many streams that were ended because memory was short.";
        OVERLOAD_CLOSED: Counter "overload_connections_not_kept_total" []
            "Connections that were told to end behind their request because memory was short.";
        OVERLOAD_REJECTED: Counter "http_overload_rejected_total" ["scope"]
            "Requests answered with 503 before they were sent anywhere, by the limit they met.";

        STREAMS_REJECTED: Counter "tcp_overload_rejected_total" []
            "Connections of TCP and TLS listeners that were closed because of a limit before they reached an endpoint.";

        MIRRORED: Counter "http_mirrored_requests_total" ["listener", "route", "result"]
            "Copies of requests to mirrors that ended, by what became of them; all but `sent` are losses.";

        BACKEND_REQUESTS: Counter "backend_requests_total" ["backend", "status_class"]
            "Requests that an endpoint of a backend answered, by class of the status; each attempt is one, and one that broke before there was a head of a response is none. Copies to mirrors and what the gateway or a plugin asks count, too.";
        BACKEND_WAITED: Counter "backend_response_wait_seconds_total" ["backend"]
            "Time in which endpoints of a backend owed them the heads of their responses, from the last part of the request that was sent by then; divided by their number the average. The time to connect is not in it.";
        BACKEND_ACTIVE: Gauge "backend_connections_active" ["backend"]
            "Connections to endpoints of a backend that are open.";
        BACKEND_CONNECTIONS: Counter "backend_connections_total" ["backend"]
            "Connections opened to endpoints of a backend.";
        BACKEND_RETRIES: Counter "backend_retries_total" ["backend"]
            "Attempts that followed a failed one by a route's retry policy.";
        BACKEND_RETRIES_DENIED: Counter "backend_retries_denied_total" ["backend", "cause"]
            "Attempts not made because the budget for retries was used up (`budget`), because the backend's breaker or too many of its endpoints say that it bears none (`unwell`), because a part of the body was sent that was too large to be kept (`body`), or because the response asks for too long a pause (`retry_after`).";
        BACKEND_NOT_KEPT: Counter "backend_connections_not_kept_total" ["backend"]
            "Connections to endpoints of a backend that were closed because a response that nobody wanted would have been too large, or too slow, to be read for their sake.";
        BACKEND_RETRYABLE: Counter "backend_retryable_requests_total" ["backend"]
            "Requests under a route's retry policy, of which the budget is a share.";
        BACKEND_EJECTIONS: Counter "backend_endpoint_ejections_total" ["backend"]
            "Times an endpoint of a backend was left out because it kept failing.";
        CIRCUIT_OPENED: Counter "http_circuit_breaker_opened_total" ["backend"]
            "Times a circuit breaker in front of a backend opened.";
        CIRCUIT_REFUSED: Counter "http_circuit_breaker_rejected_backend_total" ["backend"]
            "Attempts that an open circuit breaker did not let begin.";
        BACKEND_CHECKS: Counter "backend_health_checks_total" ["backend", "result"]
            "Health checks of endpoints that ended, `passed` or `failed`.";
        BACKEND_ERRORS: Counter "backend_connection_errors_total" ["backend", "reason"]
            "Connections to endpoints of a backend that failed or broke, by outcome.";

        BACKEND_HEALTH: Gauge "backend_health_status" ["backend", "endpoint"]
            "1 while requests may go to the endpoint: it is ready, passes its health checks and is not left out for its failures; 0 otherwise.";
        EJECTED: Gauge "endpoint_passive_ejected_current" []
            "Endpoints that are left out because they kept failing.";
        BACKEND_INFLIGHT_MAX: Gauge "http_circuit_breaker_backend_max_inflight_requests" []
            "How many it may have unless its policy says otherwise; 0 for no limit.";
        BACKEND_INFLIGHT: Gauge "http_circuit_breaker_backend_inflight_current" ["backend"]
            "Requests that a backend has at the moment.";
        CIRCUIT_STATE: Gauge "http_circuit_breaker_state" ["backend"]
            "0 closed, 1 half-open, 2 open; of the breakers that backends have.";
        BUDGET_ENABLED: Gauge "http_retry_budget_enabled" []
            "1 while retries of backends without a budget of their own have that of the process.";
        BUDGET_RATIO: Gauge "http_retry_budget_ratio_percent" []
            "Its retries in a hundred requests.";
        BUDGET_BURST: Gauge "http_retry_budget_burst" [] "Its retries in 10 s besides.";
        BUDGET_LEFT: Gauge "http_retry_budget_available_tokens" ["backend"]
            "Retries that a backend with a budget could take at this moment, where some were taken.";
        RATE_PER_SECOND: Gauge "http_rate_limit_requests_per_second" ["scope", "object", "limit"]
            "Requests in a second that a limit lets pass, rounded up.";
        RATE_BURST: Gauge "http_rate_limit_burst" ["scope", "object", "limit"]
            "How many of them may come at once.";
        RATE_LEFT: Gauge "http_rate_limit_available_tokens" ["scope", "object", "limit"]
            "Requests that a limit would let pass at this moment; of limits that do not tell clients apart.";
        BUDGET_OBSERVED: Counter "http_retry_budget_retryable_requests_observed_total" []
            "Requests under a retry policy, of all backends.";
        BUDGET_ALLOWED: Counter "http_retry_budget_allowed_total" []
            "Attempts that followed others by a retry policy.";
        BUDGET_REJECTED: Counter "http_retry_budget_rejected_total" []
            "Attempts that were not made because the budget was used up, or the backend not well.";
        RATE_EVICTED: Counter "http_rate_limit_keys_evicted_total" []
            "Clients that limits of rate forgot although something was held against them, because there were too many at once.";
        RATE_REJECTED: Counter "http_rate_limit_rejected_total" ["scope", "object", "limit"]
            "Requests answered with 429, by the limit of rate that they met.";
        RATE_WOULD_REJECT: Counter "http_rate_limit_dry_run_rejected_total" ["scope", "object", "limit"]
            "Requests that a limit of rate would have refused if it were not only tried.";
        RATE_QUEUED: Counter "http_rate_limit_queued_total" ["scope", "object", "limit"]
            "Requests that waited because a limit of rate says so.";

        SESSIONS_ACTIVE: Gauge "session_persistence_active" []
            "1 while a rule or a backend asks for persistent sessions.";
        SESSIONS_EPHEMERAL: Gauge "session_persistence_ephemeral_secret" []
            "1 while sessions are sealed under a secret that ends with the process and that no other replica has.";
        SESSION_SECRET_UNUSABLE: Gauge "session_persistence_secret_file_unusable" []
            "1 while the file with the secret of sessions cannot be used, so that they go on under the one read before.";
        SESSION_RULES: Gauge "session_persistence_route_rule_count" []
            "Rules of routes that ask for persistent sessions, one for each listener they are on.";
        SESSION_BACKENDS: Gauge "session_persistence_backend_count" []
            "Backends that ask for persistent sessions.";
        SESSION_SECRETS: Counter "session_persistence_secrets_taken_total" []
            "Times that a new secret of the file began to seal sessions.";
        SESSIONS: Counter "session_persistence_sessions_total" ["outcome"]
            "Sessions that began, requests that were kept at their endpoint, sessions that moved to another, values that were refused.";

        AI_TOKENS: Histogram "gen_ai_client_token_usage" ["service", "operation", "provider", "model", "token_type"]
            "Tokens of a call to an AI service: `input` (cached ones included), `cached_input`, `output`; `model` is `other` when the configuration does not name it.";
        AI_DURATION: Histogram "gen_ai_client_operation_duration_seconds" ["service", "operation", "provider", "model", "error_type"]
            "Time from a request to the end of its answer; `error_type` says what went wrong and is empty when nothing did, `provider` is empty when none was asked.";
        AI_FIRST_CHUNK: Histogram "gen_ai_client_operation_time_to_first_chunk_seconds" ["service", "operation", "provider", "model"]
            "Time from a request to the first piece of its answer, of answers in pieces.";
        AI_OUTPUT_CHUNK: Histogram "gen_ai_client_operation_time_per_output_chunk_seconds" ["service", "operation", "provider", "model"]
            "Time from each piece of an answer to the next, of answers in pieces.";
        AI_ERRORS: Counter "gen_ai_client_operation_errors_total" ["service", "operation", "provider", "model", "error_type"]
            "Attempts that failed, those that another one made good among them, by what went wrong; `provider` is empty when none was asked.";
        AI_REDACTIONS: Counter "ai_redactions_total" ["service", "kind"]
            "Pieces of personal data and secrets that redaction found.";
        AI_BUDGETS: Counter "ai_token_policy_outcomes_total" ["service", "outcome"]
            "Requests over a budget of tokens, by what became of them.";
        AI_RETRIES: Counter "ai_retries_total" ["service"]
            "Attempts that followed a failed one at the same provider.";
        AI_FAILOVERS: Counter "ai_failovers_total" ["service"]
            "Attempts at another provider because the one before failed.";
        AI_TOO_LARGE: Counter "ai_requests_too_large_total" ["service"]
            "Requests answered with 413 because their body is larger than what is gathered.";
        AI_EVICTED: Counter "ai_token_policy_keys_evicted_total" []
            "Callers whose debt was forgotten because there were too many at once.";

        PLUGIN_REQUESTS: Counter "plugin_requests_total" ["plugin"]
            "Requests that a plugin was called for.";
        PLUGIN_REPLIES: Counter "plugin_replies_total" ["plugin"]
            "Requests that a plugin answered itself.";
        PLUGIN_TIME: Counter "plugin_time_seconds_total" ["plugin"]
            "Time spent in calls of a plugin.";
        PLUGIN_FAILURES: Counter "plugin_failures_total" ["plugin", "kind"]
            "Times a plugin failed: `trap`, `timeout` of a call, `fuel` when it took too many instructions, `start` of an instance, `hold` of a request for too long or of too much, `unavailable` because it has no module or is left alone.";
        PLUGIN_INSTANCES: Gauge "plugin_instances" ["plugin"]
            "Instances of a plugin that are there, at most one per worker.";
        PLUGIN_DISABLED: Gauge "plugin_disabled" ["plugin"]
            "1 while a plugin is left alone because it failed five times in a row or more.";
        PLUGIN_LACKING: Gauge "plugin_module_lacking" ["plugin"]
            "1 while a plugin has not the module that is wanted: it has none, or runs the one before.";
        PLUGIN_COUNTER: Counter "plugin_custom_total" ["plugin", "metric"]
            "Counters that plugins keep themselves.";
        PLUGIN_GAUGE: Gauge "plugin_custom_value" ["plugin", "metric"]
            "Gauges that plugins keep themselves.";
        PLUGIN_SUM: Counter "plugin_custom_histogram_sum_total" ["plugin", "metric"]
            "Sums of what plugins record in histograms of their own.";
        PLUGIN_COUNT: Counter "plugin_custom_histogram_values_total" ["plugin", "metric"]
            "How many values those are.";
        PLUGIN_FETCHES: Counter "plugin_module_fetches_total" ["result"]
            "Modules of plugins that were fetched, by how it ended: `ok`, `refused` for an address or URL that is not allowed, `unreachable`, `status` other than 200, `too_large`, `timeout`, `digest` of another module, `invalid` when it is no module, `credentials` that cannot be read.";
        PLUGIN_COMPILED: Counter "plugin_modules_compiled_total" []
            "Modules of plugins that were given to the compiler.";
        PLUGIN_COMPILE_TIME: Counter "plugin_module_compile_seconds_total" []
            "Time that the compiler took for them, on threads of the lowest priority.";

        STREAM_ACTIVE: Gauge "stream_sessions_active" ["listener", "route"]
            "TCP and TLS connections passed on as bytes, and UDP sessions, that are open.";
        STREAM_SESSIONS: Counter "stream_sessions_total" ["listener", "route", "reason"]
            "Such sessions that ended, by outcome.";
        STREAM_RECEIVED: Counter "stream_received_bytes_total" ["listener", "route"]
            "Bytes of such sessions taken from clients.";
        STREAM_SENT: Counter "stream_sent_bytes_total" ["listener", "route"]
            "Bytes of such sessions given to clients.";
        DATAGRAMS_RECEIVED: Counter "udp_datagrams_received_total" ["listener", "route"]
            "Datagrams of UDP sessions taken from clients.";
        DATAGRAMS_SENT: Counter "udp_datagrams_sent_total" ["listener", "route"]
            "Datagrams of UDP sessions given to clients.";
        DATAGRAMS_DROPPED: Counter "udp_datagrams_dropped_total" ["listener", "route", "limit"]
            "Datagrams that were dropped, by what they met.";
        UDP_OVERLOAD_REJECTED: Counter "udp_overload_rejected_total" []
            "Datagrams that were dropped because no UDP session could begin for them: too many are there, or their backend takes no more.";
        UDP_ACTIVE: Gauge "udp_sessions_active_current" []
            "UDP sessions that are open.";
        UDP_ACTIVE_LISTENER: Gauge "udp_sessions_active_listener_current" ["listener"]
            "The same by listener.";
        UDP_QUEUED: Gauge "udp_session_queue_depth_current" []
            "Datagrams of UDP sessions that wait for the kernel to take them.";
        UDP_QUEUED_LISTENER: Gauge "udp_session_queue_depth_listener_current" ["listener"]
            "The same by listener.";
        UDP_QUEUE_DROPPED: Counter "udp_session_queue_overflow_dropped_total" []
            "Datagrams that were dropped because such a queue was full.";
        UDP_QUEUE_DROPPED_LISTENER: Counter "udp_session_queue_overflow_dropped_listener_total" ["listener"]
            "The same by listener.";
        UDP_IDLE_EVICTIONS: Counter "udp_session_idle_evictions_total" []
            "UDP sessions that ended because neither side has sent anything for a while.";
        UDP_IDLE_EVICTIONS_LISTENER: Counter "udp_session_idle_evictions_listener_total" ["listener"]
            "The same by listener.";

        XDS_CONNECTED: Gauge "xds_connected" []
            "1 while the configuration stream to the control plane is up.";
        XDS_STALE: Gauge "xds_snapshot_stale" []
            "1 while the configuration in use is older than the freshness limit.";
        XDS_CONNECT_FAILURES: Counter "xds_connect_failures_total" []
            "Failed attempts to reach the control plane.";
        XDS_STREAM_FAILURES: Counter "xds_stream_failures_total" []
            "Configuration streams that ended with an error.";
        XDS_RECONNECTS: Counter "xds_stream_reconnects_total" []
            "Configuration streams opened after the first one.";
        XDS_HEALTH_FAILURES: Counter "xds_health_check_failures_total" []
            "Health checks of the control plane that failed or said not serving.";
        XDS_APPLIED: Counter "xds_snapshots_applied_total" []
            "Full snapshots applied and acknowledged.";
        XDS_DELTAS: Counter "xds_deltas_applied_total" [] "Deltas applied and acknowledged.";
        XDS_NACKED: Counter "xds_snapshots_nacked_total" []
            "Snapshots and deltas refused; the configuration before them went on serving.";
        XDS_SKIPPED: Counter "xds_snapshots_skipped_total" []
            "Snapshots not applied because their version was in use already.";
        XDS_LAST_APPLY: Gauge "xds_last_apply_timestamp_seconds" []
            "When a configuration was last applied, in seconds since 1970; 0 before the first.";
        XDS_STAGE: Histogram "xds_apply_stage_duration_seconds" ["stage"]
            "Time spent in each stage of applying a configuration.";

        LAST_GOOD_SERVING: Gauge "last_good_serving" []
            "1 while a configuration from disk serves, because the control plane has sent none yet.";
        LAST_GOOD_WITHHELD: Gauge "last_good_withheld_count" []
            "Objects of it that are not served as they should be, because they need secrets.";
        LAST_GOOD_BYTES: Gauge "last_good_file_bytes" []
            "Size of the last good configuration on disk, as last written.";
        LAST_GOOD_WRITES: Counter "last_good_writes_total" []
            "Times the last good configuration was written to disk.";
        LAST_GOOD_FAILURES: Counter "last_good_write_failures_total" []
            "Times it could not be written.";

        ACCESS_LINES: Counter "access_log_writer_lines_total" []
            "Access log lines handed to the sink.";
        ACCESS_DROPPED: Counter "access_log_writer_dropped_lines_total" []
            "Access log lines lost because the queue was full or the sink failed.";
        ACCESS_ERRORS: Counter "access_log_writer_sink_errors_total" []
            "Failures to open or write the access log.";
        ACCESS_QUEUE: Gauge "access_log_writer_queue_bytes" []
            "Bytes of access log lines that wait for the sink.";
        LOG_DROPPED: Counter "log_dropped_lines_total" []
            "Lines of the process's own log lost because its queue was full or its output failed.";
        TRACES_EXPORTED: Counter "trace_exported_spans_total" []
            "Spans that the collector took.";
        TRACES_DROPPED: Counter "trace_dropped_spans_total" []
            "Spans lost because the queue was full or the collector did not take them.";
        TRACES_FAILURES: Counter "trace_export_failures_total" []
            "Batches of spans that the collector did not take.";

        CERTIFICATE_ENDS: Gauge "tls_certificate_not_after_timestamp_seconds" ["secret"]
            "When the certificate of a secret that a listener or backend uses ends, in seconds since 1970.";
        THREAD_BUSY: Counter "thread_busy_seconds_total" ["thread"]
            "Time that a thread that serves has worked, rather than waited.";
        THREAD_TASKS: Gauge "thread_tasks" ["thread"]
            "Connections of such a thread, and what runs beside them.";

        STREAM_ROUTES: Gauge "stream_route_count" []
            "TCP, TLS and UDP routes in the applied configuration.";
        HTTP_STATES: Gauge "runtime_supervisor_http_states" []
            "Threads that serve HTTP.";
        HTTP3_CONFIGURED: Gauge "http3_configured" [] "1 when the bootstrap file has `runtime.enableHttp3`, which has no effect.";
        HTTP3_AVAILABLE: Gauge "http3_available" [] "0: this data plane speaks no HTTP/3.";
        HTTP3_ENABLED: Gauge "http3_enabled" [] "0, for the same reason.";
        TRAFFIC_EVENTS: Counter "traffic_events_total" []
            "Requests, and sessions of streams, that ended.";
        TRAFFIC_REQUESTS: Counter "traffic_request_events_total" [] "Requests that ended.";
        TRAFFIC_RECEIVED: Counter "traffic_bytes_received_total" []
            "Bytes of requests received from clients, of all routes.";
        TRAFFIC_SENT: Counter "traffic_bytes_sent_total" []
            "Bytes of responses sent to clients, of all routes.";
        TRAFFIC_LATENCY: Counter "traffic_latency_ms_total" []
            "Time that all requests took together, in milliseconds.";
        TRAFFIC_LONGEST: Gauge "traffic_latency_ms_max" []
            "Time that the longest request took, in milliseconds.";
        TRAFFIC_RETRIED: Counter "traffic_retried_events_total" []
            "Requests with more than one attempt.";
        TRAFFIC_RETRIES: Counter "traffic_retry_attempts_total" []
            "Attempts that followed others by a retry policy.";
        TRAFFIC_SAVED: Counter "traffic_retried_success_events_total" []
            "Requests with more than one attempt that ended well.";
        TRAFFIC_RETRY_RATE: Gauge "traffic_retry_rate" []
            "Requests with more than one attempt, as a share of all.";
        TRAFFIC_SAVED_RATE: Gauge "traffic_failover_success_rate" []
            "Requests that ended well, as a share of those with more than one attempt.";
        TRAFFIC_1XX: Counter "traffic_status_1xx_total" [] "Requests answered with 100 to 199.";
        TRAFFIC_2XX: Counter "traffic_status_2xx_total" [] "Requests answered with 200 to 299.";
        TRAFFIC_3XX: Counter "traffic_status_3xx_total" [] "Requests answered with 300 to 399.";
        TRAFFIC_4XX: Counter "traffic_status_4xx_total" [] "Requests answered with 400 to 499.";
        TRAFFIC_5XX: Counter "traffic_status_5xx_total" [] "Requests answered with 500 to 599.";
        TRAFFIC_OTHER: Counter "traffic_status_other_total" []
            "Requests answered with another status, or with none.";
        TRAFFIC_FLAGS: Counter "traffic_response_flags_total" ["flag"]
            "Requests by response flag of the access log, of all listeners.";
        TRAFFIC_LATENCY_MS: Histogram "traffic_request_latency_ms" ["listener", "protocol", "route_kind", "status_class", "response_flag"]
            "Time that requests took, in milliseconds.";
        POOL_HITS: Counter "traffic_upstream_pool_hits_total" []
            "Requests whose last attempt found a kept connection.";
        POOL_MISSES: Counter "traffic_upstream_pool_misses_total" []
            "Requests whose last attempt had to make one.";
        POOL_RATIO: Gauge "traffic_upstream_pool_hit_ratio" [] "The former as a share of both.";
        PEER_FAILURES: Counter "traffic_upstream_peer_build_failures_total" []
            "Requests for which no endpoint was found.";
        TLS_FAILURES: Counter "traffic_upstream_tls_handshake_failures_total" []
            "TLS handshakes with endpoints that failed.";
        CONNECT_MS: Histogram "traffic_upstream_connect_latency_ms" []
            "Time that connections to endpoints took to come up, in milliseconds.";
        CONNECT_TOTAL: Counter "traffic_upstream_connect_latency_ms_total" []
            "The same, of all together.";
        CONNECT_MAX: Gauge "traffic_upstream_connect_latency_ms_max" [] "The longest of them.";
        CONNECT_AVERAGE: Gauge "traffic_upstream_connect_latency_ms_average" [] "Their average.";
        TLS_FAILURE_MS: Histogram "traffic_upstream_tls_handshake_failure_latency_ms" []
            "Time after which TLS handshakes with endpoints failed, in milliseconds.";
        ROUTE_INFLIGHT: Gauge "http_route_inflight_current" ["route"]
            "Requests being served, by route, while routes have a limit of them.";
        OVERLOAD_LISTENER: Counter "http_overload_rejected_listener_total" []
            "Requests answered with 503 because their listener has its fill.";
        OVERLOAD_ROUTE: Counter "http_overload_rejected_route_total" []
            "Requests answered with 503 because their route has its fill.";
        CIRCUIT_REFUSED_ALL: Counter "http_circuit_breaker_rejected_total" ["scope"]
            "Attempts that an open circuit breaker did not let begin, of all backends.";
        RATE_GLOBAL_RPS: Gauge "http_rate_limit_global_requests_per_second" ["limit"]
            "Requests in a second that a limit of the process lets pass, rounded up.";
        RATE_GLOBAL_BURST: Gauge "http_rate_limit_global_burst" ["limit"]
            "How many of them may come at once.";
        RATE_GLOBAL_TOKENS: Gauge "http_rate_limit_global_available_tokens" ["limit"]
            "Requests that it would let pass at this moment.";
        RATE_LISTENER_RPS: Gauge "http_rate_limit_listener_requests_per_second" ["listener", "limit"]
            "Requests in a second that a limit of the listener lets pass, rounded up.";
        RATE_LISTENER_BURST: Gauge "http_rate_limit_listener_burst" ["listener", "limit"]
            "How many of them may come at once.";
        RATE_LISTENER_TOKENS: Gauge "http_rate_limit_listener_available_tokens" ["listener", "limit"]
            "Requests that it would let pass at this moment.";
        RATE_ROUTE_RPS: Gauge "http_rate_limit_route_requests_per_second" ["route", "limit"]
            "Requests in a second that a limit of the route lets pass, rounded up.";
        RATE_ROUTE_BURST: Gauge "http_rate_limit_route_burst" ["route", "limit"]
            "How many of them may come at once.";
        RATE_ROUTE_TOKENS: Gauge "http_rate_limit_route_available_tokens" ["route", "limit"]
            "Requests that it would let pass at this moment.";
        BUDGET_MILLI: Gauge "http_retry_budget_available_milli_tokens" ["backend"]
            "Retries that a backend with a budget could take at this moment, in thousandths.";
        ACCESS_WRITERS: Gauge "access_log_writer_count" [] "Threads that write the access log.";
        ACCESS_DEPTH: Gauge "access_log_writer_queue_depth" []
            "Lines of the access log that wait for the sink.";
        ACCESS_FLUSHES: Counter "access_log_writer_flushes_total" [] "Times that lines were written.";
        ACCESS_FLUSH_MS: Counter "access_log_writer_flush_latency_ms_total" []
            "Time that this took, in milliseconds.";
        ACCESS_FLUSH_MAX: Gauge "access_log_writer_flush_latency_ms_max" []
            "The longest time that it took, in milliseconds.";
        XDS_STAGE_MS: Histogram "xds_apply_stage_duration_ms" ["stage"]
            "Time spent in each stage of applying a configuration, in milliseconds.";

        ADMIN_REQUESTS: Counter "admin_requests_total" ["method", "route", "status_class"]
            "Requests to the admin API.";
        PANICS: Counter "http_request_panics_total" []
            "Requests that a fault inside the gateway ended; standard error tells where it was.";
    }
    process {
        PROCESS_MEMORY: Gauge "process_resident_memory_bytes" []
            "Memory of the process that is held in RAM.";
        PROCESS_CPU: Counter "process_cpu_seconds_total" []
            "User and system time of the process.";
        PROCESS_FDS: Gauge "process_open_fds" [] "Open file descriptors.";
        PROCESS_MAX_FDS: Gauge "process_max_fds" [] "Limit of open file descriptors.";
        PROCESS_THREADS: Gauge "process_threads" [] "Threads of the process.";
        PROCESS_START: Gauge "process_start_time_seconds" []
            "When the process was started, in seconds since 1970.";
    }
}

/// Of limits of rate by the kind of their object: how many a second, at once, and left.
pub(super) static RATE_GLOBAL: [&Family; 3] =
    [&RATE_GLOBAL_RPS, &RATE_GLOBAL_BURST, &RATE_GLOBAL_TOKENS];
/// The same of listeners.
pub(super) static RATE_LISTENER: [&Family; 3] = [
    &RATE_LISTENER_RPS,
    &RATE_LISTENER_BURST,
    &RATE_LISTENER_TOKENS,
];
/// The same of routes.
pub(super) static RATE_ROUTE: [&Family; 3] =
    [&RATE_ROUTE_RPS, &RATE_ROUTE_BURST, &RATE_ROUTE_TOKENS];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let docs = reference();
        let names: BTreeSet<_> = docs.iter().map(|doc| doc.name).collect();
        assert_eq!(names.len(), docs.len(), "a name is declared twice");
        for doc in docs {
            let name = doc.name;
            assert!(
                name.starts_with("nantian_gateway_dataplane_") || name.starts_with("process_"),
                "{name}"
            );
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
            assert_eq!(
                doc.kind == Kind::Counter,
                name.ends_with("_total"),
                "{name}"
            );
            assert!(doc.help.ends_with('.'), "{name}: {}", doc.help);
        }
    }
}
