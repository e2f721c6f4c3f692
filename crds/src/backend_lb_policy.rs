//! BackendLBPolicy: how requests are spread over the endpoints of a Service, and how these are spared.
//!
//! The same kind of `gateway.networking.k8s.io/v1alpha2`, which Gateway API no longer ships, is read with
//! these types too.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::rule::{Rule, validations};
use crate::status::PolicyStatus;
use crate::target_ref::BackendTargetRef;

mod rules;

pub(crate) use rules::rules;

/// How requests are spread over the endpoints of Services, which endpoints are left out, and how much
/// load they get. Of several policies for one Service the oldest holds, the others are `Conflicted`.
/// Example: `spec: {targetRefs: [{group: "", kind: Service, name: cart}], loadBalancing: {type:
/// LeastRequest}, outlierDetection: {consecutiveFailures: 5}}`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.nantian.dev",
    version = "v1alpha1",
    kind = "BackendLBPolicy",
    plural = "backendlbpolicies",
    namespaced,
    status = "PolicyStatus",
    shortname = "blbp",
    category = "nantian",
    doc = "How requests are spread over the endpoints of Services, and how these are spared.",
    label("gateway.networking.k8s.io/policy", "Direct"),
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.targetRefs[*].name"
    ),
    printcolumn(
        name = "Balancing",
        type_ = "string",
        json_path = ".spec.loadBalancing.type"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::SOMETHING])))]
pub struct BackendLBPolicySpec {
    /// The Services in this namespace that it is about, and AIServices, of which each provider is
    /// watched and limited. Example: `[{group: "", kind: Service, name: cart}]`.
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-validations" = validations(&[rules::TARGET_KIND, rules::TARGET_ONCE]))
    )]
    pub target_refs: Vec<BackendTargetRef>,
    /// Keeps a client at the endpoint of its first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
    /// How an endpoint is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancing: Option<LoadBalancing>,
    /// Requests of the gateway's own that find out which endpoints are well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Leaves endpoints out for a while that keep failing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// Limits of load, and when the backend is left alone altogether.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How many requests may be repetitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
}

/// Keeps a client at the endpoint of its first request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::COOKIE_ONLY, rules::PERMANENT])))]
pub struct SessionPersistence {
    /// Name of the cookie or header field; the gateway's own when absent. Example: `cart-session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    )]
    pub session_name: Option<String>,
    /// Where the session travels; a cookie when absent.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<SessionKind>,
    /// Longest life of a session. Example: `12h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Duration>,
    /// Longest pause within a session. Example: `30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// More about the cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

/// Where a session travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum SessionKind {
    #[default]
    Cookie,
    Header,
}

/// More about the cookie of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CookieConfig {
    /// `Session` ends with the browser, which is the default; `Permanent` lives as long as
    /// `absoluteTimeout` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_type: Option<CookieLifetime>,
}

/// When a cookie ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "Gateway API's own words")]
pub enum CookieLifetime {
    Permanent,
    Session,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::HASH_ONLY])))]
pub struct LoadBalancing {
    /// `RoundRobin` (the default) takes endpoints in turn, `LeastRequest` the less loaded of two random
    /// ones, `Random` any, `ConsistentHash` the same one for the same key.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<Balancing>,
    /// What is hashed; for `ConsistentHash` only. Absent for the client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
    /// A new endpoint gets its share little by little over this time. Example: `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
    /// Below this share of well endpoints, in percent, all are used again, so that the last ones do not
    /// drown; 0 for never. Example: `30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub panic_threshold_percent: Option<i32>,
    /// `PreferOwn` takes endpoints in the gateway's own zone first while enough of them are well; `Any`,
    /// the default, does not look at zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<Zones>,
}

/// The ways to choose an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum Balancing {
    #[default]
    RoundRobin,
    ConsistentHash,
    LeastRequest,
    Random,
}

/// Whether zones matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum Zones {
    Any,
    PreferOwn,
}

/// What is hashed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::HASH_HEADER, rules::HASH_COOKIE])))]
pub struct ConsistentHash {
    /// `SourceIP` is the client's address, `Header` a field of the request, `Cookie` one of its cookies,
    /// `Hostname` its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_type: Option<HashKey>,
    /// The field, for `Header`. Example: `x-tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    )]
    pub header_name: Option<String>,
    /// The cookie, for `Cookie`. Example: `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    )]
    pub cookie_name: Option<String>,
    /// How far above the mean an endpoint may be loaded before its keys go to the next one, in percent of
    /// the mean; as far as may be when absent. Example: `125`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 101, max = 10000))]
    pub max_load_percent: Option<i32>,
}

/// What can be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum HashKey {
    SourceIP,
    Header,
    Cookie,
    Hostname,
}

/// A new endpoint gets its share little by little.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlowStart {
    /// Over this time. Example: `30s`.
    pub window: Duration,
}

/// Requests of the gateway's own that find out which endpoints are well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[
    rules::PROBE_HTTP, rules::PROBE_GRPC, rules::PROBE_TIMEOUT
])))]
pub struct HealthCheck {
    /// `TCP` asks for a connection, `HTTP` for a good answer to a GET, `GRPC` for SERVING from
    /// `grpc.health.v1.Health`.
    #[serde(rename = "type")]
    pub kind: ProbeKind,
    /// More for `HTTP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
    /// More for `GRPC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
    /// The port asked; that of the traffic when absent. Example: `8081`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Between two checks of one endpoint. Example: `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Until a check has failed. Example: `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Failures in a row that make an endpoint unwell. Example: `3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub unhealthy_threshold: Option<i32>,
    /// Successes in a row that make it well again. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub healthy_threshold: Option<i32>,
}

/// What a health check asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum ProbeKind {
    #[default]
    Tcp,
    Http,
    Grpc,
}

/// A health check by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpProbe {
    /// The path; `/` when absent. Example: `/healthz`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = r"^/[!-~]*$"))]
    pub path: Option<String>,
    /// The host; the endpoint's address when absent. Example: `cart.internal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Statuses that mean well; 200 to 299 when absent. Example: `[200, 204]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(range(min = 100, max = 599)))]
    pub expected_statuses: Vec<i32>,
}

/// A health check by gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrpcProbe {
    /// The service asked about; the whole server when absent. Example: `cart.v1.Cart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub service: Option<String>,
}

/// Leaves endpoints out for a while that keep failing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::EJECTION])))]
pub struct OutlierDetection {
    /// Failures in a row of any kind (5xx included) that eject an endpoint; 0 for never. Example: `5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub consecutive_failures: Option<i32>,
    /// Failures in a row to answer at all, or with 502, 503 or 504; 0 for never. Example: `3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub consecutive_gateway_failures: Option<i32>,
    /// How long the first ejection lasts; the nth in a row lasts n times that. Example: `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ejection_time: Option<Duration>,
    /// How long one lasts at most. Example: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ejection_time: Option<Duration>,
    /// The largest share of endpoints that may be ejected at once, in percent. Example: `50`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<i32>,
}

/// Limits of load, and when the backend is left alone altogether.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Requests on their way at once; 503 beyond. Example: `512`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_inflight_requests: Option<i32>,
    /// Connections open at once. Example: `1024`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_connections: Option<i32>,
    /// Requests that wait for a connection; 503 beyond. Example: `64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_pending_requests: Option<i32>,
    /// Requests on one connection, after which it is closed. Example: `10000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_requests_per_connection: Option<i32>,
    /// Opens while the backend fails and answers 503 at once; absent for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
}

/// When a breaker opens and closes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// Failures in a row that open it; 5 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub failure_threshold: Option<i32>,
    /// Successful trials that close it; 2 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub success_threshold: Option<i32>,
    /// How long it stays open before a trial; `30s` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_time: Option<Duration>,
}

/// How many requests may be repetitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryBudget {
    /// Share of all requests, in percent. Example: `20`.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i32,
    /// Repetitions that are allowed in a second whatever the share; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub min_retries_per_second: Option<i32>,
}

/// The rules that the types above carry.
pub(crate) fn all_rules() -> &'static [Rule] {
    rules::ALL
}
