//! The admin API over HTTP, and that key material never leaves through it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dataplane_testkit::SnapshotBuilder;
use dataplane_testkit::certificate::Authority;
use ir::{Secret, SecretText};
use serde_json::Value;
use shim::admin::{self, Admin};
use shim::history::Store;
use shim::metrics::Metrics;
use shim::nodes::{NodeViolation, Nodes};
use shim::pipeline::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::{DEADLINE, snapshot};

struct Server {
    addr: SocketAddr,
    store: Arc<Store>,
    nodes: Arc<Nodes>,
    shutdown: CancellationToken,
}

async fn start(token: Option<&str>, permit_without_stream: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let metrics = Arc::new(Metrics::default());
    let server = Server {
        addr: listener.local_addr().unwrap(),
        store: Arc::new(Store::new(4, Arc::clone(&metrics))),
        nodes: Arc::new(Nodes::default()),
        shutdown: CancellationToken::new(),
    };
    let (_, state) = watch::channel(Arc::new(State::default()));
    let admin = Admin {
        store: Arc::clone(&server.store),
        nodes: Arc::clone(&server.nodes),
        metrics,
        state,
        permit_without_stream,
        token: token.map(|token| SecretText::new(token.to_owned())),
        read_header_timeout: Duration::from_millis(200),
        write_timeout: DEADLINE,
        shutdown: server.shutdown.clone(),
    };
    tokio::spawn(admin::run(admin, listener));
    server
}

impl Server {
    /// Status and body of the answer to `head`, which lacks only the empty line at its end.
    async fn exchange(&self, head: &str) -> (u16, String) {
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
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, body.to_owned())
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
