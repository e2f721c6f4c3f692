//! The table of all settings: key, default, meaning.
//!
//! The only place where a key is documented; `docs/reference/shim.md` is made from it. A test reads
//! the table as a settings file and finds every default in it; `settings.rs` suggests keys from it
//! when one is misspelt.

/// Every key, its default as it would be written in the file, and what it means.
pub const KEYS: &[(&str, &str, &str)] = &[
    (
        "grpcAddr",
        "127.0.0.1:18080",
        "where data planes connect; --grpc-addr overrides it",
    ),
    (
        "adminAddr",
        "127.0.0.1:8081",
        "admin API; not loopback needs a token; --admin-addr overrides it",
    ),
    (
        "controllerName",
        "gateway.networking.k8s.io/nantian-gw",
        "GatewayClasses with this controllerName are served",
    ),
    (
        "grpcTLS.enabled",
        "false",
        "TLS towards data planes; needs certPath and keyPath",
    ),
    ("grpcTLS.certPath", "\"\"", "PEM chain of the server"),
    ("grpcTLS.keyPath", "\"\"", "PEM key of the server"),
    (
        "grpcTLS.clientCAPath",
        "\"\"",
        "PEM authorities that sign data planes' certificates",
    ),
    (
        "grpcTLS.requireClientCert",
        "false",
        "refuse a data plane without a certificate; needs clientCAPath",
    ),
    (
        "grpcRuntime.keepaliveTime",
        "30s",
        "interval of HTTP/2 pings; a third of it is the interval of heartbeats",
    ),
    (
        "grpcRuntime.keepaliveTimeout",
        "10s",
        "a ping unanswered for this long closes the connection",
    ),
    (
        "grpcRuntime.minPingInterval",
        "15s",
        "a client whose pings follow each other sooner three times, with no answer between, gets GOAWAY (too_many_pings); 0 for no limit",
    ),
    (
        "grpcRuntime.permitWithoutStream",
        "false",
        "ready before the first data plane has connected",
    ),
    (
        "grpcRuntime.maxConnectionIdle",
        "2m",
        "a connection without streams or calls for this long is closed; 0s = never",
    ),
    (
        "grpcRuntime.maxConnectionAge",
        "30m",
        "a connection this old, give or take a tenth, gets GOAWAY; 0s = never",
    ),
    (
        "grpcRuntime.maxConnectionAgeGrace",
        "30s",
        "after that it is cut once this has passed",
    ),
    (
        "grpcRuntime.snapshotSendTimeout",
        "5s",
        "a message that cannot be handed over within this ends the stream",
    ),
    (
        "grpcRuntime.snapshotAckTimeout",
        "30s",
        "a push unanswered for this long marks the node stale and ends the stream",
    ),
    (
        "grpcRuntime.gracefulStopTimeout",
        "3s",
        "how long streams may take to end at shutdown",
    ),
    (
        "grpcRuntime.initialWindowSize",
        "0",
        "HTTP/2 window of a stream in bytes; 0 = the library's",
    ),
    (
        "grpcRuntime.initialConnWindowSize",
        "0",
        "HTTP/2 window of a connection in bytes; 0 = the library's",
    ),
    (
        "grpcRuntime.maxConcurrentStreams",
        "0",
        "streams of one connection; 0 = 200",
    ),
    (
        "grpcRuntime.maxRecvMsgSize",
        "0",
        "largest message taken from a data plane in bytes; 0 = 4 MiB",
    ),
    (
        "adminAuth.bearerToken",
        "\"\"",
        "token that the admin API asks for; empty = none",
    ),
    (
        "adminAuth.bearerTokenFile",
        "\"\"",
        "file that holds the token, read at start",
    ),
    (
        "adminTLS.enabled",
        "false",
        "the admin API speaks TLS; needs certPath and keyPath",
    ),
    (
        "adminTLS.certPath",
        "\"\"",
        "PEM chain of the admin API; it and the files below are read again when they change",
    ),
    ("adminTLS.keyPath", "\"\"", "PEM key of the admin API"),
    (
        "adminTLS.clientCAPath",
        "\"\"",
        "PEM authorities that sign certificates of who asks",
    ),
    (
        "adminTLS.requireClientCert",
        "false",
        "refuse who shows no certificate, also for /livez and /readyz; needs clientCAPath",
    ),
    (
        "adminRuntime.readHeaderTimeout",
        "5s",
        "an admin request must be complete within this",
    ),
    (
        "adminRuntime.writeTimeout",
        "30s",
        "an admin exchange must be over within this after its head",
    ),
    (
        "quarantine.retryAfter",
        "30s",
        "an object that a data plane refuses is left out this long, then twice as long up to 5m; at least 1s",
    ),
    (
        "historySize",
        "64",
        "snapshots kept to bring a data plane up to date by a delta",
    ),
    (
        "watchNamespaces",
        "[]",
        "--source kube: only objects of these namespaces are read and served, and of the one of addresses.dataPlaneService; empty = all",
    ),
    (
        "syncPeriod",
        "30s",
        "--source kube: statuses are compared with the API server's this often without a reason",
    ),
    (
        "reconcilerRunner.settleDelay",
        "20ms",
        "--source kube: changes are gathered for no longer than this; raise it in a large cluster that changes all the time",
    ),
    (
        "reconcilerRunner.retryBackoff",
        "1s",
        "--source kube: pause before a write to the API server that failed is tried again",
    ),
    (
        "translatorLimits.maxInputObjects",
        "0",
        "--source kube: with more objects than this the configuration before stays; 0 = no limit",
    ),
    (
        "translatorLimits.maxSnapshotObjects",
        "0",
        "a snapshot with more resources than this is not published; 0 = no limit",
    ),
    (
        "translatorLimits.maxSnapshotEndpoints",
        "0",
        "a snapshot with more endpoints than this is not published; 0 = no limit",
    ),
    (
        "translatorLimits.maxSnapshotBytes",
        "100663296",
        "a snapshot that is larger as a message is not published; no more than xdsTransport.maxMessageBytes of the data planes; 0 = no limit",
    ),
    (
        "leaderElection.enabled",
        "true",
        "--source kube: of several replicas only the one that holds the Lease serves",
    ),
    (
        "leaderElection.id",
        "nantian-controlplane-leader",
        "name of the Lease",
    ),
    (
        "leaderElection.namespace",
        "nantian-gw",
        "namespace of the Lease",
    ),
    (
        "leaderElection.leaseDuration",
        "12s",
        "another replica takes over when the Lease was not renewed for this long",
    ),
    (
        "leaderElection.renewDeadline",
        "8s",
        "a holder that cannot renew for this long stops serving",
    ),
    (
        "leaderElection.retryPeriod",
        "2s",
        "how often the Lease is renewed, and asked for",
    ),
    (
        "addresses.strategy",
        "pool",
        "--source kube: where Gateways listen; pool = on the addresses of addresses.pool, service = behind a Service for each Gateway",
    ),
    (
        "addresses.pool",
        "[]",
        "addresses of this host, one for each Gateway as long as there are enough; none = every Gateway is bound to all of IPv4",
    ),
    (
        "addresses.serviceType",
        "LoadBalancer",
        "type of Gateways' Services: LoadBalancer, NodePort or ClusterIP",
    ),
    (
        "addresses.dataPlaneService",
        "nantian-gw/nantian-gw-dataplane",
        "the Service whose endpoints are the data planes",
    ),
    (
        "addresses.firstPort",
        "10000",
        "first port that data planes bind for Gateways' Services",
    ),
    (
        "addresses.lastPort",
        "17999",
        "last port that data planes bind for Gateways' Services",
    ),
    (
        "mesh.enabled",
        "false",
        "--source kube: routes may have Services as parents; then traffic to such a Service goes through data planes",
    ),
    (
        "mesh.dataPlaneService",
        "nantian-gw/nantian-gw-dataplane",
        "the Service whose endpoints are the data planes that Services are led to",
    ),
    (
        "mesh.firstPort",
        "20000",
        "first port that data planes bind for ports of Services",
    ),
    (
        "mesh.lastPort",
        "29999",
        "last port that data planes bind for ports of Services",
    ),
    (
        "statusAddress",
        "\"\"",
        "--source kube: shown as the address of a Gateway that is bound to all addresses",
    ),
];

/// `a.b` with the valid key that looks most like it.
pub(super) fn with_nearest(unknown: &str) -> String {
    let nearest = KEYS
        .iter()
        .flat_map(|(key, ..)| [Some(*key), key.split_once('.').map(|(section, _)| section)])
        .flatten()
        .map(|key| (strsim::jaro_winkler(unknown, key), key))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, key)) if likeness > 0.75 => {
            format!("`{unknown}` (did you mean `{key}`?)")
        }
        _ => format!("`{unknown}`"),
    }
}
