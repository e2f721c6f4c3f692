//! Timeouts, retries and session persistence of a rule.
//!
//! What is valid is decided as the CRDs decide it.

use std::time::Duration;

use gateway_api::experimental::httproutes::{
    HttpRouteRulesRetry, HttpRouteRulesSessionPersistence,
    HttpRouteRulesSessionPersistenceCookieConfigLifetimeType, HttpRouteRulesSessionPersistenceType,
    HttpRouteRulesTimeouts,
};
use ir::http_route::Timeouts;
use ir::policy::{Retry, SessionCarrier, SessionPersistence};

use super::notes::Notes;

/// Attempts after the first one when `retry.attempts` is not written.
const RETRY_ATTEMPTS_DEFAULT: u32 = 1;
/// More attempts than this are refused.
const RETRY_ATTEMPTS_MAX: i64 = 100;

pub(super) fn timeouts(
    spec: Option<&HttpRouteRulesTimeouts>,
    place: &str,
    notes: &mut Notes,
) -> Timeouts {
    let Some(spec) = spec else {
        return Timeouts::default();
    };
    let place = format!("{place}.timeouts");
    let path = format!("{place}.request");
    let request = duration_or_zero(spec.request.as_deref(), &path, notes);
    let path = format!("{place}.backendRequest");
    let backend_request = duration_or_zero(spec.backend_request.as_deref(), &path, notes);
    // Zero is no limit, and the CRD lets it stand beside any other.
    if let (Some(request), Some(attempt)) = (request, backend_request)
        && attempt > request
        && !request.is_zero()
    {
        notes.violation(
            &path,
            "is longer than timeouts.request, make it shorter or equal",
        );
    }
    Timeouts {
        request,
        backend_request,
    }
}

pub(super) fn retry(
    spec: Option<&HttpRouteRulesRetry>,
    place: &str,
    notes: &mut Notes,
) -> Option<Retry> {
    let spec = spec?;
    let place = format!("{place}.retry");
    let mut codes = Vec::new();
    for (index, code) in spec.codes.iter().flatten().enumerate() {
        match u16::try_from(*code) {
            Ok(code @ 400..=599) => codes.push(code),
            _ => notes.violation(
                &format!("{place}.codes[{index}]"),
                format!("{code} is no status of a failed attempt, use 400 to 599"),
            ),
        }
    }
    let attempts = match spec.attempts {
        None => RETRY_ATTEMPTS_DEFAULT,
        Some(attempts @ 0..=RETRY_ATTEMPTS_MAX) => u32::try_from(attempts).unwrap_or_default(),
        Some(attempts) => {
            let message = format!("{attempts} is out of range, use 0 to {RETRY_ATTEMPTS_MAX}");
            notes.violation(&format!("{place}.attempts"), message);
            0
        }
    };
    let backoff = duration(spec.backoff.as_deref(), &format!("{place}.backoff"), notes);
    Some(Retry {
        codes,
        attempts,
        backoff,
    })
}

pub(super) fn session_persistence(
    spec: Option<&HttpRouteRulesSessionPersistence>,
    place: &str,
    notes: &mut Notes,
) -> Option<SessionPersistence> {
    let spec = spec?;
    let place = format!("{place}.sessionPersistence");
    let lifetime = spec
        .cookie_config
        .as_ref()
        .and_then(|config| config.lifetime_type.as_ref());
    let carrier = match (&spec.r#type, lifetime) {
        (Some(HttpRouteRulesSessionPersistenceType::Header), None) => SessionCarrier::Header,
        (Some(HttpRouteRulesSessionPersistenceType::Header), Some(_)) => {
            notes.violation(
                &format!("{place}.cookieConfig"),
                "is only for type Cookie, remove it",
            );
            SessionCarrier::Header
        }
        (_, Some(HttpRouteRulesSessionPersistenceCookieConfigLifetimeType::Permanent)) => {
            SessionCarrier::PermanentCookie
        }
        _ => SessionCarrier::SessionCookie,
    };
    let absolute_timeout = duration(
        spec.absolute_timeout.as_deref(),
        &format!("{place}.absoluteTimeout"),
        notes,
    );
    let idle_timeout = duration(
        spec.idle_timeout.as_deref(),
        &format!("{place}.idleTimeout"),
        notes,
    );
    if carrier == SessionCarrier::PermanentCookie && absolute_timeout.is_none() {
        let path = format!("{place}.absoluteTimeout");
        notes.violation(&path, "is needed for a permanent cookie, add it");
    }
    Some(SessionPersistence {
        session_name: spec.session_name.clone(),
        absolute_timeout,
        idle_timeout,
        carrier,
    })
}

/// A Gateway API duration; zero means none.
fn duration(text: Option<&str>, path: &str, notes: &mut Notes) -> Option<Duration> {
    duration_or_zero(text, path, notes).filter(|duration| !duration.is_zero())
}

/// A Gateway API duration.
fn duration_or_zero(text: Option<&str>, path: &str, notes: &mut Notes) -> Option<Duration> {
    match text?.parse::<gateway_api::Duration>() {
        Ok(duration) => {
            let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            Some(Duration::from_millis(millis))
        }
        Err(_) => {
            notes.violation(
                path,
                "is no duration, write for example 1h30m, 10s or 250ms",
            );
            None
        }
    }
}
