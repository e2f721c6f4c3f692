//! What is told of a request that nobody sent: the same as traffic meets, and why.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use dataplane::admin::explain::{Asked, as_text, of_snapshot};
use dataplane::admin::head::Head;
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::snapshot::{cluster, free_port, http_route, rate_limit};
use dataplane_testkit::{Backend, SnapshotBuilder};
use http::Method;
use ir::Snapshot;
use ir::ai::{
    AiProvider, AiService, AiTarget, OnLimit, Redaction, RedactionAction, RedactionKind,
    TokenPolicy, TokenScope,
};
use ir::cluster::ClusterProtocol;
use ir::http_route::{TextMatch, ValueMatch};
use ir::policy::SecurityPolicy;
use ir::wasm::{WasmPlugin, WasmSource};
use serde_json::{Value, json};

use crate::ai::service_at;
use crate::binary::Binary;
use crate::support::{Gateway, at};

const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

fn asked(url: &str) -> Asked {
    Asked {
        url: Some(url.to_owned()),
        ..Asked::default()
    }
}

fn told(snapshot: &Snapshot, url: &str) -> Value {
    of_snapshot(snapshot.clone(), asked(url)).unwrap()
}

/// Hosts, paths, a header, weights, a listener with TLS, a backend without endpoints and one that
/// does not exist.
fn shop(ports: [u16; 2], endpoints: [SocketAddr; 2]) -> Snapshot {
    let identity = Authority::new("shop").server(&["shop.test", "*.shop.test"]);
    let mut beta = http_route("shop/beta", "shop.test", "/cart", &[("shop/two:80", 1)]);
    beta.rules[0].matches[0].headers = vec![ValueMatch {
        name: "x-beta".into(),
        value: TextMatch::Exact("yes".into()),
    }];
    let shares = [("shop/one:80", 3), ("shop/two:80", 1)];
    let mut shared = http_route("shop/shared", "shop.test", "/shared", &shares);
    for route in [&mut beta, &mut shared] {
        route.listeners = vec!["infra/gw/http".into(), "infra/gw/https".into()];
    }
    SnapshotBuilder::new("v1")
        .certificate("infra/cert", &identity)
        .http_listener("infra/gw/http", ports[0])
        .https_listener(
            "infra/gw/https",
            ports[1],
            &["*.shop.test"],
            &["infra/cert"],
        )
        .cluster("shop/one:80", &endpoints[..1])
        .cluster("shop/two:80", &endpoints[1..])
        .cluster("shop/none:80", &[])
        .http_route(shared)
        .http_route(beta)
        .route("shop/cart", "shop.test", "/cart", "shop/one:80")
        .route("shop/none", "shop.test", "/none", "shop/none:80")
        .route("shop/gone", "shop.test", "/gone", "shop/gone:80")
        .route("shop/wide", "*.shop.test", "/", "shop/one:80")
        .build()
}

#[tokio::test]
async fn traffic_meets_what_the_command_says() {
    let (one, two) = (Backend::http1("one").await, Backend::http1("two").await);
    let ports = [free_port(), free_port()];
    let snapshot = shop(ports, [one.address(), two.address()]);
    let (binary, _control_plane) = Binary::serving(&snapshot, &[], "").await;
    for (host, path, header) in [
        ("shop.test", "/cart", ""),
        ("shop.test", "/cart/1?x=y", "x-beta: yes"),
        ("shop.test", "/cart", "x-beta: no"),
        ("SHOP.test.", "/a/../cart//", ""),
        ("shop.test", "/cartoon", ""),
        ("shop.test", "/none", ""),
        ("shop.test", "/gone", ""),
        ("a.shop.test", "/cart", ""),
        ("other.test", "/cart", ""),
        ("shop.test", "/%zz", ""),
        ("shop.test", "/a%00", ""),
        ("shop.test", "", ""),
    ] {
        let what = format!("{host}{path} {header}");
        let port = ports[0].to_string();
        let mut words = vec!["explain", "--output", "json", "--port", &port];
        words.extend(["--host", host, "--path", path]);
        if !header.is_empty() {
            words.extend(["-H", header]);
        }
        let told = binary.run(&words);
        assert!(told.status.success(), "{what}: {told:?}");
        let told: Value = serde_json::from_slice(&told.stdout).unwrap();

        let mut client = Http1Client::connect(at(ports[0])).await.unwrap();
        let header = match header {
            "" => String::new(),
            header => format!("{header}\r\n"),
        };
        let head = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{header}\r\n");
        client.send_bytes(head.as_bytes()).await.unwrap();
        let response = client.read_response(&Method::GET).await.unwrap();
        let met = match response.status.as_u16() {
            200 => response.json()["backend"].clone(),
            status => json!(status),
        };
        let expected = match &told["answer"] {
            Value::Null => match told["backends"][0]["target"].as_str() {
                Some("shop/one:80") => json!("one"),
                Some("shop/two:80") => json!("two"),
                other => panic!("{what}: {other:?}"),
            },
            answer => answer["status"].clone(),
        };
        assert_eq!(met, expected, "{what}: {told:#}");
    }
    let text = binary.run(&["explain", &format!("http://shop.test:{}/cart", ports[0])]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("route        HTTPRoute shop/cart, rule 0"),
        "{text}"
    );
    let wrong = binary.run(&["explain", "http://shop.test:1/"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(said.contains("no listener is on port 1"), "{said}");
}

#[test]
fn the_line_from_socket_to_endpoints_is_told() {
    let snapshot = shop([8080, 8443], [NOWHERE; 2]);
    let told = told(&snapshot, "https://a.shop.test/x/../cart");
    assert_eq!(told["version"], "v1");
    assert_eq!(told["socket"]["port"], 8443);
    assert_eq!(told["certificate"]["secret"], "infra/cert");
    assert_eq!(told["listener"]["name"], "infra/gw/https");
    assert_eq!(told["matched"]["path"], "/cart");
    let route = &told["route"];
    assert_eq!(
        (&route["kind"], &route["route"]),
        (&json!("HTTPRoute"), &json!("shop/wide"))
    );
    assert_eq!(route["matches"]["path"], json!({ "prefix": "/" }));
    let backend = &told["backends"][0];
    assert_eq!(
        (&backend["target"], &backend["share_percent"]),
        (&json!("shop/one:80"), &json!(100.0))
    );
    assert_eq!(backend["endpoints"][0]["state"], "well");
    assert_eq!(told["answer"], Value::Null);

    let shared = self::told(&snapshot, "http://shop.test/shared");
    let shares: Vec<_> = (0..2)
        .map(|at| shared["backends"][at]["share_percent"].clone())
        .collect();
    assert_eq!(shares, [json!(75.0), json!(25.0)]);
}

#[test]
fn plugins_that_may_answer_are_named_in_their_order() {
    let plugin = |key: &str| WasmPlugin::new(key, WasmSource::Inline("module".into()));
    let mut first = plugin("shop/first");
    first.priority = -1;
    let snapshot = SnapshotBuilder::from(&shop([8080, 8443], [NOWHERE; 2]), "v2").with(|it| {
        let mut listener = (**it.listeners.get("infra/gw/http").unwrap()).clone();
        listener.plugins = vec!["infra/all".into()];
        it.listeners.insert(listener);
        let mut route = (**it.http_routes.get("shop/shared").unwrap()).clone();
        route.rules[0].plugins = vec!["shop/second".into(), "shop/first".into()];
        it.http_routes.insert(route);
        let mut cluster = (**it.clusters.get("shop/two:80").unwrap()).clone();
        cluster.plugins = vec!["shop/two".into()];
        it.clusters.insert(cluster);
        it.wasm_plugins.insert(first);
        for key in ["infra/all", "shop/second", "shop/two", "shop/unused"] {
            it.wasm_plugins.insert(plugin(key));
        }
    });
    let snapshot = snapshot.build();
    let told = told(&snapshot, "http://shop.test/shared");
    assert_eq!(
        told["plugins"],
        json!([
            { "plugin": "infra/all", "of": "listener" },
            { "plugin": "shop/first", "of": "rule" },
            { "plugin": "shop/second", "of": "rule" },
            { "plugin": "shop/two", "of": "backend", "only_for": "shop/two:80" },
        ])
    );
    let text = as_text(&told);
    for line in [
        "plugin       shop/first of the rule: it may change or answer the request\n",
        "plugin       shop/two of the backend shop/two:80: it may change or answer the request\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    // They come before a rule is looked for.
    let nothing = self::told(&snapshot, "http://other.test/");
    assert_eq!(
        nothing["plugins"],
        json!([{ "plugin": "infra/all", "of": "listener" }])
    );
}

/// A route to an AI service with a second provider, redaction and a budget.
fn with_ai(service: AiService) -> Snapshot {
    let mut llm = cluster("shop/llm", ClusterProtocol::Http, &[]);
    llm.ai_service = Some(Arc::new(service));
    llm.token_policy = Some(Arc::new(TokenPolicy {
        tokens_per_minute: NonZeroU64::new(1000),
        tokens_per_hour: None,
        requests_per_minute: NonZeroU64::new(60),
        scope: TokenScope::SourceIp,
        burst: 1.0,
        on_limit: OnLimit::Degrade,
        degrade_to: Some("small".to_owned()),
        is_dry_run: false,
    }));
    SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", 8080)
        .add_cluster(llm)
        .route("shop/ai", "", "/", "shop/llm")
        .build()
}

#[test]
fn an_ai_service_is_told_with_providers_redaction_and_budget() {
    let mut service = service_at(AiProvider::OpenAi, "http://one.test".to_owned());
    service.auth = None;
    service.redaction = vec![Redaction {
        kind: RedactionKind::Email,
        action: RedactionAction::Tokenize,
    }];
    service.providers = vec![AiTarget {
        provider: AiProvider::Anthropic,
        format: None,
        model: "another".to_owned(),
        auth: None,
        endpoint: Some("http://two.test".to_owned()),
        headers: BTreeMap::new(),
        weight: 0,
        cluster: None,
        tls: None,
    }];
    let snapshot = with_ai(service);
    let asked = |method: &str, path: &str| Asked {
        method: method.to_owned(),
        ..asked(&format!("http://shop.test{path}"))
    };
    let told = |asked| of_snapshot(snapshot.clone(), asked).unwrap();
    let chat = told(asked("POST", "/v1/chat/completions?x=y"));
    assert_eq!(chat["answer"], Value::Null);
    let service = &chat["backends"][0]["ai_service"];
    assert_eq!(service["token_policy"]["tokens_per_minute"], 1000);
    let text = as_text(&chat);
    let lines = "backend      100 % shop/llm\n  \
        provider   openai the-model at http://one.test\n  \
        provider   anthropic another at http://two.test, when those before it fail\n  \
        redaction  tokenize email\n  \
        budget     1000 tokens a minute, 60 requests a minute for each source_ip, then degrade to small\n";
    assert!(text.contains(lines), "{text}");

    for (method, path, status) in [("POST", "/other", 404), ("GET", "/v1/embeddings", 405)] {
        let answer = &told(asked(method, path))["answer"];
        assert_eq!(answer["status"], status, "{method} {path}: {answer}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.contains(method), "{detail}");
    }
}

#[test]
fn an_ai_service_that_cannot_be_used_says_why() {
    // Its secret is not there.
    let snapshot = with_ai(service_at(AiProvider::OpenAi, "http://one.test".to_owned()));
    let asked = Asked {
        method: "POST".to_owned(),
        ..asked("http://shop.test/v1/messages")
    };
    let told = of_snapshot(snapshot, asked).unwrap();
    assert_eq!(told["answer"]["status"], 500);
    let text = as_text(&told);
    assert!(
        text.contains("  unusable   ") && text.contains("shop/key"),
        "{text}"
    );
}

#[test]
fn near_misses_say_why() {
    let snapshot = shop([8080, 8443], [NOWHERE; 2]);
    let told = told(&snapshot, "http://shop.test/cart");
    let why = |route: &str| {
        let others = told["others"].as_array().unwrap();
        let other = others.iter().find(|it| it["route"] == route);
        other.map(|it| it["why"].as_str().unwrap().to_owned())
    };
    let header = "host and path match; header x-beta is missing or has another value";
    assert_eq!(why("shop/beta").as_deref(), Some(header));
    let path = "the path does not match; everything else does";
    assert_eq!(why("shop/none").as_deref(), Some(path));
    let host = "host \"shop.test\" is not among its hosts; everything else matches";
    assert_eq!(why("shop/wide").as_deref(), Some(host));
    assert_eq!(why("shop/cart"), None, "it is the one");
    let text = as_text(&told);
    for line in [
        "request      GET http://shop.test/cart from 127.0.0.1\n",
        "listener     infra/gw/http (any host)\n",
        "backend      100 % shop/one:80\n",
        "not taken (of 6 routes of the listener, the nearest first)\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}

#[tokio::test]
async fn a_backend_whose_policy_refuses_the_client_says_so_as_traffic_does() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let denies = |key: &str| {
        let mut denying = cluster(key, ClusterProtocol::Http, &[backend.address()]);
        denying.security_policy = Some(Arc::new(SecurityPolicy {
            deny_cidrs: vec!["127.0.0.0/8".to_owned()],
            rate_limits: vec![rate_limit("few", 1000, Duration::from_secs(1))],
            ..SecurityPolicy::default()
        }));
        denying
    };
    let targets = [("shop/one:80", 1), ("shop/two:80", 1), ("shop/off:80", 0)];
    let mut all = http_route("shop/all", "shop.test", "/all", &targets);
    all.listeners = vec!["infra/gw/http".into()];
    let mut some = http_route("shop/some", "shop.test", "/some", &[targets[0], targets[2]]);
    some.listeners = all.listeners.clone();
    some.rules[0].backends[1].weight = 1;
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .add_cluster(denies("shop/one:80"))
        .add_cluster(denies("shop/two:80"))
        .cluster("shop/off:80", &[backend.address()])
        .http_route(all)
        .http_route(some)
        .build();
    let url = format!("http://shop.test:{port}/all");
    let refused = told(&snapshot, &url);
    assert_eq!(
        (&refused["answer"]["status"], &refused["answer"]["reason"]),
        (&json!(403), &json!("address_denied"))
    );
    let row = &refused["backends"][0];
    let fault = row["fault"].as_str().unwrap();
    assert!(fault.contains("SecurityPolicy"), "{fault}");
    assert_eq!(row["policies"]["rate_limits"][0]["name"], "few");
    assert_eq!(refused["backends"][2]["fault"], Value::Null);
    let text = as_text(&refused);
    assert!(text.contains("  policy     address_lists: true"), "{text}");

    let url = format!("http://shop.test:{port}/some");
    assert_eq!(told(&snapshot, &url)["answer"], Value::Null);
    let elsewhere = Asked {
        head: Head {
            client: Some([10, 0, 0, 1].into()),
            ..Head::default()
        },
        ..asked(&format!("http://shop.test:{port}/all"))
    };
    let let_in = of_snapshot(snapshot.clone(), elsewhere).unwrap();
    assert_eq!(let_in["answer"], Value::Null);
    assert_eq!(let_in["backends"][0]["fault"], Value::Null);

    let _gateway = Gateway::serving(&snapshot).await;
    let met = http1::get(at(port), "shop.test", "/all").await.unwrap();
    assert_eq!(met.status, 403);
    assert!(met.text().contains("address_denied"), "{}", met.text());
}

#[test]
fn what_never_comes_to_a_route_is_told_too() {
    let snapshot = shop([8080, 8443], [NOWHERE; 2]);
    for (url, status, reason) in [
        ("https://other.test/", json!(null), "unknown_server_name"),
        ("http://other.test/", json!(404), "route_not_found"),
        ("http://shop.test/none", json!(503), "no_endpoint"),
        ("http://shop.test/gone", json!(500), "invalid_backend"),
    ] {
        let answer = &told(&snapshot, url)["answer"];
        assert_eq!(
            (&answer["status"], &answer["reason"]),
            (&status, &json!(reason)),
            "{url}"
        );
    }
    let asked = Asked {
        sni: Some("a.shop.test".to_owned()),
        head: Head {
            host: Some("other.test".to_owned()),
            ..Head::default()
        },
        ..Asked::default()
    };
    let told = of_snapshot(snapshot.clone(), asked).unwrap();
    assert_eq!(
        told["answer"]["status"], 404,
        "a host of no listener: {told}"
    );
    for (url, says) in [
        (
            "http://shop.test:8443/",
            "port 8443 speaks TLS; give --sni NAME or --tls",
        ),
        ("https://shop.test:8080/", "port 8080 does not speak TLS"),
        (
            "http://shop.test:99/",
            "no listener is on port 99; open ports are [8080, 8443]",
        ),
        ("/cart", "names no host"),
    ] {
        let wrong = of_snapshot(snapshot.clone(), self::asked(url)).unwrap_err();
        assert!(wrong.contains(says), "{wrong}");
    }
}
