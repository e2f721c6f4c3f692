//! Providers that keep failing are given a rest, and whom providers are trusted by.

use std::time::Duration;

use dataplane_testkit::Backend;
use dataplane_testkit::backend::{Kind, Secured, closed_address};
use dataplane_testkit::certificate::Authority;
use ir::Hostname;
use ir::ai::AiProviderTls;
use ir::backend_policy::{BackendPolicy, BreakerThresholds, OutlierDetection};
use ir::policy::RoutePolicy;

use super::*;

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &str = r#"{"id":"c1","object":"chat.completion","created":1,"model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}}"#;
const BROKEN: &str = r#"{"error":{"message":"broken","type":"server_error"}}"#;

fn thresholds(failures: u32) -> BreakerThresholds {
    BreakerThresholds {
        failure_threshold: Some(failures),
        ..BreakerThresholds::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_keeps_failing_is_asked_behind_the_others() {
    let outliers = BackendPolicy {
        outlier_detection: Some(OutlierDetection {
            consecutive_failures: Some(5),
            base_ejection: Some(Duration::from_secs(60)),
            max_ejection: Some(Duration::from_secs(60)),
            max_ejection_percent: Some(100),
            ..OutlierDetection::default()
        }),
        ..BackendPolicy::default()
    };
    let breaker = BackendPolicy {
        breaker: Some(thresholds(5)),
        ..BackendPolicy::default()
    };
    for policy in [None, Some(outliers), Some(breaker)] {
        let first = Provider::start([Answer::json(503, BROKEN)]).await;
        let second = Provider::start([Answer::json(200, ANSWER)]).await;
        let mut service = service(AiProvider::OpenAi, &first);
        service.providers = vec![fallback(AiProvider::OpenAi, &second, "")];
        let mut case = Case::new(service);
        case.cluster.policy = policy.clone().map(Arc::new);
        let gateway = case.serve().await;
        for _ in 0..20 {
            let response = case.chat(CHAT).await;
            assert_eq!(response.status, 200, "{}", response.text());
        }
        assert_eq!(first.asked().len(), 5, "{policy:?}");
        assert_eq!(second.asked().len(), 20);
        assert_eq!(gateway.metric("ai_failovers_total", &[]), 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_are_at_rest_they_are_asked_all_the_same_unless_a_policy_says_no() {
    for (policy, last, reached) in [
        (None, 502, 16),
        (
            Some(BackendPolicy {
                breaker: Some(thresholds(3)),
                ..BackendPolicy::default()
            }),
            503,
            6,
        ),
    ] {
        let first = Provider::start([Answer::json(502, BROKEN)]).await;
        let second = Provider::start([Answer::json(502, BROKEN)]).await;
        let mut service = service(AiProvider::OpenAi, &first);
        service.providers = vec![fallback(AiProvider::OpenAi, &second, "")];
        let mut case = Case::new(service);
        case.cluster.policy = policy.map(Arc::new);
        let _gateway = case.serve().await;
        let mut response = case.chat(CHAT).await;
        for _ in 0..7 {
            response = case.chat(CHAT).await;
        }
        assert_eq!(response.status, last, "{}", response.text());
        assert_eq!(first.asked().len() + second.asked().len(), reached);
        if last == 503 {
            assert_eq!(response.json()["error"]["code"], "circuit_open");
            let wait: u64 = response.header("retry-after").parse().unwrap();
            assert!((1..=30).contains(&wait), "{wait}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_of_a_route_stands_in_front_of_the_service() {
    let provider = Provider::start([Answer::json(500, BROKEN)]).await;
    let case = Case::new(service(AiProvider::OpenAi, &provider));
    let mut snapshot = case.snapshot("v1");
    let mut route = (**snapshot.http_routes.get("shop/r").unwrap()).clone();
    route.policy = Some(Arc::new(RoutePolicy {
        breaker: Some(thresholds(2)),
        ..RoutePolicy::default()
    }));
    snapshot.http_routes.insert(route);
    let _gateway = Gateway::serving(&snapshot).await;
    for expected in [500, 500, 503, 503] {
        let response = case.chat(CHAT).await;
        assert_eq!(response.status, expected, "{}", response.text());
    }
    assert_eq!(provider.asked().len(), 2);
    let refused = case.post("/v1/messages", CHAT).await;
    assert_eq!(refused.status, 529);
    assert_eq!(refused.json()["error"]["type"], "overloaded_error");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_is_trusted_by_what_is_said_of_it_and_shown_the_gateways_certificate() {
    let authority = Authority::new("models");
    let identity = authority.server(&["models.internal"]);
    let secured = Secured::new(&identity)
        .alpn(&["http/1.1"])
        .requiring(&[&authority]);
    let trusted = |name: &str| {
        Some(AiProviderTls {
            hostname: Hostname::new(name).unwrap(),
            ca_pems: vec![authority.pem().to_owned()],
        })
    };
    for (tls, is_reached) in [
        (trusted("models.internal"), true),
        (trusted("other.internal"), false),
        (None, false),
    ] {
        let backend = Backend::start_secured("model", Kind::Http1, &secured).await;
        let unused = Provider::start([Answer::json(200, ANSWER)]).await;
        let mut service = service(AiProvider::OpenAi, &unused);
        service.endpoint = Some(format!("http://{}", closed_address()));
        let mut other = fallback(AiProvider::OpenAi, &unused, "");
        other.endpoint = Some(format!("https://localhost:{}", backend.address().port()));
        other.tls = tls.clone();
        service.providers = vec![other];
        let case = Case::new(service);
        let client = authority.client("gateway");
        let mut snapshot = SnapshotBuilder::from(&case.snapshot("v1"), "v1")
            .certificate("infra/client", &client)
            .build();
        let mut listener = (**snapshot.listeners.get("infra/gw/http").unwrap()).clone();
        listener.backend_client_certificate = Some("infra/client".into());
        snapshot.listeners.insert(listener);
        let _gateway = Gateway::serving(&snapshot).await;
        let response = case.chat(CHAT).await;
        assert_eq!(backend.requests() == 1, is_reached, "{}", response.text());
        if is_reached {
            let seen = backend.handshakes().pop().unwrap();
            assert_eq!(seen.server_name.as_deref(), Some("models.internal"));
            assert_eq!(seen.client.as_deref(), Some(&*client.leaf));
        } else {
            assert_eq!(response.status, 502, "{tls:?}");
            assert!(response.json()["error"]["message"].is_string());
        }
    }
}
