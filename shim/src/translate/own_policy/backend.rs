//! What a BackendLBPolicy says about a Service, and an XBackendTrafficPolicy.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crds::BackendLBPolicy;
use crds::backend_lb_policy as api;
use gateway_api::experimental::xbackendtrafficpolicies as traffic;
use ir::backend_policy::{
    BackendPolicy, BreakerThresholds, HealthCheck, OutlierDetection, Probe, RetryBudget,
};
use ir::cluster::{Balancing, HashKey};
use ir::policy::{SecurityPolicy, SessionCarrier, SessionPersistence};

use super::target::{Reference, Target};
use super::{Fault, Payload, Read, broken, refused};
use crate::cluster_view::Object;

/// What `minRetriesPerSecond` is when it is not written.
const MIN_RETRIES_PER_SECOND: u32 = 10;

/// What holds for the clusters of a Service; what is absent is the data plane's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct BackendSettings {
    pub(super) session: Option<Arc<SessionPersistence>>,
    pub(super) balancing: Option<Balancing>,
    pub(super) max_inflight_requests: Option<u32>,
    /// Whether the policy says anything of zones; else the Service does.
    pub(super) speaks_of_zones: bool,
    pub(super) policy: BackendPolicy,
}

pub(super) fn read(object: &Object<BackendLBPolicy>) -> Read {
    let spec = &object.value.spec;
    let targets = spec.target_refs.iter().map(|target| {
        let reference = Reference::local(&target.group, &target.kind, &target.name);
        match Target::read(&reference, object.namespace()) {
            Ok(target @ Target::AiService(_)) => Ok(target),
            _ => only_services(&reference, object.namespace()),
        }
    });
    let targets: Vec<_> = targets.collect();
    let settings = settings(spec);
    let names_ai = targets
        .iter()
        .any(|target| matches!(target, Ok(Target::AiService(_))));
    let fault = broken(&object.value)
        .or_else(|| refused(settings.policy.clone(), SecurityPolicy::default()));
    let payload = match fault {
        Some(fault) => Err(fault),
        None => Ok(Payload::Backend(Arc::new(settings))),
    };
    Read {
        payload,
        targets,
        without_effect: match names_ai {
            true => without_effect_on_ai(spec),
            false => Vec::new(),
        },
    }
}

/// What means nothing for providers of language models.
fn without_effect_on_ai(spec: &crds::BackendLBPolicySpec) -> Vec<String> {
    let fields = [
        (
            "spec.sessionPersistence",
            spec.session_persistence.is_some(),
        ),
        ("spec.healthCheck", spec.health_check.is_some()),
        ("spec.retryBudget", spec.retry_budget.is_some()),
    ];
    let written = fields.iter().filter(|(_, is_written)| *is_written);
    written
        .map(|(field, _)| format!("{field} means nothing for an AIService"))
        .collect()
}

fn only_services(reference: &Reference<'_>, namespace: &str) -> Result<Target, (Target, Fault)> {
    match Target::read(reference, namespace)? {
        target @ Target::Service(_) => Ok(target),
        target => {
            let message = format!("kind {} has no endpoints, use a Service", reference.kind);
            Err((target, Fault::new("InvalidKind", message)))
        }
    }
}

fn settings(spec: &crds::BackendLBPolicySpec) -> BackendSettings {
    let balancing = spec.load_balancing.as_ref();
    let hash = balancing.and_then(|it| it.consistent_hash.as_ref());
    let breaker = spec.circuit_breaker.as_ref();
    let limit = |of: fn(&api::CircuitBreaker) -> Option<i32>| positive(breaker.and_then(of));
    BackendSettings {
        session: spec.session_persistence.as_ref().map(session).map(Arc::new),
        balancing: balancing.and_then(|it| it.kind).map(|kind| match kind {
            api::Balancing::RoundRobin => Balancing::RoundRobin,
            api::Balancing::LeastRequest => Balancing::LeastRequest,
            api::Balancing::Random => Balancing::Random,
            api::Balancing::ConsistentHash => Balancing::ConsistentHash(hash_key(hash)),
        }),
        max_inflight_requests: limit(|it| it.max_inflight_requests),
        speaks_of_zones: balancing.is_some_and(|it| it.zones.is_some()),
        policy: BackendPolicy {
            health_check: spec.health_check.as_ref().map(health_check),
            outlier_detection: spec.outlier_detection.as_ref().map(outlier_detection),
            breaker: breaker.and_then(|it| it.breaker.as_ref()).map(thresholds),
            max_connections: limit(|it| it.max_connections),
            max_pending_requests: limit(|it| it.max_pending_requests),
            max_requests_per_connection: limit(|it| it.max_requests_per_connection),
            slow_start_window: balancing
                .and_then(|it| it.slow_start.as_ref())
                .and_then(|it| time(Some(&it.window))),
            panic_threshold_percent: percent(balancing.and_then(|it| it.panic_threshold_percent)),
            prefers_own_zone: balancing.and_then(|it| it.zones) == Some(api::Zones::PreferOwn),
            hash_load_percent: positive(hash.and_then(|it| it.max_load_percent)),
            retry_budget: spec.retry_budget.as_ref().and_then(|budget| {
                Some(RetryBudget {
                    percent: percent(Some(budget.percent))?,
                    min_per_second: budget
                        .min_retries_per_second
                        .map_or(MIN_RETRIES_PER_SECOND, i32::unsigned_abs),
                })
            }),
        },
    }
}

fn hash_key(hash: Option<&api::ConsistentHash>) -> HashKey {
    let name = |name: Option<&String>| name.cloned().unwrap_or_default();
    let Some(hash) = hash else {
        return HashKey::SourceIp;
    };
    match hash.key_type {
        None | Some(api::HashKey::SourceIP) => HashKey::SourceIp,
        Some(api::HashKey::Header) => {
            HashKey::Header(name(hash.header_name.as_ref()).to_lowercase())
        }
        Some(api::HashKey::Cookie) => HashKey::Cookie(name(hash.cookie_name.as_ref())),
        Some(api::HashKey::Hostname) => HashKey::Hostname,
    }
}

fn session(spec: &api::SessionPersistence) -> SessionPersistence {
    let lifetime = spec.cookie_config.as_ref().and_then(|it| it.lifetime_type);
    let carrier = match (spec.kind, lifetime) {
        (Some(api::SessionKind::Header), _) => SessionCarrier::Header,
        (_, Some(api::CookieLifetime::Permanent)) => SessionCarrier::PermanentCookie,
        _ => SessionCarrier::SessionCookie,
    };
    SessionPersistence {
        session_name: spec.session_name.clone(),
        absolute_timeout: time(spec.absolute_timeout.as_ref()),
        idle_timeout: time(spec.idle_timeout.as_ref()),
        carrier,
    }
}

fn health_check(spec: &api::HealthCheck) -> HealthCheck {
    let probe = match spec.kind {
        api::ProbeKind::Tcp => Probe::Tcp,
        api::ProbeKind::Http => {
            let http = spec.http.clone().unwrap_or_default();
            let statuses = http.expected_statuses.iter();
            Probe::Http {
                path: http.path.unwrap_or_else(|| "/".to_owned()),
                host: http.host,
                expected_statuses: statuses.filter_map(|it| u16::try_from(*it).ok()).collect(),
            }
        }
        api::ProbeKind::Grpc => Probe::Grpc {
            service: spec
                .grpc
                .clone()
                .and_then(|grpc| grpc.service)
                .unwrap_or_default(),
        },
    };
    let port = spec.port.and_then(|port| u16::try_from(port).ok());
    HealthCheck {
        probe,
        interval: time(spec.interval.as_ref()),
        timeout: time(spec.timeout.as_ref()),
        unhealthy_threshold: positive(spec.unhealthy_threshold),
        healthy_threshold: positive(spec.healthy_threshold),
        port: port.and_then(NonZeroU16::new),
    }
}

fn outlier_detection(spec: &api::OutlierDetection) -> OutlierDetection {
    OutlierDetection {
        consecutive_failures: spec.consecutive_failures.map(i32::unsigned_abs),
        consecutive_gateway_failures: spec.consecutive_gateway_failures.map(i32::unsigned_abs),
        base_ejection: time(spec.base_ejection_time.as_ref()),
        max_ejection: time(spec.max_ejection_time.as_ref()),
        max_ejection_percent: percent(spec.max_ejection_percent),
    }
}

pub(super) fn thresholds(spec: &api::Breaker) -> BreakerThresholds {
    BreakerThresholds {
        failure_threshold: positive(spec.failure_threshold),
        success_threshold: positive(spec.success_threshold),
        open_time: time(spec.open_time.as_ref()),
    }
}

/// Gateway API's own policy: session persistence and the budget of retries.
pub(super) fn read_traffic(object: &Object<traffic::XBackendTrafficPolicy>) -> Read {
    let spec = &object.value.spec;
    let targets = spec.target_refs.iter().map(|target| {
        let reference = Reference::local(&target.group, &target.kind, &target.name);
        only_services(&reference, object.namespace())
    });
    Read {
        payload: traffic_settings(spec).map(|settings| Payload::Traffic(Arc::new(settings))),
        targets: targets.collect(),
        without_effect: Vec::new(),
    }
}

fn traffic_settings(spec: &traffic::XBackendTrafficPolicySpec) -> Result<BackendSettings, Fault> {
    use traffic::{
        XBackendTrafficPolicySessionPersistenceCookieConfigLifetimeType as Lifetime,
        XBackendTrafficPolicySessionPersistenceType as Type,
    };
    let mut settings = BackendSettings::default();
    if let Some(written) = &spec.session_persistence {
        let path = "spec.sessionPersistence";
        let lifetime = written
            .cookie_config
            .as_ref()
            .and_then(|it| it.lifetime_type.as_ref());
        let carrier = match (&written.r#type, lifetime) {
            (Some(Type::Header), _) => SessionCarrier::Header,
            (_, Some(Lifetime::Permanent)) => SessionCarrier::PermanentCookie,
            _ => SessionCarrier::SessionCookie,
        };
        let absolute = gateway_time(
            written.absolute_timeout.as_deref(),
            &format!("{path}.absoluteTimeout"),
        )?;
        if carrier == SessionCarrier::PermanentCookie && absolute.is_none() {
            let message =
                format!("{path}.absoluteTimeout: is needed for a permanent cookie, add it");
            return Err(Fault::new("Invalid", message));
        }
        let session = SessionPersistence {
            session_name: written.session_name.clone(),
            absolute_timeout: absolute,
            idle_timeout: gateway_time(
                written.idle_timeout.as_deref(),
                &format!("{path}.idleTimeout"),
            )?,
            carrier,
        };
        settings.session = Some(Arc::new(session));
    }
    if let Some(constraint) = &spec.retry_constraint {
        settings.policy.retry_budget = Some(budget(constraint)?);
    }
    Ok(settings)
}

/// The interval of the budget is the data plane's own; the rate is brought to a second.
fn budget(
    constraint: &traffic::XBackendTrafficPolicyRetryConstraint,
) -> Result<RetryBudget, Fault> {
    let path = "spec.retryConstraint";
    // Gateway API's defaults: 20 % and 10 in a second.
    let written = constraint.budget.as_ref().and_then(|budget| budget.percent);
    let percent = u8::try_from(written.unwrap_or(20))
        .ok()
        .filter(|percent| *percent <= 100);
    let rate = constraint.min_retry_rate.as_ref();
    let count = rate.and_then(|rate| rate.count).unwrap_or(10);
    let interval = rate.and_then(|rate| rate.interval.as_deref());
    let interval = gateway_time(interval, &format!("{path}.minRetryRate.interval"))?;
    let interval = interval
        .unwrap_or(Duration::from_secs(1))
        .as_millis()
        .max(1);
    let per_second = u128::try_from(count).unwrap_or_default() * 1000 / interval;
    let Some(percent) = percent else {
        let message = format!("{path}.budget.percent: is no share, write 0 to 100");
        return Err(Fault::new("Invalid", message));
    };
    Ok(RetryBudget {
        percent,
        min_per_second: u32::try_from(per_second).unwrap_or(u32::MAX),
    })
}

fn gateway_time(text: Option<&str>, path: &str) -> Result<Option<Duration>, Fault> {
    let Some(text) = text else {
        return Ok(None);
    };
    match text.parse::<gateway_api::Duration>() {
        Ok(duration) => {
            let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            Ok(Some(Duration::from_millis(millis)).filter(|time| !time.is_zero()))
        }
        Err(_) => {
            let message = format!("{path}: {text:?} is no duration, write one such as 10s");
            Err(Fault::new("Invalid", message))
        }
    }
}

/// The time; zero is none.
pub(super) fn time(written: Option<&crds::duration::Duration>) -> Option<Duration> {
    written?.read().filter(|time| !time.is_zero())
}

fn positive(written: Option<i32>) -> Option<u32> {
    written
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number > 0)
}

fn percent(written: Option<i32>) -> Option<u8> {
    written.and_then(|number| u8::try_from(number).ok())
}
