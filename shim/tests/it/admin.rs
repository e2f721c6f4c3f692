//! The admin API over HTTP, and that key material never leaves through it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dataplane_testkit::SnapshotBuilder;
use dataplane_testkit::certificate::{Authority, Identity};
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::wait;
use ir::{Secret, SecretText};
use serde_json::Value;
use shim::admin::{self, Admin};
use shim::files::FileSource;
use shim::history::Store;
use shim::metrics::Metrics;
use shim::nodes::{NodeViolation, Nodes, Serving};
use shim::pipeline::State;
use shim::settings::TlsFiles;
use shim::translate::{Settings, translate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::folder::{Folder, GATEWAY};
use crate::support::{DEADLINE, snapshot};

struct Server {
    addr: SocketAddr,
    store: Arc<Store>,
    nodes: Arc<Nodes>,
    metrics: Arc<Metrics>,
    state: watch::Sender<Arc<State>>,
    shutdown: CancellationToken,
}

async fn start(token: Option<&str>, permit_without_stream: bool) -> Server {
    start_with(token, permit_without_stream, None).await
}

async fn start_with(
    token: Option<&str>,
    permit_without_stream: bool,
    tls: Option<TlsFiles>,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::on(&listener);
    let admin = admin_of(&server, token, permit_without_stream, tls);
    tokio::spawn(admin::run(admin, listener));
    server
}

fn admin_of(
    server: &Server,
    token: Option<&str>,
    permit_without_stream: bool,
    tls: Option<TlsFiles>,
) -> Admin {
    Admin {
        store: Arc::clone(&server.store),
        nodes: Arc::clone(&server.nodes),
        metrics: Arc::clone(&server.metrics),
        state: server.state.subscribe(),
        permit_without_stream,
        token: token.map(|token| SecretText::new(token.to_owned())),
        // A handshake on a busy machine takes its time; what is too slow is tried without TLS.
        read_header_timeout: match tls {
            Some(_) => DEADLINE,
            None => Duration::from_millis(200),
        },
        tls,
        write_timeout: DEADLINE,
        shutdown: server.shutdown.clone(),
    }
}

impl Server {
    /// What there is to show; nothing yet.
    fn on(listener: &TcpListener) -> Self {
        let metrics = Arc::new(Metrics::default());
        Self {
            addr: listener.local_addr().unwrap(),
            store: Arc::new(Store::new(4, Arc::clone(&metrics))),
            nodes: Arc::new(Nodes::default()),
            state: watch::Sender::new(Arc::new(State::default())),
            metrics,
            shutdown: CancellationToken::new(),
        }
    }

    /// Status and body of the answer to `head`, which lacks only the empty line at its end.
    async fn exchange(&self, head: &str) -> (u16, String) {
        let (head, body) = self.raw(head).await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body)
    }

    async fn head_and_body(&self, path: &str) -> (String, String) {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: admin"))
            .await
    }

    async fn raw(&self, head: &str) -> (String, String) {
        let mut socket = TcpStream::connect(self.addr).await.unwrap();
        socket
            .write_all(format!("{head}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, socket.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: admin"))
            .await
    }

    async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

const PATHS: [&str; 12] = [
    "/metrics",
    "/api/v1/config/snapshot/version",
    "/api/v1/config/snapshot",
    "/api/v1/clients",
    "/api/v1/status",
    "/v1/snapshot-sync",
    "/v1/summary",
    "/v1/nodes",
    "/v1/auth/verify",
    "/v1/listeners",
    "/v1/routes",
    "/v1/backends",
];

#[tokio::test]
async fn every_path_answers_and_none_shows_key_material() {
    let server = start(None, false).await;
    let pair = Authority::new("test").server(&["example.test"]);
    let mut made = snapshot(&[("a", "1")]);
    made.secrets.insert(Secret {
        htpasswd: Some(SecretText::new("canary-htpasswd".to_owned())),
        oidc_client_secret: Some(SecretText::new("canary-oidc".to_owned())),
        ..pair.secret("default/tls")
    });
    server.store.publish(made, SystemTime::now()).unwrap();
    let key_line = pair.key_pem.lines().nth(1).unwrap();
    for path in PATHS {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 200, "{path}");
        assert!(
            !body.contains(key_line) && !body.contains("canary"),
            "{path} shows a secret"
        );
    }
    let shown = server.json("/api/v1/config/snapshot").await;
    assert_eq!(shown["secrets"][0]["key"], "default/tls");
    assert_eq!(shown["secrets"][0]["certificate"], true);
    assert_eq!(shown["http_routes"][0]["key"], "default/a");
    let version = server.json("/api/v1/config/snapshot/version").await;
    assert_eq!(version["version"], shown["version"]);
}

#[tokio::test]
async fn clients_show_what_each_data_plane_holds_and_refused() {
    let server = start(None, false).await;
    let (lease, _) = server.nodes.connect("dp-1").unwrap();
    lease.acked("v1");
    lease.update(|node| node.pushed_version = "v2".to_owned());
    lease.refused(
        "no such listener",
        &[NodeViolation {
            object: "HTTPRoute default/a".to_owned(),
            path: "listeners[0]".to_owned(),
            message: "is unknown".to_owned(),
        }],
    );
    let clients = server.json("/api/v1/clients").await;
    let client = &clients[0];
    assert_eq!(client["node_id"], "dp-1");
    assert_eq!(client["connected"], true);
    assert_eq!(client["acked_version"], "v1");
    assert_eq!(client["error_detail"], "no such listener");
    assert_eq!(client["violations"][0]["path"], "listeners[0]");
    assert_eq!((&client["acks"], &client["nacks"]), (&1.into(), &1.into()));
    // The refusal can be looked up when what was at fault is left out, and the rest serves.
    lease.acked("v3");
    let clients = server.json("/api/v1/clients").await;
    let client = &clients[0];
    assert_eq!(client["error_detail"], "");
    assert_eq!(client["last_nack"]["version"], "v2");
    assert_eq!(client["last_nack"]["error_detail"], "no such listener");
    assert_eq!(
        client["last_nack"]["violations"][0]["message"],
        "is unknown"
    );
    drop(lease);
    let node = server.json("/v1/nodes/dp-1").await;
    assert_eq!(
        (&node["id"], &node["connected"]),
        (&"dp-1".into(), &false.into())
    );
    assert_eq!(server.get("/v1/nodes/other").await.0, 404);
}

#[tokio::test]
async fn everything_but_health_asks_for_the_token() {
    let server = start(Some("the-token"), true).await;
    server
        .store
        .publish(snapshot(&[]), SystemTime::now())
        .unwrap();
    assert_eq!(server.get("/livez").await.0, 200);
    assert_eq!(server.get("/readyz").await.0, 200);
    let rows = [
        ("", 401),
        ("\r\nAuthorization: Bearer the-token", 200),
        ("\r\nauthorization: bearer the-token", 200),
        ("\r\nAuthorization: Bearer the-toke", 401),
        ("\r\nAuthorization: Bearer the-token2", 401),
        ("\r\nAuthorization: Basic the-token", 401),
        ("\r\nAuthorization: Bearer", 401),
    ];
    for path in PATHS {
        for (header, expected) in rows {
            let head = format!("GET {path} HTTP/1.1\r\nHost: admin{header}");
            let (status, body) = server.exchange(&head).await;
            assert_eq!(status, expected, "{path} with {header:?}");
            assert!(!body.contains("the-token"));
        }
    }
}

#[tokio::test]
async fn lists_show_the_snapshot_in_pages_under_both_families_of_paths() {
    let server = start(None, true).await;
    let built = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", 8080)
        .route("shop/cart", "shop.example", "/", "shop/cart:80")
        .route("shop/pay", "shop.example", "/pay", "shop/cart:80")
        .cluster("shop/cart:80", &[SocketAddr::from(([127, 0, 0, 1], 9))])
        .build();
    server.store.publish(built, SystemTime::now()).unwrap();
    let listeners = server.json("/v1/listeners").await;
    assert_eq!(listeners[0]["name"], "infra/gw/http");
    assert_eq!(listeners[0]["attachedRoutes"], 2);
    assert_eq!(listeners[0]["ready"], false, "nobody serves it");
    let backend = server.json("/v1/backends/shop/cart:80").await;
    assert_eq!(backend["endpoints"][0]["port"], 9);
    for (path, names) in [
        ("/v1/routes", &["cart", "pay"][..]),
        ("/api/v1/routes", &["cart", "pay"]),
        ("/v1/routes?kind=GRPCRoute", &[]),
        ("/v1/routes?namespace=shop&name=p", &["pay"]),
        ("/v1/routes?search=p/c", &["cart"]),
        ("/v1/routes?limit=1&offset=1", &["pay"]),
    ] {
        let rows = server.json(path).await;
        let rows = rows.as_array().unwrap().iter();
        let shown: Vec<_> = rows.map(|row| row["name"].as_str().unwrap()).collect();
        assert_eq!(shown, names, "{path}");
    }
    let route = server.json("/v1/routes/HTTPRoute/shop/cart").await;
    assert_eq!(route["backends"][0]["name"], "shop/cart:80");
    assert_eq!(
        server.json("/v1/clients").await,
        server.json("/api/v1/clients").await
    );
    assert_eq!(server.get("/v1/routes/HTTPRoute/shop/no").await.0, 404);
    assert_eq!(server.get("/v1/routes?limit=0").await.0, 400);
    let verified = server.json("/api/v1/auth/verify").await;
    assert_eq!(verified["authenticated"], false);
    let names = [
        "/v1/listeners/infra%2Fgw%2Fhttp",
        "/api/v1/listeners/infra/gw/http",
    ];
    for path in names {
        assert_eq!(server.json(path).await["protocol"], "HTTP", "{path}");
    }
    assert_eq!(backend["protocol"], "HTTP");
    assert_eq!(backend["weight"], 1);
    assert_eq!(server.get("/v1/backends/shop/%zz").await.0, 400);
}

/// Every list goes through the same page.
#[tokio::test]
async fn all_lists_are_sorted_paged_and_refuse_nonsense() {
    let server = start(None, true).await;
    let mut built = SnapshotBuilder::new("v1");
    for (port, name) in [(81, "b"), (82, "a"), (83, "c")] {
        let cluster = format!("shop/{name}:80");
        built = built
            .http_listener(&format!("shop/gw/{name}"), port)
            .route(&format!("shop/{name}"), "shop.example", "/", &cluster)
            .cluster(&cluster, &[]);
        drop(server.nodes.connect(&format!("node +{name}")).unwrap());
    }
    server
        .store
        .publish(built.build(), SystemTime::now())
        .unwrap();
    for (path, field, names) in [
        (
            "/v1/listeners",
            "name",
            ["shop/gw/c", "shop/gw/b", "shop/gw/a"],
        ),
        ("/v1/routes", "name", ["c", "b", "a"]),
        ("/v1/backends", "name", ["c:80", "b:80", "a:80"]),
        ("/v1/nodes", "id", ["node +c", "node +b", "node +a"]),
        (
            "/api/v1/clients",
            "node_id",
            ["node +c", "node +b", "node +a"],
        ),
    ] {
        let mut shown = Vec::new();
        let mut next = Some(format!("{path}?sort=name&order=desc&limit=2"));
        while let Some(asked) = next {
            let (head, body) = server.head_and_body(&asked).await;
            let rows: Vec<Value> = serde_json::from_str(&body).unwrap();
            let name = |row: &Value| row[field].as_str().unwrap().to_owned();
            shown.extend(rows.iter().map(name));
            let link = head.lines().find_map(|line| line.strip_prefix("link: <"));
            let target = |link: &str| {
                let (target, relation) = link.split_once('>').unwrap();
                assert_eq!(relation, "; rel=\"next\"");
                target.to_owned()
            };
            next = link.map(target);
        }
        assert_eq!(shown, names, "{path}");
        let (status, body) = server.get(&format!("{path}?order=up")).await;
        assert_eq!(status, 400, "{path}");
        let told: Value = serde_json::from_str(&body).unwrap();
        let expected = "order must be one of asc, desc, not \"up\"";
        assert_eq!(told["error"], expected, "{path}");
    }
    for query in [
        "name=node+%2Bb",
        "search=e%20%2bb",
        "kind=node&name=node%20%2Bb",
    ] {
        let found = server.json(&format!("/v1/nodes?{query}")).await;
        assert_eq!(found.as_array().unwrap().len(), 1, "{query}");
        assert_eq!(found[0]["id"], "node +b", "{query}");
    }
    let node = server.json("/v1/nodes/node%20+b").await;
    assert_eq!(node["id"], "node +b");
}

#[tokio::test]
async fn the_summary_counts_what_is_there_now() {
    let server = start(None, true).await;
    let built = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/everywhere", 80)
        .http_listener("infra/gw/somewhere", 81)
        .http_listener("infra/gw/nowhere", 82)
        .route("shop/cart", "shop.example", "/", "shop/cart:80")
        .grpc("shop/call", "shop.example", "a.B", "shop/cart:80")
        .cluster("shop/cart:80", &[])
        .build();
    let published = server.store.publish(built, SystemTime::now()).unwrap();
    let version = published.unwrap().snapshot.version.to_string();
    let serving = |names: &[&str]| Serving {
        active_listeners: names.iter().map(|it| (*it).to_owned()).collect(),
        ..Serving::default()
    };
    let everywhere = serving(&["infra/gw/everywhere"]);
    let both = serving(&["infra/gw/everywhere", "infra/gw/somewhere"]);
    // One is up to date and ready, one refused what it was sent, one is gone.
    let (_current, _) = server.nodes.connect("current").unwrap();
    let nodes = &server.nodes;
    nodes.report("current", &version, true, "", Some(both.clone()));
    let (behind, _) = nodes.connect("behind").unwrap();
    nodes.report("behind", "v0", false, "", Some(everywhere));
    behind.update(|node| node.pushed_version = "v1".to_owned());
    behind.refused("no such thing", &[]);
    let (gone, _) = nodes.connect("gone").unwrap();
    nodes.report("gone", &version, true, "", Some(both));
    drop(gone);
    let mut summary = server.json("/v1/summary").await;
    let told = summary["warnings"].take();
    assert_eq!(
        told,
        serde_json::json!(["data plane behind refused version v1: no such thing"])
    );
    for (field, expected) in [
        ("listenerCount", 3),
        ("httpRouteCount", 1),
        ("grpcRouteCount", 1),
        ("streamRouteCount", 0),
        ("routeCount", 2),
        ("backendCount", 1),
        ("secretCount", 0),
        ("nodeCount", 3),
        ("connectedNodeCount", 2),
        ("readyNodeCount", 1),
        ("currentVersionNodeCount", 1),
        ("currentVersionReadyCount", 1),
        ("driftedNodeCount", 1),
        ("readyListenerCount", 1),
        ("warningListenerCount", 1),
        ("failedListenerCount", 1),
    ] {
        assert_eq!(summary[field], expected, "{field}");
    }
    assert_eq!(summary["snapshotVersion"], version);
}

#[tokio::test]
async fn the_summary_tells_what_is_wrong_with_objects_within_bounds() {
    let server = start(None, true).await;
    let folder = Folder::new();
    let mut text = GATEWAY.to_owned();
    for n in 0..150 {
        text.push_str(&format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: lost-{n}, namespace: shop}}\n\
             spec: {{parentRefs: [{{name: nowhere}}]}}\n---\n"
        ));
    }
    folder.write("a.yaml", &text);
    let files = FileSource::new([folder.path().to_owned()]).current();
    let translation = translate(&files.view, &Settings::default(), None);
    server.state.send_replace(Arc::new(State {
        files,
        translation,
        ..State::default()
    }));
    let summary = server.json("/v1/summary").await;
    let warnings = summary["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 101);
    let first = warnings[0].as_str().unwrap();
    assert!(first.contains("HTTPRoute shop/lost-"), "{first}");
    assert_eq!(warnings[100], "there is more; see /api/v1/status");
    // Its listener is in no snapshot, since none was published.
    assert_eq!(summary["failedListenerCount"], 1);
}

#[tokio::test]
async fn readiness_waits_for_a_snapshot_and_a_data_plane() {
    let server = start(None, false).await;
    assert_eq!(server.get("/readyz").await.0, 503);
    server
        .store
        .publish(snapshot(&[]), SystemTime::now())
        .unwrap();
    let (status, reason) = server.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(reason.contains("permitWithoutStream"));
    drop(server.nodes.connect("dp").unwrap());
    assert_eq!(
        server.get("/readyz").await.0,
        200,
        "stays ready when it leaves"
    );

    let permitting = start(None, true).await;
    assert_eq!(permitting.get("/readyz").await.0, 503, "still no snapshot");
    permitting
        .store
        .publish(snapshot(&[]), SystemTime::now())
        .unwrap();
    assert_eq!(permitting.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn only_small_get_requests_for_known_paths_are_answered() {
    let server = start(None, true).await;
    assert_eq!(server.get("/nowhere").await.0, 404);
    let post = "POST /livez HTTP/1.1\r\nHost: admin\r\nContent-Length: 0";
    assert_eq!(server.exchange(post).await.0, 405);
    let large = format!(
        "GET /livez HTTP/1.1\r\nHost: admin\r\nX: {}",
        "x".repeat(64 * 1024)
    );
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    // The server may close before all of it is written.
    drop(
        socket
            .write_all(format!("{large}\r\n\r\n").as_bytes())
            .await,
    );
    let mut answer = Vec::new();
    drop(socket.read_to_end(&mut answer).await);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let server = start(None, true).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket
        .write_all(b"GET /livez HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "the connection stayed open");
}

/// What `/livez` answers over TLS to who trusts that authority; nothing when they do not agree.
async fn livez_over_tls(
    server: &Server,
    trusted: &Authority,
    identity: Option<&Identity>,
) -> Option<u16> {
    let client = TlsClient::trusting(trusted).alpn(&["http/1.1"]);
    let client = match identity {
        Some(identity) => client.identity(identity),
        None => client,
    };
    let stream = client.connect(server.addr, "admin.test").await.ok()?;
    let mut client = Http1Client::over(stream);
    // With TLS 1.3 a client learns only after its handshake that its certificate was refused.
    let answer = client.get("admin.test", "/livez").await.ok()?;
    Some(answer.status.as_u16())
}

fn tls_files(folder: &Path, client_ca: Option<&Authority>) -> TlsFiles {
    TlsFiles {
        cert_path: folder.join("tls.crt"),
        key_path: folder.join("tls.key"),
        require_client_cert: client_ca.is_some(),
        client_ca_path: client_ca.map(|authority| authority.write(folder, "clients").unwrap()),
    }
}

#[tokio::test]
async fn it_ends_tls_with_files_that_may_change() {
    let (first, second) = (Authority::new("one"), Authority::new("other"));
    let folder = tempfile::tempdir().unwrap();
    let write = |pair: &Identity| pair.write(folder.path(), "tls").unwrap();
    write(&first.server(&["admin.test"]));
    let server = start_with(None, true, Some(tls_files(folder.path(), None))).await;
    assert_eq!(livez_over_tls(&server, &first, None).await, Some(200));
    assert_eq!(livez_over_tls(&server, &second, None).await, None);
    let mut plain = TcpStream::connect(server.addr).await.unwrap();
    plain
        .write_all(b"GET /livez HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    drop(plain.read_to_end(&mut answer).await);
    assert!(!answer.starts_with(b"HTTP/"), "it answers in plain text");

    let renewal = second.server(&["admin.test"]);
    write(&Identity {
        key_pem: "half a key".to_owned(),
        ..renewal.clone()
    });
    // It looks at the files at most once a second, and not before it is asked.
    let looked = tokio::time::Instant::now() + Duration::from_millis(1200);
    wait::until(DEADLINE, || async {
        let served = livez_over_tls(&server, &first, None).await;
        assert_eq!(served, Some(200), "the last good pair stays");
        tokio::time::Instant::now() > looked
    })
    .await;
    write(&renewal);
    wait::until(DEADLINE, || async {
        livez_over_tls(&server, &second, None).await.is_some()
    })
    .await;
    assert_eq!(livez_over_tls(&server, &first, None).await, None);
}

#[tokio::test]
async fn with_authorities_for_clients_it_asks_for_their_certificates() {
    let (ours, theirs) = (Authority::new("one"), Authority::new("other"));
    let folder = tempfile::tempdir().unwrap();
    let pair = ours.server(&["admin.test"]);
    pair.write(folder.path(), "tls").unwrap();
    let server = start_with(None, true, Some(tls_files(folder.path(), Some(&ours)))).await;
    for (identity, expected) in [
        (Some(ours.client("operator")), Some(200)),
        (Some(theirs.client("operator")), None),
        (None, None),
    ] {
        let status = livez_over_tls(&server, &ours, identity.as_ref()).await;
        assert_eq!(status, expected);
    }
}

#[tokio::test]
async fn tls_files_that_cannot_be_used_end_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let files = tls_files(folder.path(), None);
    let admin = admin_of(&Server::on(&listener), None, true, Some(files));
    let error = admin::run(admin, listener).await.unwrap_err().to_string();
    assert!(error.contains("tls.crt, check adminTLS"), "{error}");
}
