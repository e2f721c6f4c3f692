//! What a policy is about: references to objects of its own namespace.
//!
//! Each policy says which kinds it may name; the rule for that stands with the policy.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An object that a policy is about.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API group of the target; empty for a Service, `gateway.networking.k8s.io` for Gateways and
    /// routes.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind of the target, such as `Service` or `HTTPRoute`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the target.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the target; only the policy's own is allowed, which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Part of the target: a listener of a Gateway, or a rule of a route by its name. Absent for all of
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// A backend that a policy is about.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct BackendTargetRef {
    /// API group of the target: empty for a Service, `multicluster.x-k8s.io` for a ServiceImport,
    /// `gateway.nantian.dev` for an AIService.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind of the target: `Service`, `ServiceImport` or `AIService`.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Name of the target, in the policy's own namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A Gateway or a route that a policy is about.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct RouteTargetRef {
    /// API group of the target.
    #[serde(default = "gateway_api")]
    #[schemars(length(max = 253))]
    pub group: String,
    /// Kind of the target: `Gateway` for all its routes, or one `HTTPRoute` or `GRPCRoute`.
    #[schemars(extend("enum" = ["Gateway", "HTTPRoute", "GRPCRoute"]))]
    pub kind: String,
    /// Name of the target, in the policy's own namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The API group of Gateways and routes.
pub const GATEWAY_API: &str = "gateway.networking.k8s.io";

fn gateway_api() -> String {
    GATEWAY_API.to_owned()
}

/// A Secret in the object's own namespace, and one of its keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}
