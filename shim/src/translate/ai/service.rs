//! One AIService: what it says, in the words of the contract, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use crds::AIService;
use crds::ai_service as api;
use ir::ai::{
    AiFormat, AiPrice, AiProvider, AiService, AiTarget, Redaction, RedactionAction, RedactionKind,
};
use ir::cluster::{BackendTls, ClusterProtocol};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};

use super::provider::{self, Place, Provider};
use super::{Fault, Planned, Verdict};
use crate::cluster_view::{ClusterView, Object};

/// An object that was looked at; nothing when it was not there.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    Secret(Arc<str>, Option<Arc<Object<Secret>>>),
    ConfigMap(Arc<str>, Option<Arc<Object<ConfigMap>>>),
    Service(Arc<str>, Option<Arc<Object<Service>>>),
}

impl Seen {
    pub(super) fn is_current(&self, view: &ClusterView) -> bool {
        fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
            match (one, other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            }
        }
        match self {
            Self::Secret(key, object) => same(object.as_ref(), view.secrets.get(key)),
            Self::ConfigMap(key, object) => same(object.as_ref(), view.config_maps.get(key)),
            Self::Service(key, object) => same(object.as_ref(), view.services.get(key)),
        }
    }
}

pub(super) fn judge(
    object: &Object<AIService>,
    view: &ClusterView,
    seen: &mut Vec<Seen>,
) -> Verdict {
    let spec = &object.value.spec;
    let mut verdict = Verdict {
        planned: None,
        accepted: Ok(()),
        resolved: Ok(()),
        without_effect: without_effect(spec),
    };
    let faults = crds::check::faults(&object.value);
    if !faults.is_empty() {
        let messages = faults.iter().take(8);
        let messages: Vec<_> = messages
            .map(|fault| format!("{}: {}", fault.path, fault.message))
            .collect();
        verdict.accepted = Err(Fault::new("Invalid", messages.join("; ")));
        return verdict;
    }
    let namespace = object.namespace();
    let mut unresolved = Vec::new();
    let first = provider::read(&provider::first(spec), "spec", namespace, view, seen);
    let first = match first {
        Ok(first) => first,
        Err(fault) => {
            let message = format!("{}, so nothing is sent to it", fault.message);
            match fault.reason {
                "Invalid" => verdict.accepted = Err(Fault::new("Invalid", message)),
                reason => {
                    let see = "what it names cannot be used, see ResolvedRefs";
                    verdict.accepted = Err(Fault::new("Invalid", see));
                    verdict.resolved = Err(Fault::new(reason, message));
                }
            }
            return verdict;
        }
    };
    let mut planned = plan(spec, &first, object);
    let mut service = (*planned.service).clone();
    for (index, written) in spec.providers.iter().enumerate() {
        let path = format!("spec.providers[{index}]");
        let written = provider::further(written);
        match provider::read(&written, &path, namespace, view, seen) {
            Ok(read) => add(&mut service, &mut planned, read),
            Err(fault) => unresolved.push(fault),
        }
    }
    planned.service = Arc::new(service);
    if let Some(first) = unresolved.first() {
        let messages: Vec<_> = unresolved.iter().map(|fault| &*fault.message).collect();
        let message = format!("{}; the others serve without it", messages.join("; "));
        verdict.resolved = Err(Fault::new(first.reason, message));
    }
    match refused(&planned) {
        Some(message) => verdict.accepted = Err(Fault::new("Invalid", message)),
        None => verdict.planned = Some(planned),
    }
    verdict
}

/// The cluster with its first provider.
fn plan(spec: &crds::AIServiceSpec, first: &Provider, object: &Object<AIService>) -> Planned {
    let target = &first.target;
    let duration = |time: &Option<crds::duration::Duration>| time.as_ref().and_then(|it| it.read());
    let retry = spec.retry.clone().unwrap_or_default();
    let service = AiService {
        provider: target.provider.clone(),
        format: target.format.clone(),
        model: spec.model.clone(),
        auth: target.auth.clone(),
        timeout: duration(&spec.timeout),
        endpoint: target.endpoint.clone(),
        retries_max: retry.max_retries.map_or(0, i32::unsigned_abs),
        retry_backoff: duration(&retry.backoff),
        aliases: spec.aliases.clone(),
        headers: target.headers.clone(),
        weight: spec
            .weight
            .and_then(|weight| NonZeroU32::new(weight.unsigned_abs()))
            .unwrap_or(NonZeroU32::MIN),
        providers: Vec::new(),
        redaction: spec.redaction.iter().map(redaction).collect(),
        default_max_tokens: spec
            .default_max_tokens
            .and_then(|tokens| NonZeroU32::new(tokens.unsigned_abs())),
        pass_client_credentials: spec.pass_client_credentials.unwrap_or_default(),
        prices: spec.prices.iter().map(price).collect(),
    };
    debug_assert!(!object.name().is_empty(), "objects of a view have names");
    let mut secrets = BTreeMap::new();
    first.keep_secret(&mut secrets);
    Planned {
        service: Arc::new(service),
        protocol: if first.is_tls {
            ClusterProtocol::Https
        } else {
            ClusterProtocol::Http
        },
        tls: first
            .tls
            .as_ref()
            .map(|tls| Arc::new(BackendTls::from(tls))),
        endpoints_of: match &first.place {
            Place::Service(key) => Some(key.clone()),
            Place::Own => None,
        },
        others: BTreeSet::new(),
        secrets,
    }
}

/// Adds a further provider.
fn add(service: &mut AiService, planned: &mut Planned, read: Provider) {
    read.keep_secret(&mut planned.secrets);
    let cluster = match &read.place {
        Place::Service(key) => {
            planned.others.insert(key.clone());
            Some(key.to_string())
        }
        Place::Own => None,
    };
    service.providers.push(AiTarget {
        cluster,
        ..read.target
    });
}

fn price((model, price): (&String, &api::Price)) -> (String, AiPrice) {
    let price = AiPrice {
        input: price.input,
        cached_input: price.cached_input,
        output: price.output,
    };
    (model.clone(), price)
}

pub(super) fn provider(provider: api::Provider) -> AiProvider {
    match provider {
        api::Provider::Openai => AiProvider::OpenAi,
        api::Provider::Anthropic => AiProvider::Anthropic,
        api::Provider::Ollama => AiProvider::Ollama,
    }
}

/// The schema allows no other names.
pub(super) fn format(name: &str) -> AiFormat {
    match name {
        "anthropic" | "anthropic-messages" => AiFormat::Anthropic,
        "ollama" | "ollama-chat" => AiFormat::Ollama,
        _ => AiFormat::OpenAi,
    }
}

/// The schema allows no other kinds; a pattern goes with `regex`.
fn redaction(written: &api::Redaction) -> Redaction {
    let kind = match &*written.kind {
        "email" => RedactionKind::Email,
        "phone" => RedactionKind::Phone,
        "creditCard" => RedactionKind::CreditCard,
        "iban" => RedactionKind::Iban,
        "usSsn" => RedactionKind::UsSsn,
        "usItin" => RedactionKind::UsItin,
        "usPassport" => RedactionKind::UsPassport,
        "ukNhs" => RedactionKind::UkNhs,
        "ip" => RedactionKind::Ip,
        "mac" => RedactionKind::Mac,
        "cryptoAddress" => RedactionKind::CryptoAddress,
        "urlCredentials" => RedactionKind::UrlCredentials,
        "apiKey" => RedactionKind::ApiKey,
        "jwt" => RedactionKind::Jwt,
        _ => RedactionKind::Regex(written.pattern.clone().unwrap_or_default().into()),
    };
    let action = match written.action.as_deref() {
        Some("tokenize") => RedactionAction::Tokenize,
        Some("block") => RedactionAction::Block,
        Some("detect") => RedactionAction::Detect,
        _ => RedactionAction::Mask,
    };
    Redaction { kind, action }
}

/// What the contract refuses about it.
fn refused(planned: &Planned) -> Option<String> {
    let cluster = ir::Cluster {
        tls: planned.tls.clone(),
        ai_service: Some(planned.service.clone()),
        ..ir::Cluster::new("default/probe", ClusterProtocol::Http)
    };
    let violations = ir::decode::cluster(ir::encode::cluster(&cluster)).err()?;
    let messages = violations.iter().take(8).map(|violation| {
        let path = violation.path.trim_start_matches("ai_service.");
        format!("spec.{path}: {}", violation.message)
    });
    Some(messages.collect::<Vec<_>>().join("; "))
}

/// Fields that nobody acts by.
fn without_effect(spec: &crds::AIServiceSpec) -> Vec<String> {
    let fields = [("spec.observability", spec.observability.is_some())];
    let written = fields.iter().filter(|(_, is_written)| *is_written);
    written
        .map(|(field, _)| format!("{field} has no effect yet"))
        .collect()
}
