//! TokenPolicy: how many tokens and requests a client of AI services may use.

use std::collections::BTreeSet;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::{Faults, Rule, validations};
use crate::status::PolicyStatus;
use crate::target_ref::{GATEWAY_API, TargetRef};

const TARGET_KIND: Rule = Rule {
    cel: "self.all(t, (t.group == '' && t.kind == 'Service') || (t.group == 'multicluster.x-k8s.io' && t.kind == 'ServiceImport') || (t.group == 'gateway.nantian.dev' && t.kind == 'AIService') || (t.group == 'gateway.networking.k8s.io' && t.kind == 'HTTPRoute'))",
    message: "may name only kind AIService of group gateway.nantian.dev, HTTPRoute of group gateway.networking.k8s.io, Service of group \"\" and ServiceImport of group multicluster.x-k8s.io",
};
const TARGET_ONCE: Rule = Rule {
    cel: "self.all(t, self.exists_one(u, u.group == t.group && u.kind == t.kind && u.name == t.name))",
    message: "names a target twice, remove one of them",
};
const LIMIT: Rule = Rule {
    cel: "(has(self.tokensPerMinute) && self.tokensPerMinute > 0) || (has(self.tokensPerHour) && self.tokensPerHour > 0) || (has(self.requestsPerMinute) && self.requestsPerMinute > 0)",
    message: "limits nothing, set tokensPerMinute, tokensPerHour or requestsPerMinute",
};
const HEADER: Rule = Rule {
    cel: "(has(self.scope) && self.scope == 'header') == has(self.headerName)",
    message: "headerName goes with scope header and is needed there",
};
const CLAIM: Rule = Rule {
    cel: "(has(self.scope) && self.scope == 'jwtClaim') == has(self.claimName)",
    message: "claimName goes with scope jwtClaim and is needed there",
};
const DEGRADE: Rule = Rule {
    cel: "!has(self.degradeTo) || (has(self.onLimit) && self.onLimit == 'degrade')",
    message: "degradeTo is only for onLimit degrade, set that or remove it",
};

/// How many tokens and requests a client of AI services may use. Example: `spec: {targetRefs: [{group:
/// gateway.nantian.dev, kind: AIService, name: chat}], tokensPerMinute: 10000, scope: apiKey}`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.nantian.dev",
    version = "v1alpha1",
    kind = "TokenPolicy",
    plural = "tokenpolicies",
    namespaced,
    status = "PolicyStatus",
    shortname = "tokpol",
    category = "nantian",
    doc = "How many tokens and requests a client of AI services may use.",
    label("gateway.networking.k8s.io/policy", "Direct"),
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.targetRefs[*].name"
    ),
    printcolumn(
        name = "Tokens/min",
        type_ = "integer",
        json_path = ".spec.tokensPerMinute"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[LIMIT, HEADER, CLAIM, DEGRADE])))]
pub struct TokenPolicySpec {
    /// What it is about, in this namespace: AIServices, HTTPRoutes (all their backends, unless a policy
    /// names these themselves) or Services. Budgets are those of the backend, whichever route leads there.
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-validations" = validations(&[TARGET_KIND, TARGET_ONCE]))
    )]
    pub target_refs: Vec<TargetRef>,
    /// Tokens in a minute, of questions and answers together; 0 for no limit. Example: `10000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub tokens_per_minute: Option<i64>,
    /// Tokens in an hour; 0 for no limit. Example: `200000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub tokens_per_hour: Option<i64>,
    /// Requests in a minute; 0 for no limit. Example: `60`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub requests_per_minute: Option<i64>,
    /// What has a budget of its own: `apiKey` (the default), `sourceIP`, `header`, `jwtClaim`, `user`
    /// (also written `per-user`), `model`, `route`, or `global` for one budget that all share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [
        "apiKey", "sourceIP", "header", "jwtClaim", "user", "per-user", "model", "route", "global"
    ]))]
    pub scope: Option<String>,
    /// The header field, for scope `header`. Example: `x-team`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    )]
    pub header_name: Option<String>,
    /// The claim, for scope `jwtClaim`. Example: `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub claim_name: Option<String>,
    /// Factor by which a budget may be exceeded for a moment; 1 when absent. Example: `1.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub burst: Option<f64>,
    /// What happens beyond the limit: `reject` answers 429, which is the default; `queue` waits a little;
    /// `degrade` takes the model of `degradeTo`; `warn` only counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["reject", "queue", "degrade", "warn"]))]
    pub on_limit: Option<String>,
    /// The model that is used beyond the limit, for `degrade`. Example: `gpt-4o-mini`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub degrade_to: Option<String>,
    /// Refuses nothing; only counts what it would have refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// The rules that the types above carry.
pub(crate) fn all_rules() -> &'static [Rule] {
    &[TARGET_KIND, TARGET_ONCE, LIMIT, HEADER, CLAIM, DEGRADE]
}

pub(crate) fn rules(spec: &TokenPolicySpec, faults: &mut Faults) {
    let known = spec.target_refs.iter().all(|target| {
        matches!(
            (target.group.as_str(), target.kind.as_str()),
            ("", "Service")
                | ("multicluster.x-k8s.io", "ServiceImport")
                | ("gateway.nantian.dev", "AIService")
                | (GATEWAY_API, "HTTPRoute")
        )
    });
    faults.unless(known, "spec.targetRefs", TARGET_KIND);
    let targets = spec.target_refs.iter();
    let distinct: BTreeSet<_> = targets
        .map(|target| (&target.group, &target.kind, &target.name))
        .collect();
    let is_once = distinct.len() == spec.target_refs.len();
    faults.unless(is_once, "spec.targetRefs", TARGET_ONCE);
    let limits = [
        spec.tokens_per_minute,
        spec.tokens_per_hour,
        spec.requests_per_minute,
    ];
    let limits_something = limits.into_iter().flatten().any(|limit| limit > 0);
    faults.unless(limits_something, "spec", LIMIT);
    let by = |scope| spec.scope.as_deref() == Some(scope);
    faults.unless(by("header") == spec.header_name.is_some(), "spec", HEADER);
    faults.unless(by("jwtClaim") == spec.claim_name.is_some(), "spec", CLAIM);
    let degrades = spec.on_limit.as_deref() == Some("degrade");
    faults.unless(spec.degrade_to.is_none() || degrades, "spec", DEGRADE);
}
