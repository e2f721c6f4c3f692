//! Which listeners a route attaches to, and what each of its parents is told.
//!
//! Pure Gateway API: a parent reference names a Gateway or a ListenerSet and perhaps a listener or
//! port of it, and one that names a Gateway does not mean its ListenerSets; the listener decides by kind and namespace; host names must meet. What a route's rules are worth is
//! not looked at here, and who comes first among several is found out by [`super::rivals`].

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_api::experimental::httproutes::HttpRouteParentRefs;
use ir::Hostname;
use ir::backend::word;
use ir::http_route::ParentRef;

use super::gateway::{Parent, ParentListener, parent_key};
use super::listener::RouteKind;
use super::notes::Notes;
use super::{GATEWAY_API, Scope, mesh};
use crate::cluster_view::Kind;

/// Where a route ended up.
#[derive(Debug, Default)]
pub(super) struct Attachment {
    /// The parents that are ours to answer for, and whether they took the route.
    pub(super) parents: Vec<(ParentRef, Result<(), Refusal>)>,
    /// Listeners that took the route and serve, for the data plane.
    pub(super) listeners: Vec<Arc<str>>,
    /// Listeners that took the route, serving or not, for `attachedRoutes`.
    pub(super) counted: BTreeSet<Arc<str>>,
    /// Listeners that would have taken the route, had not one of another kind come first.
    pub(super) lost: BTreeSet<Arc<str>>,
    /// Gateways and ListenerSets the route names, there or not, by [`parent_key`].
    pub(super) gateways: BTreeSet<Arc<str>>,
}

impl Attachment {
    /// Notes the listeners of a parent that took the route, without those that another one has got.
    fn keep(
        &mut self,
        gateway: &Parent,
        taken: &[&ParentListener],
        scope: &Scope<'_>,
        path: &str,
        notes: &mut Notes,
    ) -> Result<(), Refusal> {
        let mut lost = Vec::new();
        for listener in taken {
            let name = mesh::listener_of(&listener.name, gateway, scope.namespace);
            if let Some(rival) = scope.lost.and_then(|lost| lost.get(&name)) {
                lost.push((listener.section.as_str(), rival));
                self.lost.insert(name);
                continue;
            }
            self.counted.insert(name.clone());
            if listener.serves && !self.listeners.contains(&name) {
                self.listeners.push(name);
            }
        }
        let Some((section, rival)) = lost.first() else {
            return Ok(());
        };
        let message = format!(
            "{} came first at listener {section} of {} with a host name that this route has, too, and an \
             HTTPRoute and a GRPCRoute cannot share one; give them different spec.hostnames, or \
             listeners of their own by sectionName",
            rival.title(scope.namespace),
            gateway.title(),
        );
        if lost.len() == taken.len() {
            return Err(("HostnameConflict", message));
        }
        notes.warn(path, &message);
        Ok(())
    }
}

/// Why a parent did not take a route: reason and message.
pub(super) type Refusal = (&'static str, String);

/// Attaches a route of that kind and those host names.
pub(super) fn attach(
    kind: RouteKind,
    references: &[HttpRouteParentRefs],
    hostnames: &[Hostname],
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> Attachment {
    let mut attachment = Attachment::default();
    for (index, reference) in references.iter().enumerate() {
        let path = format!("spec.parentRefs[{index}]");
        let Some(parent) = typed(reference, scope.namespace, &path, notes) else {
            continue;
        };
        let parents = match (&*parent.group, &*parent.kind, scope.mesh) {
            (GATEWAY_API, "Gateway" | "ListenerSet", _) => Some(&scope.gateways.parents),
            ("", "Service", Some(mesh)) => Some(&*mesh.parents),
            _ => None,
        };
        let Some(parents) = parents else {
            let message = format!(
                "{path}: parents of kind {} are not supported yet",
                parent.kind
            );
            attachment
                .parents
                .push((parent, Err(("NoMatchingParent", message))));
            continue;
        };
        let key = parent_key(&parent.kind, &parent.namespace, &parent.name);
        attachment.gateways.insert(key.clone());
        let outcome = match parents.get(&key) {
            None => {
                let (kind, namespace, name) = (&parent.kind, &parent.namespace, &parent.name);
                let message = format!("{path}: there is no {kind} {namespace}/{name}");
                Err(("NoMatchingParent", message))
            }
            // Another controller answers for it.
            Some(gateway) if !gateway.is_ours => continue,
            Some(gateway) => take(gateway, &parent, kind, hostnames, scope)
                .and_then(|taken| attachment.keep(gateway, &taken, scope, &path, notes)),
        };
        attachment.parents.push((parent, outcome));
    }
    attachment
}

fn typed(
    reference: &HttpRouteParentRefs,
    namespace: &str,
    path: &str,
    notes: &mut Notes,
) -> Option<ParentRef> {
    let port = match reference.port.map(u16::try_from) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => {
            notes.violation(&format!("{path}.port"), "is no port, use 1 to 65535");
            return None;
        }
    };
    Some(ParentRef {
        group: word(reference.group.as_deref().unwrap_or(GATEWAY_API)),
        kind: word(reference.kind.as_deref().unwrap_or("Gateway")),
        namespace: reference
            .namespace
            .clone()
            .unwrap_or_else(|| namespace.to_owned()),
        name: reference.name.clone(),
        section_name: reference
            .section_name
            .clone()
            .filter(|name| !name.is_empty()),
        port,
    })
}

/// The listeners of `gateway` that take the route, or why none does.
fn take<'a>(
    gateway: &'a Parent,
    parent: &ParentRef,
    kind: RouteKind,
    hostnames: &[Hostname],
    scope: &Scope<'_>,
) -> Result<Vec<&'a ParentListener>, Refusal> {
    if let Some(why) = &gateway.refusal {
        let message = match gateway.kind {
            Kind::Service => format!("{} cannot be a parent: {why}", gateway.title()),
            _ => format!("{} is attached to no Gateway: {why}", gateway.title()),
        };
        return Err(("NoMatchingParent", message));
    }
    let named: Vec<_> = gateway
        .listeners
        .iter()
        .filter(|listener| {
            parent
                .section_name
                .as_ref()
                .is_none_or(|name| *name == listener.section)
                && parent.port.is_none_or(|port| port == listener.port)
        })
        .collect();
    if named.is_empty() {
        return Err(("NoMatchingParent", no_listener(gateway, parent)));
    }
    let labels = scope.namespace_labels();
    let allowed: Vec<_> = named
        .iter()
        .filter(|listener| {
            listener.kinds.contains(&kind)
                && listener
                    .namespaces
                    .allow(&gateway.namespace, scope.namespace, &labels)
        })
        .collect();
    if allowed.is_empty() {
        let message = format!(
            "no listener of {} takes a {} from namespace {}; see allowedRoutes of {}",
            gateway.title(),
            kind.as_str(),
            scope.namespace,
            sections(&named)
        );
        return Err(("NotAllowedByListeners", message));
    }
    let taken: Vec<_> = allowed
        .into_iter()
        .copied()
        .filter(|listener| meet(listener.hostname.as_ref(), hostnames))
        .collect();
    if taken.is_empty() {
        let names: Vec<_> = hostnames.iter().map(Hostname::as_str).collect();
        let message = format!(
            "spec.hostnames {} meet no host name of the listeners {} of {}",
            names.join(", "),
            sections(&named),
            gateway.title()
        );
        return Err(("NoMatchingListenerHostname", message));
    }
    Ok(taken)
}

fn no_listener(gateway: &Parent, parent: &ParentRef) -> String {
    let mut wanted = String::new();
    if let Some(section) = &parent.section_name {
        wanted += &format!(" named {section}");
    }
    if let Some(port) = parent.port {
        wanted += &format!(" on port {port}");
    }
    let all: Vec<_> = gateway.listeners.iter().collect();
    format!(
        "{} has no listener{wanted}, it has {}",
        gateway.title(),
        sections(&all)
    )
}

fn sections(listeners: &[&ParentListener]) -> String {
    let names: Vec<_> = listeners
        .iter()
        .map(|listener| listener.section.as_str())
        .collect();
    names.join(", ")
}

fn meet(listener: Option<&Hostname>, route: &[Hostname]) -> bool {
    let Some(listener) = listener else {
        return true;
    };
    route.is_empty() || route.iter().any(|name| listener.intersect(name).is_some())
}
