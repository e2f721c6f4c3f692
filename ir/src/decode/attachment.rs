//! Which listeners a route is attached to, when its sender does not say so.
//!
//! The shared contract only lists `namespace/name` keys on listeners, without the kind of route. A
//! key is taken for a route when the route's parents lead to that listener and the listener's
//! protocol can carry its kind.

use std::collections::HashMap;
use std::sync::Arc;

use crate::Listener;
use crate::http_route::ParentRef;
use crate::listener::ListenerProtocol;
use crate::resource::Metadata;

/// What a route carries, as far as listeners care.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    Http,
    Tcp,
    Udp,
    Tls,
}

/// The keys that listeners list, and the listeners they stand on.
#[derive(Default)]
pub(super) struct Attachments {
    listeners: Vec<Arc<Listener>>,
    by_route: HashMap<String, Vec<usize>>,
}

impl Attachments {
    /// Adds a listener with the keys on it.
    pub(super) fn add(&mut self, listener: Arc<Listener>, routes: Vec<String>) {
        let index = self.listeners.len();
        self.listeners.push(listener);
        for route in routes {
            let indexes = self.by_route.entry(route).or_default();
            if indexes.last() != Some(&index) {
                indexes.push(index);
            }
        }
    }

    /// Names of the listeners that the route of that key, kind and parents is attached to.
    pub(super) fn listeners_of(
        &self,
        key: &str,
        parents: &[ParentRef],
        carries: Carries,
    ) -> Vec<Arc<str>> {
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        let candidates = self.by_route.get(key).into_iter().flatten();
        let mut names: Vec<Arc<str>> = Vec::new();
        for listener in candidates.filter_map(|index| self.listeners.get(*index)) {
            let leads = parents.is_empty()
                || parents
                    .iter()
                    .any(|parent| leads_to(parent, namespace, listener));
            if leads && can_carry(listener.protocol, carries) {
                names.push(listener.name.clone());
            }
        }
        names
    }
}

fn can_carry(protocol: ListenerProtocol, carries: Carries) -> bool {
    use ListenerProtocol::{Grpc, Http, Http3, Https, Tcp, Tls, TlsPassthrough, Udp};
    match carries {
        Carries::Http => matches!(protocol, Http | Https | Grpc | Http3),
        Carries::Tcp => matches!(protocol, Tcp | Tls),
        Carries::Udp => protocol == Udp,
        Carries::Tls => matches!(protocol, Tls | TlsPassthrough),
    }
}

fn leads_to(parent: &ParentRef, route_namespace: &str, listener: &Listener) -> bool {
    let namespace = match parent.namespace.as_str() {
        "" => route_namespace,
        own => own,
    };
    if parent.kind == "Service" {
        return is_frontend(parent, namespace, &listener.metadata);
    }
    let mut parts = listener.name.rsplitn(2, '/');
    let section = parts.next().unwrap_or_default();
    let from_name = parts.next().and_then(|gateway| gateway.split_once('/'));
    let from_metadata = listener
        .metadata
        .get("namespace")
        .zip(listener.metadata.get("gateway"));
    let gateway = from_metadata.or(from_name);
    // The contract does not name the ListenerSet a listener comes from: the key on it must do.
    let is_parent = parent.kind == "ListenerSet" || gateway == Some((namespace, &parent.name));
    let is_section = parent
        .section_name
        .as_deref()
        .is_none_or(|name| name == section);
    let is_port = parent.port.is_none_or(|port| port == listener.port.get());
    is_parent && is_section && is_port
}

/// A mesh route names the Service in front of which it stands, and that Service's port.
fn is_frontend(parent: &ParentRef, namespace: &str, metadata: &Metadata) -> bool {
    let is = |key, value: &str| metadata.get(key).is_some_and(|found| found == value);
    is("nantian.dev/frontend-kind", "Service")
        && is("nantian.dev/frontend-namespace", namespace)
        && is("nantian.dev/frontend-name", &parent.name)
        && parent
            .port
            .is_none_or(|port| is("nantian.dev/frontend-port", &port.to_string()))
}
