//! AIServices and TokenPolicies: what reaches data planes, when, and what is told.

use ir::Change;
use ir::ai::TokenScope;
use shim::cluster_view::{ClusterView, Kind};
use shim::conditions::{ConditionType as Type, Truth};
use shim::translate::{Settings, Translation, translate};

use crate::folder::{GATEWAY, condition, route, translated, view};

const CLUSTER: &str = "shop/chat.aiservice";
const RULE: &str =
    "rules:\n- backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: chat}]";

/// An AIService `shop/chat` with a key in Secret `shop/key`.
fn service(more: &str) -> String {
    format!(
        "apiVersion: gateway.nantian.dev/v1alpha1\nkind: AIService\n\
         metadata: {{name: chat, namespace: shop}}\n\
         spec: {{provider: openai, model: m, auth: {{secretRef: {{name: key, key: token}}}}{more}}}\n---\n"
    )
}

fn key(token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: key, namespace: shop}}\n\
         stringData: {{token: {token}, other: never-sent}}\n---\n"
    )
}

fn policy(name: &str, day: u32, target: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.nantian.dev/v1alpha1\nkind: TokenPolicy\n\
         metadata: {{name: {name}, namespace: shop, creationTimestamp: '2026-01-0{day}T00:00:00Z'}}\n\
         spec: {{targetRefs: [{{{target}}}], {spec}}}\n---\n"
    )
}

const CHAT: &str = "group: gateway.nantian.dev, kind: AIService, name: chat";
const ONE: &str = "group: gateway.networking.k8s.io, kind: HTTPRoute, name: one";
const TWO: &str = "group: gateway.networking.k8s.io, kind: HTTPRoute, name: two";

fn all(parts: &[String]) -> String {
    format!("{GATEWAY}{}{}", parts.concat(), route("one", RULE))
}

fn tokens_per_minute(translation: &Translation) -> Option<u64> {
    let cluster = translation.snapshot().clusters.get(CLUSTER).unwrap();
    let tokens = cluster.token_policy.as_ref()?.tokens_per_minute;
    tokens.map(Into::into)
}

fn edited(view: &ClusterView, before: &Translation) -> Translation {
    let after = translate(view, &Settings::default(), Some(before));
    let fresh = translate(view, &Settings::default(), None);
    assert_eq!(after.snapshot(), fresh.snapshot());
    assert!(after.statuses().eq(fresh.statuses()));
    after
}

#[test]
fn only_the_named_key_of_the_secret_is_sent() {
    let translation = translated(&all(&[service(""), key("sk-1")]));
    let secret = translation.snapshot().secrets.get("shop/key").unwrap();
    assert_eq!(secret.values.keys().collect::<Vec<_>>(), ["token"]);
    assert_eq!(secret.values["token"].expose(), "sk-1");
    assert!(!format!("{:?}", translation.snapshot()).contains("sk-1"));
}

#[test]
fn a_service_that_no_route_names_sends_no_secret() {
    let translation = translated(&format!("{GATEWAY}{}{}", service(""), key("sk-1")));
    assert!(translation.snapshot().secrets.is_empty());
    assert!(translation.snapshot().clusters.is_empty());
    let accepted = condition(
        &translation,
        Kind::AiService,
        "shop/chat",
        "",
        Type::Accepted,
    );
    assert_eq!(accepted.status, Truth::True);
}

#[test]
fn a_new_key_is_a_delta_of_one_secret() {
    let before = translated(&all(&[service(""), key("sk-1")]));
    let after = edited(&view(&all(&[service(""), key("sk-2")])), &before);
    let secrets = before.snapshot().secrets.changes(&after.snapshot().secrets);
    let changed: Vec<_> = secrets
        .map(|change| match change {
            Change::Upsert(secret) => secret.values["token"].expose().to_owned(),
            Change::Remove(secret) => panic!("{} is removed", secret.key),
        })
        .collect();
    assert_eq!(changed, ["sk-2"]);
    let (old, new) = (before.snapshot(), after.snapshot());
    assert_eq!(old.clusters.changes(&new.clusters).count(), 0);
    assert_eq!(old.http_routes.changes(&new.http_routes).count(), 0);
    assert_eq!(old.listeners.changes(&new.listeners).count(), 0);
}

#[test]
fn without_its_key_a_service_is_no_backend_and_both_are_told() {
    let whole = translated(&all(&[service(""), key("sk-1")]));
    let broken = edited(&view(&all(&[service("")])), &whole);
    assert!(broken.snapshot().clusters.get(CLUSTER).is_none());
    assert!(broken.snapshot().secrets.is_empty());
    let told = condition(
        &broken,
        Kind::AiService,
        "shop/chat",
        "",
        Type::ResolvedRefs,
    );
    assert_eq!(told.reason, "SecretNotFound");
    assert!(told.message.contains("spec.auth"), "{}", told.message);
    assert!(told.message.contains("shop/key"), "{}", told.message);
    let told = condition(
        &broken,
        Kind::HttpRoute,
        "shop/one",
        "parent infra/gw",
        Type::ResolvedRefs,
    );
    assert_eq!(told.reason, "InvalidAIService");
    let rule = &broken.snapshot().http_routes.get("shop/one").unwrap().rules[0];
    assert!(rule.backends[0].target.cluster_keys.is_empty());
    // And back.
    let mended = edited(&view(&all(&[service(""), key("sk-1")])), &broken);
    assert_eq!(mended.snapshot(), whole.snapshot());
}

#[test]
fn no_message_holds_a_key() {
    for secret in [
        "stringData: {token: \"sk-\\x01-hush\"}",
        "data: {token: /w==}",
        "stringData: {a: hush, b: hush}",
    ] {
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: key, namespace: shop}}\n{secret}\n---\n"
        );
        let translation = translated(&all(&[service(""), secret]));
        let told = condition(
            &translation,
            Kind::AiService,
            "shop/chat",
            "",
            Type::ResolvedRefs,
        );
        assert_eq!((told.status, told.reason), (Truth::False, "InvalidSecret"));
        let statuses: Vec<_> = translation.statuses().collect();
        assert!(!format!("{statuses:?}").contains("hush"));
    }
}

#[test]
fn a_service_and_an_ai_service_of_one_name_are_two_backends() {
    let service_too = "apiVersion: v1\nkind: Service\nmetadata: {name: chat, namespace: shop}\n\
                       spec: {ports: [{port: 80}]}\n---\n";
    let rules = format!("{RULE}\n- backendRefs: [{{name: chat, port: 80}}]");
    let text = format!(
        "{GATEWAY}{}{}{service_too}{}",
        service(""),
        key("k"),
        route("one", &rules)
    );
    let translation = translated(&text);
    let clusters = &translation.snapshot().clusters;
    let route = translation.snapshot().http_routes.get("shop/one").unwrap();
    let found: Vec<_> = route
        .rules
        .iter()
        .map(|rule| {
            let keys = &rule.backends[0].target.cluster_keys;
            let cluster = keys.iter().find_map(|key| clusters.get(key)).unwrap();
            (&*cluster.key, cluster.ai_service.is_some())
        })
        .collect();
    assert_eq!(found, [(CLUSTER, true), ("shop/chat:80", false)]);
    // The same after the wire, where a reference is told by its name.
    let wire = ir::encode::http_route(route);
    let decoded = ir::decode::http_route(wire).unwrap();
    assert_eq!(decoded.rules[0].backends, route.rules[0].backends);
}

#[test]
fn other_routes_and_mirrors_cannot_lead_to_an_ai_service() {
    let mirror = "rules:\n- filters: [{type: RequestMirror, requestMirror: {backendRef: \
                  {group: gateway.nantian.dev, kind: AIService, name: chat, port: 80}}}]";
    let text = format!(
        "{GATEWAY}{}{}{}",
        service(""),
        key("k"),
        route("one", mirror)
    );
    let told = condition(
        &translated(&text),
        Kind::HttpRoute,
        "shop/one",
        "parent infra/gw",
        Type::ResolvedRefs,
    );
    assert_eq!(told.reason, "InvalidKind");
}

#[test]
fn endpoints_of_a_service_in_the_cluster_are_followed() {
    let ollama = |ip: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: o, namespace: models}}\n\
             spec: {{ports: [{{port: 11434}}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: o, namespace: models, labels: {{kubernetes.io/service-name: o}}}}\n\
             ports: [{{port: 11434}}]\nendpoints: [{{addresses: [{ip}]}}]\n---\n"
        )
    };
    let text = |ip: &str| {
        let more = ", endpoint: 'http://o.models.svc:11434', providers: \
                    [{provider: ollama, endpoint: 'http://o.models.svc:11434'}]";
        all(&[service(more), key("k"), ollama(ip)])
    };
    let before = translated(&text("10.0.0.1"));
    let after = edited(&view(&text("10.0.0.2")), &before);
    for (translation, ip) in [(&before, "10.0.0.1"), (&after, "10.0.0.2")] {
        let clusters = &translation.snapshot().clusters;
        for key in [CLUSTER, "models/o:11434"] {
            let endpoints = &clusters.get(key).unwrap().endpoints;
            assert!(format!("{endpoints:?}").contains(ip), "{key} {endpoints:?}");
        }
        let service = clusters.get(CLUSTER).unwrap().ai_service.clone().unwrap();
        assert_eq!(
            service.providers[0].cluster.as_deref(),
            Some("models/o:11434")
        );
    }
    // Without the Service it is a name like any other.
    let more = ", endpoint: 'http://o.models.svc:11434'";
    let gone = edited(&view(&all(&[service(more), key("k")])), &after);
    let cluster = gone.snapshot().clusters.get(CLUSTER).unwrap();
    assert!(cluster.endpoints.is_empty());
    let endpoint = cluster.ai_service.as_ref().unwrap().endpoint.clone();
    assert_eq!(endpoint.as_deref(), Some("http://o.models.svc:11434"));
}

#[test]
fn a_policy_for_the_service_comes_before_one_for_a_route_and_the_oldest_wins() {
    let base = || vec![service(""), key("k"), route("two", RULE)];
    let with = |policies: &[String]| {
        let mut parts = base();
        parts.extend_from_slice(policies);
        translated(&all(&parts))
    };
    let one = policy("one", 2, ONE, "tokensPerMinute: 1");
    let two = policy("two", 1, TWO, "tokensPerMinute: 2");
    let own = policy(
        "own",
        3,
        CHAT,
        "tokensPerMinute: 3, scope: header, headerName: X-Team",
    );
    let later = policy("later", 4, CHAT, "tokensPerMinute: 4");
    let told = |translation: &Translation, name: &str| {
        let key = format!("shop/{name}");
        let told = condition(
            translation,
            Kind::TokenPolicy,
            &key,
            "parent infra/gw",
            Type::Accepted,
        );
        (told.status, told.reason, told.message)
    };

    let none = with(&[]);
    assert_eq!(tokens_per_minute(&none), None);
    let by_route = with(&[one.clone(), two.clone()]);
    assert_eq!(tokens_per_minute(&by_route), Some(2));
    let (_, reason, message) = told(&by_route, "one");
    assert_eq!(reason, "Conflicted");
    assert!(
        message.contains("TokenPolicy shop/two is older"),
        "{message}"
    );
    assert_eq!(told(&by_route, "two").0, Truth::True);

    let own_too = with(&[one, two, own, later]);
    assert_eq!(tokens_per_minute(&own_too), Some(3));
    let cluster = own_too.snapshot().clusters.get(CLUSTER).unwrap();
    let scope = &cluster.token_policy.as_ref().unwrap().scope;
    assert_eq!(*scope, TokenScope::Header("x-team".to_owned()));
    for (name, reason) in [
        ("own", "Accepted"),
        ("later", "Conflicted"),
        ("two", "Conflicted"),
    ] {
        assert_eq!(told(&own_too, name).1, reason, "{name}");
    }
    // Step by step it is the same.
    let (a, b) = (
        edited(&own_too_view(), &none),
        edited(&own_too_view(), &by_route),
    );
    assert_eq!(a.snapshot(), own_too.snapshot());
    assert_eq!(b.snapshot(), own_too.snapshot());
    let back = edited(&view(&all(&base())), &own_too);
    assert_eq!(back.snapshot(), none.snapshot());
}

/// All policies of the test above.
fn own_too_view() -> ClusterView {
    view(&all(&[
        service(""),
        key("k"),
        route("two", RULE),
        policy("one", 2, ONE, "tokensPerMinute: 1"),
        policy("two", 1, TWO, "tokensPerMinute: 2"),
        policy(
            "own",
            3,
            CHAT,
            "tokensPerMinute: 3, scope: header, headerName: X-Team",
        ),
        policy("later", 4, CHAT, "tokensPerMinute: 4"),
    ]))
}

/// A ConfigMap `shop/ca` with an authority in it.
fn authority() -> String {
    let pem = dataplane_testkit::certificate::Authority::new("models");
    let pem = pem.pem().trim_end().replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: shop}}\n\
         data:\n  ca.crt: |\n    {pem}\n---\n"
    )
}

const TRUSTING: &str = ", providers: [{provider: openai, endpoint: 'https://models.example/v1', \
     tls: {hostname: models.internal, caCertificateRefs: [{kind: ConfigMap, name: ca}]}}]";

#[test]
fn a_further_provider_is_trusted_by_what_is_said_of_it() {
    let text = all(&[service(TRUSTING), key("k"), authority()]);
    let translation = translated(&text);
    let cluster = translation.snapshot().clusters.get(CLUSTER).unwrap();
    assert_eq!(cluster.tls, None, "it is not about the first one");
    let tls = cluster.ai_service.as_ref().unwrap().providers[0]
        .tls
        .clone()
        .unwrap();
    assert_eq!(tls.hostname.as_str(), "models.internal");
    assert!(tls.ca_pems[0].contains("BEGIN CERTIFICATE"));
    let wire = ir::encode::cluster(cluster);
    assert_eq!(ir::decode::cluster(wire).unwrap(), **cluster);
    // Without its authority it is left out, and the others serve.
    let without = edited(&view(&all(&[service(TRUSTING), key("k")])), &translation);
    let cluster = without.snapshot().clusters.get(CLUSTER).unwrap();
    assert!(cluster.ai_service.as_ref().unwrap().providers.is_empty());
    let told = condition(
        &without,
        Kind::AiService,
        "shop/chat",
        "",
        Type::ResolvedRefs,
    );
    assert_eq!(told.reason, "InvalidCACertificateRef");
    assert!(
        told.message.contains("spec.providers[0].tls"),
        "{}",
        told.message
    );
}

#[test]
fn a_policy_of_backends_watches_the_providers_of_an_ai_service() {
    let policy = format!(
        "apiVersion: gateway.nantian.dev/v1alpha1\nkind: BackendLBPolicy\n\
         metadata: {{name: watch, namespace: shop}}\n\
         spec: {{targetRefs: [{{{CHAT}}}], circuitBreaker: {{maxInflightRequests: 7, breaker: \
         {{failureThreshold: 3}}}}, outlierDetection: {{consecutiveFailures: 2}}, \
         healthCheck: {{type: TCP}}}}\n---\n"
    );
    let before = translated(&all(&[service(""), key("k")]));
    let after = edited(&view(&all(&[service(""), key("k"), policy])), &before);
    let cluster = after.snapshot().clusters.get(CLUSTER).unwrap();
    assert_eq!(cluster.max_inflight_requests, Some(7));
    let policy = cluster.policy.as_deref().unwrap();
    let failures = policy.breaker.as_ref().unwrap().failure_threshold;
    assert_eq!(failures, Some(3));
    let outliers = policy.outlier_detection.as_ref().unwrap();
    assert_eq!(outliers.consecutive_failures, Some(2));
    assert_eq!(policy.health_check, None, "providers are not probed");
    let mut statuses = after.statuses();
    let told = statuses
        .find(|status| status.kind == Kind::BackendLbPolicy)
        .unwrap();
    let told = format!("{told:?}");
    assert!(
        told.contains("healthCheck means nothing for an AIService"),
        "{told}"
    );
}

#[test]
fn a_policy_that_counts_nothing_is_told_so() {
    let web = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
               spec: {ports: [{port: 80}]}\n---\n";
    let plain = route("two", "rules:\n- backendRefs: [{name: web, port: 80}]");
    let both = route(
        "two",
        "rules:\n- backendRefs: [{name: web, port: 80}, {group: gateway.nantian.dev, kind: \
         AIService, name: chat}]",
    );
    let at = service(", endpoint: 'http://web.shop.svc:80'");
    let by_service = policy(
        "p",
        1,
        "group: '', kind: Service, name: web",
        "tokensPerMinute: 5",
    );
    let by_route = policy("p", 1, TWO, "tokensPerMinute: 5");
    let told = |translation: &Translation, kind| {
        let told = condition(
            translation,
            Kind::TokenPolicy,
            "shop/p",
            "parent infra/gw",
            kind,
        );
        (told.status, told.reason, told.message)
    };
    let mut before = None;
    for (route, service, policy, status, reason, message) in [
        (
            &plain,
            &service(""),
            &by_service,
            Truth::False,
            "NoAIService",
            "not counted",
        ),
        (&plain, &at, &by_service, Truth::True, "Accepted", ""),
        (
            &plain,
            &service(""),
            &by_route,
            Truth::False,
            "NoAIService",
            "not counted",
        ),
        (
            &both,
            &service(""),
            &by_route,
            Truth::True,
            "Accepted",
            "Service shop/web:80 are not",
        ),
    ] {
        let parts = [web, route, service, &key("k"), policy].map(str::to_owned);
        let text = all(&parts);
        let translation = match &before {
            None => translated(&text),
            Some(before) => edited(&view(&text), before),
        };
        let (found, why, said) = told(&translation, Type::Accepted);
        assert_eq!((found, why), (status, reason), "{said}");
        assert!(said.contains(message), "{said}");
        assert_eq!(told(&translation, Type::ResolvedRefs).0, Truth::True);
        before = Some(translation);
    }
}

#[test]
fn a_budget_of_a_service_is_that_of_the_ai_services_in_front_of_it() {
    let models = "apiVersion: v1\nkind: Service\nmetadata: {name: chat, namespace: shop}\n\
                  spec: {ports: [{port: 11434}]}\n---\n";
    let at = service(", endpoint: 'http://chat.shop.svc:11434'");
    let budget = policy(
        "s",
        1,
        "group: '', kind: Service, name: chat",
        "tokensPerMinute: 5",
    );
    let base = [at, key("k"), models.to_owned()];
    let before = translated(&all(&base));
    assert_eq!(tokens_per_minute(&before), None);
    let with = |more: &[String]| all(&[&base[..], more].concat());
    let after = edited(&view(&with(std::slice::from_ref(&budget))), &before);
    assert_eq!(tokens_per_minute(&after), Some(5));
    let own = policy("own", 2, CHAT, "tokensPerMinute: 7");
    let own = edited(&view(&with(&[budget, own])), &after);
    assert_eq!(tokens_per_minute(&own), Some(7));
    let gone = edited(&view(&all(&base)), &own);
    assert_eq!(gone.snapshot(), before.snapshot());
}
