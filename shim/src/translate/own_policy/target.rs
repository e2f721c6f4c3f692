//! What a policy is about, by kind and key.

use std::fmt;
use std::sync::Arc;

use super::Fault;
use crate::cluster_view::{ClusterView, Kind};

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// An object that a policy names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A Service, `namespace/name`.
    Service(Arc<str>),
    /// An AIService, `namespace/name`.
    AiService(Arc<str>),
    /// A Gateway, and one of its listeners where that is meant.
    Gateway(Arc<str>, Option<String>),
    /// An HTTPRoute or a GRPCRoute.
    Route(Kind, Arc<str>),
    /// A rule of an HTTPRoute or a GRPCRoute, by its name.
    Rule(Kind, Arc<str>, String),
    /// Something that no policy of the kind can be about.
    Other { kind: String, key: Arc<str> },
}

/// A reference as the kinds write it.
pub(super) struct Reference<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
    pub(super) section: Option<&'a str>,
}

impl<'a> From<&'a crds::target_ref::TargetRef> for Reference<'a> {
    fn from(target: &'a crds::target_ref::TargetRef) -> Self {
        Self {
            group: &target.group,
            kind: &target.kind,
            namespace: target.namespace.as_deref(),
            name: &target.name,
            section: target.section_name.as_deref(),
        }
    }
}

impl<'a> Reference<'a> {
    /// A whole object of the policy's own namespace.
    pub(super) fn local(group: &'a str, kind: &'a str, name: &'a str) -> Self {
        Self {
            group,
            kind,
            namespace: None,
            name,
            section: None,
        }
    }
}

impl Target {
    /// Reads a reference of a policy in `namespace`.
    pub(super) fn read(reference: &Reference<'_>, namespace: &str) -> Result<Self, (Self, Fault)> {
        let key: Arc<str> = format!("{namespace}/{}", reference.name).into();
        let other = || Self::Other {
            kind: reference.kind.to_owned(),
            key: key.clone(),
        };
        if reference.namespace.is_some_and(|named| named != namespace) {
            let message = format!("a policy is about objects of its own namespace, {namespace}");
            return Err((other(), Fault::new("Invalid", message)));
        }
        match (reference.group, reference.kind) {
            ("", "Service") => Ok(Self::Service(key)),
            (crds::GROUP, "AIService") => Ok(Self::AiService(key)),
            (GATEWAY_API, "Gateway") => {
                Ok(Self::Gateway(key, reference.section.map(str::to_owned)))
            }
            (GATEWAY_API, "HTTPRoute") => Ok(Self::Route(Kind::HttpRoute, key)),
            (GATEWAY_API, "GRPCRoute") => Ok(Self::Route(Kind::GrpcRoute, key)),
            (GATEWAY_API, kind @ ("TCPRoute" | "TLSRoute" | "UDPRoute")) => {
                let message = format!(
                    "a {kind} cannot be a target, nothing is enforced for it; name its Gateway \
                     or its Services instead"
                );
                Err((other(), Fault::new("InvalidKind", message)))
            }
            (group, kind) => {
                let message = format!("kind {kind} of group {group:?} cannot be a target here");
                Err((other(), Fault::new("InvalidKind", message)))
            }
        }
    }

    /// What policies of a Gateway, or of one of its listeners, are kept by.
    pub(super) fn gateway_key(&self) -> Option<Arc<str>> {
        match self {
            Self::Gateway(key, Some(section)) => Some(format!("{key}/{section}").into()),
            Self::Gateway(key, None) => Some(key.clone()),
            _ => None,
        }
    }

    /// What is missing for it to be there.
    pub(super) fn missing(&self, view: &ClusterView) -> Option<String> {
        match self {
            Self::Service(key) => {
                let Some(service) = view.services.get(key) else {
                    return Some(format!("there is no Service {key}"));
                };
                let spec = service.value.spec.as_ref();
                let ports = spec
                    .and_then(|spec| spec.ports.as_deref())
                    .unwrap_or_default();
                ports
                    .is_empty()
                    .then(|| format!("Service {key} has no ports"))
            }
            Self::AiService(key) => {
                let is_there = view.ai_services.get(key).is_some();
                (!is_there).then(|| format!("there is no AIService {key}"))
            }
            Self::Gateway(key, section) => {
                let Some(gateway) = view.gateways.get(key) else {
                    return Some(format!("there is no Gateway {key}"));
                };
                let section = section.as_ref()?;
                let listeners = &gateway.value.spec.listeners;
                let is_there = listeners.iter().any(|listener| listener.name == *section);
                (!is_there).then(|| format!("Gateway {key} has no listener {section}"))
            }
            Self::Route(kind, key) => {
                let is_there = match kind {
                    Kind::GrpcRoute => view.grpc_routes.get(key).is_some(),
                    _ => view.http_routes.get(key).is_some(),
                };
                (!is_there).then(|| format!("there is no {kind} {key}"))
            }
            Self::Rule(kind, key, rule) => {
                let whole = Self::Route(*kind, key.clone()).missing(view);
                whole.or_else(|| {
                    let is_there = has_rule(view, *kind, key, rule);
                    (!is_there).then(|| format!("{kind} {key} has no rule named {rule}"))
                })
            }
            Self::Other { .. } => None,
        }
    }

    /// Kind, namespace, name and part of it.
    pub(super) fn parts(&self) -> (&str, &str, &str, Option<&str>) {
        let (kind, key, section) = match self {
            Self::Service(key) => ("Service", key, None),
            Self::AiService(key) => ("AIService", key, None),
            Self::Gateway(key, section) => ("Gateway", key, section.as_deref()),
            Self::Route(kind, key) => (kind.as_str(), key, None),
            Self::Rule(kind, key, rule) => (kind.as_str(), key, Some(rule.as_str())),
            Self::Other { kind, key } => (kind.as_str(), key, None),
        };
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        (kind, namespace, name, section)
    }
}

/// Whether a route has a rule of that name.
fn has_rule(view: &ClusterView, kind: Kind, route: &str, rule: &str) -> bool {
    let is_named = |name: Option<&String>| name.is_some_and(|name| name == rule);
    match kind {
        Kind::GrpcRoute => view.grpc_routes.get(route).is_some_and(|object| {
            let mut rules = object.value.spec.rules.iter().flatten();
            rules.any(|it| is_named(it.name.as_ref()))
        }),
        _ => view.http_routes.get(route).is_some_and(|object| {
            let mut rules = object.value.spec.rules.iter().flatten();
            rules.any(|it| is_named(it.name.as_ref()))
        }),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, namespace, name, section) = self.parts();
        write!(f, "{kind} {namespace}/{name}")?;
        match section {
            Some(section) if kind == "Gateway" => write!(f, ", listener {section}"),
            Some(section) => write!(f, ", rule {section}"),
            None => Ok(()),
        }
    }
}
