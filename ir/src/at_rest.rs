//! A configuration as bytes that may lie on a disk: without anything secret.
//!
//! [`without_secrets`] takes out what holds key material or credentials, and what must not be served
//! without them; what that was is named, so that whoever serves the rest can say so. Nothing becomes
//! more open by it: what cannot be protected any more is closed or answers with an error.
//! [`to_bytes`] and [`from_bytes`] carry the rest. Files are the caller's.

use std::sync::Arc;

use prost::Message as _;

use crate::filter::HeaderEdit;
use crate::http_route::{BackendRef, GrpcRule, HttpRule, Route};
use crate::listener::ListenerProtocol;
use crate::policy::SecurityPolicy;
use crate::{
    Cluster, Filter, Listener, Resource, Resources, Snapshot, Violations, decode, encode, wire,
};

/// A snapshot without secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Bare {
    /// What is left.
    pub snapshot: Snapshot,
    /// What is not served as it should be, as `Listener name` or `HTTPRoute namespace/name`.
    pub withheld: Vec<String>,
}

/// Why bytes are no snapshot.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AtRestError {
    /// They are no message of the contract.
    #[error("it is not a snapshot")]
    Malformed,
    /// The snapshot breaks a rule.
    #[error("it breaks the rules of a snapshot: {0}")]
    Invalid(Violations),
}

/// Request header fields whose value is a credential.
const CREDENTIAL_FIELDS: [&str; 7] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "api-key",
    "x-auth-token",
    "x-goog-api-key",
];

/// Takes out whatever is secret.
pub fn without_secrets(snapshot: &Snapshot) -> Bare {
    let mut withheld = Vec::new();
    let mut bare = Snapshot {
        secrets: Resources::default(),
        wasm_plugins: Resources::default(),
        ..snapshot.clone()
    };
    for listener in snapshot.listeners.iter() {
        if needs_secrets(listener) {
            withheld.push(format!("Listener {}", listener.name));
            match listener.protocol {
                ListenerProtocol::Http => bare.listeners.insert(shut(listener)),
                _ => bare.listeners.remove(&listener.name),
            };
        }
    }
    for route in snapshot.http_routes.iter() {
        if let Some(closed) = closed(route) {
            withheld.push(format!("HTTPRoute {}", route.key));
            bare.http_routes.insert(closed);
        }
    }
    for route in snapshot.grpc_routes.iter() {
        if let Some(closed) = closed(route) {
            withheld.push(format!("GRPCRoute {}", route.key));
            bare.grpc_routes.insert(closed);
        }
    }
    for cluster in snapshot.clusters.iter() {
        if is_credentialed(cluster) {
            withheld.push(format!("Cluster {}", cluster.key));
            bare.clusters.remove(&cluster.key);
        }
    }
    Bare {
        snapshot: bare,
        withheld,
    }
}

/// The bytes of a snapshot that holds no secret.
pub fn to_bytes(bare: &Bare) -> Vec<u8> {
    encode::snapshot(&bare.snapshot).encode_to_vec()
}

/// The snapshot of these bytes.
pub fn from_bytes(bytes: &[u8]) -> Result<Snapshot, AtRestError> {
    let message = wire::ConfigSnapshot::decode(bytes).map_err(|_| AtRestError::Malformed)?;
    decode::snapshot(message).map_err(AtRestError::Invalid)
}

/// The same listener, at which nobody is let in.
///
/// It stays, because without it one for more hosts on its port would take its requests.
fn shut(listener: &Listener) -> Listener {
    let nobody = SecurityPolicy {
        deny_cidrs: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        ..SecurityPolicy::default()
    };
    Listener {
        backend_client_certificate: None,
        security_policy: Some(Arc::new(nobody)),
        plugins: Vec::new(),
        ..listener.clone()
    }
}

/// Settings and address of a plugin are the plugin's affair and may hold anything: plugins count as
/// secrets, here and below.
fn needs_secrets(listener: &Listener) -> bool {
    let ends_tls = listener.tls.as_ref().is_some_and(|tls| !tls.passthrough);
    ends_tls
        || listener.backend_client_certificate.is_some()
        || !listener.plugins.is_empty()
        || policy_needs_secrets(listener.security_policy.as_ref())
}

fn policy_needs_secrets(policy: Option<&Arc<SecurityPolicy>>) -> bool {
    policy.is_some_and(|policy| policy.oidc.is_some() || policy.basic_auth.is_some())
}

fn is_credentialed(cluster: &Cluster) -> bool {
    let has_auth = cluster.ai_service.as_ref().is_some_and(|ai| {
        let mut others = ai.providers.iter();
        ai.auth.is_some() || others.any(|other| other.auth.is_some())
    });
    has_auth
        || cluster.wasm_plugin.is_some()
        || !cluster.plugins.is_empty()
        || policy_needs_secrets(cluster.security_policy.as_ref())
}

/// A rule whose filters can be looked at and replaced.
trait Filtered: Clone {
    fn parts(&mut self) -> (&mut Vec<Filter>, &mut Vec<BackendRef>, &mut Vec<Arc<str>>);
}

impl Filtered for HttpRule {
    fn parts(&mut self) -> (&mut Vec<Filter>, &mut Vec<BackendRef>, &mut Vec<Arc<str>>) {
        (&mut self.filters, &mut self.backends, &mut self.plugins)
    }
}

impl Filtered for GrpcRule {
    fn parts(&mut self) -> (&mut Vec<Filter>, &mut Vec<BackendRef>, &mut Vec<Arc<str>>) {
        (&mut self.filters, &mut self.backends, &mut self.plugins)
    }
}

/// The same route with an error for an answer, when it holds credentials or needs some.
///
/// It stays, because without it a less specific route would take its requests.
fn closed<R: Filtered>(route: &Arc<Route<R>>) -> Option<Route<R>>
where
    Route<R>: Resource,
{
    let mut closed = Route::clone(route);
    let mut is_credentialed = policy_needs_secrets(route.security_policy.as_ref());
    for rule in &mut closed.rules {
        let (filters, backends, plugins) = rule.parts();
        let of_backends = backends.iter().flat_map(|backend| &backend.filters);
        is_credentialed |= filters.iter().chain(of_backends).any(holds_credentials);
        is_credentialed |= !plugins.is_empty();
    }
    if !is_credentialed {
        return None;
    }
    closed.security_policy = None;
    for rule in &mut closed.rules {
        let (filters, backends, plugins) = rule.parts();
        plugins.clear();
        *filters = vec![Filter::Unsupported {
            name: "Withheld".to_owned(),
            reason: "it needs secrets, which are not kept on disk".to_owned(),
        }];
        for backend in backends {
            backend.filters.clear();
        }
    }
    Some(closed)
}

fn holds_credentials(filter: &Filter) -> bool {
    let Filter::RequestHeaders(HeaderEdit { set, add, .. }) = filter else {
        return false;
    };
    set.iter()
        .chain(add)
        .any(|(name, _)| CREDENTIAL_FIELDS.contains(&name.as_str()))
}
