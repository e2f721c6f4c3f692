//! SecurityPolicy: who may come in, from where, and how often.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::rule::{Rule, validations};
use crate::status::PolicyStatus;
use crate::target_ref::TargetRef;

mod authn;
mod rules;

pub use authn::{
    Authn, Authz, BackendRef, BasicAuth, ExternalAuth, ExternalGrpc, ExternalHttp, Jwt, JwtIssuer,
    Oidc,
};
pub(crate) use rules::rules;

/// Address lists, rate limits, CORS and authentication in front of a Gateway, a listener, a route or a
/// Service. Where several stand before a request, the address lists and rate limits of all hold. A policy
/// that is not Accepted because of what it says lets nobody through to its targets. Example: `spec:
/// {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}], rateLimit: [{keyType:
/// sourceIP, requestsPerSecond: 10, burst: 20}]}`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.nantian.dev",
    version = "v1alpha1",
    kind = "SecurityPolicy",
    plural = "securitypolicies",
    namespaced,
    status = "PolicyStatus",
    shortname = "secpol",
    category = "nantian",
    doc = "Address lists, rate limits, CORS and authentication in front of a Gateway, a route or a Service.",
    label("gateway.networking.k8s.io/policy", "Inherited"),
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Kind",
        type_ = "string",
        json_path = ".spec.targetRefs[*].kind"
    ),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.targetRefs[*].name"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SecurityPolicySpec {
    /// What it is about, in this namespace: a Gateway (with `sectionName` one of its listeners), an
    /// HTTPRoute, a GRPCRoute, or a Service. Example: `[{group: gateway.networking.k8s.io, kind: Gateway,
    /// name: public, sectionName: https}]`.
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-validations" = validations(&[rules::TARGET_KIND, rules::TARGET_SECTION]))
    )]
    pub target_refs: Vec<TargetRef>,
    /// Who is calling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authn: Option<Authn>,
    /// Whether they may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authz: Option<Authz>,
    /// Cross-origin resource sharing; a CORS filter of a route's rule comes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// Limits of rate, all of which hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub rate_limit: Vec<RateLimit>,
    /// Limits by the client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpLists>,
}

/// Cross-origin resource sharing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Origins that may; `*` for all, `https://*.example.com` for all names below one. Example:
    /// `["https://app.example.com"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub allow_origins: Vec<String>,
    /// Methods they may use. Example: `[GET, PUT]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)))]
    pub allow_methods: Vec<String>,
    /// Header fields they may send. Example: `[x-request-id]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub allow_headers: Vec<String>,
    /// Header fields they may read. Example: `[x-total]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub expose_headers: Vec<String>,
    /// Whether credentials may be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// Seconds that a preflight may be kept. Example: `600`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_age: Option<i32>,
}

/// A limit of rate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[
    rules::KEY_HEADER, rules::KEY_COOKIE, rules::PERIOD
])))]
pub struct RateLimit {
    /// What clients and metrics know it by; made from its place when absent. Example: `per-client`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub name: Option<String>,
    /// What shares a bucket, where that is not the target itself: `global` for the whole data plane,
    /// `listener`, `route` or `backend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<RateLimitScope>,
    /// So many requests in a second, or in `period`. Example: `10`.
    #[schemars(range(min = 1))]
    pub requests_per_second: i32,
    /// The time in which so many are allowed; a second when absent, 31 days at most. Example: `1m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Duration>,
    /// How many may come at once after a pause; as many as the limit when absent. Example: `20`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub burst: Option<i32>,
    /// What tells clients apart, each of which has the limit for itself: `sourceIP`, `header`, `cookie`;
    /// `route` or absent for one limit that all share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_type: Option<RateLimitKey>,
    /// The field, for key type `header`. Example: `x-api-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    )]
    pub key_header_name: Option<String>,
    /// The cookie, for key type `cookie`. Example: `session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    )]
    pub key_cookie_name: Option<String>,
    /// What happens beyond the limit: `reject` answers 429, which is the default; `queue` waits a little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_limit: Option<OnLimit>,
    /// Refuses nothing; only counts what it would have refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// The limit is that of all live data planes together, each of which takes its share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divided_among_replicas: Option<bool>,
}

/// What shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum RateLimitScope {
    Global,
    Listener,
    Route,
    Backend,
}

/// What tells clients apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum RateLimitKey {
    #[serde(rename = "sourceIP")]
    SourceIp,
    Header,
    Cookie,
    Route,
}

/// What happens beyond a limit of rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum OnLimit {
    Reject,
    Queue,
}

/// Limits by the client's address; 403 for who may not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::CIDR])))]
pub struct IpLists {
    /// Address blocks that may come in; everyone when empty. Example: `["10.0.0.0/8", "2001:db8::/32"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "allowCIDRs")]
    #[schemars(length(max = 256), inner(length(min = 2, max = 43)))]
    pub allow_cidrs: Vec<String>,
    /// Address blocks that may not; they win over `allowCIDRs`. Example: `["10.6.6.0/24"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "denyCIDRs")]
    #[schemars(length(max = 256), inner(length(min = 2, max = 43)))]
    pub deny_cidrs: Vec<String>,
}

/// The rules that the types above carry.
pub(crate) fn all_rules() -> &'static [Rule] {
    rules::ALL
}

/// Header fields made from claims, by claim.
pub type ClaimHeaders = BTreeMap<String, String>;
