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
const NO_FILES: Rule = Rule {
    cel: "!has(self.allowFileSystem) || !self.allowFileSystem",
    message: "allowFileSystem is set, and plugins never get files: remove it, and give the plugin what it needs by spec.config",
};
const NETWORK: Rule = Rule {
    cel: "!has(self.allowedBackends) || size(self.allowedBackends) == 0 || (has(self.allowNetwork) && self.allowNetwork)",
    message: "allowedBackends is set without allowNetwork, set that too",
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
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".spec.phase"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status"
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
    /// When it is called; all that the module exports when empty. `onRequest` and `onResponse` mean head
    /// and body both, `onStreamChunk` the body of responses. Example: `[onRequest]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub hooks: Vec<Hook>,
    /// Its place among the plugins of one target: `AUTHN` come first on requests, then `AUTHZ`, then
    /// `STATS`, then those that name none. Responses meet them in reverse order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Within a phase, plugins with a lower number come first on requests and last on responses; 0 when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1000000, max = 1000000))]
    pub priority: Option<i32>,
    /// The plugin's own settings: JSON text, or an object. Example: `{"header": "x-stamp"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub config: Option<Value>,
    /// Which of the module's root contexts it is; the only one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub root_id: Option<String>,
    /// Plugins of one namespace with the same text here share data and queues; they are the plugin's own
    /// when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub vm_id: Option<String>,
    /// `Closed` (the default) answers 500 when the plugin fails and 503 when it is not there, `Open` goes
    /// on without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_policy: Option<FailPolicy>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = validations(&[NO_FILES, NETWORK])))]
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
    OnRequestHeaders,
    OnRequestBody,
    OnResponse,
    OnResponseHeaders,
    OnResponseBody,
    OnStreamChunk,
}

/// Places in the order of plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the field that holds them describes them")]
pub enum Phase {
    Authn,
    Authz,
    Stats,
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
    /// Memory of one instance, in bytes; the data plane's default when absent or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4294967296i64))]
    pub max_memory_bytes: Option<i64>,
    /// Time of one call, in milliseconds; the data plane's default when absent or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 600000))]
    pub max_execution_time_ms: Option<i64>,
    /// Instructions of one call, roughly; when absent or 0 they are not counted, which is faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000000000i64))]
    pub max_fuel: Option<i64>,
    /// Size of the module, in bytes; the data plane's limit when absent or 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 52428800))]
    pub max_module_bytes: Option<i64>,
    /// It may call backends: those of `allowedBackends`, or those of its own namespace that routes use
    /// when that is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_network: Option<bool>,
    /// The Services it may call, by `namespace/name:port`. One of another namespace needs a
    /// ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allowed_backends: Vec<AllowedBackend>,
    /// It may read and write files; plugins never may, so only `false` is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_file_system: Option<bool>,
}

/// A port of a Service that a plugin may call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedBackend {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the Service; the plugin's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// The rules that the types above carry.
pub(crate) fn all_rules() -> &'static [Rule] {
    &[TARGET_KIND, SOURCE, PULL_SECRET, NO_FILES, NETWORK]
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
    let sandbox = spec.sandbox.clone().unwrap_or_default();
    let has_files = sandbox.allow_file_system.unwrap_or_default();
    faults.unless(!has_files, "spec.sandbox", NO_FILES);
    let has_network = sandbox.allow_network.unwrap_or_default();
    let is_sound = sandbox.allowed_backends.is_empty() || has_network;
    faults.unless(is_sound, "spec.sandbox", NETWORK);
}
