//! The reference page of limits: what each one does when it is met, and where that is seen.
//!
//! Keys and defaults come from the table of keys; a test fails when a limit there has no row here,
//! or a row names an outcome or a metric that does not exist.

use std::fmt::Write as _;

use crate::bootstrap::keys::ALL;

mod beside_http;

use beside_http::{ADMIN, END, PLUGINS, STREAMS, UDP};

/// One limit: its key, the outcomes and metrics it is seen by, and what happens.
pub struct Row {
    /// Name of the key, as in the bootstrap file.
    pub key: &'static str,
    /// Outcomes (`reason` of access log and metrics) and metrics without their common prefix.
    pub seen: &'static [&'static str],
    /// What happens when it is met.
    pub then: &'static str,
}

const fn row(key: &'static str, seen: &'static [&'static str], then: &'static str) -> Row {
    Row { key, seen, then }
}

/// Sections of the page and their rows.
pub static SECTIONS: &[(&str, &[Row])] = &[
    ("Connections", CONNECTIONS),
    ("Requests", REQUESTS),
    ("Memory", MEMORY),
    ("Heads and bodies", MESSAGES),
    ("HTTP/2 of clients", HTTP2),
    ("Deadlines of clients", CLIENTS),
    ("Backends", BACKENDS),
    ("TCP and TLS passthrough", STREAMS),
    ("UDP", UDP),
    ("Plugins", PLUGINS),
    ("Admin API", ADMIN),
    ("The end", END),
];

/// Of what nobody meets: what holds can be seen, as of all keys of the page.
const SETTING: &str = "limit";
const PAUSES: &str = "downstream_accept_pauses_total";
const REJECTED: &str = "downstream_connections_rejected_total";
const ENDED: &str = "downstream_connections_ended_total";
const SHED: &str = "http_overload_rejected_total";
const RATE: &str = "http_rate_limit_rejected_total";
const BROKEN: &str = "downstream_http2_limited_total";
const BACKEND: &str = "backend_connection_errors_total";

static CONNECTIONS: &[Row] = &[
    row(
        "runtimeProtection.httpGlobalConnectionLimit",
        &[REJECTED, PAUSES],
        "closed at once; clients wait in the kernel instead where the limit of open files is lower",
    ),
    row(
        "runtimeProtection.httpListenerConnectionLimit",
        &[REJECTED],
        "closed at once",
    ),
    row(
        "runtimeProtection.httpClientConnectionLimit",
        &[REJECTED],
        "closed at once",
    ),
    row(
        "runtimeProtection.descriptorReserve",
        &[PAUSES],
        "accepting pauses and goes on by itself; clients wait in the kernel",
    ),
    row(
        "runtimeProtection.descriptorClientPercent",
        &[PAUSES, "backend_overload"],
        "clients wait in the kernel; a backend's connection that has no descriptor closes an idle one, or the request is answered with 503",
    ),
    row(
        "runtimeTuning.httpKeepaliveRequestLimit",
        &[ENDED],
        "`Connection: close` with the answer",
    ),
    row(
        "runtimeTuning.httpMaxConnectionAgeMs",
        &[ENDED],
        "`Connection: close` or GOAWAY",
    ),
];

static REQUESTS: &[Row] = &[
    row(
        "runtimeProtection.httpGlobalRateLimitRequestsPerSecond",
        &["rate_limited", RATE],
        "429 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpGlobalRateLimitBurst",
        &["rate_limited", RATE],
        "429 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpListenerRateLimitRequestsPerSecond",
        &["rate_limited", RATE],
        "429 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpListenerRateLimitBurst",
        &["rate_limited", RATE],
        "429 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpRouteRateLimitRequestsPerSecond",
        &["rate_limited", RATE],
        "429 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpRouteRateLimitBurst",
        &["rate_limited", RATE],
        "429 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpRateLimitQueueLimit",
        &["rate_limited", RATE],
        "429 with `Retry-After`",
    ),
    row(
        "runtimeTuning.httpRateLimitQueueTimeoutMs",
        &["rate_limited", RATE, "http_rate_limit_queued_total"],
        "429 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpRateLimitKeysMax",
        &["http_rate_limit_keys_evicted_total"],
        "the client that is closest to having nothing held against it is forgotten",
    ),
    row(
        "runtimeProtection.httpGlobalInflightLimit",
        &["overload", SHED],
        "503 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpListenerInflightLimit",
        &["overload", SHED],
        "503 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpRouteInflightLimit",
        &["overload", SHED],
        "503 with `Retry-After`",
    ),
    row(
        "runtimeTuning.requestMirrorMaxConcurrency",
        &["http_mirrored_requests_total"],
        "the copy is not made",
    ),
    row(
        "runtimeTuning.requestMirrorBufferBytes",
        &["http_mirrored_requests_total"],
        "the copy ends, the request does not",
    ),
    row(
        "runtimeTuning.externalAuthTimeoutMs",
        &["authorization_failed"],
        "503: a service that does not answer lets nobody in",
    ),
    row(
        "runtimeTuning.externalAuthAnswerBytes",
        &["authorization_failed"],
        "503",
    ),
    row(
        "runtimeTuning.requestMirrorAnswerBytes",
        &["backend_connections_total"],
        "the mirror's connection is closed",
    ),
    row(
        "runtimeTuning.requestMirrorTimeoutMs",
        &["http_mirrored_requests_total"],
        "the copy ends, the request does not",
    ),
    row(
        "runtimeTuning.requestBodyBufferBytes",
        &["backend_retries_denied_total"],
        "the request is not sent a second time",
    ),
    row(
        "runtimeTuning.aiBodyBytes",
        &["body_too_large", "ai_requests_too_large_total"],
        "413 in the client's format; 502 when it is the answer",
    ),
    row(
        "runtimeTuning.aiEventBytes",
        &["upstream_protocol"],
        "the answer ends in an error",
    ),
    row(
        "runtimeTuning.aiRetryPauseMaxMs",
        &["ai_failovers_total"],
        "the next provider, or what the last one said",
    ),
    row(
        "runtimeTuning.aiQueueTimeoutMs",
        &["rate_limited", "ai_token_policy_outcomes_total"],
        "429 with `Retry-After`",
    ),
    row(
        "runtimeTuning.aiIgnoredMembers",
        &[SETTING],
        "further names are left out",
    ),
];

static MEMORY: &[Row] = &[
    row(
        "runtimeProtection.memoryShedding",
        &["overload_level"],
        "whether any of this is done",
    ),
    row(
        "runtimeProtection.memoryLimitBytes",
        &["overload_memory_limit_bytes", "overload_memory_bytes"],
        "what the shares below are of",
    ),
    row(
        "runtimeProtection.memorySavingPercent",
        &[
            "overload_level",
            "overload_connections_not_kept_total",
            "overload_connections_reset_total",
        ],
        "connections end behind their request; each second the tenth of the HTTP/2 connections with 10 and more streams that has the most is ended",
    ),
    row(
        "runtimeProtection.memorySheddingPercent",
        &["overload", SHED],
        "503 with `Retry-After` for new requests; those that run go on",
    ),
    row(
        "runtimeProtection.memoryClosedPercent",
        &[PAUSES],
        "nobody is accepted; clients wait in the kernel",
    ),
    row(
        "runtimeProtection.memorySlackPercent",
        &["overload_level"],
        "the level ends",
    ),
    row(
        "runtimeProtection.memoryIntervalMs",
        &["overload_level"],
        "the level is looked at anew",
    ),
    row(
        "runtimeProtection.httpLargeHeadMemoryPercent",
        &["overload", SHED],
        "503 with `Retry-After`",
    ),
    row(
        "runtimeProtection.overloadRetryAfterMs",
        &["overload", "backend_overload"],
        "what `Retry-After` says",
    ),
];

static MESSAGES: &[Row] = &[
    row(
        "runtimeProtection.httpMaxRequestHeaderBytes",
        &["head_too_large"],
        "431",
    ),
    row(
        "runtimeProtection.httpMaxRequestHeaderFields",
        &["head_too_large"],
        "431",
    ),
    row(
        "runtimeProtection.httpMaxRequestTargetBytes",
        &["uri_too_long"],
        "414",
    ),
    row(
        "runtimeProtection.httpMaxRequestBodyBytes",
        &["body_too_large"],
        "413",
    ),
    row(
        "runtimeProtection.httpMaxResponseHeaderBytes",
        &["upstream_protocol"],
        "502",
    ),
    row(
        "runtimeProtection.httpMaxResponseHeaderFields",
        &["upstream_protocol"],
        "502",
    ),
    row(
        "runtimeProtection.httpMaxChunkExtensionBytes",
        &["bad_request", "upstream_protocol"],
        "400; a response is cut",
    ),
    row(
        "runtimeProtection.httpMaxInterimResponses",
        &["upstream_protocol"],
        "502",
    ),
    row(
        "runtimeProtection.tlsMaxClientHelloBytes",
        &["bad_client_hello"],
        "an alert (record_overflow), then the connection is closed",
    ),
    row(
        "runtimeProtection.proxyProtocolMaxTlvBytes",
        &[REJECTED],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.httpBufferBytes",
        &["client_aborted"],
        "its sender waits; a client that takes nothing for `downstreamWriteTimeoutMs` is cut",
    ),
];

static HTTP2: &[Row] = &[
    row(
        "runtimeProtection.http2MaxConcurrentStreams",
        &["downstream_http2_streams_refused_total"],
        "further streams are refused (REFUSED_STREAM)",
    ),
    row(
        "runtimeProtection.http2MaxPendingResetStreams",
        &[BROKEN],
        "GOAWAY with ENHANCE_YOUR_CALM",
    ),
    row(
        "runtimeProtection.http2MaxEarlyResetStreams",
        &[BROKEN],
        "GOAWAY with ENHANCE_YOUR_CALM",
    ),
    row(
        "runtimeProtection.http2MaxControlFrames",
        &[BROKEN],
        "GOAWAY with ENHANCE_YOUR_CALM",
    ),
    row(
        "runtimeProtection.http2MaxPriorityFramesPerStream",
        &[BROKEN],
        "GOAWAY with ENHANCE_YOUR_CALM",
    ),
    row(
        "runtimeProtection.http2MaxWindowUpdateFramesPerDataFrame",
        &[BROKEN],
        "GOAWAY with ENHANCE_YOUR_CALM",
    ),
    row(
        "runtimeProtection.http2MaxConsecutiveEmptyFrames",
        &[BROKEN],
        "GOAWAY with ENHANCE_YOUR_CALM",
    ),
    row(
        "runtimeProtection.http2MaxEmptyDataFrames",
        &[BROKEN],
        "GOAWAY with ENHANCE_YOUR_CALM",
    ),
    row(
        "runtimeTuning.http2StreamWindowBytes",
        &[SETTING],
        "the client waits",
    ),
    row(
        "runtimeTuning.http2ConnectionWindowBytes",
        &[SETTING],
        "the client waits",
    ),
    row("runtimeTuning.http2IdleTimeoutMs", &[ENDED], "GOAWAY"),
];

static CLIENTS: &[Row] = &[
    row(
        "runtimeTuning.downstreamFirstByteTimeoutMs",
        &[ENDED],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.downstreamTlsHandshakeTimeoutMs",
        &["handshake_timeout"],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.downstreamHeaderTimeoutMs",
        &["head_timeout", BROKEN],
        "408; for HTTP/2 GOAWAY",
    ),
    row(
        "runtimeTuning.downstreamReadTimeoutMs",
        &["body_timeout"],
        "408",
    ),
    row(
        "runtimeTuning.downstreamWriteTimeoutMs",
        &["client_aborted"],
        "the response is cut",
    ),
    row(
        "runtimeTuning.httpRequestRestBytes",
        &[ENDED],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.httpRequestRestTimeoutMs",
        &[ENDED],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.downstreamHalfClosedTimeoutMs",
        &["client_aborted"],
        "the request is given up",
    ),
    row(
        "runtimeTuning.downstreamShutdownTimeoutMs",
        &[SETTING],
        "the connection is closed without it",
    ),
    row(
        "runtimeTuning.downstreamLingerTimeoutMs",
        &[ENDED],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.downstreamLingerSilenceTimeoutMs",
        &[ENDED],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.downstreamLingerBytes",
        &[ENDED],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.httpKeepaliveIdleTimeoutMs",
        &[ENDED],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.tunnelIdleTimeoutMs",
        &["upstream_timeout"],
        "the tunnel is cut",
    ),
];

static BACKENDS: &[Row] = &[
    row(
        "runtimeTuning.activeHealthCheckIntervalMs",
        &["backend_health_checks_total"],
        "the endpoint is asked again",
    ),
    row(
        "runtimeTuning.activeHealthCheckTimeoutMs",
        &["backend_health_checks_total"],
        "the check has failed",
    ),
    row(
        "runtimeProtection.httpBackendCircuitBreakerMaxRequests",
        &["backend_overload", BACKEND],
        "503 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpBackendMaxConnections",
        &["backend_overload", BACKEND],
        "requests wait for one, then 503 with `Retry-After`",
    ),
    row(
        "runtimeProtection.httpBackendMaxPendingRequests",
        &["backend_overload", BACKEND],
        "503 with `Retry-After`",
    ),
    row(
        "runtimeTuning.httpCapacity.upstreamKeepalivePoolSize",
        &["backend_connections_active"],
        "the longest idle one is closed",
    ),
    row(
        "runtimeTuning.upstreamIdleTimeoutMs",
        &["backend_connections_active"],
        "it is closed",
    ),
    row(
        "runtimeTuning.upstreamConnectionTimeoutMs",
        &["connect_timeout", BACKEND],
        "another endpoint, then 504",
    ),
    row(
        "runtimeTuning.upstreamRetryableConnectionTimeoutMs",
        &["connect_timeout", BACKEND],
        "another endpoint",
    ),
    row(
        "runtimeTuning.upstreamConnectionRetries",
        &["connect_failed"],
        "502",
    ),
    row(
        "runtimeTuning.upstreamRetryAfterMaxMs",
        &["backend_retries_denied_total"],
        "the response goes to the client",
    ),
    row(
        "runtimeTuning.upstreamDiscardBytes",
        &["backend_connections_not_kept_total"],
        "the endpoint's connection is closed",
    ),
    row(
        "runtimeTuning.upstreamDiscardTimeoutMs",
        &["backend_connections_not_kept_total"],
        "the endpoint's connection is closed",
    ),
    row(
        "runtimeProtection.upstreamHttp2MaxConcurrentStreams",
        &["backend_connections_active", "backend_connections_total"],
        "another connection is opened",
    ),
    row(
        "runtimeTuning.upstreamHttp2StreamWindowBytes",
        &[SETTING],
        "the endpoint waits",
    ),
    row(
        "runtimeTuning.upstreamReadTimeoutMs",
        &["upstream_timeout"],
        "504",
    ),
    row(
        "runtimeTuning.upstreamStreamIdleTimeoutMs",
        &["upstream_timeout"],
        "the response is cut",
    ),
    row(
        "runtimeTuning.upstreamHttp2PingAfterMs",
        &[SETTING],
        "a silent HTTP/2 connection is asked for a sign of life",
    ),
    row(
        "runtimeTuning.upstreamHttp2PingTimeoutMs",
        &["upstream_reset"],
        "the connection is given up",
    ),
    row(
        "runtimeTuning.upstreamTcpKeepalive.idleMs",
        &[SETTING],
        "the kernel asks an idle peer for a sign of life",
    ),
    row(
        "runtimeTuning.upstreamTcpKeepalive.intervalMs",
        &[SETTING],
        "it asks again",
    ),
    row(
        "runtimeTuning.upstreamTcpKeepalive.userTimeoutMs",
        &[SETTING],
        "the kernel gives the connection up",
    ),
];

/// `docs/reference/limits.md`.
pub fn limits_page() -> String {
    let mut page = String::from(INTRODUCTION);
    for (title, rows) in SECTIONS {
        let _ = write!(page, "\n## {title}\n\n{TABLE_HEAD}");
        for row in *rows {
            // What a later version brings has no row yet.
            let Some(key) = ALL.iter().find(|key| key.name == row.key) else {
                continue;
            };
            let seen: Vec<_> = row.seen.iter().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(
                page,
                "| {} | `{}` | `{}` | {} | {} |",
                key.doc.trim_end_matches('.'),
                key.name,
                key.default,
                row.then,
                seen.join(", ")
            );
        }
    }
    page.push_str(FIXED);
    page
}

const INTRODUCTION: &str = "\
# Limits

<!-- Generated from dataplane/src/bootstrap/reference/limits.rs; `UPDATE_REFERENCE=1 cargo test -p dataplane` rewrites it. -->

Everything a peer can make grow or last has a limit.
Keys are those of the [bootstrap file](bootstrap.md), where ranges and the meaning of 0 stand.
The last column names outcomes (`reason` in the access log and in `http_outcomes_total`) and [metrics](metrics.md) without their common prefix.
What holds in a process is `nantian_gateway_dataplane_limit{key=\"…\"}`, for every key of this page.
";

const TABLE_HEAD: &str = "\
| Limit | Key | Default | When it is met | Seen as |
| --- | --- | --- | --- | --- |
";

const FIXED: &str = "
A level of memory holds for the whole process.
Memory is that of the control group (version 2 or 1), without page cache that the kernel can drop; the group nearest to its limit counts.
At the start the soft limit of open files is raised to the hard one.
An endpoint is left after `upstreamRetryableConnectionTimeoutMs` only when the attempt behind it is certain to be made elsewhere: there is another endpoint that is well and was not tried, `upstreamConnectionRetries` or the rule's `retry` allow one more, the breaker is closed, and time is left. The last attempt has all of `upstreamConnectionTimeoutMs` (or what route or cluster say), and so has a request that waits for a place among the connections of its cluster.
The admin API is on threads of its own and is refused for nothing but its own limits.

## Without a key

What follows is fixed, for the reason that stands beside it.

| Limit | Value | Why |
| --- | --- | --- |
| Line of a PROXY protocol header of version 1; addresses of one of version 2 | 107 and 216 bytes | the protocol has no longer ones |
| Name of a host | 253 bytes | DNS has no longer ones |
| Digits of the size of a chunk | 16 | 64 bits have no more |
| Method | 32 bytes | the longest registered one has 17 |
| TLS record; handshake message | 16 KiB; 64 KiB | RFC 8446 5.1; rustls |
| `tracestate` of a client | 512 bytes | W3C Trace Context asks for as many |
| `X-Request-Id` of a client | 128 bytes | a longer one is replaced; the head it stands in has a limit |
| Members, depth, tool calls, names and model of a request to an AI service, or of its answer | 1,024, 512, 1,024, 80 and 512 bytes | they say which bodies are understood; how large these are is `aiBodyBytes` and `aiEventBytes` |
| Names and texts in logs, traces, metrics and messages of errors | some hundred bytes to 4 KiB | cut, and nothing is refused |
| Streams that clients gave up and whose late frames are passed over, on one HTTP/2 connection to an endpoint | 1,024 for 10 s | only what they were called is kept |
| Time in which control frames, and early resets, are counted | 10 s, and 1 s | part of what their limits mean |
| Calls of a plugin at once, their head, their body and their longest time, its messages that wait, its shared data | 64, 64 KiB, 1 MiB, 60 s, 4 MiB, and 10,000 entries of 4 MiB | no client chooses them; whoever writes a plugin has memory and time to spend |
| Body of an answer that a plugin gives itself | 1 MiB | the same |
| Queues of a plugin, and entries and bytes of each | 16; 1,000 and 1 MiB | the same |
| Lines of a plugin's log, and their length | 100 a second for each instance, and 4 KiB | nobody reads more; what is left out is counted |
| Metrics of a plugin's own; properties that it sets for one request | 256; 64 of 16 KiB | the same as its shared data |
| Stack of a plugin; entries of its tables | 512 KiB; 100,000 | a worker's stack, and its memory, are for all its plugins; more is a trap |
| Fields, and bytes of them, that plugins may add to a head | 256, and 64 KiB | the head it came with has a limit of its own |
| Requests that one instance of a plugin serves at once | 10,000 for each worker | more than a worker has as a rule; a further one is counted in `plugin_failures_total` as `unavailable` and meets the failure policy |
| Requests that the admin API shows as they end | to 4 at once, for 30 s each | asked for by operators |
| Connections that the kernel has taken and no worker yet | 4,096 for each worker | `net.core.somaxconn` of the host, where that is less |
| Lookups of names of providers | 16 at once, 5 s each | their names come from the configuration, and a failure keeps the last addresses |
";
