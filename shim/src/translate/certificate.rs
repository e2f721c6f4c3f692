//! Certificates in Secrets: read, checked, and remembered as long as the Secret is the same.
//!
//! Checking a key costs more than all else about a Gateway, so [`super::gateway`] carries what is
//! known from one translation to the next. Whether a listener may use a Secret is judged in
//! [`super::listener`].

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;

use crate::cluster_view::{ClusterView, Object};

/// Certificates by Secret, checked once as long as the Secret is the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Certificates(BTreeMap<Arc<str>, Checked>);

#[derive(Clone, Debug)]
struct Checked {
    secret: Arc<Object<Secret>>,
    outcome: Result<Arc<ir::Secret>, String>,
    is_used: bool,
}

impl Certificates {
    /// The certificate of a Secret, or why it cannot be used.
    pub(super) fn check(
        &mut self,
        secret: &Arc<Object<Secret>>,
    ) -> Result<Arc<ir::Secret>, String> {
        let known = self
            .0
            .get_mut(&secret.key)
            .filter(|known| Arc::ptr_eq(&known.secret, secret));
        if let Some(known) = known {
            known.is_used = true;
            return known.outcome.clone();
        }
        let outcome = read_certificate(secret).map(Arc::new);
        let checked = Checked {
            secret: secret.clone(),
            outcome: outcome.clone(),
            is_used: true,
        };
        self.0.insert(secret.key.clone(), checked);
        outcome
    }

    /// The certificate of the Secret with that key, when it was checked and found good.
    pub(super) fn secret(&self, key: &str) -> Option<Arc<ir::Secret>> {
        self.0.get(key)?.outcome.clone().ok()
    }

    /// Begins a round: whatever is not checked again in it may go.
    pub(super) fn forget_use(&mut self) {
        self.0.values_mut().for_each(|known| known.is_used = false);
    }

    /// Ends a round.
    pub(super) fn drop_unused(&mut self) {
        self.0.retain(|_, known| known.is_used);
    }
}

/// Remembers the last whole form of every Secret that an edit has broken since `before`, so that its
/// listeners serve on with that.
///
/// A Secret that is taken away, or that is made whole again, leaves nothing behind. Called before
/// [`super::translate`], which knows no past.
pub fn keep_former_certificates(before: &ClusterView, now: &mut ClusterView) {
    now.former_secrets = before.former_secrets.clone();
    for (old, new) in before.secrets.changes(&now.secrets) {
        let Some(old) = old else {
            continue;
        };
        match new {
            Some(new) if read_certificate(new).is_err() => {
                if read_certificate(old).is_ok() {
                    now.former_secrets.insert(Arc::clone(old));
                }
            }
            _ => drop(now.former_secrets.remove(&old.key)),
        }
    }
}

/// The certificate and key of a Secret; the message never holds any of it.
fn read_certificate(secret: &Object<Secret>) -> Result<ir::Secret, String> {
    let kind = secret.value.type_.as_deref().unwrap_or("Opaque");
    if kind != "kubernetes.io/tls" {
        return Err(format!("is of type {kind}, use kubernetes.io/tls"));
    }
    let text = |name: &str| -> Result<String, String> {
        if let Some(text) = secret
            .value
            .string_data
            .as_ref()
            .and_then(|data| data.get(name))
        {
            return Ok(text.clone());
        }
        let bytes = secret.value.data.as_ref().and_then(|data| data.get(name));
        let bytes = bytes.ok_or_else(|| format!("has no {name}"))?;
        String::from_utf8(bytes.0.clone()).map_err(|_| format!("{name} is not PEM text"))
    };
    let certificate =
        ir::secret::Certificate::new(text("tls.crt")?, ir::SecretText::new(text("tls.key")?))
            .map_err(|error| error.to_string())?;
    Ok(ir::Secret {
        key: secret.key.clone(),
        certificate: Some(certificate),
        htpasswd: None,
        oidc_client_secret: None,
        values: BTreeMap::new(),
    })
}
