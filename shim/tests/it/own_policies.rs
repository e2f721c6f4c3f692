//! Policies of our own kinds: what they become, whom they concern, what they are told.

use ir::cluster::{Balancing, HashKey};
use ir::policy::{RateLimitScope, SessionCarrier};
use shim::cluster_view::Kind;
use shim::conditions::{ConditionType as Type, Truth};
use shim::translate::Translation;

use crate::folder::{GATEWAY, SERVICE, condition, route, translated};

const RULE: &str = "rules:\n- backendRefs: [{name: cart, port: 80}]";

/// A policy in namespace `shop`, or where its name says.
fn policy(kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
    format!(
        "apiVersion: gateway.nantian.dev/v1alpha1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn with(policies: &str) -> Translation {
    translated(&format!(
        "{GATEWAY}{SERVICE}{}{policies}",
        route("one", RULE)
    ))
}

fn accepted(
    translation: &Translation,
    kind: Kind,
    key: &str,
    part: &str,
) -> (Truth, String, String) {
    let found = condition(translation, kind, key, part, Type::Accepted);
    (found.status, found.reason.to_owned(), found.message)
}

const CART: &str = "targetRefs: [{group: '', kind: Service, name: cart}]";
const ONE: &str = "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: one}]";
const GW: &str = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]";

#[test]
fn a_backend_policy_is_with_its_cluster_and_told_by_gateway() {
    let spec = format!(
        "{CART}, loadBalancing: {{type: ConsistentHash, consistentHash: {{keyType: Header, \
         headerName: X-Tenant, maxLoadPercent: 125}}, slowStart: {{window: 30s}}, \
         panicThresholdPercent: 0}}, outlierDetection: {{consecutiveFailures: 0, \
         baseEjectionTime: 1m30s}}, circuitBreaker: {{maxInflightRequests: 7, breaker: \
         {{failureThreshold: 5}}}}, sessionPersistence: {{type: Header, sessionName: x-s}}, \
         retryBudget: {{percent: 20}}"
    );
    let translation = with(&policy("BackendLBPolicy", "p", &spec));
    let cluster = translation.snapshot().clusters.get("shop/cart:80").unwrap();
    let key = HashKey::Header("x-tenant".to_owned());
    assert_eq!(cluster.balancing, Balancing::ConsistentHash(key));
    assert_eq!(cluster.max_inflight_requests, Some(7));
    let session = cluster.session_persistence.as_ref().unwrap();
    assert_eq!(session.carrier, SessionCarrier::Header);
    let found = cluster.policy.as_ref().unwrap();
    assert_eq!(found.hash_load_percent, Some(125));
    assert_eq!(found.panic_threshold_percent, Some(0));
    assert_eq!(found.slow_start_window.unwrap().as_secs(), 30);
    let outlier = found.outlier_detection.as_ref().unwrap();
    assert_eq!(outlier.consecutive_failures, Some(0));
    assert_eq!(outlier.base_ejection.unwrap().as_secs(), 90);
    assert_eq!(found.breaker.as_ref().unwrap().failure_threshold, Some(5));
    let budget = found.retry_budget.unwrap();
    assert_eq!((budget.percent, budget.min_per_second), (20, 10));
    let (status, reason, _) = accepted(
        &translation,
        Kind::BackendLbPolicy,
        "shop/p",
        "parent infra/gw",
    );
    assert_eq!((status, &*reason), (Truth::True, "Accepted"));
}

#[test]
fn a_service_asks_for_its_zone_and_a_policy_has_the_last_word() {
    let spread = |how: &str| format!("spec: {{trafficDistribution: {how}, ports: [");
    let annotated = SERVICE.replacen(
        "namespace: shop}",
        "namespace: shop, annotations: {service.kubernetes.io/topology-mode: Auto}}",
        1,
    );
    let hinted = annotated.replace("  zone: a", "  zone: a\n  hints: {forZones: [{name: a}]}");
    let plain = |how| SERVICE.replace("spec: {ports: [", &spread(how));
    let says = |zones: &str| format!("{CART}, loadBalancing: {{zones: {zones}}}");
    let other = format!("{CART}, healthCheck: {{type: TCP}}");
    for (service, spec, expected) in [
        (SERVICE.to_owned(), None, false),
        (plain("PreferClose"), None, true),
        (plain("PreferSameZone"), None, true),
        (plain("PreferSameNode"), None, true),
        (plain("SomethingElse"), None, false),
        (plain("PreferSameZone"), Some(other.clone()), true),
        (plain("PreferSameZone"), Some(says("Any")), false),
        (plain("SomethingElse"), Some(says("PreferOwn")), true),
        (SERVICE.to_owned(), Some(other), false),
        // The annotation is for hints; without them it asks for nothing.
        (annotated, None, false),
        (hinted.clone(), None, true),
        (hinted, Some(says("Any")), false),
    ] {
        let policies = spec.map(|spec| policy("BackendLBPolicy", "p", &spec));
        let translation = translated(&format!(
            "{GATEWAY}{service}{}{}",
            route("one", RULE),
            policies.clone().unwrap_or_default()
        ));
        let cluster = translation.snapshot().clusters.get("shop/cart:80").unwrap();
        let found = cluster
            .policy
            .as_ref()
            .is_some_and(|it| it.prefers_own_zone);
        assert_eq!(found, expected, "{service} {policies:?}");
    }
}

#[test]
fn what_has_no_effect_yet_is_said() {
    let spec = format!("{CART}, healthCheck: {{type: TCP}}, circuitBreaker: {{maxConnections: 5}}");
    let translation = with(&policy("BackendLBPolicy", "p", &spec));
    let found = translation.status(Kind::BackendLbPolicy, "shop/p").unwrap();
    let (_, _, message) = accepted(
        &translation,
        Kind::BackendLbPolicy,
        "shop/p",
        "parent infra/gw",
    );
    for warning in &found.warnings {
        assert!(message.contains(warning), "{warning} in {message}");
    }
}

#[test]
fn of_two_policies_for_one_service_the_older_holds() {
    let stamped = |name: &str, day: u32, kind: &str| {
        let text = policy(
            "BackendLBPolicy",
            name,
            &format!("{CART}, loadBalancing: {{type: {kind}}}"),
        );
        let stamp = format!("creationTimestamp: '2026-01-0{day}T00:00:00Z', name:");
        text.replacen("name:", &stamp, 1)
    };
    let translation = with(&(stamped("a", 2, "Random") + &stamped("b", 1, "LeastRequest")));
    let cluster = translation.snapshot().clusters.get("shop/cart:80").unwrap();
    assert_eq!(cluster.balancing, Balancing::LeastRequest);
    let (status, reason, message) = accepted(
        &translation,
        Kind::BackendLbPolicy,
        "shop/a",
        "parent infra/gw",
    );
    assert_eq!((status, &*reason), (Truth::False, "Conflicted"));
    assert!(message.contains("BackendLBPolicy shop/b"), "{message}");
    let resolved = condition(
        &translation,
        Kind::BackendLbPolicy,
        "shop/a",
        "parent infra/gw",
        Type::ResolvedRefs,
    );
    assert_eq!(resolved.status, Truth::True);
}

#[test]
fn targets_that_are_not_there_or_no_backends_are_named() {
    for (target, reason, resolved, part, says) in [
        (
            "{group: '', kind: Service, name: nowhere}",
            "TargetNotFound",
            "TargetNotFound",
            "parent Service shop/nowhere",
            "there is no Service shop/nowhere",
        ),
        (
            "{group: multicluster.x-k8s.io, kind: ServiceImport, name: a}",
            "Invalid",
            "InvalidKind",
            "parent ServiceImport shop/a",
            "kind ServiceImport",
        ),
    ] {
        let spec = format!("targetRefs: [{target}], loadBalancing: {{type: Random}}");
        let translation = with(&policy("BackendLBPolicy", "p", &spec));
        let (status, found, message) =
            accepted(&translation, Kind::BackendLbPolicy, "shop/p", part);
        assert_eq!((status, &*found), (Truth::False, reason), "{target}");
        assert!(message.contains(says), "{message}");
        let found = condition(
            &translation,
            Kind::BackendLbPolicy,
            "shop/p",
            part,
            Type::ResolvedRefs,
        );
        assert_eq!(
            (found.status, found.reason),
            (Truth::False, resolved),
            "{target}"
        );
    }
}

#[test]
fn a_policy_that_says_something_wrong_names_the_field_and_changes_nothing() {
    let spec = format!("{CART}, loadBalancing: {{type: Random, panicThresholdPercent: 101}}");
    let translation = with(&policy("BackendLBPolicy", "p", &spec));
    let cluster = translation.snapshot().clusters.get("shop/cart:80").unwrap();
    assert_eq!(cluster.balancing, Balancing::RoundRobin);
    let (status, reason, message) = accepted(
        &translation,
        Kind::BackendLbPolicy,
        "shop/p",
        "parent infra/gw",
    );
    assert_eq!((status, &*reason), (Truth::False, "Invalid"));
    assert!(
        message.contains("spec.loadBalancing.panicThresholdPercent"),
        "{message}"
    );
}

#[test]
fn the_same_kind_of_gateway_api_and_its_successor_are_understood() {
    let older = policy(
        "BackendLBPolicy",
        "old",
        &format!("{CART}, loadBalancing: {{type: Random}}"),
    )
    .replace(
        "gateway.nantian.dev/v1alpha1",
        "gateway.networking.k8s.io/v1alpha2",
    );
    let traffic = policy(
        "XBackendTrafficPolicy",
        "new",
        &format!(
            "{CART}, sessionPersistence: {{sessionName: s}}, retryConstraint: {{budget: \
             {{percent: 30}}, minRetryRate: {{count: 60, interval: 10s}}}}"
        ),
    )
    .replace(
        "gateway.nantian.dev/v1alpha1",
        "gateway.networking.x-k8s.io/v1alpha1",
    );
    let translation = with(&(older + &traffic));
    let cluster = translation.snapshot().clusters.get("shop/cart:80").unwrap();
    assert_eq!(cluster.balancing, Balancing::Random);
    assert!(cluster.session_persistence.is_some());
    let budget = cluster.policy.as_ref().unwrap().retry_budget.unwrap();
    assert_eq!((budget.percent, budget.min_per_second), (30, 6));
    let (status, ..) = accepted(
        &translation,
        Kind::XBackendTrafficPolicy,
        "shop/new",
        "parent infra/gw",
    );
    assert_eq!(status, Truth::True);
}

#[test]
fn a_routes_settings_lie_over_its_gateways_field_by_field() {
    let gateway = policy(
        "RoutePolicy",
        "infra/all",
        "targetRefs: [{kind: Gateway, name: gw}], default: {timeout: {request: 10s, connect: 1s}, \
         bodyLimit: {maxRequestBodyBytes: 1000}}",
    );
    let own = policy(
        "RoutePolicy",
        "one",
        "targetRefs: [{kind: HTTPRoute, name: one}], default: {timeout: {connect: 0s}, bodyLimit: \
         {maxRequestBodyBytes: 10}, circuitBreaker: {openTime: 3s}}",
    );
    let translation = with(&(gateway + &own));
    let found = translation.snapshot().http_routes.get("shop/one").unwrap();
    let settings = found.policy.as_ref().unwrap();
    assert_eq!(settings.request_timeout.unwrap().as_secs(), 10);
    assert_eq!(settings.connect_timeout, None);
    assert_eq!(settings.request_body_bytes_max, Some(10));
    assert_eq!(
        settings
            .breaker
            .as_ref()
            .unwrap()
            .open_time
            .unwrap()
            .as_secs(),
        3
    );
    let (status, ..) = accepted(
        &translation,
        Kind::RoutePolicy,
        "infra/all",
        "parent infra/gw",
    );
    assert_eq!(status, Truth::True);
}

#[test]
fn a_policy_of_one_gateway_does_not_act_on_a_route_that_another_shares() {
    let second = GATEWAY
        .replace("name: gw", "name: other")
        .replace("8080", "8081");
    let second = second.split_once("---\n").unwrap().1;
    let shared = route("one", RULE).replace(
        "parentRefs: [",
        "parentRefs: [{name: other, namespace: infra}, ",
    );
    let own = route("own", RULE);
    let settings = |name: &str, gateway: &str, seconds: u8| {
        let spec = format!(
            "targetRefs: [{{kind: Gateway, name: {gateway}}}], \
             default: {{timeout: {{request: {seconds}s}}}}"
        );
        policy("RoutePolicy", &format!("infra/{name}"), &spec)
    };
    let cors = policy(
        "SecurityPolicy",
        "infra/cors",
        &format!("{GW}, cors: {{allowOrigins: ['https://a.example']}}"),
    );
    let one = settings("a", "gw", 10) + &cors;
    for (policies, is_applied) in [
        (one.clone(), false),
        (one.clone() + &settings("b", "other", 20), false),
        (one + &settings("b", "other", 10), true),
    ] {
        let translation = translated(&format!(
            "{GATEWAY}{second}{SERVICE}{shared}{own}{policies}"
        ));
        let routes = &translation.snapshot().http_routes;
        let route = routes.get("shop/one").unwrap();
        assert_eq!(route.listeners.len(), 2);
        assert_eq!(route.policy.is_some(), is_applied);
        assert!(route.rules[0].filters.is_empty());
        let route = routes.get("shop/own").unwrap();
        assert!(route.policy.is_some() && !route.rules[0].filters.is_empty());
        for (kind, key, is_applied) in [
            (Kind::RoutePolicy, "infra/a", is_applied),
            (Kind::SecurityPolicy, "infra/cors", false),
        ] {
            let (status, _, message) = accepted(&translation, kind, key, "parent infra/gw");
            assert_eq!(status, Truth::True);
            let says = message.contains("not applied to HTTPRoute shop/one, which");
            assert_eq!(says, !is_applied, "{key}: {message}");
        }
    }
}

#[test]
fn security_is_put_where_it_is_asked_for() {
    let says = "ip: {denyCIDRs: [10.6.6.0/24]}, rateLimit: [{requestsPerSecond: 5, period: 1m}]";
    let policies = [
        policy(
            "SecurityPolicy",
            "infra/gateway",
            &format!("{GW}, {says}, cors: {{allowOrigins: [https://a.example]}}"),
        ),
        policy("SecurityPolicy", "route", &format!("{ONE}, {says}")),
        policy("SecurityPolicy", "service", &format!("{CART}, {says}")),
    ];
    let translation = with(&policies.concat());
    let snapshot = translation.snapshot();
    let listener = snapshot.listeners.get("infra/gw/http").unwrap();
    let route = snapshot.http_routes.get("shop/one").unwrap();
    let cluster = snapshot.clusters.get("shop/cart:80").unwrap();
    for (found, scope) in [
        (&listener.security_policy, RateLimitScope::Listener),
        (&route.security_policy, RateLimitScope::Route),
        (&cluster.security_policy, RateLimitScope::Backend),
    ] {
        let found = found.as_ref().unwrap();
        assert_eq!(found.deny_cidrs, ["10.6.6.0/24"]);
        assert_eq!(found.rate_limits[0].scope, scope);
        assert_eq!(found.rate_limits[0].period.as_secs(), 60);
    }
    assert!(matches!(route.rules[0].filters[0], ir::Filter::Cors(_)));
}

#[test]
fn security_that_cannot_be_kept_to_lets_nobody_through() {
    for (says, reason, names) in [
        (
            "authn: {basicAuth: {htpasswdRef: users}}",
            "UnsupportedValue",
            "spec.authn",
        ),
        ("authz: {external: {}}", "UnsupportedValue", "spec.authz"),
        ("ip: {allowCIDRs: [nonsense]}", "Invalid", "spec.ip"),
        ("cors: {allowOrigins: [nonsense]}", "Invalid", "cors"),
    ] {
        let translation = with(&policy("SecurityPolicy", "p", &format!("{ONE}, {says}")));
        let route = translation.snapshot().http_routes.get("shop/one").unwrap();
        let found = route.security_policy.as_ref().unwrap();
        assert_eq!(found.deny_cidrs, ["0.0.0.0/0", "::/0"], "{says}");
        let (status, why, message) = accepted(
            &translation,
            Kind::SecurityPolicy,
            "shop/p",
            "parent infra/gw",
        );
        assert_eq!((status, &*why), (Truth::False, reason), "{says}: {message}");
        assert!(
            message.contains(names) && message.contains("403"),
            "{message}"
        );
    }
}
