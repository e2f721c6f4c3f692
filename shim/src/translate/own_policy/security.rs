//! What a SecurityPolicy says.
//!
//! A policy that cannot be kept to must not be a hole: [`nobody`] holds in its place, which lets no
//! address in, until it is mended or removed.

use std::sync::Arc;
use std::time::Duration;

use crds::security_policy as api;
use ir::filter::Cors;
use ir::policy::{RateLimit, RateLimitKey, RateLimitScope, SecurityPolicy};

use super::target::{Reference, Target};
use super::{Fault, Payload, Read, Security, broken, named, refused};
use crate::cluster_view::Object;

/// How long a preflight may be kept when nothing is written (Gateway API).
const MAX_AGE_SECONDS: u32 = 5;
const REFUSED: &str = "until then requests to its targets are answered with 403";

pub(super) fn read(object: &Object<crds::SecurityPolicy>) -> Read {
    let spec = &object.value.spec;
    let targets = spec.target_refs.iter().map(|target| {
        let reference = Reference::from(target);
        Target::read(&reference, object.namespace())
    });
    let targets: Vec<_> = targets.collect();
    let cors = spec.cors.as_ref().map(cors);
    let fault = broken(&object.value)
        .or_else(|| unsupported(spec))
        .or_else(|| {
            let whole = SecurityPolicy {
                cors: cors.clone(),
                ..settings(spec, RateLimitScope::Route)
            };
            refused(ir::BackendPolicy::default(), whole)
        });
    let payload = match fault {
        Some(fault) => Err(Fault::new(
            fault.reason,
            format!("{}; {REFUSED}{}", fault.message, beyond(&targets)),
        )),
        None => Ok(Payload::Security(Arc::new(Security {
            listener: Arc::new(settings(spec, RateLimitScope::Listener)),
            route: Arc::new(settings(spec, RateLimitScope::Route)),
            backend: Arc::new(settings(spec, RateLimitScope::Backend)),
            cors: cors.map(Arc::new),
        }))),
    };
    let is_service = |target: &Result<Target, _>| matches!(target, Ok(Target::Service(_)));
    let of_service = targets.iter().any(is_service);
    let without_effect = named(&[("spec.cors of a Service", of_service && spec.cors.is_some())]);
    Read {
        payload,
        targets,
        without_effect,
    }
}

/// What is said of targets that no policy can be about: nothing keeps anybody out there.
fn beyond(targets: &[Result<Target, (Target, Fault)>]) -> String {
    let beyond = targets.iter().filter_map(|target| target.as_ref().err());
    let beyond: Vec<_> = beyond.map(|(target, _)| target.to_string()).collect();
    if beyond.is_empty() {
        return String::new();
    }
    format!(", but nothing is enforced for {}", beyond.join(" and "))
}

/// What nobody would enforce, although it is there to keep somebody out.
fn unsupported(spec: &crds::SecurityPolicySpec) -> Option<Fault> {
    let field = match (&spec.authn, &spec.authz) {
        (Some(_), _) => "spec.authn",
        (None, Some(_)) => "spec.authz",
        (None, None) => return None,
    };
    let message = match field {
        "spec.authz" => "spec.authz: is not enforced yet, use an ExternalAuth filter of the route",
        _ => "spec.authn: is not enforced yet, use an ExternalAuth filter of the route",
    };
    Some(Fault::new("UnsupportedValue", message))
}

/// In the place of a policy that cannot be kept to.
pub(super) fn nobody() -> Payload {
    let everywhere = ["0.0.0.0/0", "::/0"];
    let policy = Arc::new(SecurityPolicy {
        deny_cidrs: everywhere.map(str::to_owned).to_vec(),
        ..SecurityPolicy::default()
    });
    Payload::Security(Arc::new(Security {
        listener: policy.clone(),
        route: policy.clone(),
        backend: policy,
        cors: None,
    }))
}

fn settings(spec: &crds::SecurityPolicySpec, own: RateLimitScope) -> SecurityPolicy {
    let ip = spec.ip.clone().unwrap_or_default();
    SecurityPolicy {
        rate_limits: spec
            .rate_limit
            .iter()
            .map(|limit| rate_limit(limit, own))
            .collect(),
        allow_cidrs: ip.allow_cidrs,
        deny_cidrs: ip.deny_cidrs,
        ..SecurityPolicy::default()
    }
}

fn rate_limit(limit: &api::RateLimit, own: RateLimitScope) -> RateLimit {
    let header = limit.key_header_name.clone().unwrap_or_default();
    let cookie = limit.key_cookie_name.clone().unwrap_or_default();
    RateLimit {
        name: limit.name.clone().unwrap_or_default(),
        scope: match limit.scope {
            None => own,
            Some(api::RateLimitScope::Global) => RateLimitScope::Global,
            Some(api::RateLimitScope::Listener) => RateLimitScope::Listener,
            Some(api::RateLimitScope::Route) => RateLimitScope::Route,
            Some(api::RateLimitScope::Backend) => RateLimitScope::Backend,
        },
        requests: limit.requests_per_second.unsigned_abs(),
        period: limit
            .period
            .as_ref()
            .and_then(crds::duration::Duration::read)
            .unwrap_or(Duration::from_secs(1)),
        burst: limit.burst.map_or(0, i32::unsigned_abs),
        key: match limit.key_type {
            None | Some(api::RateLimitKey::Route) => RateLimitKey::Route,
            Some(api::RateLimitKey::SourceIp) => RateLimitKey::SourceIp,
            Some(api::RateLimitKey::Header) => RateLimitKey::Header(header.to_lowercase()),
            Some(api::RateLimitKey::Cookie) => RateLimitKey::Cookie(cookie),
        },
        queue: limit.on_limit == Some(api::OnLimit::Queue),
        is_dry_run: limit.dry_run.unwrap_or_default(),
        is_divided: limit.divided_among_replicas.unwrap_or_default(),
    }
}

fn cors(cors: &api::Cors) -> Cors {
    Cors {
        allow_origins: cors.allow_origins.clone(),
        allow_methods: cors.allow_methods.clone(),
        allow_headers: cors.allow_headers.clone(),
        expose_headers: cors.expose_headers.clone(),
        allow_credentials: cors.allow_credentials.unwrap_or_default(),
        max_age_seconds: cors.max_age.map_or(MAX_AGE_SECONDS, i32::unsigned_abs),
    }
}
