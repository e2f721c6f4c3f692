//! DirectResponse: an answer without a backend, which a route names with `ExtensionRef`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::{Faults, Rule};
use crate::status::ObjectStatus;

/// An answer that a rule of a route gives without asking a backend. A rule names it with a filter of type
/// `ExtensionRef`, group `gateway.nantian.dev`, kind `DirectResponse`, in its own namespace. Example:
/// `spec: {statusCode: 503, body: "back at noon", contentType: text/plain}`.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "gateway.nantian.dev",
    version = "v1alpha1",
    kind = "DirectResponse",
    plural = "directresponses",
    namespaced,
    status = "ObjectStatus",
    shortname = "dresp",
    category = "nantian",
    doc = "An answer that a rule of a route gives without asking a backend.",
    derive = "Default",
    derive = "PartialEq",
    printcolumn(name = "Status", type_ = "integer", json_path = ".spec.statusCode"),
    printcolumn(
        name = "Content-Type",
        type_ = "string",
        json_path = ".spec.contentType"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DirectResponseSpec {
    /// Status, 200 to 599; 200 when absent. Example: `503`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status_code: Option<i32>,
    /// The body; none when absent. Example: `back at noon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub body: Option<String>,
    /// `Content-Type` of the body; `text/plain` when absent. Example: `application/json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub content_type: Option<String>,
}

/// Its fields do not depend on one another.
pub(crate) fn all_rules() -> &'static [Rule] {
    &[]
}

pub(crate) fn rules(_: &DirectResponseSpec, _: &mut Faults) {}
