//! THE table of bootstrap keys: name, type, default, environment, meaning.
//!
//! The only source of keys and defaults: `written.rs` accepts what stands here, `checked.rs` reads
//! values through these statics, and the reference page is generated from it. Where an operator was
//! told a default by the contract it is that one; limits have the product's own.

/// One key that has an effect.
#[derive(Debug)]
pub struct Key {
    /// Path in the file, with dots.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// Its value when nobody sets it, as it would be written.
    pub default: &'static str,
    /// Environment variables that win over the file, the first one set first.
    pub env: &'static [&'static str],
    /// What it does.
    pub doc: &'static str,
}

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A text that is never shown.
    Secret,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A share from 0 to 1.
    Share,
    /// An IP address (or `localhost`) and a port.
    Address,
    /// Blocks of IP addresses: a list, or one text with commas.
    Networks,
    /// Texts by name.
    Texts,
    /// A whole number.
    Number {
        /// What it counts.
        unit: Unit,
        /// Lowest value, 0 apart.
        min: u64,
        /// Highest value.
        max: u64,
        /// What 0 means.
        zero: Zero,
    },
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Thousandths of a second.
    Milliseconds,
    /// Octets.
    Bytes,
    /// Hundredths of what there is.
    Percent,
}

/// What 0 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// Nothing at all, as with every other number.
    Plain,
    /// No limit.
    Unlimited,
    /// The default.
    Default,
}

const fn number(unit: Unit, min: u64, max: u64, zero: Zero) -> Kind {
    Kind::Number {
        unit,
        min,
        max,
        zero,
    }
}

/// No wait is longer than 30 days.
const MS_MAX: u64 = 30 * 24 * 3600 * 1000;
const GIB: u64 = 1 << 30;

const WAIT: Kind = number(Unit::Milliseconds, 1, MS_MAX, Zero::Default);
const WAIT_OR_NONE: Kind = number(Unit::Milliseconds, 1, MS_MAX, Zero::Unlimited);
const LIMIT: Kind = number(Unit::Count, 1, 100_000_000, Zero::Unlimited);
const PERCENT: Kind = number(Unit::Percent, 1, 100, Zero::Default);
const FIELDS: Kind = number(Unit::Count, 1, 10_000, Zero::Default);
const FRAMES: Kind = number(Unit::Count, 1, 1_000_000, Zero::Default);
const HEAD_BYTES: Kind = number(Unit::Bytes, 1024, 16 << 20, Zero::Default);
const WINDOW_BYTES: Kind = number(Unit::Bytes, 65_535, (1 << 31) - 1, Zero::Default);

macro_rules! keys {
    ($( $id:ident $name:literal: $kind:expr, $default:literal $(env $($env:literal)+)?, $doc:literal; )+) => {
        $(
            pub(super) static $id: Key = Key {
                name: $name,
                kind: $kind,
                default: $default,
                env: &[$($($env),+)?],
                doc: $doc,
            };
        )+
        /// Every key that has an effect, in the order of the reference page.
        pub static ALL: &[&Key] = &[$( &$id ),+];
    };
}

keys! {
    NODE_ID "nodeId": Kind::Text, "" env "NANTIAN_GW_NODE_ID" "PGW_NODE_ID",
        "Identity towards the control plane, unique among data planes; the pod's name (`HOSTNAME`) when empty.";
    CLUSTER "cluster": Kind::Text, "default" env "NANTIAN_GW_CLUSTER",
        "Name of the group of data planes this one belongs to.";
    CONTROL_PLANE_ADDR "controlPlaneAddr": Kind::Text, "" env "NANTIAN_GW_CONTROL_PLANE_ADDR",
        "Where the control plane is, as `http://host:18080`; required.";
    ADMIN_ADDR "adminAddr": Kind::Address, "127.0.0.1:19080" env "NANTIAN_GW_ADMIN_ADDR",
        "Where the admin API listens; an address that is not loopback needs a token.";

    ZONE "zone": Kind::Text, "" env "NANTIAN_GW_ZONE",
        "Topology zone of this data plane, such as `eu-1a`, for clusters that prefer endpoints of their own zone; of the pod's label `topology.kubernetes.io/zone` by the downward API.";

    LOG_LEVEL "log.level": Kind::Text, "info", "Levels per module, as in `info,hyper=warn`.";
    LOG_FORMAT "log.format": Kind::Choice(&["json", "text"]), "json", "What a line looks like.";
    LOG_SOURCE "log.addSource": Kind::Flag, "false", "Adds file and line.";
    LOG_TARGET "log.includeTarget": Kind::Flag, "false", "Adds the module.";
    LOG_THREAD_IDS "log.includeThreadIds": Kind::Flag, "false", "Adds the thread's number.";
    LOG_THREAD_NAMES "log.includeThreadNames": Kind::Flag, "false", "Adds the thread's name.";
    LOG_NON_BLOCKING "log.nonBlocking": Kind::Flag, "true",
        "Lines are written by a thread of their own.";
    LOG_LINES "log.nonBlockingBufferedLines": number(Unit::Count, 1, 10_000_000, Zero::Default), "65536",
        "Lines that may wait for that thread.";
    LOG_DROP "log.dropWhenFull": Kind::Flag, "true",
        "A line that does not fit is lost and counted; otherwise its thread waits.";

    TRACES_ENABLED "log.openTelemetry.enabled": Kind::Flag, "false",
        "Sends traces to a collector by OTLP.";
    TRACES_ENDPOINT "log.openTelemetry.endpoint": Kind::Text, "",
        "Where the collector is, as `http://collector:4317` (HTTP: `http://collector:4318`); required with traces. `https://` is TLS, and so is no scheme at all unless `insecure` is set.";
    TRACES_INSECURE "log.openTelemetry.insecure": Kind::Flag, "false",
        "An `endpoint` without a scheme is spoken to without TLS.";
    TRACES_CA "log.openTelemetry.caPath": Kind::Text, "/etc/ssl/certs/ca-certificates.crt",
        "PEM authorities that may vouch for a collector with TLS; read at start, and only for one.";
    TRACES_PROTOCOL "log.openTelemetry.protocol": Kind::Choice(&["grpc", "http"]), "grpc",
        "How OTLP is carried.";
    TRACES_TIMEOUT "log.openTelemetry.timeoutMs": WAIT, "3000",
        "How long a batch may take; then it is lost and counted.";
    TRACES_RATIO "log.openTelemetry.sampleRatio": Kind::Share, "1.0",
        "Share of the traces that begin here which are recorded, unless the route's annotation `gateway.nantian.dev/tracing-sample-ratio` says otherwise.";
    TRACES_PARENT "log.openTelemetry.parentBased": Kind::Flag, "true",
        "What the sender of a request has decided about its trace holds here too; switch it off where clients cannot be trusted with that.";
    TRACES_FORMS "log.openTelemetry.propagators": Kind::Text, "w3c",
        "In which forms backends are told the trace, besides those in which it came: `w3c`, `b3`, `b3multi`, several with commas.";
    TRACES_QUEUE "log.openTelemetry.queueSpans": number(Unit::Count, 64, 1_000_000, Zero::Default), "4096",
        "Spans that may wait for the collector; further ones are lost and counted.";
    TRACES_NAME "log.openTelemetry.serviceName": Kind::Text, "nantian-dataplane",
        "`service.name` of what is sent.";
    TRACES_NAMESPACE "log.openTelemetry.serviceNamespace": Kind::Text, "",
        "`service.namespace` of what is sent; none when empty.";

    ADMIN_TOKEN "adminAuth.bearerToken": Kind::Secret, "",
        "What callers of the admin API must show; better kept in a file.";
    ADMIN_TOKEN_FILE "adminAuth.bearerTokenFile": Kind::Text, "",
        "File that holds the token, read at start; line ends around it do not count.";
    ADMIN_TLS_CERT "adminTls.certPath": Kind::Text, "", "PEM chain of the admin listener.";
    ADMIN_TLS_KEY "adminTls.keyPath": Kind::Text, "",
        "PEM key of the admin listener; with both the admin API speaks TLS.";

    ADMIN_READ_ONLY "adminReadOnly": Kind::Flag, "true",
        "The admin API changes nothing; `false` allows it to change the log level and to drain.";

    ACCESS_ENABLED "accessLog.enabled": Kind::Flag, "true", "Writes a line per request.";
    ACCESS_PATH "accessLog.path": Kind::Text, "/var/log/nantian-gw/access.log",
        "The file to append to, `stdout`, or `otlp` for the collector of `log.openTelemetry`.";
    ACCESS_MODE "accessLog.mode": Kind::Choice(&["json", "text"]), "json",
        "What a line looks like; `text` is by a format.";
    ACCESS_FORMAT "accessLog.format": Kind::Text, "",
        "Format of lines of text, with variables as `%STATUS%`; empty for that of the contract ([all variables](../operations/access-log.md)).";
    ACCESS_FORMATS "accessLog.formats": Kind::Texts, "",
        "Formats by name.";
    ACCESS_FORMAT_NAME "accessLog.formatName": Kind::Text, "",
        "Which of `formats` is used; empty for `format`.";
    ACCESS_ANNOTATIONS "accessLog.routeAnnotationPrefix": Kind::Text, "gateway.nantian.dev/access-log-",
        "With what the annotations begin by which routes say how they are logged.";
    ACCESS_FILE_BYTES "accessLog.maxFileBytes": number(Unit::Bytes, 4096, 1 << 40, Zero::Unlimited), "67108864",
        "Size at which the file is put aside as `access.log.1`; 0 leaves that to others, who send SIGHUP.";
    ACCESS_FILES "accessLog.maxFiles": number(Unit::Count, 1, 1000, Zero::Plain), "2",
        "Files put aside that are kept.";
    ACCESS_RATE "accessLog.sampleRate": Kind::Share, "0.5",
        "Share of lines that are written. Always written are those of requests that ended with 500 and above, by a fault of the backend or the gateway whatever their status, or with a gRPC code that is the backend's fault (2, 4, 12 to 15), and of connections and sessions that ended by a fault; a route may turn its lines off.";
    ACCESS_QUEUE "accessLog.queueBytes": number(Unit::Bytes, 65_536, GIB, Zero::Default), "8388608",
        "Bytes that may wait for the file; lines beyond that are lost and counted.";

    TLS_MIN "runtime.tlsMinVersion": Kind::Choice(&["1.2", "1.3"]), "1.2",
        "No listener speaks an older version of TLS, whatever its Gateway says.";
    TLS_MAX "runtime.tlsMaxVersion": Kind::Choice(&["1.2", "1.3"]), "1.3",
        "No listener speaks a newer version of TLS.";
    PROXY_PROTOCOL "runtime.proxyProtocol.enabled": Kind::Flag, "false",
        "Every connection must begin with a PROXY protocol header (v1 or v2), unless its Gateway says otherwise.";
    PROXY_SOURCES "runtime.proxyProtocol.trustedSources": Kind::Networks, "",
        "Who may bring such headers; connections of others are closed. Empty for everyone.";
    ESCAPED_SLASHES "runtime.paths.escapedSlashes": Kind::Choice(&["keep", "decode", "refuse", "redirect"]), "keep",
        "What happens to `%2F` and `%5C` in a path: they stay as they are and separate nothing, become slashes, are answered with 400, or the client is sent to the path with slashes. A Gateway may say otherwise, as with all keys of this section.";
    MERGE_SLASHES "runtime.paths.mergeSlashes": Kind::Flag, "true",
        "Slashes in a row count as one.";
    FORWARDED_FIELDS "runtime.forwarded.fields": Kind::Choice(&["none", "x-forwarded", "forwarded", "both"]), "x-forwarded",
        "By which fields backends are told whose request it is: `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`, `Forwarded`, both or none. Those not written are removed.";
    TRUSTED_HOPS "runtime.forwarded.trustedHops": number(Unit::Count, 1, 32, Zero::Plain), "0",
        "Proxies in front of this one whose word about the client is taken; 0 for nobody, or for any number of `trustedSources`.";
    TRUSTED_SOURCES "runtime.forwarded.trustedSources": Kind::Networks, "",
        "Where such proxies are; empty for everywhere, as far as `trustedHops` goes.";
    CLIENT_CERTIFICATE "runtime.forwarded.clientCertificate": Kind::Flag, "false",
        "Backends are told the client's verified certificate by `X-Forwarded-Client-Cert`; that of a client is always removed.";
    REQUEST_IDS "runtime.requestIds": Kind::Choice(&["off", "trusted", "any"]), "trusted",
        "Where `X-Request-Id` comes from: it passes as it is, it is taken from trusted proxies or else made, or it is taken from anyone.";

    WORKERS "runtimeTuning.httpCapacity.workerThreads": number(Unit::Count, 1, 1024, Zero::Plain), "0",
        "Threads that serve traffic; 0 for one per CPU this process may use.";
    POOL_SIZE "runtimeTuning.httpCapacity.upstreamKeepalivePoolSize":
        number(Unit::Count, 1, 1_000_000, Zero::Default), "32",
        "Idle connections kept per endpoint and worker.";
    FIRST_BYTE "runtimeTuning.downstreamFirstByteTimeoutMs": WAIT, "10000",
        "From an accepted connection to the first byte of a request.";
    TLS_HANDSHAKE "runtimeTuning.downstreamTlsHandshakeTimeoutMs": WAIT, "10000",
        "A whole TLS handshake with a client.";
    HEAD_TIMEOUT "runtimeTuning.downstreamHeaderTimeoutMs": WAIT, "10000",
        "From the first byte of a request head to its last, in total.";
    BODY_IDLE "runtimeTuning.downstreamReadTimeoutMs": WAIT, "30000",
        "Pause allowed while a client sends a request body.";
    WRITE_IDLE "runtimeTuning.downstreamWriteTimeoutMs": WAIT, "30000",
        "How long a client may refuse to take bytes.";
    KEEPALIVE_IDLE "runtimeTuning.httpKeepaliveIdleTimeoutMs": WAIT, "75000",
        "How long an HTTP/1.1 connection may wait for its next request.";
    KEEPALIVE_REQUESTS "runtimeTuning.httpKeepaliveRequestLimit": LIMIT, "1000",
        "Requests on one HTTP/1.1 connection before it is closed.";
    CONNECTION_AGE "runtimeTuning.httpMaxConnectionAgeMs": WAIT_OR_NONE, "3600000",
        "Age of a connection after which it is closed behind the running request.";
    DRAIN_IDLE "runtimeTuning.httpDrainIdleTimeoutMs": WAIT, "2000",
        "How long a connection that shall end may still bring a request that was on its way.";
    REQUEST_REST_BYTES "runtimeTuning.httpRequestRestBytes": number(Unit::Bytes, 1, GIB, Zero::Plain), "65536",
        "What is read and dropped of a request body behind an answer that came early, so that the connection can be kept.";
    REQUEST_REST_TIME "runtimeTuning.httpRequestRestTimeoutMs": WAIT, "1000",
        "How long that may take.";
    LINGER_TIME "runtimeTuning.downstreamLingerTimeoutMs": WAIT, "5000",
        "How long a client may go on sending behind our end of its connection; what it sends is dropped, so that the answer reaches it.";
    LINGER_SILENCE "runtimeTuning.downstreamLingerSilenceTimeoutMs": WAIT, "1000",
        "Pause allowed in that.";
    LINGER_BYTES "runtimeTuning.downstreamLingerBytes": number(Unit::Bytes, 1, GIB, Zero::Plain), "67108864",
        "How much of it is read.";
    HALF_CLOSED "runtimeTuning.downstreamHalfClosedTimeoutMs": WAIT, "2000",
        "How long a client of HTTP/1.1 that sends no more waits for an endpoint that is silent; it may have gone.";
    SHUTDOWN_TIME "runtimeTuning.downstreamShutdownTimeoutMs": WAIT, "1000",
        "How long a client may take our end of its connection, which the last bytes of an answer go before, and both sides of an upgraded one that is cut.";
    RATE_QUEUE_TIME "runtimeTuning.httpRateLimitQueueTimeoutMs": WAIT, "5000",
        "How long a request may wait at limits of rate whose policy lets requests wait; those that would wait longer are answered with 429.";
    H2_IDLE "runtimeTuning.http2IdleTimeoutMs": WAIT, "300000",
        "How long an HTTP/2 connection may stay without streams.";
    H2_STREAM_WINDOW "runtimeTuning.http2StreamWindowBytes": WINDOW_BYTES, "65536",
        "HTTP/2 receive window of a stream.";
    H2_CONNECTION_WINDOW "runtimeTuning.http2ConnectionWindowBytes": WINDOW_BYTES, "1048576",
        "HTTP/2 receive window of a connection.";
    CONNECT_TIMEOUT "runtimeTuning.upstreamConnectionTimeoutMs": WAIT, "5000",
        "Until a connection to an endpoint is up.";
    CONNECT_ELSEWHERE "runtimeTuning.upstreamRetryableConnectionTimeoutMs": WAIT_OR_NONE, "2000",
        "Until a connection to an endpoint is up, where another one would be tried next; never longer than the time that holds for all. 0 gives every attempt that time.";
    CONNECT_RETRIES "runtimeTuning.upstreamConnectionRetries": number(Unit::Count, 1, 100, Zero::Plain), "2",
        "Further endpoints tried when a connection cannot be made.";
    RETRY_PAUSE "runtimeTuning.upstreamRetryAfterMaxMs": WAIT, "5000",
        "The longest pause that a response may ask for (`Retry-After`) before the attempt that stands in for it; one that asks for more goes to the client.";
    DISCARD_BYTES "runtimeTuning.upstreamDiscardBytes": number(Unit::Bytes, 1, GIB, Zero::Plain), "65536",
        "What is read and dropped of a response that another attempt stands in for, so that its connection can be kept.";
    DISCARD_TIME "runtimeTuning.upstreamDiscardTimeoutMs": WAIT, "50",
        "How long that may take.";
    RESPONSE_START "runtimeTuning.upstreamReadTimeoutMs": WAIT, "60000",
        "From the end of a request to the head of its response, unless the route says otherwise.";
    STREAM_IDLE "runtimeTuning.upstreamStreamIdleTimeoutMs": WAIT, "300000",
        "Pause allowed within a response body.";
    TUNNEL_IDLE "runtimeTuning.tunnelIdleTimeoutMs": WAIT, "3600000",
        "Pause allowed in an upgraded connection (WebSocket).";
    TUNNEL_DRAIN "runtimeTuning.tunnelDrainTimeoutMs": WAIT, "30000",
        "How long an upgraded connection (WebSocket) goes on once its connection shall end; at most half of what `gracefulDrainPeriodMs` leaves behind `drainMinAcceptMs`.";
    RETRY_BUDGET "runtimeTuning.retryBudgetEnabled": Kind::Flag, "true",
        "Holds the retries that routes ask for to a share of the requests of their backend.";
    RETRY_RATIO "runtimeTuning.retryBudgetRatioPercent": number(Unit::Count, 1, 1000, Zero::Plain), "20",
        "Retries per hundred requests of a backend's routes with a retry policy.";
    RETRY_BURST "runtimeTuning.retryBudgetBurst": number(Unit::Count, 1, 1_000_000, Zero::Default), "16",
        "Retries of a backend beyond that share in any 10 s.";
    BODY_BUFFER "runtimeTuning.requestBodyBufferBytes": number(Unit::Bytes, 1, GIB, Zero::Plain), "65536",
        "How much of a request body is kept for another attempt, where a route has a retry policy; larger bodies are sent once.";
    HTTP_BUFFER "runtimeTuning.httpBufferBytes": number(Unit::Bytes, 16_384, 1 << 20, Zero::Default), "32768",
        "How much of a message is read or queued at once for one direction of a client; then its sender waits.";
    AI_BODY "runtimeTuning.aiBodyBytes": number(Unit::Bytes, 1024, GIB, Zero::Default), "33554432",
        "Largest request to an AI service, and largest answer of a provider that does not come in pieces; both are gathered.";
    AI_EVENT "runtimeTuning.aiEventBytes": number(Unit::Bytes, 1024, GIB, Zero::Default), "4194304",
        "Largest event of a provider's answer that comes in pieces; whole images and whole answers travel in single events.";
    AI_RETRY_PAUSE "runtimeTuning.aiRetryPauseMaxMs": WAIT, "10000",
        "The longest pause before the same provider is asked again; one that asks for more (`Retry-After`) is not.";
    AI_QUEUE_TIME "runtimeTuning.aiQueueTimeoutMs": WAIT, "10000",
        "How long a call may wait at a TokenPolicy with `onLimit: queue`; those that would wait longer are answered with 429.";
    AI_IGNORED "runtimeTuning.aiIgnoredMembers": number(Unit::Count, 1, 32, Zero::Plain), "32",
        "Members of a request that its provider cannot be given and whose names the answer tells (`x-nantian-ignored-members`), each cut to 80 bytes; 0 for none.";
    UPSTREAM_IDLE "runtimeTuning.upstreamIdleTimeoutMs": WAIT, "55000",
        "How long an idle connection to an endpoint is kept; below the endpoint's own limit.";
    AUTHORIZATION_TIMEOUT "runtimeTuning.externalAuthTimeoutMs": WAIT, "5000",
        "How long an authorization service (ExternalAuth) may take in all; then the request is answered with 503.";
    AUTHORIZATION_BYTES "runtimeTuning.externalAuthAnswerBytes": number(Unit::Bytes, 1024, 64 << 20, Zero::Default), "262144",
        "What is read of the answer of an authorization service, its head apart; a larger refusal, or a larger answer by gRPC, is none, and the request is answered with 503.";
    MIRRORS "runtimeTuning.requestMirrorMaxConcurrency": number(Unit::Count, 1, 1_000_000, Zero::Default), "1024",
        "Requests copied to mirrors at once; further ones are not copied, and counted.";
    MIRROR_TIMEOUT "runtimeTuning.requestMirrorTimeoutMs": WAIT, "30000",
        "How long a mirror may take to accept a connection, take bytes or answer; then its copy is dropped.";
    MIRROR_BUFFER "runtimeTuning.requestMirrorBufferBytes": number(Unit::Bytes, 16_384, GIB, Zero::Default), "262144",
        "How far a mirror may fall behind within a request body; then its copy is dropped.";
    MIRROR_ANSWER "runtimeTuning.requestMirrorAnswerBytes": number(Unit::Bytes, 1, GIB, Zero::Plain), "1048576",
        "What is read and dropped of a mirror's answer, so that its connection can be kept.";
    UPSTREAM_H2_PING "runtimeTuning.upstreamHttp2PingAfterMs": WAIT, "15000",
        "How long an endpoint may be silent on an HTTP/2 connection with running requests before it is asked for a sign of life.";
    UPSTREAM_H2_PONG "runtimeTuning.upstreamHttp2PingTimeoutMs": WAIT, "10000",
        "How long that sign of life may take before the connection is given up.";
    UPSTREAM_H2_WINDOW "runtimeTuning.upstreamHttp2StreamWindowBytes": WINDOW_BYTES, "131072",
        "HTTP/2 receive window of a stream to an endpoint: what is held of a response for a client that takes nothing. That of the connection has room for all its streams.";
    DRAIN_TOTAL "runtimeTuning.gracefulDrainPeriodMs": WAIT, "60000",
        "From the signal to stop until running requests are cut; below the pod's grace period.";
    DRAIN_ACCEPT "runtimeTuning.drainMinAcceptMs": number(Unit::Milliseconds, 1, MS_MAX, Zero::Plain), "10000",
        "How long connections are still accepted once readiness is off; at most half of `gracefulDrainPeriodMs` when not set.";

    TCP_BUFFER "runtimeTuning.tcpProxyBufferBytes": number(Unit::Bytes, 1024, 1 << 20, Zero::Default), "16384",
        "Bytes of a TCP or TLS connection read at once per direction, up to four times as many while they flow; an idle connection holds none.";
    TCP_LINGER "runtimeTuning.tcpLingerTimeoutMs": WAIT, "1000",
        "How long a client of TLS passthrough that was refused may go on sending, so that the alert reaches it.";
    TCP_LINGER_BYTES "runtimeTuning.tcpLingerBytes": number(Unit::Bytes, 1, GIB, Zero::Plain), "65536",
        "How much of it is read.";
    TCP_IDLE "runtimeTuning.tcpSessionIdleTimeoutMs": WAIT_OR_NONE, "3600000",
        "How long such a connection may carry nothing in either direction.";
    TCP_WRITE_IDLE "runtimeTuning.tcpWriteTimeoutMs": WAIT_OR_NONE, "30000",
        "How long either side of such a connection may take none of the bytes that wait for it; 0 for as long as nothing else ends it. Longer for clients that pause on purpose, such as slow readers of large results.";
    TCP_AGE "runtimeTuning.tcpMaxConnectionAgeMs": WAIT_OR_NONE, "0",
        "Age at which such a connection is ended.";
    UDP_IDLE "runtimeTuning.udpSessionIdleTimeoutMs": WAIT, "60000",
        "How long neither side of a UDP session may send anything before it ends.";
    UDP_DRAIN_IDLE "runtimeTuning.udpDrainIdleTimeoutMs": WAIT, "2000",
        "The same once its listener is gone or the process is to stop, where that is shorter.";
    UDP_QUEUE "runtimeTuning.udpSessionQueueDatagrams": number(Unit::Count, 1, 65_536, Zero::Default), "64",
        "Datagrams of one UDP session that may wait for the kernel to take them; further ones are dropped.";
    UDP_QUEUE_BYTES "runtimeTuning.udpQueueBytes": number(Unit::Bytes, 1, GIB, Zero::Default), "4194304",
        "Bytes of all sessions of one listener and worker that may wait for the kernel to take them; further datagrams are dropped.";
    UDP_REPLIES "runtimeTuning.udpReplyQueueDatagrams": number(Unit::Count, 1, 1_000_000, Zero::Default), "1024",
        "Datagrams to clients of one listener and worker that may wait for the kernel to take them; further ones are dropped.";
    UDP_REPLY_BYTES "runtimeTuning.udpReplyQueueBytes": number(Unit::Bytes, 1, GIB, Zero::Default), "1048576",
        "Their bytes; one datagram always has room.";
    UDP_RECEIVE_BUFFER "runtimeTuning.udpReceiveBufferBytes": number(Unit::Bytes, 4096, GIB, Zero::Default), "4194304",
        "What the kernel is asked to keep for each worker of a UDP listener; it may allow less (`net.core.rmem_max`).";
    UPSTREAM_KEEPALIVE "runtimeTuning.upstreamTcpKeepalive.enabled": Kind::Flag, "true",
        "The kernel probes idle connections of TCP and TLS routes to endpoints.";
    UPSTREAM_KEEPALIVE_IDLE "runtimeTuning.upstreamTcpKeepalive.idleMs": WAIT, "60000",
        "Silence before the first probe.";
    UPSTREAM_KEEPALIVE_INTERVAL "runtimeTuning.upstreamTcpKeepalive.intervalMs": WAIT, "15000",
        "Pause between probes.";
    UPSTREAM_KEEPALIVE_PROBES "runtimeTuning.upstreamTcpKeepalive.probeCount":
        number(Unit::Count, 1, 100, Zero::Default), "4",
        "Probes without an answer after which a connection is broken.";
    UPSTREAM_USER_TIMEOUT "runtimeTuning.upstreamTcpKeepalive.userTimeoutMs": WAIT_OR_NONE, "0",
        "How long sent bytes may stay without acknowledgement; 0 leaves it to the kernel.";
    DOWNSTREAM_KEEPALIVE "runtimeTuning.downstreamTcpKeepalive.enabled": Kind::Flag, "false",
        "The kernel probes idle connections of clients of TCP and TLS routes.";
    DOWNSTREAM_KEEPALIVE_IDLE "runtimeTuning.downstreamTcpKeepalive.idleMs": WAIT, "60000",
        "Silence before the first probe.";
    DOWNSTREAM_KEEPALIVE_INTERVAL "runtimeTuning.downstreamTcpKeepalive.intervalMs": WAIT, "15000",
        "Pause between probes.";
    DOWNSTREAM_KEEPALIVE_PROBES "runtimeTuning.downstreamTcpKeepalive.probeCount":
        number(Unit::Count, 1, 100, Zero::Default), "4",
        "Probes without an answer after which a connection is broken.";
    DOWNSTREAM_USER_TIMEOUT "runtimeTuning.downstreamTcpKeepalive.userTimeoutMs": WAIT_OR_NONE, "0",
        "How long sent bytes may stay without acknowledgement; 0 leaves it to the kernel.";

    HEALTH_ALL "runtimeTuning.activeHealthCheckEnabled": Kind::Flag, "false",
        "Endpoints of every backend without checks of its own are asked for a TCP connection.";
    HEALTH_INTERVAL "runtimeTuning.activeHealthCheckIntervalMs": WAIT, "5000",
        "Between two health checks of one endpoint, a tenth more or less, unless the policy says otherwise.";
    HEALTH_TIMEOUT "runtimeTuning.activeHealthCheckTimeoutMs": WAIT, "1000",
        "How long a health check may take, unless the policy says otherwise.";
    HEALTH_UNHEALTHY "runtimeTuning.activeHealthCheckUnhealthyThreshold":
        number(Unit::Count, 1, 1000, Zero::Default), "2",
        "Health checks in a row that must fail before an endpoint is left out, unless the policy says otherwise.";
    HEALTH_HEALTHY "runtimeTuning.activeHealthCheckHealthyThreshold":
        number(Unit::Count, 1, 1000, Zero::Default), "2",
        "Health checks in a row that must pass before it is used again, unless the policy says otherwise.";

    ADMIN_REQUEST_TIME "runtimeTuning.adminRequestTimeoutMs": WAIT, "5000",
        "A TLS handshake, a whole request head and a whole request body of the admin API, each; also how long a connection may wait for its next request.";
    ADMIN_AGE "runtimeTuning.adminMaxConnectionAgeMs": WAIT, "60000",
        "Age of a connection of the admin API after which it is closed behind the running request.";
    ADMIN_AGE_GRACE "runtimeTuning.adminAnswerTimeoutMs": WAIT, "30000",
        "How long that request may go on.";
    ADMIN_DRAIN "runtimeTuning.adminDrainTimeoutMs": WAIT, "1000",
        "How long running requests of the admin API may go on once the process ends.";

    STREAMS_MAX "runtimeProtection.tcpGlobalConnectionLimit": LIMIT, "0",
        "Connections of TCP and TLS routes of the whole process, within `httpGlobalConnectionLimit`, which counts all; further ones are closed.";
    LISTENER_STREAMS_MAX "runtimeProtection.tcpListenerConnectionLimit": LIMIT, "10000",
        "Connections of one such listener's socket; further ones are closed.";
    BACKEND_STREAMS_MAX "runtimeProtection.tcpBackendConnectionLimit": LIMIT, "10000",
        "Connections of TCP and TLS routes that one backend has at once, unless its policy says otherwise; further ones wait for one until the connect timeout, and then are closed.";
    UDP_SESSIONS_MAX "runtimeProtection.udpGlobalSessionLimit": LIMIT, "16384",
        "UDP sessions of the whole process, within `httpGlobalConnectionLimit`; where the limit of open files allows fewer connections, at most half of those. Beyond it a session gives way whose client was not heard again since it was answered; when there is none, new sessions are refused.";
    LISTENER_UDP_SESSIONS_MAX "runtimeProtection.udpListenerSessionLimit": LIMIT, "8192",
        "UDP sessions of one listener's address, with the same consequence. What one client address (IPv6: one /64) has beyond an eighth gives way to others first.";
    LISTENER_UDP_SESSION_RATE "runtimeProtection.udpListenerSessionsPerSecond": LIMIT, "10000",
        "UDP sessions that one listener's address begins in a second; further datagrams of new clients are dropped.";
    SOURCE_UDP_SESSION_RATE "runtimeProtection.udpSourceSessionsPerSecond": LIMIT, "0",
        "UDP sessions that one client address (IPv6: one /64) begins in a second; further ones are dropped.";
    DATAGRAM_RATE "runtimeProtection.udpGlobalDatagramLimit": LIMIT, "0",
        "Datagrams taken from clients in a second, all together; further ones are dropped.";
    LISTENER_DATAGRAM_RATE "runtimeProtection.udpListenerDatagramLimit": LIMIT, "0",
        "Datagrams that one UDP listener's address takes in a second; further ones are dropped.";
    SOURCE_DATAGRAM_RATE "runtimeProtection.udpSourceDatagramLimit": LIMIT, "0",
        "Datagrams taken from one client address (IPv6: one /64) in a second; further ones are dropped.";
    UDP_SOURCES "runtimeProtection.udpSourcesMax": number(Unit::Count, 64, 1 << 26, Zero::Default), "65536",
        "Client addresses (IPv6: /64s) that each rate of one source tells apart at once, 16 bytes each; the one that is closest to having nothing held against it makes room for a new one.";
    CONNECTIONS_MAX "runtimeProtection.httpGlobalConnectionLimit": LIMIT, "50000",
        "Connections of the whole process; further ones are closed. Where the limit of open files allows fewer, that counts, and clients wait.";
    LISTENER_CONNECTIONS_MAX "runtimeProtection.httpListenerConnectionLimit": LIMIT, "10000",
        "Connections of one listener's socket; further ones are closed.";
    CLIENT_CONNECTIONS_MAX "runtimeProtection.httpClientConnectionLimit": LIMIT, "0",
        "Connections of one client address (IPv6: of one /64); further ones are closed.";
    INFLIGHT_GLOBAL "runtimeProtection.httpGlobalInflightLimit": LIMIT, "0",
        "Requests of the whole process at once; more are answered with 503.";
    INFLIGHT_LISTENER "runtimeProtection.httpListenerInflightLimit": LIMIT, "0",
        "Requests of one listener at once; more are answered with 503.";
    INFLIGHT_ROUTE "runtimeProtection.httpRouteInflightLimit": LIMIT, "0",
        "Requests of one route at once; more are answered with 503.";
    BACKEND_REQUESTS "runtimeProtection.httpBackendCircuitBreakerMaxRequests": LIMIT, "1024",
        "Requests to one backend at once, unless its policy says otherwise; more are answered with 503.";
    BACKEND_CONNECTIONS "runtimeProtection.httpBackendMaxConnections": LIMIT, "1024",
        "Connections to one backend at once, unless its policy says otherwise; requests wait for one until the connect timeout, then 503.";
    BACKEND_PENDING "runtimeProtection.httpBackendMaxPendingRequests": LIMIT, "1024",
        "Requests to one backend that have no connection yet, unless its policy says otherwise; more are answered with 503.";
    RATE_GLOBAL "runtimeProtection.httpGlobalRateLimitRequestsPerSecond": LIMIT, "0",
        "Requests of the whole process in a second; more are answered with 429.";
    RATE_GLOBAL_BURST "runtimeProtection.httpGlobalRateLimitBurst": LIMIT, "0",
        "How many of them may come at once; 0 for as many as in a second.";
    RATE_LISTENER "runtimeProtection.httpListenerRateLimitRequestsPerSecond": LIMIT, "0",
        "Requests of each listener in a second; more are answered with 429.";
    RATE_LISTENER_BURST "runtimeProtection.httpListenerRateLimitBurst": LIMIT, "0",
        "How many of them may come at once; 0 for as many as in a second.";
    RATE_ROUTE "runtimeProtection.httpRouteRateLimitRequestsPerSecond": LIMIT, "0",
        "Requests of each route in a second; more are answered with 429.";
    RATE_ROUTE_BURST "runtimeProtection.httpRouteRateLimitBurst": LIMIT, "0",
        "How many of them may come at once; 0 for as many as in a second.";
    RATE_QUEUE "runtimeProtection.httpRateLimitQueueLimit": number(Unit::Count, 1, 1_000_000, Zero::Default), "1024",
        "Requests that wait at one limit of rate whose policy lets requests wait; more are answered with 429.";
    RATE_KEYS "runtimeProtection.httpRateLimitKeysMax":
        number(Unit::Count, 64, 1 << 26, Zero::Default), "262144",
        "Clients that limits of rate tell apart at once, all limits together, 16 bytes each; the one that is closest to having nothing held against it makes room for a new one.";
    MEMORY_ENABLED "runtimeProtection.memoryShedding": Kind::Flag, "true",
        "Watches memory and sheds load before it runs out.";
    MEMORY_LIMIT "runtimeProtection.memoryLimitBytes": number(Unit::Bytes, 1 << 20, 1 << 50, Zero::Plain), "0",
        "What the memory of the process is compared with; 0 for the limit of its control group.";
    MEMORY_SAVING "runtimeProtection.memorySavingPercent": PERCENT, "85",
        "Share of memory in use from which on connections are not kept and the largest are ended.";
    MEMORY_SHEDDING "runtimeProtection.memorySheddingPercent": PERCENT, "92",
        "Share of memory in use from which on new requests are answered with 503.";
    MEMORY_CLOSED "runtimeProtection.memoryClosedPercent": PERCENT, "95",
        "Share of memory in use from which on no connection is accepted.";
    MEMORY_SLACK "runtimeProtection.memorySlackPercent": number(Unit::Percent, 1, 50, Zero::Default), "3",
        "How far memory in use must fall below where a level began for it to end.";
    MEMORY_INTERVAL "runtimeProtection.memoryIntervalMs": number(Unit::Milliseconds, 10, 60_000, Zero::Default), "100",
        "How often memory and descriptors in use are measured.";
    LARGE_HEADS "runtimeProtection.httpLargeHeadMemoryPercent": PERCENT, "12",
        "Share of memory for request heads on HTTP/1.1 over 4 KiB that are not complete, as if each were the largest; further ones are answered with 503, as all are while new requests are.";
    RETRY_AFTER "runtimeProtection.overloadRetryAfterMs": WAIT, "1000",
        "When clients are told to come again that an overload turned away (`Retry-After`), in whole seconds.";
    DESCRIPTORS_KEPT "runtimeProtection.descriptorReserve": number(Unit::Count, 8, 100_000, Zero::Default), "32",
        "Of the limit of open files, what is kept for the control plane, the admin API, logs and listeners that open later.";
    DESCRIPTORS_CLIENTS "runtimeProtection.descriptorClientPercent": number(Unit::Percent, 1, 99, Zero::Default), "60",
        "Of what is left of it, the share for connections of clients; the rest is for those to backends.";
    BODY_BYTES "runtimeProtection.httpMaxRequestBodyBytes":
        number(Unit::Bytes, 1, 1 << 50, Zero::Unlimited), "10485760",
        "Largest request body; larger ones are answered with 413.";
    HEAD_BYTES_MAX "runtimeProtection.httpMaxRequestHeaderBytes": HEAD_BYTES, "65536",
        "Largest request head; larger ones are answered with 431.";
    HEAD_FIELDS "runtimeProtection.httpMaxRequestHeaderFields": FIELDS, "128",
        "Fields of a request head; more are answered with 431.";
    TARGET_BYTES "runtimeProtection.httpMaxRequestTargetBytes": HEAD_BYTES, "16384",
        "Longest request target; longer ones are answered with 414.";
    RESPONSE_HEAD_BYTES "runtimeProtection.httpMaxResponseHeaderBytes": HEAD_BYTES, "65536",
        "Largest response head of an endpoint; larger ones are answered with 502.";
    RESPONSE_FIELDS "runtimeProtection.httpMaxResponseHeaderFields": FIELDS, "200",
        "Fields of an endpoint's response head; more are answered with 502.";
    CHUNK_EXTENSIONS "runtimeProtection.httpMaxChunkExtensionBytes":
        number(Unit::Bytes, 1, 1 << 20, Zero::Default), "4096",
        "Bytes of chunk extensions in one message; a request with more is answered with 400, a response with more is cut.";
    INTERIM_RESPONSES "runtimeProtection.httpMaxInterimResponses": FIELDS, "32",
        "Interim responses (1xx) of an endpoint to one request; more are answered with 502.";
    H2_STREAMS "runtimeProtection.http2MaxConcurrentStreams":
        number(Unit::Count, 1, 10_000, Zero::Default), "100",
        "Streams a client may have open at once on one HTTP/2 connection.";
    H2_PENDING_RESETS "runtimeProtection.http2MaxPendingResetStreams": FRAMES, "100",
        "Streams of one HTTP/2 connection that a client may reset before they were looked at; more end the connection.";
    H2_EARLY_RESETS "runtimeProtection.http2MaxEarlyResetStreams": FRAMES, "500",
        "Streams of one HTTP/2 connection that a client may give up within a second (when they are half of all), or make the gateway reset; more end the connection.";
    H2_CONTROL_FRAMES "runtimeProtection.http2MaxControlFrames": FRAMES, "1000",
        "PING, SETTINGS, RST_STREAM and unknown frames on one HTTP/2 connection within 10 s, besides one per HEADERS frame and per DATA frame sent; more end the connection.";
    H2_PRIORITY_FRAMES "runtimeProtection.http2MaxPriorityFramesPerStream": FRAMES, "100",
        "PRIORITY frames of a client per stream; more end the connection.";
    H2_WINDOW_UPDATES "runtimeProtection.http2MaxWindowUpdateFramesPerDataFrame": FRAMES, "10",
        "WINDOW_UPDATE frames of a client per stream and per DATA frame sent; more end the connection.";
    H2_EMPTY_FRAMES "runtimeProtection.http2MaxConsecutiveEmptyFrames":
        number(Unit::Count, 1, 100, Zero::Default), "20",
        "DATA and CONTINUATION frames in a row in which a client sends nothing, or only padding; more end the connection.";
    H2_EMPTY_DATA "runtimeProtection.http2MaxEmptyDataFrames":
        number(Unit::Count, 1, 100, Zero::Default), "100",
        "Such DATA frames in the whole life of a connection; more end it.";
    HELLO_BYTES "runtimeProtection.tlsMaxClientHelloBytes": number(Unit::Bytes, 1024, 49_152, Zero::Default), "32768",
        "Largest ClientHello on sockets where TLS is passed through, record headers included; it must fit into what the kernel takes unread.";
    PROXY_TLVS "runtimeProtection.proxyProtocolMaxTlvBytes": number(Unit::Bytes, 1, 65_319, Zero::Default), "4096",
        "Extensions (TLVs) of a PROXY protocol header of version 2; connections with more are closed.";
    ADMIN_CONNECTIONS "runtimeProtection.adminConnectionLimit": number(Unit::Count, 1, 10_000, Zero::Default), "64",
        "Connections of the admin API at once; further ones wait.";
    ADMIN_LARGE_ANSWERS "runtimeProtection.adminLargeAnswerLimit": number(Unit::Count, 1, 256, Zero::Default), "8",
        "Answers of the admin API that grow with the configuration, at once, because each holds a thread; further ones are answered with 503.";
    ADMIN_HEAD_BYTES "runtimeProtection.adminMaxRequestHeaderBytes": number(Unit::Bytes, 8192, 1 << 20, Zero::Default), "16384",
        "Largest request head of the admin API; larger ones are answered with 431.";
    ADMIN_FIELDS "runtimeProtection.adminMaxRequestHeaderFields": number(Unit::Count, 1, 1000, Zero::Default), "64",
        "Fields of a request head of the admin API; more are answered with 431.";
    ADMIN_BODY_BYTES "runtimeProtection.adminMaxRequestBodyBytes": number(Unit::Bytes, 16, 1 << 20, Zero::Default), "4096",
        "Largest request body of the admin API; larger ones are answered with 413.";
    UPSTREAM_H2_STREAMS "runtimeProtection.upstreamHttp2MaxConcurrentStreams":
        number(Unit::Count, 1, 10_000, Zero::Default), "100",
        "Requests at once on one HTTP/2 connection to an endpoint, if it takes as many; for more there is another connection.";

    SESSION_SECRET "sessionPersistence.secretKey": Kind::Secret, "",
        "Secret of 16 characters or more under which persistent sessions are sealed, the same for all replicas; better kept in a file. Without one each process makes its own, and a session ends with it.";
    SESSION_SECRET_FILE "sessionPersistence.secretKeyFile": Kind::Text, "",
        "File that holds the secret, looked at every 10 s; line ends around it do not count. A new secret opens sessions at once.";
    SESSION_SEALS_AFTER "sessionPersistence.secretSealsAfterMs":
        number(Unit::Milliseconds, 0, MS_MAX, Zero::Plain), "120000",
        "How long a new secret of the file is known before sessions are sealed under it; by then all replicas must have read it.";
    SESSION_FORMER "sessionPersistence.formerSecretMs":
        number(Unit::Milliseconds, 0, MS_MAX, Zero::Plain), "86400000",
        "How long a secret that was replaced still opens sessions; clients that come back meanwhile get a value of the new one.";

    LAST_GOOD "lastGoodCache.enabled": Kind::Flag, "false",
        "Keeps the last good configuration on disk, without secrets, and serves it after a restart until the control plane sends one.";
    LAST_GOOD_PATH "lastGoodCache.path": Kind::Text, "/var/lib/nantian-gw/last-good",
        "The file; its folder must be there and writable, as an emptyDir or a volume is.";

    PLUGIN_INSIDE "wasm.fetch.allowPrivateAddresses": Kind::Flag, "false",
        "Lets WasmPlugins name modules at private, link-local and loopback addresses, by URL or in a registry; else a tenant could have the data plane ask services inside.";
    PLUGIN_AUTHORITIES "wasm.fetch.caPath": Kind::Text, "",
        "PEM authorities that may vouch for servers of modules, beside the system's; read at the start.";

    PLUGIN_FETCH "wasm.fetch.timeoutMs": WAIT, "30000",
        "How long fetching a module may take, attempts and redirects included; an update that names a new one waits for it.";
    PLUGIN_RETRY "wasm.fetch.retryMs": WAIT, "5000",
        "How long after a module could not be fetched it is tried again; doubled with each further time, up to five minutes.";
    PLUGIN_MODULE "wasm.moduleBytesMax": number(Unit::Bytes, 1024, 50 << 20, Zero::Default), "52428800",
        "Largest module of a plugin; larger ones are not taken.";
    PLUGIN_MEMORY "wasm.memoryBytes": number(Unit::Bytes, 65_536, 4 * GIB, Zero::Default), "67108864",
        "Memory of one instance of a plugin whose sandbox says nothing; more is not given to it.";
    PLUGIN_MEMORY_MAX "wasm.memoryBytesMax": number(Unit::Bytes, 65_536, 4 * GIB, Zero::Default), "536870912",
        "The most memory that the sandbox of a plugin can ask for.";
    PLUGIN_TIME "wasm.executionTimeMs": number(Unit::Milliseconds, 1, 60_000, Zero::Default), "100",
        "Time of one call of a plugin whose sandbox says nothing; then it is stopped.";
    PLUGIN_TIME_MAX "wasm.executionTimeMaxMs": number(Unit::Milliseconds, 1, 60_000, Zero::Default), "10000",
        "The longest time of a call that the sandbox of a plugin can ask for; other requests of the worker wait meanwhile.";
    PLUGIN_BODY "wasm.bodyBytes": number(Unit::Bytes, 1024, GIB, Zero::Default), "1048576",
        "How much of one body is gathered for a plugin that holds it back.";
    PLUGIN_PAUSE "wasm.pauseMs": WAIT, "30000",
        "How long a plugin may hold a request or a response back.";
    PLUGIN_ANSWER "wasm.callAnswerBytes": number(Unit::Bytes, 1024, GIB, Zero::Default), "1048576",
        "Largest body of an answer to a call that a plugin makes, and largest message of one by gRPC.";
    PLUGIN_CALL_IDLE "wasm.callIdleTimeoutMs": WAIT, "300000",
        "How long the other side of a plugin's gRPC call may take nothing, or give no head once all was sent; a call may have a shorter time of its own.";

    XDS_TLS "xdsTls.enabled": Kind::Flag, "true", "TLS towards the control plane; needs `xdsTls.caPath`.";
    XDS_CA "xdsTls.caPath": Kind::Text, "",
        "PEM authorities that may vouch for the control plane; read again at each dial.";
    XDS_CERT "xdsTls.certPath": Kind::Text, "", "PEM chain this data plane shows to the control plane.";
    XDS_KEY "xdsTls.keyPath": Kind::Text, "", "PEM key that belongs to it.";
    XDS_DOMAIN "xdsTls.domainName": Kind::Text, "",
        "Name the control plane's certificate must carry; the host of `controlPlaneAddr` when empty.";

    XDS_CONNECT "xdsTransport.connectTimeoutMs": WAIT, "5000",
        "A dial with its TLS handshake; also each health check and each report.";
    XDS_KEEPALIVE "xdsTransport.keepaliveIntervalMs": WAIT, "20000",
        "How often an open stream is pinged; never more often than every 20 s, because a control plane ends connections below 15 s.";
    XDS_KEEPALIVE_TIMEOUT "xdsTransport.keepaliveTimeoutMs": WAIT, "5000",
        "How long the answer to a ping may take.";
    XDS_BACKOFF "xdsTransport.initialReconnectBackoffMs": WAIT, "2000",
        "The longest first pause between two dials, and twice the longest at all while nobody listens at the address.";
    XDS_BACKOFF_MAX "xdsTransport.maxReconnectBackoffMs": WAIT, "30000",
        "The longest pause between two dials of a control plane that listens and fails.";
    XDS_STALE "xdsTransport.staleStreamTimeoutMs": WAIT, "30000",
        "How long a stream may be silent before it is given up.";
    XDS_FRESHNESS "xdsTransport.snapshotFreshnessTimeoutMs": WAIT, "90000",
        "How long the control plane may be silent before the configuration is called stale.";
    XDS_HEALTH "xdsTransport.healthCheckIntervalMs": WAIT, "5000",
        "How often the health of the control plane is asked for.";
    XDS_REPORT "xdsTransport.statusReportIntervalMs": WAIT, "10000",
        "How often a status report is sent.";
    XDS_MESSAGE "xdsTransport.maxMessageBytes": number(Unit::Bytes, 1 << 20, GIB, Zero::Default), "100663296",
        "The largest message taken from the control plane, after decompression.";
}

/// Idle time, interval, count and the limit for sent bytes.
pub(super) static UPSTREAM_KEEPALIVE_PARTS: [&Key; 4] = [
    &UPSTREAM_KEEPALIVE_IDLE,
    &UPSTREAM_KEEPALIVE_INTERVAL,
    &UPSTREAM_KEEPALIVE_PROBES,
    &UPSTREAM_USER_TIMEOUT,
];
/// The same.
pub(super) static DOWNSTREAM_KEEPALIVE_PARTS: [&Key; 4] = [
    &DOWNSTREAM_KEEPALIVE_IDLE,
    &DOWNSTREAM_KEEPALIVE_INTERVAL,
    &DOWNSTREAM_KEEPALIVE_PROBES,
    &DOWNSTREAM_USER_TIMEOUT,
];

/// Other spellings of sections and keys, and what they stand for.
pub static ALIASES: &[(&str, &str)] = &[
    ("access", "accessLog"),
    ("tracing", "log.openTelemetry"),
    ("adminTLS", "adminTls"),
    ("xdsTransport.caCertPath", "xdsTls.caPath"),
    ("xdsTransport.clientCertPath", "xdsTls.certPath"),
    ("xdsTransport.clientKeyPath", "xdsTls.keyPath"),
];

/// Keys of the contract that this version knows and does not use; their values are not looked at.
pub static WITHOUT_EFFECT: &[&str] = &[
    "runtime.httpListenAddr",
    "runtime.enableIpv6",
    "runtime.enableHttp3",
    "runtime.tlsAssetDir",
    "runtimeTuning.httpReloadRetryIntervalMs",
    "runtimeTuning.streamReloadRetryIntervalMs",
    "runtimeTuning.httpCapacity.acceptConcurrency",
    "runtimeTuning.httpCapacity.reusePort",
    "runtimeTuning.udpResponseIdleTimeoutMs",
    "runtimeTuning.streamUpstreamPoolSize",
    "runtimeTuning.streamUpstreamPoolIdleTimeoutMs",
    "runtimeTuning.workStealing",
    "runtimeTuning.httpCache",
    "runtimeTuning.downstreamTcpFastopen",
    "runtimeTuning.downstreamDscp",
    "runtimeTuning.upstreamDscp",
    "runtimeTuning.upstreamTcpRecvBuf",
    "runtimeTuning.upstreamTcpFastOpen",
    "xdsTransport.applyTimeoutMs",
    "xdsTransport.applyPollIntervalMs",
    "experimental.enableExperimentalGateway",
    "experimental.enableAiGateway",
    "experimental.aiGatewayMaxRequestBodyBytes",
];
