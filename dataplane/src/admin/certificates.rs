//! Certificates of the configuration: names, validity, who uses them. Never a key.
//!
//! Read out of the secrets when asked for, page by page and away from traffic: nobody pays for what
//! is not looked at.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use ir::secret::Certificate;
use ir::{Secret, Snapshot};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use dataplane_tls::CertificateDetails;

use super::Context;
use super::answer::Answer;
use super::inventory::list_of;
use super::query::Filter;

const DAY_SECONDS: i64 = 24 * 3600;

/// `/v1/certificates`.
pub(super) fn list(context: &Context, filter: &Filter) -> Answer {
    let config = context.state.store.load_full();
    let secrets = config.snapshot.secrets.iter();
    let wanted = secrets.filter(|it| it.certificate.is_some() && filter.takes_key(&it.key));
    let page = filter.page(wanted.cloned(), |it| it.key.to_string());
    list_of(
        context,
        config,
        filter,
        "/v1/certificates",
        page,
        |config, secret| view(&config.snapshot, secret),
    )
}

/// `/v1/certificates/{namespace}/{name}`.
pub(super) fn one(context: &Context, names: &[String]) -> Answer {
    let config = context.state.store.load();
    let secret = config.snapshot.secrets.get(&names.join("/"));
    match secret.and_then(|secret| view(&config.snapshot, secret)) {
        Some(view) => Answer::json(&view),
        None => Answer::not_found(
            "no certificate of that secret is served; /v1/certificates lists those that are",
        ),
    }
}

fn view(snapshot: &Snapshot, secret: &Secret) -> Option<Value> {
    let certificate = secret.certificate.as_ref()?;
    let mut view = facts(certificate);
    view["secret"] = (&*secret.key).into();
    let listeners = snapshot.listeners.iter().filter(|listener| {
        let tls = listener.tls.as_ref();
        tls.is_some_and(|tls| tls.certificate_refs.contains(&secret.key))
    });
    view["listeners"] = listeners.map(|it| Value::from(&*it.name)).collect();
    let towards = snapshot
        .listeners
        .iter()
        .filter(|listener| listener.backend_client_certificate.as_deref() == Some(&*secret.key));
    view["shown_to_backends_by"] = towards.map(|it| Value::from(&*it.name)).collect();
    Some(view)
}

fn facts(certificate: &Certificate) -> Value {
    let details = match CertificateDetails::of(certificate) {
        Ok(details) => details,
        Err(error) => return json!({ "state": "unreadable", "why": error.to_string() }),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    });
    let state = match () {
        () if now < details.not_before => "not_yet_valid",
        () if now >= details.not_after => "expired",
        () if details.not_after - now < 14 * DAY_SECONDS => "ends_soon",
        () => "valid",
    };
    json!({
        "state": state,
        "names": details.names,
        "subject": details.subject,
        "issuer": details.issuer,
        "serial": details.serial,
        "not_before_unix_ms": details.not_before.saturating_mul(1000),
        "not_after_unix_ms": details.not_after.saturating_mul(1000),
        "days_left": (details.not_after - now).div_euclid(DAY_SECONDS),
        "chain_length": details.chain_length,
        "fingerprint_sha256": hex(&Sha256::digest(&details.leaf)),
    })
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
