//! One provider of an AIService: where it is, whom to trust there, which key to show.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crds::ai_service as api;
use ir::ai::{AiAuth, AiAuthKind, AiProviderTls, AiTarget};
use ir::{Hostname, SecretText};
use k8s_openapi::api::core::v1::Secret;

use super::service::{Seen, format, provider};
use super::{Fault, KIND};
use crate::cluster_view::{ClusterView, Object};
use crate::translate::backend_tls::Authorities;

/// Keys of a Secret that a message names.
const NAMED_MAX: usize = 8;

/// A provider as either list of the resource writes it.
pub(super) struct Written<'a> {
    provider: api::Provider,
    format: Option<&'a str>,
    model: &'a str,
    endpoint: Option<&'a str>,
    auth: Option<&'a api::ProviderAuth>,
    headers: &'a [api::HeaderField],
    tls: Option<&'a api::ProviderTls>,
    weight: u32,
    is_first: bool,
}

/// The provider that the resource itself names.
pub(super) fn first(spec: &crds::AIServiceSpec) -> Written<'_> {
    Written {
        provider: spec.provider,
        format: spec.format.as_deref(),
        model: &spec.model,
        endpoint: spec.endpoint.as_deref(),
        auth: spec.auth.as_ref(),
        headers: &spec.headers,
        tls: spec.tls.as_ref(),
        weight: 1,
        is_first: true,
    }
}

/// One of the further providers.
pub(super) fn further(written: &api::FurtherProvider) -> Written<'_> {
    Written {
        provider: written.provider,
        format: written.format.as_deref(),
        model: written.model.as_deref().unwrap_or_default(),
        endpoint: written.endpoint.as_deref(),
        auth: written.auth.as_ref(),
        headers: &written.headers,
        tls: written.tls.as_ref(),
        weight: written.weight.map_or(0, i32::unsigned_abs),
        is_first: false,
    }
}

/// A provider, read.
pub(super) struct Provider {
    pub(super) target: AiTarget,
    pub(super) is_tls: bool,
    /// Of the first provider, and only where it differs from what the endpoint says.
    pub(super) tls: Option<AiProviderTls>,
    pub(super) place: Place,
    secret: Option<SecretText>,
}

/// Where a provider is.
pub(super) enum Place {
    /// Where its endpoint says, which is for the data plane to find.
    Own,
    /// At a Service, `namespace/service:port`.
    Service(Arc<str>),
}

impl Provider {
    /// Adds the key it shows to those that are published.
    pub(super) fn keep_secret(
        &self,
        secrets: &mut BTreeMap<Arc<str>, BTreeMap<String, SecretText>>,
    ) {
        if let (Some(auth), Some(text)) = (&self.target.auth, &self.secret) {
            let key = auth.secret_key.clone().unwrap_or_default();
            let values = secrets.entry(auth.secret_ref.clone()).or_default();
            values.insert(key, text.clone());
        }
    }
}

pub(super) fn read(
    written: &Written<'_>,
    path: &str,
    namespace: &str,
    view: &ClusterView,
    seen: &mut Vec<Seen>,
) -> Result<Provider, Fault> {
    let url = written.endpoint.map(Url::read);
    let is_tls = match (&url, written.provider) {
        (Some(url), _) => url.is_tls,
        (None, api::Provider::Ollama) => false,
        (None, _) => true,
    };
    let place = match &url {
        Some(url) => url.place(view, seen),
        None => Place::Own,
    };
    // A further provider at a Service is reached as that Service is, and nothing else is said of it.
    let place = match place {
        Place::Service(_) if is_tls && !written.is_first => Place::Own,
        place => place,
    };
    let tls = tls(written, path, url.as_ref(), is_tls, namespace, view, seen)?;
    let (auth, secret) = match written.auth {
        Some(auth) => {
            let path = format!("{path}.auth");
            let (auth, secret) = credential(auth, &path, namespace, view, seen)?;
            (Some(auth), Some(secret))
        }
        None => (None, None),
    };
    let field = |field: &api::HeaderField| (field.name.to_ascii_lowercase(), field.value.clone());
    Ok(Provider {
        target: AiTarget {
            provider: provider(written.provider),
            format: written.format.map(format),
            model: written.model.to_owned(),
            auth,
            endpoint: written.endpoint.map(str::to_owned),
            headers: written.headers.iter().map(field).collect(),
            weight: written.weight,
            cluster: None,
            tls: tls.clone().filter(|_| !written.is_first),
        },
        is_tls,
        tls: tls.filter(|_| written.is_first),
        place,
        secret,
    })
}

/// A base URL as far as it says where to go.
struct Url<'a> {
    is_tls: bool,
    host: &'a str,
    port: u16,
}

impl<'a> Url<'a> {
    /// The schema has seen to its form.
    fn read(text: &'a str) -> Self {
        let (scheme, rest) = text.split_once("://").unwrap_or(("https", text));
        let is_tls = scheme == "https";
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let is_bare_address = authority.ends_with(']');
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !is_bare_address => (host, port.parse().ok()),
            _ => (authority, None),
        };
        Self {
            is_tls,
            host: host.trim_start_matches('[').trim_end_matches(']'),
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
        }
    }

    /// The Service that `name.namespace.svc` means, as long as there is one.
    fn place(&self, view: &ClusterView, seen: &mut Vec<Seen>) -> Place {
        let mut labels = self.host.split('.');
        let (name, namespace, svc) = (labels.next(), labels.next(), labels.next());
        let (Some(name), Some(namespace), Some("svc")) = (name, namespace, svc) else {
            return Place::Own;
        };
        let key: Arc<str> = format!("{namespace}/{name}").into();
        let service = view.services.get(&key).cloned();
        seen.push(Seen::Service(key.clone(), service.clone()));
        let spec = service.as_ref().and_then(|it| it.value.spec.as_ref());
        let is_elsewhere = spec.and_then(|it| it.type_.as_deref()) == Some("ExternalName");
        let mut ports = spec.and_then(|it| it.ports.as_ref()).into_iter().flatten();
        let port = i32::from(self.port);
        if !is_elsewhere && ports.any(|known| known.port == port) {
            return Place::Service(format!("{key}:{port}").into());
        }
        Place::Own
    }
}

fn tls(
    written: &Written<'_>,
    path: &str,
    url: Option<&Url<'_>>,
    is_tls: bool,
    namespace: &str,
    view: &ClusterView,
    seen: &mut Vec<Seen>,
) -> Result<Option<AiProviderTls>, Fault> {
    let host = url.map(|url| url.host);
    let is_address = host.is_some_and(|host| host.parse::<IpAddr>().is_ok());
    let said = written.tls.and_then(|tls| tls.hostname.as_deref());
    if is_tls && is_address && said.is_none() {
        let message = format!(
            "{path}.endpoint: an address has no name that a certificate could be held against, \
             write tls.hostname or a name"
        );
        return Err(Fault::new("Invalid", message));
    }
    let Some(tls) = written.tls else {
        return Ok(None);
    };
    let hostname = said.or(host).unwrap_or(match written.provider {
        api::Provider::Anthropic => "api.anthropic.com",
        _ => "api.openai.com",
    });
    let hostname = Hostname::new(hostname)
        .map_err(|error| Fault::new("Invalid", format!("{path}.tls.hostname: {error}")))?;
    let mut ca_pems = Vec::new();
    for (index, reference) in tls.ca_certificate_refs.iter().enumerate() {
        let key: Arc<str> = format!("{namespace}/{}", reference.name).into();
        seen.push(match &*reference.kind {
            "Secret" => Seen::Secret(key.clone(), view.secrets.get(&key).cloned()),
            _ => Seen::ConfigMap(key.clone(), view.config_maps.get(&key).cloned()),
        });
        let found = Authorities::read(&reference.kind, &key, view);
        ca_pems.push(found.map_err(|message| {
            let path = format!("{path}.tls.caCertificateRefs[{index}]");
            Fault::new("InvalidCACertificateRef", format!("{path}: {message}"))
        })?);
    }
    Ok(Some(AiProviderTls { hostname, ca_pems }))
}

fn credential(
    written: &api::ProviderAuth,
    path: &str,
    namespace: &str,
    view: &ClusterView,
    seen: &mut Vec<Seen>,
) -> Result<(AiAuth, SecretText), Fault> {
    let (name, key) = match &written.secret_ref {
        Some(reference) => (Some(&reference.name), reference.key.as_deref()),
        None => (written.secret.as_ref(), written.key.as_deref()),
    };
    let name = name.map_or("", String::as_str);
    let secret_ref: Arc<str> = format!("{namespace}/{name}").into();
    let secret = view.secrets.get(&secret_ref).cloned();
    seen.push(Seen::Secret(secret_ref.clone(), secret.clone()));
    let secret = secret.ok_or_else(|| {
        let message = format!("{path}: there is no Secret {secret_ref}, which this {KIND} names");
        Fault::new("SecretNotFound", message)
    })?;
    let (key, text) = value(&secret, key)
        .map_err(|message| Fault::new("InvalidSecret", format!("{path}: {message}")))?;
    let kind = match written.kind.as_deref() {
        Some("api-key") => AiAuthKind::ApiKey,
        Some("basic") => AiAuthKind::Basic,
        Some("header") => AiAuthKind::Header,
        _ => AiAuthKind::Bearer,
    };
    let header = written.header.as_ref();
    let auth = AiAuth {
        kind,
        secret_ref,
        secret_key: Some(key),
        header: header.map(|name| name.to_ascii_lowercase()),
    };
    Ok((auth, text))
}

/// The value of a key of a Secret, or of its only one; the message holds none of it.
pub(in crate::translate) fn value(
    secret: &Object<Secret>,
    key: Option<&str>,
) -> Result<(String, SecretText), String> {
    let title = format!("{} ({})", secret.title(), secret.origin);
    let plain = secret.value.string_data.iter().flatten();
    let coded = secret.value.data.iter().flatten();
    let keys: std::collections::BTreeSet<&str> = plain
        .map(|(key, _)| key.as_str())
        .chain(coded.map(|(key, _)| key.as_str()))
        .collect();
    let listed: Vec<_> = keys.iter().take(NAMED_MAX).copied().collect();
    let listed = listed.join(", ");
    let key = match (key, keys.len()) {
        (Some(key), _) if keys.contains(key) => key,
        (_, 0) => return Err(format!("{title} is empty")),
        (Some(key), _) => return Err(format!("{title} has no key {key}, it has {listed}")),
        (None, 1) => listed.as_str(),
        (None, _) => return Err(format!("{title} has several keys, name one: {listed}")),
    };
    let plain = secret
        .value
        .string_data
        .as_ref()
        .and_then(|data| data.get(key));
    let coded = secret.value.data.as_ref().and_then(|data| data.get(key));
    let text = match (plain, coded) {
        (Some(text), _) => Some(text.as_str()),
        (None, Some(bytes)) => std::str::from_utf8(&bytes.0).ok(),
        (None, None) => None,
    };
    // A line break at the end is what `echo` adds.
    let text = text.map(str::trim);
    let is_visible = |text: &&str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    match text.filter(is_visible) {
        None => Err(format!(
            "{title}: {key} holds what no header field may hold"
        )),
        Some("") => Err(format!("{title}: {key} is empty")),
        Some(text) => Ok((key.to_owned(), SecretText::new(text.to_owned()))),
    }
}
