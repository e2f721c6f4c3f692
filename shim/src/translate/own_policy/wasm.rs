//! What a WasmPlugin says, and its module as far as the control plane has it.
//!
//! Modules of ConfigMaps and inline ones are read and checked here; those of URLs and images are for
//! the data plane to fetch. A plugin that cannot be had and fails closed must not be a hole: it is
//! published without a module, so that data planes treat its requests as it says ([`Planned::broken`]).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crds::wasm_plugin as api;
use ir::SecretText;
use ir::WasmPlugin;
use ir::wasm::{
    PullSecret, WasmFailure, WasmHook, WasmHooks, WasmImage, WasmNetwork, WasmPhase, WasmSandbox,
    WasmSource,
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use sha2::{Digest as _, Sha256};

use super::super::ai::secret_value;
use super::super::reference::{From, Grants, To};
use super::target::{Reference, Target};
use super::{Fault, Payload, Read, broken};
use crate::cluster_view::{ClusterView, Object};

const KIND: &str = "WasmPlugin";
/// Key of a ConfigMap's `binaryData` when none is named (the contract's).
const MODULE_KEY: &str = "plugin.wasm";
/// What every module begins with.
const MAGIC: &[u8] = b"\0asm";

/// A plugin as it is published, and what it needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    pub(super) plugin: Arc<WasmPlugin>,
    /// Values of the Secret that it names, by key.
    pub(super) secret: Option<(Arc<str>, BTreeMap<String, SecretText>)>,
    /// Clusters it may call.
    pub(super) clusters: Vec<Arc<str>>,
    /// Where its module comes from, and its digest where that is known.
    pub(super) told: String,
}

impl Planned {
    /// In the place of a plugin that cannot be had: nothing when it fails open.
    pub(super) fn broken(object: &Object<crds::WasmPlugin>) -> Option<Self> {
        let spec = &object.value.spec;
        if spec.fail_policy == Some(api::FailPolicy::Open) {
            return None;
        }
        let nothing = WasmSource::Inline(Bytes::from_static(b"no module"));
        Some(Self {
            plugin: Arc::new(WasmPlugin::new(object.key.clone(), nothing)),
            secret: None,
            clusters: Vec::new(),
            told: String::new(),
        })
    }
}

/// What was read of a plugin, and of which objects.
#[derive(Clone, Debug)]
struct Known {
    object: Arc<Object<crds::WasmPlugin>>,
    config_map: Option<Arc<Object<ConfigMap>>>,
    secret: Option<Arc<Object<Secret>>>,
    outcome: Result<Arc<Planned>, Fault>,
}

/// Plugins that were read before, so that a module is decoded and hashed once.
#[derive(Clone, Debug, Default)]
pub(super) struct Memo(BTreeMap<Arc<str>, Known>);

impl PartialEq for Memo {
    /// What is remembered changes nothing.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Memo {
    /// The outcome for a plugin, from memory where nothing about it changed.
    pub(super) fn planned(
        &mut self,
        object: &Arc<Object<crds::WasmPlugin>>,
        view: &ClusterView,
        before: &Self,
    ) -> Result<Arc<Planned>, Fault> {
        fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
            one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
        }
        let spec = &object.value.spec.wasm;
        let named = |name: Option<&String>| Some(format!("{}/{}", object.namespace(), name?));
        let config_map = named(spec.config_map.as_ref().map(|it| &it.name));
        let config_map = config_map.and_then(|key| view.config_maps.get(&key).cloned());
        let secret = named(spec.pull_secret_ref.as_ref().map(|it| &it.name));
        let secret = secret.and_then(|key| view.secrets.get(&key).cloned());
        let known = before.0.get(&object.key).filter(|known| {
            Arc::ptr_eq(&known.object, object)
                && same(known.config_map.as_ref(), config_map.as_ref())
                && same(known.secret.as_ref(), secret.as_ref())
        });
        let known = known.cloned().unwrap_or_else(|| Known {
            object: object.clone(),
            outcome: plan(object, config_map.as_deref(), secret.as_deref()).map(Arc::new),
            config_map,
            secret,
        });
        let outcome = known.outcome.clone();
        self.0.insert(object.key.clone(), known);
        outcome
    }
}

/// Reads a plugin whose module was looked for already.
pub(super) fn read(
    object: &Object<crds::WasmPlugin>,
    planned: Result<Arc<Planned>, Fault>,
    view: &ClusterView,
    grants: &Grants,
) -> Read {
    let spec = &object.value.spec;
    let targets = spec.target_refs.iter().map(|target| {
        let reference = Reference::from(target);
        let found = Target::read(&reference, object.namespace())?;
        Ok(match (found, &target.section_name) {
            (Target::Route(kind, key), Some(section)) => Target::Rule(kind, key, section.clone()),
            (found, _) => found,
        })
    });
    let backends = backends(object, view, grants);
    let meanwhile = match spec.fail_policy {
        Some(api::FailPolicy::Open) => "until then its targets are served without it",
        _ => "until then requests to its targets are answered with 503",
    };
    let payload = match (planned, backends) {
        (Err(fault), _) | (Ok(_), Err(fault)) => Err(Fault::new(
            fault.reason,
            format!("{}; {meanwhile}", fault.message),
        )),
        (Ok(planned), Ok(())) => Ok(Payload::Plugin(planned)),
    };
    Read {
        payload,
        targets: targets.collect(),
        without_effect: Vec::new(),
    }
}

/// Whether it may call what it wants to call.
fn backends(
    object: &Object<crds::WasmPlugin>,
    view: &ClusterView,
    grants: &Grants,
) -> Result<(), Fault> {
    let sandbox = object.value.spec.sandbox.as_ref();
    let backends = sandbox.into_iter().flat_map(|it| &it.allowed_backends);
    for (index, backend) in backends.enumerate() {
        let path = format!("spec.sandbox.allowedBackends[{index}]");
        let namespace = backend.namespace.as_deref();
        let namespace = namespace.unwrap_or_else(|| object.namespace());
        let key = format!("{namespace}/{}", backend.name);
        let from = From {
            group: crds::GROUP.to_owned(),
            kind: KIND.to_owned(),
            namespace: object.namespace().to_owned(),
        };
        let to = To {
            group: "",
            kind: "Service",
            namespace,
            name: &backend.name,
        };
        if !grants.allow(from, to) {
            let message = format!(
                "{path}: Service {key} is in another namespace, which needs a ReferenceGrant there"
            );
            return Err(Fault::new("RefNotPermitted", message));
        }
        let ports = view.services.get(&key).map(|service| {
            let spec = service.value.spec.as_ref();
            let ports = spec.and_then(|spec| spec.ports.as_deref());
            let mut ports = ports.unwrap_or_default().iter();
            ports.any(|port| port.port == backend.port)
        });
        let message = match ports {
            Some(true) => continue,
            Some(false) => format!("{path}: Service {key} has no port {}", backend.port),
            None => format!("{path}: there is no Service {key}"),
        };
        return Err(Fault::new("BackendNotFound", message));
    }
    Ok(())
}

/// Everything about a plugin but what it may call.
fn plan(
    object: &Object<crds::WasmPlugin>,
    config_map: Option<&Object<ConfigMap>>,
    secret: Option<&Object<Secret>>,
) -> Result<Planned, Fault> {
    if let Some(fault) = broken(&object.value) {
        return Err(fault);
    }
    let spec = &object.value.spec;
    let (source, mut told) = source(object, config_map)?;
    let wanted = spec.wasm.sha256.as_deref().and_then(digest_of);
    let found = match &source {
        WasmSource::Inline(module) => Some(<[u8; 32]>::from(Sha256::digest(module))),
        WasmSource::Url(_) | WasmSource::Image(_) => None,
    };
    if let (Some(wanted), Some(found)) = (wanted, found)
        && wanted != found
    {
        let message = format!(
            "spec.wasm.sha256: {} is wanted, but the module has {}: one of them is not what it \
             should be",
            hex(&wanted),
            hex(&found)
        );
        return Err(Fault::new("DigestMismatch", message));
    }
    let sha256 = found.or(wanted);
    // Writing to a string cannot fail.
    let _ = match sha256 {
        Some(digest) => write!(told, ", sha256:{}", hex(&digest)),
        None => write!(told, ", whose digest is the data plane's to tell"),
    };
    let secret = pull_secret(object, secret)?;
    let mut plugin = WasmPlugin {
        sha256,
        hooks: hooks(&spec.hooks),
        config: SecretText::new(config(spec)),
        root_id: spec.root_id.as_deref().unwrap_or_default().into(),
        vm_id: spec.vm_id.as_deref().unwrap_or_default().into(),
        phase: match spec.phase {
            Some(api::Phase::Authn) => WasmPhase::Authn,
            Some(api::Phase::Authz) => WasmPhase::Authz,
            Some(api::Phase::Stats) => WasmPhase::Stats,
            None => WasmPhase::Unspecified,
        },
        priority: spec.priority.unwrap_or_default(),
        on_failure: match spec.fail_policy {
            Some(api::FailPolicy::Open) => WasmFailure::Open,
            Some(api::FailPolicy::Closed) | None => WasmFailure::Closed,
        },
        sandbox: sandbox(spec, object.namespace()),
        ..WasmPlugin::new(object.key.clone(), source)
    };
    if let (WasmSource::Image(image), Some((secret, key, _))) = (&mut plugin.source, &secret) {
        image.pull_secret = Some(PullSecret {
            secret: secret.clone(),
            key: key.clone(),
        });
    }
    if let Err(violations) = ir::decode::wasm_plugin(ir::encode::wasm_plugin(&plugin)) {
        let messages = violations.iter().take(8);
        let messages: Vec<_> = messages
            .map(|violation| format!("{}: {}", field_of(&violation.path), violation.message))
            .collect();
        return Err(Fault::new("Invalid", messages.join("; ")));
    }
    let clusters = match &plugin.sandbox.network {
        WasmNetwork::Clusters(clusters) => clusters.clone(),
        WasmNetwork::None | WasmNetwork::OwnNamespace => Vec::new(),
    };
    Ok(Planned {
        plugin: Arc::new(plugin),
        secret: secret.map(|(secret, key, text)| (secret, BTreeMap::from([(key, text)]))),
        clusters,
        told,
    })
}

/// Of several sources a ConfigMap comes before a URL, an image and the inline module (the contract
/// writes them over each other in the order inline, URL, ConfigMap).
fn source(
    object: &Object<crds::WasmPlugin>,
    config_map: Option<&Object<ConfigMap>>,
) -> Result<(WasmSource, String), Fault> {
    let wasm = &object.value.spec.wasm;
    if let Some(reference) = &wasm.config_map {
        let key = format!("{}/{}", object.namespace(), reference.name);
        let path = "spec.wasm.configMap";
        let found = config_map.ok_or_else(|| {
            Fault::new(
                "ConfigMapNotFound",
                format!("{path}: there is no ConfigMap {key}"),
            )
        })?;
        let entry = reference.key.as_deref().unwrap_or(MODULE_KEY);
        let module = found
            .value
            .binary_data
            .as_ref()
            .and_then(|it| it.get(entry));
        let Some(module) = module else {
            let message = format!(
                "{path}: ConfigMap {key} has no {entry} in its binaryData, which \
                 `kubectl create configmap --from-file={entry}` makes"
            );
            return Err(Fault::new("InvalidModule", message));
        };
        let told = format!("the module is {entry} of ConfigMap {key}");
        return module_of(module.0.clone(), path).map(|source| (source, told));
    }
    if let Some(url) = &wasm.url {
        return Ok((
            WasmSource::Url(url.clone()),
            "the module is fetched by its URL".to_owned(),
        ));
    }
    if let Some(reference) = &wasm.image {
        let image = WasmImage {
            reference: reference.clone(),
            pull_secret: None,
        };
        return Ok((
            WasmSource::Image(image),
            format!("the module is image {reference}"),
        ));
    }
    let path = "spec.wasm.inline";
    let text = wasm.inline.as_deref().unwrap_or_default();
    let text: String = text.split_ascii_whitespace().collect();
    let module = STANDARD
        .decode(text)
        .map_err(|_| Fault::new("InvalidModule", format!("{path}: is not base64")))?;
    module_of(module, path).map(|source| (source, "the module is inline".to_owned()))
}

fn module_of(module: Vec<u8>, path: &str) -> Result<WasmSource, Fault> {
    if module.starts_with(MAGIC) {
        return Ok(WasmSource::Inline(Bytes::from(module)));
    }
    let message = format!("{path}: is no WebAssembly module, which begins with \\0asm");
    Err(Fault::new("InvalidModule", message))
}

type Opened = (Arc<str>, String, SecretText);

fn pull_secret(
    object: &Object<crds::WasmPlugin>,
    secret: Option<&Object<Secret>>,
) -> Result<Option<Opened>, Fault> {
    let wasm = &object.value.spec.wasm;
    let Some(reference) = wasm.pull_secret_ref.as_ref() else {
        return Ok(None);
    };
    let path = "spec.wasm.pullSecretRef";
    let key: Arc<str> = format!("{}/{}", object.namespace(), reference.name).into();
    let secret = secret.ok_or_else(|| {
        Fault::new(
            "SecretNotFound",
            format!("{path}: there is no Secret {key}"),
        )
    })?;
    let entry = reference.key.as_deref().unwrap_or(PullSecret::DEFAULT_KEY);
    let (entry, text) = secret_value(secret, Some(entry))
        .map_err(|message| Fault::new("InvalidSecret", format!("{path}: {message}")))?;
    Ok(Some((key, entry, text)))
}

fn hooks(written: &[api::Hook]) -> WasmHooks {
    use WasmHook::{RequestBody, RequestHeaders, ResponseBody, ResponseHeaders};
    if written.is_empty() {
        return WasmHooks::ALL;
    }
    let meant = written.iter().flat_map(|hook| match hook {
        api::Hook::OnRequest => [RequestHeaders, RequestBody],
        api::Hook::OnRequestHeaders => [RequestHeaders; 2],
        api::Hook::OnRequestBody => [RequestBody; 2],
        api::Hook::OnResponse => [ResponseHeaders, ResponseBody],
        api::Hook::OnResponseHeaders => [ResponseHeaders; 2],
        api::Hook::OnResponseBody | api::Hook::OnStreamChunk => [ResponseBody; 2],
    });
    meant.fold(WasmHooks::NONE, WasmHooks::with)
}

/// A text stays as it is, anything else becomes JSON.
fn config(spec: &crds::WasmPluginSpec) -> String {
    match &spec.config {
        None | Some(serde_json::Value::Null) => String::new(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

fn sandbox(spec: &crds::WasmPluginSpec, own: &str) -> WasmSandbox {
    let sandbox = spec.sandbox.clone().unwrap_or_default();
    let positive = |written: Option<i64>| u64::try_from(written?).ok().filter(|it| *it > 0);
    let backends = sandbox.allowed_backends.iter().map(|backend| {
        let namespace = backend.namespace.as_deref().unwrap_or(own);
        Arc::from(format!("{namespace}/{}:{}", backend.name, backend.port))
    });
    WasmSandbox {
        memory_bytes_max: positive(sandbox.max_memory_bytes),
        execution_time_max: positive(sandbox.max_execution_time_ms).map(Duration::from_millis),
        fuel_max: positive(sandbox.max_fuel),
        module_bytes_max: positive(sandbox.max_module_bytes),
        network: match sandbox.allow_network.unwrap_or_default() {
            false => WasmNetwork::None,
            true if sandbox.allowed_backends.is_empty() => WasmNetwork::OwnNamespace,
            true => WasmNetwork::Clusters(backends.collect()),
        },
    }
}

/// The field of the object that a path of the contract is about.
fn field_of(path: &str) -> String {
    match path {
        "source_url" => "spec.wasm.url".to_owned(),
        "image" | "sha256" => format!("spec.wasm.{path}"),
        "config_json" => "spec.config".to_owned(),
        "wasm_bytes" => "spec.wasm".to_owned(),
        other => format!("spec.{other}"),
    }
}

/// The schema knows that these are 64 digits.
fn digest_of(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let mut digest = [0; 32];
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
