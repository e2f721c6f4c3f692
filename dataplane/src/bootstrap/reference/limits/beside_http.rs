//! Rows of the page of limits for what is not of requests by HTTP.

use super::{ENDED, Row, SETTING, row};

const PLUGIN: &str = "plugin_failures_total";
const FETCHES: &str = "plugin_module_fetches_total";

pub(super) static STREAMS: &[Row] = &[
    row(
        "runtimeProtection.tcpGlobalConnectionLimit",
        &["overload", "tcp_overload_rejected_total"],
        "closed at once",
    ),
    row(
        "runtimeProtection.tcpListenerConnectionLimit",
        &["overload", "tcp_overload_rejected_total"],
        "closed at once",
    ),
    row(
        "runtimeProtection.tcpBackendConnectionLimit",
        &["backend_overload", "backend_connection_errors_total"],
        "connections wait for one, then are closed",
    ),
    row(
        "runtimeTuning.tcpLingerTimeoutMs",
        &["bad_client_hello", "unknown_server_name"],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.tcpLingerBytes",
        &["bad_client_hello", "unknown_server_name"],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.tcpSessionIdleTimeoutMs",
        &["idle_timeout"],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.tcpWriteTimeoutMs",
        &["client_aborted", "upstream_timeout"],
        "the connection is cut",
    ),
    row(
        "runtimeTuning.tcpMaxConnectionAgeMs",
        &["age_limit"],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.downstreamTcpKeepalive.idleMs",
        &[SETTING],
        "the kernel asks an idle client for a sign of life",
    ),
    row(
        "runtimeTuning.downstreamTcpKeepalive.intervalMs",
        &[SETTING],
        "it asks again",
    ),
    row(
        "runtimeTuning.downstreamTcpKeepalive.userTimeoutMs",
        &[SETTING],
        "the kernel gives the connection up",
    ),
];

const DROPPED: &str = "udp_datagrams_dropped_total";

pub(super) static PLUGINS: &[Row] = &[
    row(
        "wasm.memoryBytes",
        &["plugin_failed", PLUGIN],
        "`memory.grow` gives nothing; a plugin that cannot do with that traps",
    ),
    row(
        "wasm.memoryBytesMax",
        &["plugin_failed", PLUGIN],
        "a sandbox that asks for more gets this",
    ),
    row(
        "wasm.executionTimeMs",
        &["plugin_failed", PLUGIN],
        "the call and its instance end within 1 ms more; the request meets the failure policy",
    ),
    row(
        "wasm.executionTimeMaxMs",
        &["plugin_failed", PLUGIN],
        "a sandbox that asks for more gets this",
    ),
    row(
        "wasm.bodyBytes",
        &["body_too_large", PLUGIN],
        "413, or the body goes on without the plugin, by its failure policy",
    ),
    row(
        "wasm.pauseMs",
        &["plugin_failed", PLUGIN],
        "the request meets the failure policy",
    ),
    row(
        "wasm.callAnswerBytes",
        &[SETTING],
        "the plugin is told that the call has failed; by gRPC with status 8 (resource exhausted)",
    ),
    row(
        "wasm.callIdleTimeoutMs",
        &[SETTING],
        "the plugin is told that the call has failed, with status 4 (deadline exceeded)",
    ),
    row(
        "wasm.moduleBytesMax",
        &["plugin_failed", FETCHES, "plugin_module_lacking"],
        "the module is not taken; the plugin keeps the one before, or has none",
    ),
    row(
        "wasm.fetch.timeoutMs",
        &[FETCHES, "plugin_module_lacking"],
        "the update goes on without the module, which is tried again",
    ),
];

pub(super) static UDP: &[Row] = &[
    row(
        "runtimeProtection.udpGlobalSessionLimit",
        &["overload", DROPPED, "udp_overload_rejected_total"],
        "the most silent session ends of a client address that has more than an eighth; else the most silent one whose client was not heard again since it was answered; where there is none, the datagram is dropped",
    ),
    row(
        "runtimeProtection.udpListenerSessionLimit",
        &["overload", DROPPED, "udp_overload_rejected_total"],
        "the same",
    ),
    row(
        "runtimeProtection.udpListenerSessionsPerSecond",
        &[DROPPED],
        "datagrams of clients without a session are dropped",
    ),
    row(
        "runtimeProtection.udpSourceSessionsPerSecond",
        &[DROPPED],
        "datagrams of that source without a session are dropped",
    ),
    row(
        "runtimeProtection.udpGlobalDatagramLimit",
        &[DROPPED],
        "the datagram is dropped",
    ),
    row(
        "runtimeProtection.udpListenerDatagramLimit",
        &[DROPPED],
        "the datagram is dropped",
    ),
    row(
        "runtimeProtection.udpSourceDatagramLimit",
        &[DROPPED],
        "the datagram is dropped",
    ),
    row(
        "runtimeProtection.udpSourcesMax",
        &[SETTING],
        "the source that is closest to having nothing held against it is forgotten",
    ),
    row(
        "runtimeTuning.udpSessionIdleTimeoutMs",
        &["idle_timeout", "udp_session_idle_evictions_total"],
        "the session ends; the next datagram of its client begins another one",
    ),
    row(
        "runtimeTuning.udpDrainIdleTimeoutMs",
        &["idle_timeout"],
        "the session ends",
    ),
    row(
        "runtimeTuning.udpSessionQueueDatagrams",
        &[DROPPED, "udp_session_queue_overflow_dropped_total"],
        "the datagram is dropped",
    ),
    row(
        "runtimeTuning.udpQueueBytes",
        &[DROPPED, "udp_session_queue_overflow_dropped_total"],
        "the datagram is dropped",
    ),
    row(
        "runtimeTuning.udpReplyQueueDatagrams",
        &[DROPPED, "udp_session_queue_overflow_dropped_total"],
        "the datagram is dropped",
    ),
    row(
        "runtimeTuning.udpReplyQueueBytes",
        &[DROPPED, "udp_session_queue_overflow_dropped_total"],
        "the datagram is dropped",
    ),
];

pub(super) static END: &[Row] = &[
    row(
        "runtimeTuning.httpDrainIdleTimeoutMs",
        &[ENDED],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.drainMinAcceptMs",
        &[SETTING],
        "nobody is accepted any more",
    ),
    row(
        "runtimeTuning.gracefulDrainPeriodMs",
        &[SETTING],
        "what still runs is cut; the log tells how many connections, and the exit code is 1",
    ),
    row(
        "runtimeTuning.tunnelDrainTimeoutMs",
        &[ENDED],
        "the tunnel is cut",
    ),
];

pub(super) static ADMIN: &[Row] = &[
    row(
        "runtimeProtection.adminConnectionLimit",
        &[SETTING],
        "clients wait in the kernel",
    ),
    row(
        "runtimeProtection.adminLargeAnswerLimit",
        &["admin_requests_total"],
        "503",
    ),
    row(
        "runtimeProtection.adminMaxRequestHeaderBytes",
        &[SETTING],
        "431",
    ),
    row(
        "runtimeProtection.adminMaxRequestHeaderFields",
        &[SETTING],
        "431",
    ),
    row(
        "runtimeProtection.adminMaxRequestBodyBytes",
        &["admin_requests_total"],
        "413",
    ),
    row(
        "runtimeTuning.adminRequestTimeoutMs",
        &["admin_requests_total"],
        "408 for a body, else the connection is closed",
    ),
    row(
        "runtimeTuning.adminMaxConnectionAgeMs",
        &[SETTING],
        "the connection is closed behind its request",
    ),
    row(
        "runtimeTuning.adminAnswerTimeoutMs",
        &[SETTING],
        "the connection is closed",
    ),
    row(
        "runtimeTuning.adminDrainTimeoutMs",
        &[SETTING],
        "the connection is closed",
    ),
];
