//! WasmPlugin: a module of the user's that sees requests and responses.

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rule::{Faults, Rule, validations};
use crate::status::PolicyStatus;
use crate::target_ref::{GATEWAY_API, SecretKeyRef, TargetRef};

const TARGET_KIND: Rule = Rule {
    cel: "self.all(t, (t.group == '' && t.kind == 'Service') || (t.group == 'gateway.networking.k8s.io' && t.kind in ['Gateway', 'HTTPRoute', 'GRPCRoute']))",
    message: "may name only kinds Gateway, HTTPRoute and GRPCRoute of group gateway.networking.k8s.io and kind Service of group \"\"",
};
const SOURCE: Rule = Rule {
    cel: "has(self.url) || has(self.image) || has(self.configMap) || has(self.inline)",
    message: "names no module, set one of url, image, configMap, inline",
};
const PULL_SECRET: Rule = Rule {
    cel: "!has(self.pullSecretRef) || has(self.image)",
    message: "pullSecretRef is only for image, remove it",
};

/// A WebAssembly module that sees requests and responses, with the proxy-wasm ABI. Example: `spec:
/// {wasm: {configMap: {name: stamp}}, targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute,
/// name: shop}], hooks: [onRequest]}`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.nantian.dev",
    version = "v1alpha1",
    kind = "WasmPlugin",
    plural = "wasmplugins",
    namespaced,
    status = "PolicyStatus",
    shortname = "wasm",
    category = "nantian",
    doc = "A WebAssembly module that sees requests and responses.",
    label("gateway.networking.k8s.io/policy", "Direct"),
    derive = "Default",
    derive = "PartialEq",
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.targetRefs[*].name"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct WasmPluginSpec {
    /// Where the module comes from. Of several sources a ConfigMap comes before a URL, an image and the
    /// inline module.
    #[schemars(extend("x-kubernetes-validations" = validations(&[SOURCE, PULL_SECRET])))]
    pub wasm: WasmSource,
    /// What it is about, in this namespace: a Gateway (with `sectionName` one of its listeners), a route
    /// (with `sectionName` one of its rules), or a Service.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-validations" = validations(&[TARGET_KIND]))
    )]
    pub target_refs: Vec<TargetRef>,
    /// When it is called; all that the module exports when empty. Example: `[onRequest, onResponse]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub hooks: Vec<Hook>,
    /// Plugins with a lower number come first on requests and last on responses; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000000, max = 1000000))]
    pub priority: Option<i32>,
    /// The plugin's own settings: JSON text, or an object. Example: `{"header": "x-stamp"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub config: Option<Value>,
    /// `Closed` (the default) answers 500 when the plugin fails, `Open` goes on without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_policy: Option<FailPolicy>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Where a module comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WasmSource {
    /// A URL with https. Example: `https://plugins.example.com/stamp.wasm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: Option<String>,
    /// An OCI image, best with its digest. Example: `registry.example.com/plugins/stamp:1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// The Secret (type `kubernetes.io/dockerconfigjson`) that opens the image's registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<SecretKeyRef>,
    /// A ConfigMap in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapModule>,
    /// The module itself, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub inline: Option<String>,
    /// SHA-256 of the module, in hexadecimal; another module is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^(sha256:)?[0-9A-Fa-f]{64}$"))]
    pub sha256: Option<String>,
}

/// A module in a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapModule {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in its `binaryData`; `plugin.wasm` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// When a plugin is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum Hook {
    OnRequest,
    OnRequestBody,
    OnResponse,
    OnResponseBody,
    OnStreamChunk,
}

/// What happens when a plugin fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum FailPolicy {
    Open,
    Closed,
}

/// What a plugin may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Memory of one instance, in bytes; 16777216 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_memory_bytes: Option<i64>,
    /// Time of one call, in milliseconds; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_execution_time_ms: Option<i64>,
    /// It may call configured backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_network: Option<bool>,
    /// It may read and write files; refused by the data plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_file_system: Option<bool>,
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// The rules that the types above carry.
pub(crate) fn all_rules() -> &'static [Rule] {
    &[TARGET_KIND, SOURCE, PULL_SECRET]
}

pub(crate) fn rules(spec: &WasmPluginSpec, faults: &mut Faults) {
    let known =
        spec.target_refs.iter().all(
            |target| match (target.group.as_str(), target.kind.as_str()) {
                ("", kind) => kind == "Service",
                (GATEWAY_API, kind) => matches!(kind, "Gateway" | "HTTPRoute" | "GRPCRoute"),
                _ => false,
            },
        );
    faults.unless(known, "spec.targetRefs", TARGET_KIND);
    let wasm = &spec.wasm;
    let has_source = wasm.url.is_some()
        || wasm.image.is_some()
        || wasm.config_map.is_some()
        || wasm.inline.is_some();
    faults.unless(has_source, "spec.wasm", SOURCE);
    faults.unless(
        wasm.pull_secret_ref.is_none() || wasm.image.is_some(),
        "spec.wasm",
        PULL_SECRET,
    );
}
