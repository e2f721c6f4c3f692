//! The admin API over real sockets: who is let in, what is told, and that nobody can hold it up.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dataplane::Metrics;
use dataplane::admin::explain::{Asked, of_snapshot};
use dataplane::admin::{AdminState, Readiness, Server};
use dataplane::bootstrap::{AdminLimits, AdminSettings};
use dataplane_config::{RuntimeConfig, Store};
use dataplane_resilience::admission::Gate;
use dataplane_resilience::pressure::SharedLevel;
use dataplane_telemetry::log;
use dataplane_telemetry::trace::Tracing;
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1::{Http1Client, get};
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::snapshot::{cluster, free_port, http_route, listener, stream_route};
use dataplane_testkit::{DEADLINE, SnapshotBuilder, until, within};
use dataplane_xds::Status;
use http::{Method, Request, StatusCode};
use ir::cluster::ClusterProtocol;
use ir::filter::HeaderEdit;
use ir::listener::ListenerProtocol;
use ir::stream_route::StreamKind;
use ir::{Filter, Secret, SecretText, Snapshot};
use tokio_util::sync::CancellationToken;

mod contract;
mod limits;

const TOKEN: &str = "open-sesame";

/// An admin listener with everything behind it; stops with the value.
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
    pub(crate) state: AdminState,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl Admin {
    pub(crate) async fn start(change: impl FnOnce(&mut AdminSettings, &mut AdminState)) -> Self {
        let mut settings = AdminSettings {
            address: ([127, 0, 0, 1], 0).into(),
            token: None,
            tls: None,
            changes: false,
            limits: AdminLimits::default(),
        };
        let mut state = AdminState {
            store: Arc::new(Store::new()),
            metrics: Metrics::new(),
            tracing: Tracing::default(),
            status: Arc::new(Status::default()),
            readiness: Arc::new(Readiness::default()),
            log: None,
            node_id: "dp-test".to_owned(),
            http: Arc::default(),
            connections: Arc::new(Gate::new(None)),
            overload: dataplane_http::Overload::default(),
            level: SharedLevel::default(),
            drain: CancellationToken::new(),
        };
        change(&mut settings, &mut state);
        let stop = CancellationToken::new();
        let server = Server::bind(settings).await.unwrap();
        let address = server.address().unwrap();
        let running = server.start(state.clone(), stop.clone());
        Self {
            address,
            state,
            stop,
            running,
        }
    }

    /// Without token and TLS, serving `snapshot`.
    pub(crate) async fn serving(snapshot: Snapshot) -> Self {
        let admin = Self::start(|_, _| ()).await;
        admin.apply(snapshot);
        admin
    }

    fn apply(&self, snapshot: Snapshot) {
        let previous = self.state.store.load_full();
        let config = dataplane_config::compile(snapshot, &previous, &self.state.metrics);
        self.state.store.swap(Arc::new(config.unwrap()));
        self.state.readiness.serving();
    }

    async fn get(&self, path: &str) -> Response {
        get(self.address, "admin", path).await.unwrap()
    }

    async fn send(&self, method: Method, path: &str, token: Option<&str>, body: &str) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("host", "127.0.0.1");
        if !body.is_empty() {
            let is_json = body.starts_with('{');
            let media = if is_json {
                "application/json"
            } else {
                "text/plain"
            };
            request = request.header("content-type", media);
        }
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request.body(Bytes::from(body.to_owned())).unwrap();
        let mut client = Http1Client::connect(self.address).await.unwrap();
        client.send(request).await.unwrap()
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Two listeners, two routes, three backends of two services, one secret.
pub(crate) fn shop() -> SnapshotBuilder {
    let identity = Authority::new("shop").server(&["shop.example"]);
    let endpoint = SocketAddr::from(([127, 0, 0, 1], 9));
    SnapshotBuilder::new("v7")
        .certificate("infra/cert", &identity)
        .http_listener("infra/gw/http", free_port())
        .https_listener(
            "infra/gw/https",
            free_port(),
            &["shop.example"],
            &["infra/cert"],
        )
        .cluster("shop/cart:80", &[endpoint])
        .cluster("shop/cart:81", &[endpoint])
        .cluster("pay/bank:80", &[])
        .route("shop/cart", "shop.example", "/cart", "shop/cart:80")
        .grpc("pay/bank", "", "bank.Bank", "pay/bank:80")
}

#[tokio::test]
async fn readiness_follows_the_process_and_not_the_control_plane() {
    let admin = Admin::start(|_, _| ()).await;
    let response = admin.get("/readyz").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        response.text().starts_with("starting: "),
        "{}",
        response.text()
    );
    assert_eq!(admin.get("/livez").await.status, StatusCode::OK);

    // The control plane was never connected; what serves is what counts.
    admin.apply(shop().build());
    let response = admin.get("/readyz").await;
    assert_eq!(response.status, StatusCode::OK);
    assert!(
        response
            .text()
            .starts_with("ready: the control plane is not connected")
    );
    let metric = "nantian_gateway_dataplane_ready 1\n";
    assert!(admin.get("/metrics").await.text().contains(metric));

    admin.state.readiness.draining();
    admin.apply(shop().build());
    let response = admin.get("/readyz").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.text().starts_with("draining: "));
    assert_eq!(admin.get("/livez").await.status, StatusCode::OK);
    let metric = "nantian_gateway_dataplane_ready 0\n";
    assert!(admin.get("/metrics").await.text().contains(metric));
}

#[tokio::test]
async fn a_token_opens_everything_but_health_which_is_open() {
    let token = SecretText::new(TOKEN.to_owned());
    let admin = Admin::start(|settings, _| settings.token = Some(token)).await;
    let right = format!("Bearer {TOKEN}");
    let longer = format!("Bearer {TOKEN}x");
    for path in ["/livez", "/readyz"] {
        assert_ne!(
            admin.get(path).await.status,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    for path in [
        "/metrics",
        "/api/v1/config/version",
        "/api/v1/xds/status",
        "/api/v1/config/snapshot",
        "/api/v1/log/level",
        "/v1/summary",
        "/no/such/path",
    ] {
        for wrong in [
            None,
            Some("Bearer wrong"),
            Some(&*longer),
            Some(TOKEN),
            Some("Bearer "),
        ] {
            let response = admin.send(Method::GET, path, wrong, "").await;
            assert_eq!(
                response.status,
                StatusCode::UNAUTHORIZED,
                "{path} {wrong:?}"
            );
            assert_eq!(response.header("www-authenticate"), "Bearer");
            assert!(response.json()["error"].is_string());
        }
        let response = admin.send(Method::GET, path, Some(&right), "").await;
        assert_ne!(response.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let refused = admin
        .send(Method::PUT, "/api/v1/log/level", None, "trace")
        .await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn with_a_certificate_only_tls_is_spoken() {
    let authority = Authority::new("admin");
    let folder = tempfile::tempdir().unwrap();
    let files = authority
        .server(&["admin.test"])
        .write(folder.path(), "admin");
    let admin = Admin::start(|settings, _| settings.tls = Some(files.unwrap())).await;
    let client = TlsClient::trusting(&authority).alpn(&["http/1.1"]);
    let stream = client.connect(admin.address, "admin.test").await.unwrap();
    let response = Http1Client::over(stream).get("admin.test", "/livez").await;
    assert_eq!(response.unwrap().status, StatusCode::OK);
    assert!(get(admin.address, "admin.test", "/livez").await.is_err());
}

#[tokio::test]
async fn unusable_settings_are_told_at_the_start() {
    let missing = AdminSettings {
        address: ([127, 0, 0, 1], 0).into(),
        token: None,
        tls: Some(("/nowhere/tls.crt".into(), "/nowhere/tls.key".into())),
        changes: false,
        limits: AdminLimits::default(),
    };
    let error = Server::bind(missing.clone()).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("/nowhere/tls.crt"),
        "{error:#}"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Server::bind(AdminSettings {
        address,
        tls: None,
        ..missing
    })
    .await;
    let error = format!("{:#}", error.unwrap_err());
    assert!(
        error.contains(&address.to_string()) && error.contains("adminAddr"),
        "{error}"
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_and_counted() {
    let admin = Admin::serving(shop().build()).await;
    for path in [
        "/nothing",
        "/v1",
        "/v1/nothing",
        "/v1/listeners/no",
        "/v1/routes/HTTPRoute/a/b",
        "/v1/routes/odd/shop/cart",
        "/v1/backends/a/b",
        "/v1/listener-statuses/no",
    ] {
        let response = admin.get(path).await;
        assert_eq!(response.status, StatusCode::NOT_FOUND, "{path}");
        assert!(response.json()["error"].is_string(), "{path}");
    }
    for (method, path, allowed) in [
        (Method::POST, "/v1/summary", "GET, HEAD, OPTIONS"),
        (Method::DELETE, "/livez", "GET, HEAD, OPTIONS"),
        (Method::POST, "/api/v1/log/level", "GET, HEAD, OPTIONS, PUT"),
    ] {
        let response = admin.send(method, path, None, "").await;
        assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(response.header("allow"), allowed);
    }
    let response = admin.get("/v1/listeners?limit=none").await;
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
    let text = admin.get("/metrics").await.text();
    let name = "nantian_gateway_dataplane_admin_requests_total";
    for labels in [
        "{method=\"GET\",route=\"unknown\",status_class=\"4xx\"} 3",
        "{method=\"POST\",route=\"/v1/summary\",status_class=\"4xx\"} 1",
    ] {
        assert!(
            text.contains(&format!("{name}{labels}\n")),
            "{labels} in {text}"
        );
    }
}

#[tokio::test]
async fn both_families_of_paths_answer_the_same() {
    let admin = Admin::serving(shop().build()).await;
    for (documents, contract) in [
        ("/api/v1/config/snapshot", "/v1/snapshot"),
        ("/api/v1/config/version", "/v1/config/version"),
        ("/api/v1/xds/status", "/v1/xds/status"),
        ("/v1/summary", "/v1/node"),
    ] {
        let (one, other) = (admin.get(documents).await, admin.get(contract).await);
        assert_eq!(one.status, StatusCode::OK, "{documents}");
        assert_eq!(one.json(), other.json(), "{documents}");
        assert_eq!(one.header("cache-control"), "no-store");
    }
    let version = admin.get("/api/v1/config/version").await.json();
    assert_eq!(version["version"], "v7");
    let status = admin.get("/api/v1/xds/status").await.json();
    assert_eq!(status["connected"], false);
    assert_eq!(status["stream_reconnects"], 0);
    let summary = admin.get("/v1/summary").await.json();
    assert_eq!(summary["node_id"], "dp-test");
    assert_eq!(summary["config_version"], "v7");
    assert_eq!(summary["ready"], true);
    assert_eq!(
        (&summary["listeners"], &summary["backends"]),
        (&2.into(), &3.into())
    );
}

#[tokio::test]
async fn before_the_first_configuration_there_is_no_version() {
    let admin = Admin::start(|_, _| ()).await;
    let version = admin.get("/api/v1/config/version").await.json();
    assert!(version["version"].is_null());
    assert_eq!(version["ready"], false);
    assert_eq!(
        admin.get("/v1/routes").await.json()["http"],
        serde_json::json!([])
    );
}

#[tokio::test]
async fn lists_and_details_show_what_is_served() {
    let admin = Admin::serving(shop().build()).await;
    let listeners = admin.get("/v1/listeners").await.json();
    assert_eq!(listeners[0]["name"], "infra/gw/http");
    assert_eq!(listeners[0]["ready"], true);
    assert_eq!(listeners[0]["attached_routes"], 2);
    let status = admin
        .get("/v1/listener-statuses/infra%2Fgw%2Fhttps")
        .await
        .json();
    assert_eq!(status["ready"], true);
    assert_eq!(status["connections_active"], 0);
    let routes = admin.get("/v1/routes").await.json();
    assert_eq!(routes["http"][0]["name"], "cart");
    assert_eq!(routes["grpc"][0]["name"], "bank");
    assert_eq!(routes["stream"], serde_json::json!([]));
    for path in [
        "/v1/routes/HTTPRoute/shop/cart",
        "/v1/routes/http/shop/cart",
    ] {
        let route = admin.get(path).await.json();
        assert_eq!(route["rules"][0]["matches"][0]["path"]["prefix"], "/cart");
        assert_eq!(route["rules"][0]["backends"][0]["target"], "shop/cart:80");
    }
    let backend = admin.get("/v1/backends/shop/cart:80").await.json();
    assert_eq!(backend["endpoints"][0]["address"], "127.0.0.1:9");
    assert_eq!(backend["endpoints_available"], 1);
    assert_eq!(
        admin.get("/v1/backends/pay/bank").await.json()["key"],
        "pay/bank:80"
    );
    let several = admin.get("/v1/backends/shop/cart").await;
    assert_eq!(several.status, StatusCode::BAD_REQUEST);
    let traffic = admin.get("/v1/traffic").await.json();
    assert_eq!(traffic["backends"].as_array().unwrap().len(), 3);
    let overload = admin.get("/v1/overload").await.json();
    assert_eq!(overload["httpGlobalInflightCurrent"], 0);
    let head = admin.send(Method::HEAD, "/v1/listeners", None, "").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn listeners_of_bytes_are_shown_as_served_with_their_routes() {
    let names = ["http", "tcp", "tls", "udp"];
    let ports = names.map(|_| free_port());
    let route = |kind, name: &str, hosts: &[&str]| {
        let (key, at) = (format!("{name}/shop/r"), format!("infra/gw/{name}"));
        stream_route(kind, &key, &at, hosts, &[("shop/cart:80", 1)])
    };
    let mut cart = http_route("shop/cart", "", "/cart", &[("shop/cart:80", 1)]);
    cart.listeners = vec!["infra/gw/http".into()];
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", ports[0])
        .listener(listener("infra/gw/tcp", ports[1], ListenerProtocol::Tcp))
        .passthrough_listener("infra/gw/tls", ports[2], &["shop.example"])
        .listener(listener("infra/gw/udp", ports[3], ListenerProtocol::Udp))
        .cluster("shop/cart:80", &[SocketAddr::from(([127, 0, 0, 1], 9))])
        .http_route(cart)
        .stream_route(route(StreamKind::Tcp, "tcp", &[]))
        .stream_route(route(StreamKind::Tls, "tls", &["shop.example"]))
        .stream_route(route(StreamKind::Udp, "udp", &[]))
        .build();
    let asked = Asked {
        url: Some(format!("http://127.0.0.1:{}/", ports[1])),
        ..Asked::default()
    };
    let explained = of_snapshot(snapshot.clone(), asked).unwrap();
    assert_eq!(explained["listener"]["routes"], 1);
    let admin = Admin::serving(snapshot).await;
    let (listeners, statuses) = (
        admin.get("/v1/listeners").await.json(),
        admin.get("/v1/listener-statuses").await.json(),
    );
    for (at, name) in names.into_iter().enumerate() {
        for row in [&listeners[at], &statuses[at]] {
            assert_eq!(row["name"], format!("infra/gw/{name}"));
            assert_eq!(row["ready"], true, "{row}");
            assert_eq!(row["attached_routes"], 1, "{row}");
        }
    }
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let admin = Admin::serving(shop().build()).await;
    for (path, expected) in [
        (
            "/v1/backends",
            &["pay/bank:80", "shop/cart:80", "shop/cart:81"][..],
        ),
        (
            "/v1/backends?namespace=shop",
            &["shop/cart:80", "shop/cart:81"],
        ),
        ("/v1/backends?name=ba", &["pay/bank:80"]),
        ("/v1/backends?namespace=shop&name=ba", &[]),
        ("/v1/backends?offset=1&limit=1", &["shop/cart:80"]),
    ] {
        let list = admin.get(path).await.json();
        let keys: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["key"])
            .collect();
        assert_eq!(keys, expected, "{path}");
    }
    let routes = admin.get("/v1/routes?namespace=pay").await.json();
    assert_eq!(routes["http"], serde_json::json!([]));
    assert_eq!(routes["grpc"].as_array().unwrap().len(), 1);
    let listeners = admin.get("/v1/listeners?namespace=other").await.json();
    assert_eq!(listeners, serde_json::json!([]));
}

/// Every place that can hold a secret gets a canary; none may come out of any path.
#[tokio::test]
async fn planted_secrets_are_never_shown() {
    const CANARY: &str = "canary-91d7";
    let identity = Authority::new("shop").server(&["shop.example"]);
    let key_line = identity.key_pem.lines().nth(1).unwrap().to_owned();
    let mut route = http_route("shop/cart", "", "/", &[("shop/cart:80", 1)]);
    route.listeners = vec!["infra/gw/http".into()];
    route.rules[0].filters = vec![Filter::RequestHeaders(HeaderEdit {
        set: vec![("authorization".to_owned(), format!("Bearer {CANARY}"))],
        add: vec![("x-api-key".to_owned(), CANARY.to_owned())],
        remove: Vec::new(),
    })];
    let mut plugged = cluster("shop/cart:80", ClusterProtocol::Http, &[]);
    let source = ir::wasm::WasmSource::Inline(CANARY.into());
    plugged.wasm_plugin = Some(Arc::new(ir::WasmPlugin {
        config: SecretText::new(CANARY.to_owned()),
        ..ir::WasmPlugin::new("shop/plugin", source)
    }));
    let snapshot = SnapshotBuilder::new("v1")
        .certificate("infra/cert", &identity)
        .secret(Secret {
            key: "shop/secret".into(),
            certificate: None,
            htpasswd: Some(SecretText::new(CANARY.to_owned())),
            oidc_client_secret: Some(SecretText::new(CANARY.to_owned())),
            values: [("key".to_owned(), SecretText::new(CANARY.to_owned()))].into(),
        })
        .http_listener("infra/gw/http", free_port())
        .http_route(route)
        .add_cluster(plugged)
        .build();
    let admin = Admin::serving(snapshot).await;
    for path in [
        "/v1/snapshot",
        "/v1/summary",
        "/v1/listeners",
        "/v1/listener-statuses",
        "/v1/routes",
        "/v1/routes/HTTPRoute/shop/cart",
        "/v1/backends",
        "/v1/backends/shop/cart:80",
        "/v1/traffic",
        "/v1/overload",
        "/v1/certificates",
        "/v1/certificates/infra/cert",
        "/v1/endpoints",
        "/v1/sessions",
        "/v1/limits",
        "/api/v1/config/version",
        "/api/v1/config/history",
        "/api/v1/xds/status",
        "/metrics",
    ] {
        let response = admin.get(path).await;
        assert_eq!(response.status, StatusCode::OK, "{path}");
        for planted in [CANARY, &key_line, "PRIVATE KEY"] {
            assert!(!response.text().contains(planted), "{planted} in {path}");
        }
    }
    let snapshot = admin.get("/v1/snapshot").await.json();
    assert_eq!(snapshot["secrets"][1]["key"], "shop/secret");
    assert_eq!(snapshot["secrets"][1]["htpasswd"], true);
}

#[tokio::test]
async fn the_log_level_is_changed_by_put_only() {
    let settings = log::Settings {
        filter: "off".to_owned(),
        ..log::Settings::default()
    };
    let log = log::init(settings).unwrap();
    let admin = Admin::start(|settings, state| {
        settings.changes = true;
        state.log = Some(log);
    })
    .await;
    let path = "/api/v1/log/level";
    let level = |response: Response| response.json()["level"].clone();
    assert_eq!(level(admin.get(path).await), "off");
    assert_eq!(
        level(admin.get(&format!("{path}?level=trace")).await),
        "off"
    );
    for (body, status, now) in [
        ("error,hyper=off", StatusCode::OK, "error,hyper=off"),
        ("{\"level\": \"off\"}", StatusCode::OK, "off"),
        ("{\"levle\": \"warn\"}", StatusCode::BAD_REQUEST, "off"),
        ("info,==", StatusCode::BAD_REQUEST, "off"),
        (" ", StatusCode::BAD_REQUEST, "off"),
        ("", StatusCode::UNSUPPORTED_MEDIA_TYPE, "off"),
        (&"x".repeat(5000), StatusCode::PAYLOAD_TOO_LARGE, "off"),
    ] {
        let response = admin.send(Method::PUT, path, None, body).await;
        assert_eq!(response.status, status, "{body}");
        assert_eq!(level(admin.get(path).await), now, "{body}");
    }
    let document = admin.get("/openapi.json").await.json();
    let item = &document["paths"]["/v1/log/level"];
    let shown = admin.get(path).await;
    contract::check(&document, &item["get"], path, &shown);
    let silent = Admin::start(|_, _| ()).await;
    assert_eq!(silent.get(path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn slow_and_oversized_heads_are_closed_and_hold_up_nobody() {
    let admin = Admin::serving(shop().build()).await;
    let mut slow = Vec::new();
    for head in ["", "GET /livez HTTP/1.1\r\nhost: a", "G"]
        .iter()
        .cycle()
        .take(30)
    {
        let mut client = Http1Client::connect(admin.address).await.unwrap();
        client.send_bytes(head.as_bytes()).await.unwrap();
        slow.push(client);
    }
    // A connection that was used and kept is bounded in the same way.
    let mut kept = Http1Client::connect(admin.address).await.unwrap();
    assert_eq!(
        kept.get("a", "/livez").await.unwrap().status,
        StatusCode::OK
    );
    assert_eq!(
        kept.get("a", "/livez").await.unwrap().status,
        StatusCode::OK
    );
    slow.push(kept);
    assert_eq!(admin.get("/livez").await.status, StatusCode::OK);

    for field in [
        format!("x: {}\r\n", "y".repeat(20_000)),
        "x: y\r\n".repeat(100),
    ] {
        let mut client = Http1Client::connect(admin.address).await.unwrap();
        let head = format!("GET /livez HTTP/1.1\r\nhost: a\r\n{field}\r\n");
        // The server may close before all of it is sent.
        let _ = client.send_bytes(head.as_bytes()).await;
        let refused = client.read_response(&Method::GET).await;
        let refused = refused.map_or(StatusCode::BAD_REQUEST, |response| response.status);
        assert!(refused.is_client_error(), "{refused}");
    }
    for mut client in slow {
        let rest = client.read_to_end().await.unwrap_or_default();
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
    }
}

#[tokio::test]
async fn large_answers_flow_while_health_is_asked() {
    let mut snapshot = SnapshotBuilder::new("large");
    for number in 0..20_000 {
        let key = format!("shop/route-{number:05}");
        snapshot = snapshot.http_route(http_route(&key, "", "/", &[("shop/cart:80", 1)]));
    }
    let admin = Admin::start(|_, _| ()).await;
    let config = RuntimeConfig {
        snapshot: snapshot.build(),
        ..RuntimeConfig::default()
    };
    admin.state.store.swap(Arc::new(config));

    // As many as there are places, none of which reads its answer.
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut client = Http1Client::connect(admin.address).await.unwrap();
        let request = b"GET /v1/snapshot HTTP/1.1\r\nhost: a\r\n\r\n";
        client.send_bytes(request).await.unwrap();
        let head = client.read_head().await.unwrap();
        assert_eq!(head.status, StatusCode::OK);
        stalled.push(client);
    }
    assert_eq!(admin.get("/livez").await.status, StatusCode::OK);
    assert_eq!(admin.get("/v1/summary").await.status, StatusCode::OK);
    let refused = admin.get("/v1/snapshot").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);

    // Clients that leave give their places back.
    drop(stalled);
    until(DEADLINE, || async {
        admin.get("/v1/routes?limit=1").await.status == StatusCode::OK
    })
    .await;
    let part = admin.get("/v1/routes?limit=10000").await;
    let routes = part.json();
    assert_eq!(routes["http"].as_array().unwrap().len(), 10_000);
    let link = part.header("link").to_owned();
    let next = link.strip_prefix('<').and_then(|link| link.split_once('>'));
    let rest = admin.get(next.unwrap().0).await;
    let routes = rest.json();
    assert_eq!(routes["http"].as_array().unwrap().len(), 10_000);
    assert_eq!(routes["http"][9_999]["name"], "route-19999");
    assert_eq!(rest.header("link"), "", "this was the last page");
    let first = admin.get("/v1/routes").await.json();
    assert_eq!(first["http"].as_array().unwrap().len(), 1000);
}

#[tokio::test]
async fn the_end_lets_go_of_idle_connections() {
    let mut admin = Admin::serving(shop().build()).await;
    let mut idle = Http1Client::connect(admin.address).await.unwrap();
    assert_eq!(
        idle.get("a", "/livez").await.unwrap().status,
        StatusCode::OK
    );
    admin.stop.cancel();
    within("the listener ends", &mut admin.running)
        .await
        .unwrap();
    assert!(idle.is_closed().await.unwrap());
    assert!(get(admin.address, "a", "/livez").await.is_err());
}
