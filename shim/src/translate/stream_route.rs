//! TCPRoutes, UDPRoutes and TLSRoutes: where connections and datagrams go, by port or by the name asked for.
//!
//! What they share with HTTPRoutes is in [`super::route`]. Inside the translation a stream route is
//! a `Route` of stream rules, so that attachment and conditions are told as for every other kind;
//! [`published`] makes of it what data planes get.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_api::experimental::httproutes::HttpRouteParentRefs;
use gateway_api::experimental::tcproutes::TcpRoute;
use gateway_api::experimental::tlsroutes::TlsRoute;
use gateway_api::experimental::udproutes::UdpRoute;
use ir::http_route::{BackendRef, Route};
use ir::stream_route::{StreamKind, StreamMatch, StreamRoute, StreamRule};
use ir::{Hostname, Violations};

use super::Scope;
use super::backend::{self, Reference};
use super::gateway::parent_key;
use super::http_route::weight;
use super::listener::RouteKind;
use super::notes::Notes;
use super::route::{Head, Outcome, finish, parent_refs};
use crate::cluster_view::{Object, Watched};

/// Gateway API allows so many rules in a route, and backends in a rule.
const RULES_MAX: usize = 16;
const BACKENDS_MAX: usize = 16;

macro_rules! rules {
    ($spec:expr) => {
        $spec
            .rules
            .iter()
            .map(|rule| Rule {
                name: rule.name.as_deref(),
                backends: rule
                    .backend_refs
                    .iter()
                    .map(|backend| {
                        let reference = Reference {
                            group: backend.group.as_deref(),
                            kind: backend.kind.as_deref(),
                            namespace: backend.namespace.as_deref(),
                            name: &backend.name,
                            port: backend.port,
                        };
                        (reference, backend.weight)
                    })
                    .collect(),
            })
            .collect()
    };
}

/// A rule as all kinds write it.
struct Rule<'a> {
    name: Option<&'a str>,
    backends: Vec<(Reference<'a>, Option<i32>)>,
}

/// Translates one TCPRoute.
pub(super) fn tcp(object: &Arc<Object<TcpRoute>>, scope: &Scope<'_>) -> Outcome<StreamRule> {
    let spec = &object.value.spec;
    let head = Head {
        kind: RouteKind::Tcp,
        parent_refs: parent_refs!(spec),
        hostnames: &[],
        rules: spec.rules.len(),
    };
    translate(object, head, rules!(spec), StreamKind::Tcp, scope)
}

/// Translates one UDPRoute.
pub(super) fn udp(object: &Arc<Object<UdpRoute>>, scope: &Scope<'_>) -> Outcome<StreamRule> {
    let spec = &object.value.spec;
    let head = Head {
        kind: RouteKind::Udp,
        parent_refs: parent_refs!(spec),
        hostnames: &[],
        rules: spec.rules.len(),
    };
    translate(object, head, rules!(spec), StreamKind::Udp, scope)
}

/// Translates one TLSRoute.
pub(super) fn tls(object: &Arc<Object<TlsRoute>>, scope: &Scope<'_>) -> Outcome<StreamRule> {
    let spec = &object.value.spec;
    let head = Head {
        kind: RouteKind::Tls,
        parent_refs: parent_refs!(spec),
        hostnames: &spec.hostnames,
        rules: spec.rules.len(),
    };
    let scope = Scope {
        passes_tls: passes_tls(&head.parent_refs, scope),
        fronts: BTreeSet::new(),
        ..*scope
    };
    translate(object, head, rules!(spec), StreamKind::Tls, &scope)
}

/// True when TLS is ended at none of the listeners that a TLSRoute names.
fn passes_tls(parents: &[HttpRouteParentRefs], scope: &Scope<'_>) -> bool {
    let listeners: Vec<_> = parents
        .iter()
        .filter_map(|parent| {
            let namespace = parent.namespace.as_deref().unwrap_or(scope.namespace);
            let kind = parent.kind.as_deref().unwrap_or("Gateway");
            let key = parent_key(kind, namespace, &parent.name);
            Some((parent, scope.gateways.parents.get(&*key)?))
        })
        .flat_map(|(parent, gateway)| {
            let section = parent.section_name.as_deref().unwrap_or_default();
            gateway.listeners.iter().filter(move |listener| {
                listener.kinds.contains(&RouteKind::Tls)
                    && (section.is_empty() || section == listener.section)
            })
        })
        .collect();
    !listeners.is_empty() && listeners.iter().all(|listener| listener.passes_tls)
}

/// What data planes get of a translated route.
pub(super) fn published(kind: StreamKind, route: &Route<StreamRule>) -> StreamRoute {
    let (namespace, name) = route.key.split_once('/').unwrap_or(("", &route.key));
    StreamRoute {
        key: StreamRoute::key_of(kind, namespace, name).into(),
        kind,
        listeners: route.listeners.clone(),
        parent_refs: route.parent_refs.clone(),
        rules: route.rules.clone(),
        labels: route.labels.clone(),
        annotations: route.annotations.clone(),
        created_at: route.created_at,
    }
}

fn translate<T: Watched>(
    object: &Arc<Object<T>>,
    head: Head<'_>,
    rules: Vec<Rule<'_>>,
    kind: StreamKind,
    scope: &Scope<'_>,
) -> Outcome<StreamRule> {
    let mut notes = Notes::new(object.title());
    if rules.is_empty() || rules.len() > RULES_MAX {
        notes.violation("spec.rules", format!("holds 1 to {RULES_MAX} rules"));
    }
    if rules.len() > 1 {
        notes.warn(
            "spec.rules",
            "holds several rules, of which only the first can be met: none has conditions",
        );
    }
    let matches = matches(head.hostnames);
    let rules = rules
        .into_iter()
        .enumerate()
        .map(|(index, rule)| self::rule(rule, index, &matches, scope, &mut notes))
        .collect();
    finish(object, head, rules, notes, scope, |route| {
        check(&published(kind, route))
    })
}

/// One match per name; faults in names are told where the names are read.
fn matches(names: &[String]) -> Vec<StreamMatch> {
    let names = names.iter().filter_map(|name| Hostname::new(name).ok());
    let matches: Vec<_> = names
        .map(|name| StreamMatch {
            sni: Some(name),
            ..StreamMatch::default()
        })
        .collect();
    if matches.is_empty() {
        return vec![StreamMatch::default()];
    }
    matches
}

fn rule(
    rule: Rule<'_>,
    index: usize,
    matches: &[StreamMatch],
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> StreamRule {
    let path = format!("spec.rules[{index}].backendRefs");
    if rule.backends.is_empty() || rule.backends.len() > BACKENDS_MAX {
        notes.violation(&path, format!("holds 1 to {BACKENDS_MAX} backends"));
    }
    let backends = rule.backends.into_iter().enumerate();
    let backends = backends.map(|(position, (reference, share))| {
        let path = format!("{path}[{position}]");
        BackendRef {
            target: backend::resolve(reference, &path, scope, notes),
            weight: weight(share, &path, notes),
            filters: Vec::new(),
        }
    });
    StreamRule {
        name: rule.name.map(str::to_owned),
        backends: backends.collect(),
        matches: matches.to_vec(),
    }
}

fn check(route: &StreamRoute) -> Result<(), Violations> {
    ir::decode::stream_route(ir::encode::stream_route(route)).map(drop)
}
