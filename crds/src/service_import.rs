//! ServiceImport of the multi-cluster Services API (KEP-1645), as far as a gateway reads it.
//!
//! The kind is another project's: its definition is installed by whoever brings the imports, and no
//! manifest is made of it here. The shim takes it as a backend; its endpoints are the EndpointSlices
//! with its name as a label.

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Service that several clusters offer together.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct ServiceImport {
    /// Name and namespace, which are those of the exported Service.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it offers.
    #[serde(default)]
    pub spec: ServiceImportSpec,
}

/// What a ServiceImport offers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceImportSpec {
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Addresses for all of it; not used here, requests go to endpoints.
    pub ips: Vec<String>,
    /// `ClusterSetIP` or `Headless`.
    #[serde(rename = "type")]
    pub type_: String,
    /// As of a Service.
    pub session_affinity: String,
}
