//! Every endpoint of the API's own document: status, content type, shape, who is let in, which
//! methods there are. An endpoint without an example fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dataplane_testkit::snapshot::{rate_limit, stream_route};
use ir::ai::{AiProvider, TokenPolicy, TokenScope};
use ir::policy::{SecurityPolicy, SessionCarrier, SessionPersistence};
use ir::stream_route::StreamKind;
use ir::wasm::{WasmPlugin, WasmSource};
use serde_json::Value;

use super::*;
use crate::ai::service_at;

/// One of everything that any endpoint shows.
fn everything() -> Snapshot {
    let mut route = http_route("shop/limited", "", "/limited", &[("shop/cart:80", 1)]);
    route.listeners = vec!["infra/gw/http".into()];
    route.rules[0].session_persistence = Some(Arc::new(SessionPersistence {
        session_name: Some("visit".to_owned()),
        absolute_timeout: Some(Duration::from_secs(60)),
        idle_timeout: None,
        carrier: SessionCarrier::PermanentCookie,
    }));
    route.security_policy = Some(Arc::new(SecurityPolicy {
        rate_limits: vec![rate_limit("all", 1, Duration::from_secs(1))],
        ..SecurityPolicy::default()
    }));
    let mut service = cluster("shop/llm", ClusterProtocol::Http, &[]);
    let ai = service_at(AiProvider::OpenAi, "http://127.0.0.1:9".to_owned());
    service.ai_service = Some(Arc::new(ai));
    service.token_policy = Some(Arc::new(TokenPolicy {
        tokens_per_minute: std::num::NonZeroU64::new(1000),
        tokens_per_hour: None,
        requests_per_minute: None,
        scope: TokenScope::Global,
        burst: 1.0,
        on_limit: ir::ai::OnLimit::default(),
        degrade_to: None,
        is_dry_run: false,
    }));
    let tcp = stream_route(
        StreamKind::Tcp,
        "tcp/shop/db",
        "infra/gw/http",
        &[],
        &[("shop/cart:80", 1)],
    );
    let module = WasmSource::Inline(Bytes::from_static(b"\0asm"));
    shop()
        .with(|snapshot| {
            drop(
                snapshot
                    .wasm_plugins
                    .insert(WasmPlugin::new("shop/plugin", module)),
            )
        })
        .http_route(route)
        .stream_route(tcp)
        .add_cluster(service)
        .build()
}

/// What stands in the place of names in paths.
fn example(path: &str) -> String {
    let names = BTreeMap::from([
        ("/v1/listeners/{name}", "infra%2Fgw%2Fhttp"),
        ("/v1/listener-statuses/{name}", "infra/gw/http"),
        (
            "/v1/routes/{kind}/{namespace}/{name}",
            "HTTPRoute/shop/cart",
        ),
        ("/v1/backends/{namespace}/{name}", "shop/cart:80"),
        ("/v1/certificates/{namespace}/{name}", "infra/cert"),
        ("/v1/ai/services/{namespace}/{name}", "shop/llm"),
        ("/v1/plugins/{namespace}/{name}", "shop/plugin"),
    ]);
    match path.split_once('{') {
        None if path == "/v1/trace" => format!("{path}?seconds=1"),
        None => path.to_owned(),
        Some((prefix, _)) => {
            let names = names.get(path);
            format!("{prefix}{}", names.expect("every path has an example"))
        }
    }
}

#[tokio::test]
async fn every_endpoint_answers_as_the_document_says() {
    let token = SecretText::new(TOKEN.to_owned());
    let bearer = format!("Bearer {TOKEN}");
    let admin = Admin::start(|settings, _| settings.token = Some(token)).await;
    admin.apply(everything());
    let document = admin.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    for (pattern, item) in paths {
        let mut spellings = vec![example(pattern)];
        if pattern.starts_with("/v1/") {
            spellings.push(format!("/api{}", example(pattern)));
        }
        for path in spellings {
            let is_open = item["get"]["security"].is_null();
            let stranger = admin.send(Method::GET, &path, None, "").await;
            assert_eq!(
                stranger.status == StatusCode::UNAUTHORIZED,
                !is_open,
                "{path}"
            );
            let answer = admin.send(Method::GET, &path, Some(&bearer), "").await;
            if path.ends_with("/log/level") {
                // There is one log in a process, and another test has it.
                continue;
            }
            check(&document, &item["get"], &path, &answer);
            let head = admin.send(Method::HEAD, &path, Some(&bearer), "").await;
            assert_eq!((head.status, head.body.len()), (answer.status, 0), "{path}");
            let options = admin.send(Method::OPTIONS, &path, Some(&bearer), "").await;
            assert_eq!(options.status, StatusCode::NO_CONTENT, "{path}");
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                let name = method.as_str().to_ascii_lowercase();
                let response = admin.send(method, &path, Some(&bearer), "{}").await;
                let (status, named) = match item[&name].is_object() {
                    // Read-only until the settings say otherwise.
                    true => (StatusCode::FORBIDDEN, name),
                    false => (StatusCode::METHOD_NOT_ALLOWED, "get".to_owned()),
                };
                assert_eq!(response.status, status, "{named} {path}");
                if status == StatusCode::FORBIDDEN {
                    check(&document, &item[&named], &path, &response);
                    assert!(response.text().contains("adminReadOnly"), "{path}");
                } else {
                    assert!(response.header("allow").starts_with("GET, HEAD, OPTIONS"));
                }
            }
        }
    }
}

#[tokio::test]
async fn lists_hold_what_is_configured() {
    let admin = Admin::serving(everything()).await;
    let show = |path: &'static str| async { admin.get(path).await.json() };
    let certificates = show("/v1/certificates").await;
    assert_eq!(certificates[0]["secret"], "infra/cert");
    assert_eq!(certificates[0]["state"], "valid");
    assert_eq!(certificates[0]["names"][0], "shop.example");
    assert_eq!(certificates[0]["listeners"][0], "infra/gw/https");
    let services = show("/v1/ai/services").await;
    assert_eq!(services[0]["key"], "shop/llm");
    // The secret it names is not there.
    assert_eq!(services[0]["state"], "unusable");
    assert_eq!(services[0]["token_policy"]["left"]["tokens"], 1000);
    let sessions = show("/v1/sessions").await;
    assert_eq!(sessions["policies"][0]["object"], "shop/limited");
    assert_eq!(sessions["policies"][0]["name"], "visit");
    let limits = show("/v1/rate-limits").await;
    assert_eq!(limits[0]["object"], "shop/limited");
    let routes = show("/v1/routes?kind=TCPRoute").await;
    assert_eq!(routes["stream"][0]["name"], "db");
    assert_eq!(routes["http"], serde_json::json!([]));
    // One page after the other, through all kinds.
    let mut seen = Vec::new();
    let mut path = "/v1/routes?limit=1".to_owned();
    loop {
        let page = admin.get(&path).await;
        let lists = page.json();
        for kind in ["grpc", "http", "stream"] {
            let list = lists[kind].as_array().unwrap();
            seen.extend(list.iter().map(|it| it["name"].to_string()));
        }
        let Some((next, _)) = page.header("link").split_once('>') else {
            break;
        };
        next.trim_start_matches('<').clone_into(&mut path);
    }
    assert_eq!(seen, ["\"bank\"", "\"cart\"", "\"limited\"", "\"db\""]);
}

#[tokio::test]
async fn draining_is_asked_for_by_post_where_it_is_allowed() {
    let admin = Admin::start(|settings, _| settings.changes = true).await;
    let drain = "/api/v1/drain";
    assert_eq!(admin.get(drain).await.json()["draining"], false);
    for (body, status) in [
        ("", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("now", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("{\"when\": 1}", StatusCode::BAD_REQUEST),
    ] {
        let refused = admin.send(Method::POST, drain, None, body).await;
        assert_eq!(refused.status, status, "{body}");
        assert_eq!(refused.header("content-type"), "application/problem+json");
    }
    assert!(!admin.state.drain.is_cancelled());
    // As a page would send it that made its own name point here.
    let request = Request::post(drain)
        .header("host", "evil.example")
        .header("content-type", "application/json")
        .body(Bytes::from("{}"))
        .unwrap();
    let mut client = Http1Client::connect(admin.address).await.unwrap();
    let refused = client.send(request).await.unwrap();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(!admin.state.drain.is_cancelled());
    let begun = admin.send(Method::POST, drain, None, "{}").await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    assert_eq!(begun.json()["draining"], true);
    assert!(admin.state.drain.is_cancelled());
}

/// Holds an answer against its operation.
pub(super) fn check(document: &Value, operation: &Value, path: &str, answer: &Response) {
    let described = &operation["responses"][answer.status.as_str()];
    assert!(
        described.is_object(),
        "{path}: {} is not described",
        answer.status
    );
    let content = described["content"].as_object().unwrap();
    let media = answer.header("content-type");
    let schema = &content.get(media).expect(media)["schema"];
    if media.ends_with("json") {
        let mut faults = Vec::new();
        hold(document, schema, &answer.json(), path, &mut faults);
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

/// The part of JSON Schema that the document uses; and stricter in that every field must be named.
fn hold(document: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/components/schemas/");
        let schema = &document["components"]["schemas"][name];
        return hold(document, schema, value, at, faults);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        if value.is_null() && choices.iter().any(|it| it["type"] == "null") {
            return;
        }
        return hold(document, &choices[0], value, at, faults);
    }
    if !is_of_type(&schema["type"], value) {
        return faults.push(format!("{at}: {value} is not {}", schema["type"]));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        faults.push(format!("{at}: {value} is none of {words:?}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        hold(
            document,
            &schema["items"],
            item,
            &format!("{at}[{index}]"),
            faults,
        );
    }
    let Some(fields) = value.as_object() else {
        return;
    };
    let required = schema["required"].as_array().into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            faults.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, value) in fields {
        let at = format!("{at}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) if schema["properties"].is_object() => {
                faults.push(format!("{at} is not in the document"));
            }
            (Value::Null, Value::Null) => {}
            (Value::Null, schema) | (schema, _) => hold(document, schema, value, &at, faults),
        }
    }
}

fn is_of_type(kind: &Value, value: &Value) -> bool {
    match kind {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(|kind| is_of_type(kind, value)),
        kind => match kind.as_str() {
            Some("null") => value.is_null(),
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            _ => false,
        },
    }
}
