//! TLS towards the endpoints of clusters, compiled for every client certificate in use.
//!
//! Which certificate is shown to an endpoint depends on the listener a request came in at, so a
//! cluster has one [`ClientTls`] for each certificate that any listener names, and one for none.
//! A pair that an update leaves alone stays the same, and with it its connections and sessions.
//! Called by `compile`; a policy that cannot be used fails its own cluster and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use ir::Snapshot;

use dataplane_tls::{BackendTrust, ClientIdentity, ClientTls, ClientTlsError};
use dataplane_upstream::Tls;

/// The client certificates that listeners name, by key of their secret.
#[derive(Clone, Debug, Default)]
pub struct Identities(BTreeMap<Arc<str>, Arc<ClientIdentity>>);

impl Identities {
    /// Those of the listeners of `snapshot`. One that was there before stays the same as long as
    /// certificate and key do; one that is missing or unusable is left out, and `ir` notes it.
    pub(crate) fn compile(snapshot: &Snapshot, previous: &Self) -> Self {
        let mut identities = Self::default();
        let listeners = snapshot.listeners.iter();
        for key in listeners.filter_map(|listener| listener.backend_client_certificate.as_ref()) {
            if identities.0.contains_key(key) {
                continue;
            }
            let Some(certificate) = snapshot
                .secrets
                .get(key)
                .and_then(|secret| secret.certificate.as_ref())
            else {
                continue;
            };
            let known = previous
                .0
                .get(key)
                .filter(|known| known.is_of(certificate))
                .cloned();
            let identity = match known {
                Some(known) => Some(known),
                None => ClientIdentity::compile(certificate).ok().map(Arc::new),
            };
            if let Some(identity) = identity {
                identities.0.insert(key.clone(), identity);
            }
        }
        identities
    }

    /// The certificate that the listener shows.
    pub(crate) fn of(&self, listener: &ir::Listener) -> Option<&Arc<ClientIdentity>> {
        self.0.get(listener.backend_client_certificate.as_ref()?)
    }

    /// True when both hold the same identities, not merely equal ones.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .values()
                .zip(other.0.values())
                .all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// Whether and how TLS is spoken to a cluster.
#[derive(Clone, Debug, Default)]
pub enum ClusterTls {
    /// Plain text.
    #[default]
    Plain,
    /// The protocol asks for TLS and no policy says whom to trust; nothing may be sent.
    Unspecified,
    /// The policy cannot be used; nothing may be sent.
    Invalid(ClientTlsError),
    /// As the policy says.
    Policy(PolicyTls),
}

/// One policy, under every client certificate in use.
#[derive(Clone, Debug)]
pub struct PolicyTls {
    trust: Arc<BackendTrust>,
    anonymous: Arc<ClientTls>,
    certified: Vec<Certified>,
}

/// TLS under the client certificate of one secret.
#[derive(Clone, Debug)]
struct Certified {
    secret: Arc<str>,
    identity: Arc<ClientIdentity>,
    tls: Arc<ClientTls>,
}

impl ClusterTls {
    pub(crate) fn compile(tls: &Tls, identities: &Identities, previous: Option<&Self>) -> Self {
        let policy = match tls {
            Tls::Plain => return Self::Plain,
            Tls::Unspecified => return Self::Unspecified,
            Tls::Policy(policy) => policy,
        };
        let previous = match previous {
            Some(Self::Policy(previous)) if previous.trust.policy() == policy => Some(previous),
            _ => None,
        };
        PolicyTls::compile(policy, identities, previous).map_or_else(Self::Invalid, Self::Policy)
    }

    /// True when no request may be sent.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Unspecified | Self::Invalid(_))
    }

    pub(crate) fn has_policy(&self) -> bool {
        matches!(self, Self::Policy(_))
    }
}

impl PolicyTls {
    fn compile(
        policy: &Arc<ir::cluster::BackendTls>,
        identities: &Identities,
        previous: Option<&Self>,
    ) -> Result<Self, ClientTlsError> {
        let trust = match previous {
            Some(previous) => previous.trust.clone(),
            None => Arc::new(BackendTrust::compile(policy)?),
        };
        let anonymous = match previous {
            Some(previous) => previous.anonymous.clone(),
            None => Arc::new(ClientTls::compile(&trust, None)?),
        };
        let mut certified = Vec::with_capacity(identities.0.len());
        for (secret, identity) in &identities.0 {
            let known = previous.and_then(|previous| previous.certified(identity));
            let tls = match known {
                Some(known) => known.clone(),
                None => Arc::new(ClientTls::compile(&trust, Some(identity))?),
            };
            certified.push(Certified {
                secret: secret.clone(),
                identity: identity.clone(),
                tls,
            });
        }
        Ok(Self {
            trust,
            anonymous,
            certified,
        })
    }

    fn certified(&self, identity: &Arc<ClientIdentity>) -> Option<&Arc<ClientTls>> {
        let mut all = self.certified.iter();
        let found = all.find(|known| Arc::ptr_eq(&known.identity, identity))?;
        Some(&found.tls)
    }

    /// What to use for requests that came in where `identity` is shown to endpoints.
    pub fn under(&self, identity: Option<&Arc<ClientIdentity>>) -> &Arc<ClientTls> {
        identity
            .and_then(|identity| self.certified(identity))
            .unwrap_or(&self.anonymous)
    }

    /// What to use for what came in where the certificate of `secret` is shown to endpoints. For
    /// whoever holds a listener of another configuration than this.
    pub fn under_secret(&self, secret: Option<&str>) -> &Arc<ClientTls> {
        let mut all = self.certified.iter();
        secret
            .and_then(|secret| all.find(|known| &*known.secret == secret))
            .map_or(&self.anonymous, |known| &known.tls)
    }
}
