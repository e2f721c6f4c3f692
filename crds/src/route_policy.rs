//! RoutePolicy: settings of the data plane, overridden for the routes of a Gateway or for one route.

use std::collections::BTreeSet;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backend_lb_policy::Breaker;
use crate::duration::Duration;
use crate::rule::{Faults, Rule, validations};
use crate::status::PolicyStatus;
use crate::target_ref::{GATEWAY_API, RouteTargetRef};

const TARGET_GROUP: Rule = Rule {
    cel: "self.all(t, t.group == 'gateway.networking.k8s.io')",
    message: "may name only Gateways, HTTPRoutes and GRPCRoutes of group gateway.networking.k8s.io",
};
const TARGET_ONCE: Rule = Rule {
    cel: "self.all(t, self.exists_one(u, u.kind == t.kind && u.name == t.name))",
    message: "names a target twice, remove one of them",
};
const ATTEMPT: Rule = Rule {
    cel: "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') || duration(self.backendRequest) <= duration(self.request)",
    message: "backendRequest is longer than request, make it shorter or equal",
};

/// Timeouts, sizes and connections, for all routes of a Gateway or for one route. What a route's own
/// policy does not say is taken from its Gateway's, and what neither says from the data plane's settings;
/// timeouts in the route itself come first. Example: `spec: {targetRefs: [{kind: HTTPRoute, name: shop}],
/// default: {timeout: {request: 10s}, bodyLimit: {maxRequestBodyBytes: 1048576}}}`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.nantian.dev",
    version = "v1alpha1",
    kind = "RoutePolicy",
    plural = "routepolicies",
    namespaced,
    status = "PolicyStatus",
    shortname = "rtp",
    category = "nantian",
    doc = "Timeouts, sizes and connections, for all routes of a Gateway or for one route.",
    label("gateway.networking.k8s.io/policy", "Inherited"),
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.targetRefs[*].name"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RoutePolicySpec {
    /// What it is about, in this namespace. Example: `[{kind: Gateway, name: public}]`.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-validations" = validations(&[TARGET_GROUP, TARGET_ONCE]))
    )]
    pub target_refs: Vec<RouteTargetRef>,
    /// The settings; a more specific policy comes before this one, field by field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<RouteSettings>,
}

/// The settings of routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteSettings {
    /// Deadlines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<RouteTimeout>,
    /// Sizes of messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_limit: Option<BodyLimit>,
    /// Buffering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Buffering>,
    /// Connections to clients and backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<RouteConnection>,
    /// Opens while a backend fails for these routes and answers 503 at once; absent for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<Breaker>,
}

/// Deadlines; `0s` is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[ATTEMPT])))]
pub struct RouteTimeout {
    /// From the request's head to the end of the response. Example: `15s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// One attempt at one backend. Example: `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
    /// Until a connection to an endpoint is up. Example: `500ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
    /// All attempts of one request together. Example: `10s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_upstream: Option<Duration>,
}

/// Sizes of messages; 0 is the data plane's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BodyLimit {
    /// Larger request bodies are answered with 413. Example: `1048576`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_request_body_bytes: Option<i64>,
    /// How much of a request body is kept for another attempt. Example: `65536`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub request_body_buffer_bytes: Option<i64>,
    /// Larger request heads are answered with 431. Example: `16384`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_request_header_bytes: Option<i64>,
}

/// Buffering.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Buffering {
    /// Read the whole request before it is sent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_buffering: Option<bool>,
    /// Read the whole response before it is sent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_buffering: Option<bool>,
    /// Bytes in one buffer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub buffer_size: Option<i64>,
    /// Number of buffers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub buffer_count: Option<i32>,
}

/// Connections to clients and backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteConnection {
    /// Requests on one client connection, after which it is closed. Example: `1000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub keepalive_requests: Option<i32>,
    /// Longest life of a client connection. Example: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_time: Option<Duration>,
    /// Longest pause on a client connection. Example: `75s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_timeout: Option<Duration>,
    /// Idle connections kept per endpoint. Example: `32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub upstream_keepalive_pool_size: Option<i32>,
    /// How long an idle connection to an endpoint is kept. Example: `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_keepalive_idle: Option<Duration>,
}

/// The rules that the types above carry.
pub(crate) fn all_rules() -> &'static [Rule] {
    &[TARGET_GROUP, TARGET_ONCE, ATTEMPT]
}

pub(crate) fn rules(spec: &RoutePolicySpec, faults: &mut Faults) {
    let targets = &spec.target_refs;
    let known = targets.iter().all(|target| target.group == GATEWAY_API);
    faults.unless(known, "spec.targetRefs", TARGET_GROUP);
    let distinct: BTreeSet<_> = targets
        .iter()
        .map(|target| (&target.kind, &target.name))
        .collect();
    faults.unless(
        distinct.len() == targets.len(),
        "spec.targetRefs",
        TARGET_ONCE,
    );
    let timeout = spec
        .default
        .as_ref()
        .and_then(|default| default.timeout.as_ref());
    if let Some(timeout) = timeout {
        let read = |time: &Option<Duration>| time.as_ref().and_then(Duration::read);
        let holds = match (read(&timeout.request), read(&timeout.backend_request)) {
            (Some(request), Some(attempt)) => request.is_zero() || attempt <= request,
            _ => true,
        };
        faults.unless(holds, "spec.default.timeout", ATTEMPT);
    }
}
