//! One BackendTLSPolicy on its own: whom it trusts, which names it expects, what is wrong with it.
//!
//! Judging a certificate authority costs more than all else about a policy, so a [`Known`] verdict
//! is kept as long as the policy and everything it names are the same objects. A policy with one
//! usable authority is served with that; with none it refuses everything.

use std::sync::Arc;

use gateway_api::backendtlspolicies::{
    BackendTlsPolicy, BackendTlsPolicySpec, BackendTlsPolicyValidation,
    BackendTlsPolicyValidationCaCertificateRefs, BackendTlsPolicyValidationSubjectAltNames,
    BackendTlsPolicyValidationSubjectAltNamesType,
};
use ir::Hostname;
use ir::cluster::{BackendTls, SubjectAltName};
use ir::listener::TlsVersion;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use crate::cluster_view::{ClusterView, Object};
use crate::translate::tls_option;

/// The key of a ConfigMap or Secret under which authorities stand (Gateway API
/// `caCertificateRefs`).
const CA_KEY: &str = "ca.crt";
/// Bytes of PEM text one policy may bring along; every cluster it holds for carries them.
const CA_BYTES_MAX: usize = 1 << 20;
/// What the CRD allows.
const CA_REFS_MAX: usize = 8;
const SUBJECT_ALT_NAMES_MAX: usize = 5;
const TARGETS_MAX: usize = 16;
const URI_BYTES_MAX: usize = 253;

/// What is wrong, as a condition says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::translate) struct Fault {
    pub(in crate::translate) reason: &'static str,
    pub(in crate::translate) message: String,
}

impl Fault {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new("Invalid", message)
    }

    /// All of them under the first one's reason.
    pub(super) fn joined(faults: Vec<Self>) -> Option<Self> {
        let mut faults = faults.into_iter();
        let mut first = faults.next()?;
        for fault in faults {
            first.message += "; ";
            first.message += &fault.message;
        }
        Some(first)
    }
}

/// What became of one policy.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::translate) struct Verdict {
    /// Key of the policy.
    pub(in crate::translate) policy: Arc<str>,
    /// What endpoints must show; absent when nothing may be sent to them.
    pub(in crate::translate) tls: Option<Arc<BackendTls>>,
    /// Whether it can be used at all.
    pub(super) accepted: Result<(), Fault>,
    /// Whether everything it names is there.
    pub(super) resolved: Result<(), Fault>,
}

/// A verdict and what it was made of.
#[derive(Clone, Debug)]
pub(super) struct Known {
    policy: Arc<Object<BackendTlsPolicy>>,
    sources: Vec<Source>,
    pub(super) verdict: Arc<Verdict>,
}

/// What a reference to an authority led to; nothing when there was no such object.
#[derive(Clone, Debug)]
enum Source {
    ConfigMap(String, Option<Arc<Object<ConfigMap>>>),
    Secret(String, Option<Arc<Object<Secret>>>),
}

/// Certificate authorities that others than policies name.
#[derive(Debug)]
pub(in crate::translate) struct Authorities;

impl Authorities {
    /// The PEM text of a ConfigMap or Secret; the message never holds any of it.
    pub(in crate::translate) fn read(
        kind: &str,
        key: &str,
        view: &ClusterView,
    ) -> Result<String, String> {
        let source = Source::of(kind, key.to_owned(), view);
        source.map_or_else(
            || Err(format!("kind {kind} holds no authorities")),
            |source| source.authorities(),
        )
    }
}

impl Source {
    /// Nothing for a kind that holds no authorities.
    fn find(
        reference: &BackendTlsPolicyValidationCaCertificateRefs,
        namespace: &str,
        view: &ClusterView,
    ) -> Option<Self> {
        let key = format!("{namespace}/{}", reference.name);
        match reference.group.as_str() {
            "" | "core" => Self::of(&reference.kind, key, view),
            _ => None,
        }
    }

    fn of(kind: &str, key: String, view: &ClusterView) -> Option<Self> {
        match kind {
            "ConfigMap" => {
                let object = view.config_maps.get(&key).cloned();
                Some(Self::ConfigMap(key, object))
            }
            "Secret" => {
                let object = view.secrets.get(&key).cloned();
                Some(Self::Secret(key, object))
            }
            _ => None,
        }
    }

    fn is_current(&self, view: &ClusterView) -> bool {
        fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
            match (one, other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            }
        }
        match self {
            Self::ConfigMap(key, object) => same(object.as_ref(), view.config_maps.get(key)),
            Self::Secret(key, object) => same(object.as_ref(), view.secrets.get(key)),
        }
    }

    /// The PEM text; the message never holds any of it.
    fn authorities(&self) -> Result<String, String> {
        let (title, text) = match self {
            Self::ConfigMap(key, None) => return Err(format!("there is no ConfigMap {key}")),
            Self::Secret(key, None) => return Err(format!("there is no Secret {key}")),
            Self::ConfigMap(_, Some(object)) => {
                let text = object.value.data.as_ref().and_then(|data| data.get(CA_KEY));
                let title = format!("{} ({})", object.title(), object.origin);
                (title, text.map(|text| Ok(text.clone())))
            }
            Self::Secret(_, Some(object)) => {
                let (plain, coded) = (&object.value.string_data, &object.value.data);
                let plain = plain.as_ref().and_then(|data| data.get(CA_KEY));
                let coded = coded.as_ref().and_then(|data| data.get(CA_KEY));
                let coded = coded.map(|bytes| String::from_utf8(bytes.0.clone()));
                let title = format!("{} ({})", object.title(), object.origin);
                (title, plain.map(|text| Ok(text.clone())).or(coded))
            }
        };
        match text {
            None => Err(format!("{title} has no {CA_KEY}")),
            Some(Ok(text)) if text.len() > CA_BYTES_MAX => Err(format!(
                "{title}: {CA_KEY} is longer than {} KiB, leave out what is not needed",
                CA_BYTES_MAX >> 10
            )),
            Some(Ok(text)) if ir::decode::is_authorities(&text) => Ok(text),
            Some(_) => Err(format!(
                "{title}: {CA_KEY} holds no PEM certificates that can be trust anchors"
            )),
        }
    }
}

impl Known {
    pub(super) fn new(policy: &Arc<Object<BackendTlsPolicy>>, view: &ClusterView) -> Self {
        let mut sources = Vec::new();
        let verdict = judge(policy, view, &mut sources);
        Self {
            policy: policy.clone(),
            sources,
            verdict: Arc::new(verdict),
        }
    }

    /// True when it was made of that policy and what it names is as it was.
    pub(super) fn is_of(&self, policy: &Arc<Object<BackendTlsPolicy>>, view: &ClusterView) -> bool {
        let is_same = Arc::ptr_eq(&self.policy, policy);
        is_same && self.sources.iter().all(|source| source.is_current(view))
    }
}

fn judge(
    policy: &Object<BackendTlsPolicy>,
    view: &ClusterView,
    sources: &mut Vec<Source>,
) -> Verdict {
    let spec = &policy.value.spec;
    let trust = trust(&spec.validation, policy.namespace(), view, sources);
    let names = names(&spec.validation);
    let versions = versions(spec);
    let faults = [
        targets(spec).err(),
        names.as_ref().err().cloned(),
        versions.as_ref().err().cloned(),
        trust.accepted.err(),
    ];
    let accepted = Fault::joined(faults.into_iter().flatten().collect()).map_or(Ok(()), Err);
    let tls = match (&accepted, names, versions) {
        (Ok(()), Ok((hostname, subject_alt_names)), Ok((min_version, max_version))) => {
            Some(Arc::new(BackendTls {
                hostname,
                use_system_ca_certificates: trust.system,
                ca_pems: trust.ca_pems,
                subject_alt_names,
                min_version,
                max_version,
            }))
        }
        _ => None,
    };
    Verdict {
        policy: policy.key.clone(),
        tls,
        accepted,
        resolved: trust.resolved,
    }
}

/// Whom a policy trusts.
struct Trusted {
    ca_pems: Vec<String>,
    system: bool,
    accepted: Result<(), Fault>,
    resolved: Result<(), Fault>,
}

fn trust(
    spec: &BackendTlsPolicyValidation,
    namespace: &str,
    view: &ClusterView,
    sources: &mut Vec<Source>,
) -> Trusted {
    let mut trusted = Trusted {
        ca_pems: Vec::new(),
        system: false,
        accepted: Ok(()),
        resolved: Ok(()),
    };
    let references = spec.ca_certificate_refs.as_deref().unwrap_or_default();
    let known = spec.well_known_ca_certificates.as_deref();
    let known = known.filter(|name| !name.is_empty());
    let path = "spec.validation";
    let invalid = |message: String| Err(Fault::invalid(message));
    match (references, known) {
        ([], Some("System")) => trusted.system = true,
        ([], Some(other)) => {
            trusted.accepted = invalid(format!(
                "{path}.wellKnownCACertificates: {other:?} is not known, use System"
            ));
        }
        ([], None) => {
            trusted.accepted = invalid(format!(
                "{path}: trusts nobody, write caCertificateRefs or wellKnownCACertificates"
            ));
        }
        (_, Some(_)) => {
            trusted.accepted = invalid(format!(
                "{path}: write caCertificateRefs or wellKnownCACertificates, not both"
            ));
        }
        (references, None) if references.len() > CA_REFS_MAX => {
            trusted.accepted = invalid(format!(
                "{path}.caCertificateRefs: holds more than {CA_REFS_MAX} references"
            ));
        }
        (references, None) => read(references, namespace, view, sources, &mut trusted),
    }
    trusted
}

/// Reads every authority that can be read.
fn read(
    references: &[BackendTlsPolicyValidationCaCertificateRefs],
    namespace: &str,
    view: &ClusterView,
    sources: &mut Vec<Source>,
    trusted: &mut Trusted,
) {
    let mut faults = Vec::new();
    let mut bytes = 0;
    for (index, reference) in references.iter().enumerate() {
        let path = format!("spec.validation.caCertificateRefs[{index}]");
        let Some(source) = Source::find(reference, namespace, view) else {
            let kind = &reference.kind;
            let message =
                format!("{path}: kind {kind} holds no authorities here, use a ConfigMap or Secret");
            faults.push(Fault::new("InvalidKind", message));
            continue;
        };
        let reason = "InvalidCACertificateRef";
        match source.authorities() {
            Ok(pem) if bytes + pem.len() > CA_BYTES_MAX => {
                let message = format!("{path}: all together are longer than 1 MiB");
                faults.push(Fault::new(reason, message));
            }
            Ok(pem) => {
                bytes += pem.len();
                trusted.ca_pems.push(pem);
            }
            Err(message) => faults.push(Fault::new(reason, format!("{path}: {message}"))),
        }
        sources.push(source);
    }
    let Some(fault) = Fault::joined(faults) else {
        return;
    };
    if trusted.ca_pems.is_empty() {
        let message = "no authority can be used, so nothing is sent to the targets";
        trusted.accepted = Err(Fault::new("NoValidCACertificate", message));
    }
    trusted.resolved = Err(fault);
}

/// The name to ask for, and the names of which a certificate must have one.
fn names(spec: &BackendTlsPolicyValidation) -> Result<(Hostname, Vec<SubjectAltName>), Fault> {
    let path = "spec.validation.hostname";
    let text = &spec.hostname;
    let hostname =
        Hostname::new(text).map_err(|error| Fault::invalid(format!("{path}: {text:?} {error}")))?;
    if hostname.is_wildcard() {
        let message = format!("{path}: {text:?} is a wildcard, write one DNS name");
        return Err(Fault::invalid(message));
    }
    let written = spec.subject_alt_names.as_deref().unwrap_or_default();
    let path = "spec.validation.subjectAltNames";
    if written.len() > SUBJECT_ALT_NAMES_MAX {
        let message = format!("{path}: holds more than {SUBJECT_ALT_NAMES_MAX} names");
        return Err(Fault::invalid(message));
    }
    let names = written.iter().enumerate().map(|(index, name)| {
        let path = format!("{path}[{index}]");
        subject_alt_name(name).map_err(|message| Fault::invalid(format!("{path}{message}")))
    });
    Ok((hostname, names.collect::<Result<_, _>>()?))
}

fn subject_alt_name(
    name: &BackendTlsPolicyValidationSubjectAltNames,
) -> Result<SubjectAltName, String> {
    use BackendTlsPolicyValidationSubjectAltNamesType as Type;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (hostname, uri) = (text(&name.hostname), text(&name.uri));
    match name.r#type {
        Type::Hostname if !uri.is_empty() => Err(".uri: is not for type Hostname".to_owned()),
        Type::Hostname => Hostname::new(&hostname)
            .map(SubjectAltName::Hostname)
            .map_err(|error| format!(".hostname: {hostname:?} {error}")),
        Type::Uri if !hostname.is_empty() => Err(".hostname: is not for type URI".to_owned()),
        Type::Uri if is_absolute_uri(&uri) => Ok(SubjectAltName::Uri(uri)),
        Type::Uri => Err(format!(
            ".uri: {uri:?} is no absolute URI, write for example spiffe://cluster.example/ns/a/sa/b"
        )),
    }
}

/// What the CRD asks of a URI: a scheme and `//`.
fn is_absolute_uri(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    let is_scheme = |scheme: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(plain)
    };
    text.len() <= URI_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && scheme.is_some_and(is_scheme)
}

fn versions(spec: &BackendTlsPolicySpec) -> Result<(TlsVersion, TlsVersion), Fault> {
    tls_option::versions(spec.options.as_ref())
        .map_err(|message| Fault::invalid(format!("spec.options: {message}")))
}

/// Targets must differ from each other (the CRD's own rule).
fn targets(spec: &BackendTlsPolicySpec) -> Result<(), Fault> {
    let targets = &spec.target_refs;
    if targets.is_empty() || targets.len() > TARGETS_MAX {
        let message = format!("spec.targetRefs: holds 1 to {TARGETS_MAX} targets");
        return Err(Fault::invalid(message));
    }
    for (index, target) in targets.iter().enumerate() {
        let section = super::section_of(target);
        let clashes = targets[..index].iter().any(|other| {
            let other_section = super::section_of(other);
            let is_same = (&other.group, &other.kind, &other.name)
                == (&target.group, &target.kind, &target.name);
            is_same && (section == other_section || section.is_none() || other_section.is_none())
        });
        if clashes {
            let message = format!(
                "spec.targetRefs[{index}]: names {} again, which needs a sectionName of its own",
                target.name
            );
            return Err(Fault::invalid(message));
        }
    }
    Ok(())
}
