//! What is shown of every part, and that nothing secret is among it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use dataplane_testkit::SnapshotBuilder;
use dataplane_testkit::certificate::Authority;
use ir::ai::{AiAuth, AiAuthKind, AiPrice, AiProvider, AiProviderTls, AiService, AiTarget};
use ir::backend_policy::{HealthCheck, Probe};
use ir::cluster::{BackendTls, Balancing, HashKey, SubjectAltName};
use ir::filter::{HeaderEdit, PathEdit, Rewrite};
use ir::http_route::{TextMatch, ValueMatch};
use ir::listener::TlsVersion;
use ir::policy::{
    JwtIssuer, Oidc, RateLimit, RateLimitKey, RateLimitScope, RoutePolicy, SecurityExternalAuth,
    SecurityExternalAuthProtocol, SecurityPolicy,
};
use ir::wasm::{PullSecret, WasmImage, WasmSource};
use ir::{BackendPolicy, Filter, Hostname, Network, SecretText, WasmPlugin};

use super::*;

const CANARY: &str = "canary";

fn shown(snapshot: &Snapshot) -> Value {
    let text = text(snapshot).unwrap();
    assert!(!text.contains(CANARY), "it shows a secret: {text}");
    // As Rust would print an option, a structure or a list of pairs.
    for debug in ["Some(", "None", " { ", "Pattern(", "Exact("] {
        assert!(!text.contains(debug), "{debug} is in {text}");
    }
    serde_json::from_str(&text).unwrap()
}

fn field(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn secrets_and_plugins_are_shown_without_what_they_hold() {
    let mut snapshot = Snapshot::default();
    let pair = Authority::new("test").server(&["a.test"]);
    snapshot.secrets.insert(Secret {
        htpasswd: Some(SecretText::new("canary-htpasswd".to_owned())),
        oidc_client_secret: Some(SecretText::new("canary-oidc".to_owned())),
        values: BTreeMap::from([("apiKey".to_owned(), SecretText::new("canary".to_owned()))]),
        ..pair.secret("a/secret")
    });
    let pulled = WasmSource::Image(WasmImage {
        reference: "registry.test/plugin:1".to_owned(),
        pull_secret: Some(PullSecret {
            secret: "a/pull".into(),
            key: PullSecret::DEFAULT_KEY.to_owned(),
        }),
    });
    for (key, source) in [
        ("a/inline", WasmSource::Inline(b"canary"[..].into())),
        (
            "a/url",
            WasmSource::Url("https://u:canary@a.test/m.wasm?sig=canary".to_owned()),
        ),
        ("a/image", pulled),
    ] {
        snapshot.wasm_plugins.insert(WasmPlugin {
            config: SecretText::new("{\"key\": \"canary\"}".to_owned()),
            sha256: Some([0xab; 32]),
            ..WasmPlugin::new(key, source)
        });
    }
    let json = shown(&snapshot);
    assert!(
        !json
            .to_string()
            .contains(pair.key_pem.lines().nth(1).unwrap())
    );
    assert_eq!(
        json["secrets"][0],
        json!({
            "key": "a/secret",
            "certificate": true,
            "htpasswd": true,
            "oidc_client_secret": true,
            "values": ["apiKey"],
        })
    );
    let plugins = &json["wasm_plugins"];
    let image = &plugins[0]["source"]["image"];
    assert_eq!(image["pull_secret_ref"]["secret"], "a/pull");
    assert_eq!(plugins[1]["source"], json!({ "inline": { "bytes": 6 } }));
    let url = "https://***@a.test/m.wasm?***";
    assert_eq!(plugins[2]["source"], json!({ "url": url }));
    assert_eq!(plugins[2]["has_config"], true);
    assert_eq!(plugins[2]["sha256"], "ab".repeat(32));
    assert_eq!(plugins[2]["hooks"][3], "response_body");
    assert_eq!(plugins[2]["sandbox"]["network"], "none");
}

fn security() -> SecurityPolicy {
    SecurityPolicy {
        jwt: vec![JwtIssuer {
            jwks_url: "https://a.test/keys?key=canary".to_owned(),
            ..JwtIssuer::default()
        }],
        oidc: Some(Oidc {
            client_secret_ref: "a/oidc".to_owned(),
            ..Oidc::default()
        }),
        external_auth: Some(SecurityExternalAuth {
            backend: None,
            protocol: SecurityExternalAuthProtocol::Http {
                path_prefix: "/check".to_owned(),
                headers_to_add: vec!["x-key: canary".to_owned()],
            },
            forward_body_bytes_max: 0,
        }),
        rate_limits: vec![RateLimit {
            name: "all".to_owned(),
            scope: RateLimitScope::Listener,
            requests: 5,
            period: Duration::from_secs(60),
            burst: 0,
            key: RateLimitKey::Header("x-user".to_owned()),
            queue: false,
            is_dry_run: true,
            is_divided: false,
        }],
        ..SecurityPolicy::default()
    }
}

#[test]
fn listeners_and_routes_are_shown_whole() {
    let built = SnapshotBuilder::new("v1")
        .http_listener("a/gw/http", 80)
        .route("a/r", "a.test", "/x", "a/b:80")
        .with(|snapshot| {
            let mut listener = snapshot.listeners.iter().next().unwrap().as_ref().clone();
            listener.settings = ListenerSettings {
                public_port: std::num::NonZero::new(8080),
                proxy_protocol: Some(ProxyProtocol::Required(vec![
                    "10.0.0.0/8".parse::<Network>().unwrap(),
                ])),
                escaped_slashes: Some(EscapedSlashes::Refuse),
                ..ListenerSettings::default()
            };
            listener.security_policy = Some(Arc::new(security()));
            listener.plugins = vec!["a/plugin".into()];
            snapshot.listeners.insert(listener);
            let mut route = snapshot.http_routes.iter().next().unwrap().as_ref().clone();
            route.created_at = Some(UNIX_EPOCH);
            route.policy = Some(Arc::new(RoutePolicy {
                connect_timeout: Some(Duration::from_millis(1500)),
                ..RoutePolicy::default()
            }));
            let rule = &mut route.rules[0];
            rule.matches[0].headers = vec![
                ValueMatch {
                    name: "authorization".to_owned(),
                    value: TextMatch::Exact("canary".to_owned()),
                },
                ValueMatch {
                    name: "x-team".to_owned(),
                    value: TextMatch::Prefix("blue".to_owned()),
                },
            ];
            rule.filters = vec![
                Filter::RequestHeaders(HeaderEdit {
                    set: vec![field("x-api-key", "canary"), field("x-team", "red")],
                    ..HeaderEdit::default()
                }),
                Filter::Rewrite(Rewrite {
                    hostname: None,
                    path: Some(PathEdit::Prefix("/y".to_owned())),
                }),
            ];
            snapshot.http_routes.insert(route);
            snapshot.workloads = Arc::new([Workload {
                namespace: "a".to_owned(),
                name: "pod".to_owned(),
                ip: [192, 0, 2, 1].into(),
            }]);
        })
        .build();
    let json = shown(&built);
    let listener = &json["listeners"][0];
    assert_eq!(listener["protocol"], "HTTP");
    assert_eq!(listener["plugins"], json!(["a/plugin"]));
    let settings = &listener["settings"];
    assert_eq!(settings["public_port"], 8080);
    assert_eq!(settings["escaped_slashes"], "refuse");
    assert_eq!(settings["proxy_protocol"]["sources"][0], "10.0.0.0/8");
    let policy = &listener["security_policy"];
    assert_eq!(policy["jwt"][0]["jwks_url"], "https://a.test/keys?***");
    assert_eq!(policy["oidc"]["client_secret_ref"], "a/oidc");
    let asked = &policy["external_auth"]["protocol"]["http"];
    assert_eq!(asked["headers_to_add"], json!(["x-key"]));
    let limit = &policy["rate_limits"][0];
    assert_eq!(limit["period_ms"], 60_000);
    assert_eq!(limit["key"], json!({ "header": "x-user" }));
    let route = &json["http_routes"][0];
    assert_eq!(route["created_at"], "1970-01-01T00:00:00Z");
    assert_eq!(route["policy"]["connect_timeout_ms"], 1500);
    let rule = &route["rules"][0];
    let matched = &rule["matches"][0];
    assert_eq!(matched["path"], json!({ "prefix": "/x" }));
    assert_eq!(matched["headers"][0]["exact"], "***");
    assert_eq!(matched["headers"][1]["prefix"], "blue");
    let edit = &rule["filters"][0]["request_headers"]["set"];
    assert_eq!(edit[0], json!({ "name": "x-api-key", "value": "***" }));
    assert_eq!(edit[1]["value"], "red");
    let rewrite = &rule["filters"][1]["rewrite"];
    assert_eq!(rewrite["path"], json!({ "prefix": "/y" }));
    assert_eq!(rule["backends"][0]["target"]["name"], "a/b:80");
    assert_eq!(json["workloads"][0]["ip"], "192.0.2.1");
}

fn service() -> AiService {
    let headers = BTreeMap::from([field("x-anything", "canary")]);
    AiService {
        provider: AiProvider::OpenAi,
        format: None,
        model: "large".to_owned(),
        auth: Some(AiAuth {
            kind: AiAuthKind::ApiKey,
            secret_ref: "a/keys".into(),
            secret_key: None,
            header: None,
        }),
        timeout: None,
        endpoint: Some("https://ai.test/v1?api-key=canary".to_owned()),
        retries_max: 2,
        retry_backoff: None,
        aliases: BTreeMap::new(),
        headers: headers.clone(),
        weight: NonZeroU32::MIN,
        providers: vec![AiTarget {
            provider: AiProvider::Anthropic,
            format: None,
            model: String::new(),
            auth: None,
            endpoint: Some("https://u:canary@b.test".to_owned()),
            headers,
            weight: 0,
            cluster: None,
            tls: Some(AiProviderTls {
                hostname: Hostname::new("b.test").unwrap(),
                ca_pems: vec!["canary".to_owned()],
            }),
        }],
        redaction: Vec::new(),
        default_max_tokens: None,
        pass_client_credentials: false,
        prices: BTreeMap::from([(
            "large".to_owned(),
            AiPrice {
                input: 1.5,
                cached_input: None,
                output: 3.0,
            },
        )]),
    }
}

#[test]
fn clusters_are_shown_with_all_policies() {
    let built = SnapshotBuilder::new("v1")
        .cluster("a/b:80", &[([192, 0, 2, 1], 80).into()])
        .with(|snapshot| {
            let mut cluster = snapshot.clusters.iter().next().unwrap().as_ref().clone();
            cluster.balancing = Balancing::ConsistentHash(HashKey::Header("x-user".to_owned()));
            cluster.ai_service = Some(Arc::new(service()));
            cluster.tls = Some(Arc::new(BackendTls {
                hostname: Hostname::new("b.test").unwrap(),
                use_system_ca_certificates: false,
                ca_pems: vec!["canary".to_owned()],
                subject_alt_names: vec![SubjectAltName::Uri("spiffe://a".to_owned())],
                min_version: TlsVersion::V1_2,
                max_version: TlsVersion::V1_3,
            }));
            cluster.policy = Some(Arc::new(BackendPolicy {
                health_check: Some(HealthCheck {
                    probe: Probe::Http {
                        path: "/well".to_owned(),
                        host: None,
                        expected_statuses: vec![204],
                    },
                    interval: Some(Duration::from_secs(1)),
                    timeout: None,
                    unhealthy_threshold: None,
                    healthy_threshold: None,
                    port: None,
                }),
                max_connections: Some(7),
                ..BackendPolicy::default()
            }));
            snapshot.clusters.insert(cluster);
        })
        .build();
    let cluster = &shown(&built)["clusters"][0];
    assert_eq!(cluster["protocol"], "HTTP");
    assert_eq!(cluster["endpoints"][0]["address"], "192.0.2.1");
    let balancing = json!({ "consistent_hash": { "header": "x-user" } });
    assert_eq!(cluster["balancing"], balancing);
    let policy = &cluster["policy"];
    assert_eq!(policy["max_connections"], 7);
    let probe = &policy["health_check"]["probe"]["http"];
    assert_eq!(probe["expected_statuses"], json!([204]));
    assert_eq!(policy["health_check"]["interval_ms"], 1000);
    let tls = &cluster["tls"];
    assert_eq!(tls["min_version"], "1.2");
    assert_eq!(tls["subject_alt_names"][0]["uri"], "spiffe://a");
    let pem = words::fingerprint(CANARY);
    assert_eq!(tls["authorities"], json!([{ "pem_sha256": pem }]));
    let service = &cluster["ai_service"];
    assert_eq!(service["endpoint"], "https://ai.test/v1?***");
    assert_eq!(service["headers"], json!({ "x-anything": "***" }));
    assert_eq!(service["auth"]["secret_ref"], "a/keys");
    assert_eq!(service["providers"][0]["endpoint"], "https://***@b.test");
    assert_eq!(service["prices"]["large"]["output"], 3.0);
}
