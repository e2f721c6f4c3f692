//! What more than one field of a BackendLBPolicy must agree on.

use std::collections::BTreeSet;

use super::{
    BackendLBPolicySpec, Balancing, ConsistentHash, CookieLifetime, HashKey, HealthCheck,
    ProbeKind, SessionKind,
};
use crate::duration::Duration;
use crate::rule::{Faults, Rule};

pub(super) const SOMETHING: Rule = Rule {
    cel: "has(self.sessionPersistence) || has(self.loadBalancing) || has(self.healthCheck) || has(self.outlierDetection) || has(self.circuitBreaker) || has(self.retryBudget)",
    message: "says nothing, set at least one of sessionPersistence, loadBalancing, healthCheck, outlierDetection, circuitBreaker, retryBudget",
};
pub(super) const TARGET_KIND: Rule = Rule {
    cel: "self.all(t, (t.group == '' && t.kind == 'Service') || (t.group == 'multicluster.x-k8s.io' && t.kind == 'ServiceImport') || (t.group == 'gateway.nantian.dev' && t.kind == 'AIService'))",
    message: "may name only kind Service of group \"\", ServiceImport of group multicluster.x-k8s.io and AIService of group gateway.nantian.dev",
};
pub(super) const TARGET_ONCE: Rule = Rule {
    cel: "self.all(t, self.exists_one(u, u.group == t.group && u.kind == t.kind && u.name == t.name))",
    message: "names a target twice, remove one of them",
};
pub(super) const COOKIE_ONLY: Rule = Rule {
    cel: "!has(self.cookieConfig) || !has(self.type) || self.type == 'Cookie'",
    message: "cookieConfig is only for type Cookie, remove it",
};
pub(super) const PERMANENT: Rule = Rule {
    cel: "!has(self.cookieConfig) || !has(self.cookieConfig.lifetimeType) || self.cookieConfig.lifetimeType != 'Permanent' || has(self.absoluteTimeout)",
    message: "absoluteTimeout is needed for a permanent cookie, add it",
};
pub(super) const HASH_ONLY: Rule = Rule {
    cel: "!has(self.consistentHash) || (has(self.type) && self.type == 'ConsistentHash')",
    message: "consistentHash is only for type ConsistentHash, set that type or remove it",
};
pub(super) const HASH_HEADER: Rule = Rule {
    cel: "(has(self.keyType) && self.keyType == 'Header') == has(self.headerName)",
    message: "headerName goes with keyType Header and is needed there",
};
pub(super) const HASH_COOKIE: Rule = Rule {
    cel: "(has(self.keyType) && self.keyType == 'Cookie') == has(self.cookieName)",
    message: "cookieName goes with keyType Cookie and is needed there",
};
pub(super) const PROBE_HTTP: Rule = Rule {
    cel: "!has(self.http) || self.type == 'HTTP'",
    message: "http is only for type HTTP, remove it",
};
pub(super) const PROBE_GRPC: Rule = Rule {
    cel: "!has(self.grpc) || self.type == 'GRPC'",
    message: "grpc is only for type GRPC, remove it",
};
pub(super) const PROBE_TIMEOUT: Rule = Rule {
    cel: "!has(self.interval) || !has(self.timeout) || duration(self.timeout) <= duration(self.interval)",
    message: "timeout is longer than interval, make it shorter or equal",
};
pub(super) const EJECTION: Rule = Rule {
    cel: "!has(self.baseEjectionTime) || !has(self.maxEjectionTime) || duration(self.baseEjectionTime) <= duration(self.maxEjectionTime)",
    message: "baseEjectionTime is longer than maxEjectionTime, make it shorter or equal",
};

pub(super) const ALL: &[Rule] = &[
    SOMETHING,
    TARGET_KIND,
    TARGET_ONCE,
    COOKIE_ONLY,
    PERMANENT,
    HASH_ONLY,
    HASH_HEADER,
    HASH_COOKIE,
    PROBE_HTTP,
    PROBE_GRPC,
    PROBE_TIMEOUT,
    EJECTION,
];

pub(crate) fn rules(spec: &BackendLBPolicySpec, faults: &mut Faults) {
    let says_something = spec.session_persistence.is_some()
        || spec.load_balancing.is_some()
        || spec.health_check.is_some()
        || spec.outlier_detection.is_some()
        || spec.circuit_breaker.is_some()
        || spec.retry_budget.is_some();
    faults.unless(says_something, "spec", SOMETHING);
    let targets = &spec.target_refs;
    let known = targets.iter().all(|target| {
        matches!(
            (target.group.as_str(), target.kind.as_str()),
            ("", "Service")
                | ("multicluster.x-k8s.io", "ServiceImport")
                | (crate::GROUP, "AIService")
        )
    });
    faults.unless(known, "spec.targetRefs", TARGET_KIND);
    let distinct: BTreeSet<_> = targets.iter().collect();
    faults.unless(
        distinct.len() == targets.len(),
        "spec.targetRefs",
        TARGET_ONCE,
    );
    if let Some(session) = &spec.session_persistence {
        let path = "spec.sessionPersistence";
        let is_cookie = session.kind != Some(SessionKind::Header);
        faults.unless(
            session.cookie_config.is_none() || is_cookie,
            path,
            COOKIE_ONLY,
        );
        let lifetime = session
            .cookie_config
            .as_ref()
            .and_then(|cookie| cookie.lifetime_type);
        let is_permanent = lifetime == Some(CookieLifetime::Permanent);
        faults.unless(
            !is_permanent || session.absolute_timeout.is_some(),
            path,
            PERMANENT,
        );
    }
    if let Some(balancing) = &spec.load_balancing {
        let path = "spec.loadBalancing";
        let is_hash = balancing.kind == Some(Balancing::ConsistentHash);
        faults.unless(
            balancing.consistent_hash.is_none() || is_hash,
            path,
            HASH_ONLY,
        );
        if let Some(hash) = &balancing.consistent_hash {
            consistent_hash(hash, faults);
        }
    }
    if let Some(check) = &spec.health_check {
        health_check(check, faults);
    }
    if let Some(outlier) = &spec.outlier_detection {
        let holds = in_order(
            outlier.base_ejection_time.as_ref(),
            outlier.max_ejection_time.as_ref(),
        );
        faults.unless(holds, "spec.outlierDetection", EJECTION);
    }
}

fn consistent_hash(hash: &ConsistentHash, faults: &mut Faults) {
    let path = "spec.loadBalancing.consistentHash";
    let by = |key| hash.key_type == Some(key);
    faults.unless(
        by(HashKey::Header) == hash.header_name.is_some(),
        path,
        HASH_HEADER,
    );
    faults.unless(
        by(HashKey::Cookie) == hash.cookie_name.is_some(),
        path,
        HASH_COOKIE,
    );
}

fn health_check(check: &HealthCheck, faults: &mut Faults) {
    let path = "spec.healthCheck";
    faults.unless(
        check.http.is_none() || check.kind == ProbeKind::Http,
        path,
        PROBE_HTTP,
    );
    faults.unless(
        check.grpc.is_none() || check.kind == ProbeKind::Grpc,
        path,
        PROBE_GRPC,
    );
    let holds = in_order(check.timeout.as_ref(), check.interval.as_ref());
    faults.unless(holds, path, PROBE_TIMEOUT);
}

/// True unless both are there and the first is longer.
pub(crate) fn in_order(short: Option<&Duration>, long: Option<&Duration>) -> bool {
    match (
        short.and_then(Duration::read),
        long.and_then(Duration::read),
    ) {
        (Some(short), Some(long)) => short <= long,
        _ => true,
    }
}
