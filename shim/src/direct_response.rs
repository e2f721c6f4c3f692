//! The one kind of our own that a route can name with `ExtensionRef`: an answer without a backend.
//!
//! Written as `gateway.nantian.dev/v1alpha1 DirectResponse` beside the routes of its namespace; read
//! by `files`, kept in the cluster view, resolved in `translate/filter/extension.rs`. What it may hold
//! is judged there, not here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// API group of our own kinds.
pub const GROUP: &str = "gateway.nantian.dev";

/// An answer that a route gives without asking a backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(crate = "k8s_openapi::schemars")]
pub struct DirectResponse {
    /// Name, namespace and the rest.
    pub metadata: ObjectMeta,
    /// What is answered.
    pub spec: DirectResponseSpec,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(crate = "k8s_openapi::schemars")]
pub struct DirectResponseSpec {
    /// Status, 200 to 599; 200 when absent.
    pub status_code: Option<i32>,
    /// The body; none when absent.
    pub body: Option<String>,
    /// `Content-Type` of the body; `text/plain` when absent.
    pub content_type: Option<String>,
}
