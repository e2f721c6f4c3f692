//! What a client sees when all is well: routing, versions, bodies, trailers, upgrades.

use bytes::Bytes;
use dataplane_testkit::backend::Kind;
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::client::{grpc, websocket};
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, SnapshotBuilder};
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use ir::http_route::{PathMatch, TextMatch, ValueMatch};

use crate::support::{Gateway, at, http_route};

#[tokio::test]
async fn routes_by_host_and_path_prefix() {
    let (a, b) = (Backend::http1("a").await, Backend::http1("b").await);
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/a", "a.example.com", "/", "shop/a:80")
        .route("shop/b", "*.example.com", "/b", "shop/b:80")
        .cluster("shop/a:80", &[a.address()])
        .cluster("shop/b:80", &[b.address()])
        .build();
    let gateway = Gateway::serving(&snapshot).await;

    for (host, path, expected) in [
        ("a.example.com", "/", Some("a")),
        ("A.Example.COM:8080", "/b", Some("a")),
        ("x.example.com", "/b/c", Some("b")),
        ("x.example.com", "/bc", None),
        ("example.com", "/b", None),
    ] {
        let response = http1::get(at(port), host, path).await.unwrap();
        match expected {
            Some(name) => {
                assert_eq!(response.status, 200, "{host}{path}");
                assert_eq!(response.json()["backend"], name, "{host}{path}");
            }
            None => {
                assert_eq!(response.status, 404, "{host}{path}");
                assert!(response.text().contains("route_not_found"));
            }
        }
    }
    assert!(gateway.stopped().await);
}

#[tokio::test]
async fn matches_by_method_header_and_query() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let mut route = http_route("shop/r", "", "/x", &[("shop/b:80", 1)]);
    let rule = &mut route.rules[0].matches[0];
    rule.path = PathMatch::Exact("/x".to_owned());
    rule.method = Some("PUT".to_owned());
    rule.headers = vec![ValueMatch {
        name: "x-tenant".to_owned(),
        value: TextMatch::Exact("blue".to_owned()),
    }];
    rule.query_params = vec![ValueMatch {
        name: "v".to_owned(),
        value: TextMatch::Exact("2".to_owned()),
    }];
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;

    for (method, path, tenant, status) in [
        (Method::PUT, "/x?v=2", "blue", 200),
        (Method::GET, "/x?v=2", "blue", 404),
        (Method::PUT, "/x?v=3", "blue", 404),
        (Method::PUT, "/x?v=2", "red", 404),
        (Method::PUT, "/x/?v=2", "blue", 404),
    ] {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("host", "any.example.com")
            .header("x-tenant", tenant)
            .body(Bytes::new())
            .unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status, status, "{method} {path} {tenant}");
    }
}

#[tokio::test]
async fn weights_divide_requests() {
    let (a, b) = (Backend::http1("a").await, Backend::http1("b").await);
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(http_route(
            "shop/r",
            "",
            "/",
            &[("shop/a:80", 90), ("shop/b:80", 10)],
        ))
        .cluster("shop/a:80", &[a.address()])
        .cluster("shop/b:80", &[b.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for _ in 0..100 {
        assert_eq!(client.get("x.example.com", "/").await.unwrap().status, 200);
    }
    assert_eq!(a.requests() + b.requests(), 100);
    assert!((8..=12).contains(&b.requests()), "{} of 100", b.requests());
    assert_eq!(a.connections(), 1, "connections to backends are kept");
}

#[tokio::test]
async fn both_versions_on_one_plain_port() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = plain(port, &backend);
    let _gateway = Gateway::serving(&snapshot).await;
    let response = http1::get(at(port), "x.example.com", "/one").await.unwrap();
    assert_eq!(response.json()["path"], "/one");
    let client = Http2Client::connect(at(port)).await.unwrap();
    let response = client.get("x.example.com", "/two").await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["path"], "/two");
}

#[tokio::test]
async fn tls_chooses_the_certificate_by_server_name() {
    let backend = Backend::http1("b").await;
    let authority = Authority::new("test");
    let (www, wild) = (
        authority.server(&["www.example.com"]),
        authority.server(&["*.example.org"]),
    );
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .https_listener("infra/gw/www", port, &["www.example.com"], &["infra/www"])
        .https_listener("infra/gw/wild", port, &["*.example.org"], &["infra/wild"])
        .certificate("infra/www", &www)
        .certificate("infra/wild", &wild)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let tls = TlsClient::trusting(&authority);

    let stream = tls.connect(at(port), "www.example.com").await.unwrap();
    let mut client = Http1Client::over(stream);
    assert_eq!(
        client.get("www.example.com", "/").await.unwrap().status,
        200
    );
    let misdirected = client.get("a.example.org", "/").await.unwrap();
    assert_eq!(misdirected.status, 421);

    let tls = TlsClient::trusting(&authority).alpn(&["h2", "http/1.1"]);
    let stream = tls.connect(at(port), "a.example.org").await.unwrap();
    let client = Http2Client::over(stream).await.unwrap();
    assert_eq!(client.get("a.example.org", "/").await.unwrap().status, 200);
    assert!(tls.connect(at(port), "unknown.example.net").await.is_err());
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&plain(port, &backend)).await;
    // Far more than all buffers on the way hold: a proxy that sends first and reads later hangs.
    let body = Bytes::from(vec![7_u8; 8 * 1024 * 1024]);
    let client = Http2Client::connect(at(port)).await.unwrap();
    let request = Request::post("http://x.example.com/echo")
        .body(body.clone())
        .unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status, 200);
    assert!(response.body == body);
}

#[tokio::test]
async fn chunked_and_sized_bodies_arrive_whole() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&plain(port, &backend)).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for path in ["/?bytes=100000", "/?bytes=100000&chunked", "/?bytes=0"] {
        let response = client.get("x.example.com", path).await.unwrap();
        let expected = if path.contains("=0") { 0 } else { 100_000 };
        assert_eq!(response.body.len(), expected, "{path}");
    }
    client
        .send_bytes(
            b"POST /echo HTTP/1.1\r\nhost: x.example.com\r\ntransfer-encoding: chunked\r\n\r\n\
              5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        )
        .await
        .unwrap();
    let response = client.read_response(&Method::POST).await.unwrap();
    assert_eq!(response.text(), "hello!");
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&plain(port, &backend)).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x.example.com\r\n\r\n");
    let three = [request("/1"), request("/2"), request("/3")].concat();
    client.send_bytes(three.as_bytes()).await.unwrap();
    for path in ["/1", "/2", "/3"] {
        let response = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(response.json()["path"], path);
    }
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&plain(port, &backend)).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let head = Request::head("/?bytes=1000").header("host", "x.example.com");
    let response = client.send(head.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(response.header("content-length"), "1000");
    assert_eq!(
        client.get("x.example.com", "/after").await.unwrap().json()["path"],
        "/after"
    );
}

#[tokio::test]
async fn grpc_calls_keep_their_trailers() {
    let backend = Backend::start("g", Kind::Grpc).await;
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .grpc("shop/g", "", "demo.Echo", "shop/g:50051")
        .h2c_cluster("shop/g:50051", &[backend.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    let reply = grpc::unary(&client, "x.example.com", "/demo.Echo/Say", &[], b"hello")
        .await
        .unwrap();
    assert_eq!(reply.messages, [Bytes::from_static(b"hello")]);
    assert_eq!(reply.status, Some(0));
    let missing = grpc::unary(&client, "x.example.com", "/demo.Other/Say", &[], b"x")
        .await
        .unwrap();
    assert_eq!(
        missing.status,
        Some(12),
        "no route is UNIMPLEMENTED to a gRPC client"
    );
}

#[tokio::test]
async fn websockets_pass_both_ways() {
    let backend = Backend::start("w", Kind::WebSocket).await;
    let port = free_port();
    let _gateway = Gateway::serving(&plain(port, &backend)).await;
    let (mut socket, _) = websocket::connect(at(port), "x.example.com", "/ws")
        .await
        .unwrap();
    for size in [1, 70_000] {
        let message = websocket::Message::binary(vec![3_u8; size]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
}

#[tokio::test]
async fn a_backend_that_does_not_exist_fails_its_share_with_500() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(http_route(
            "shop/r",
            "",
            "/",
            &[("shop/b:80", 1), ("shop/gone:80", 1)],
        ))
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let mut statuses = [0, 0];
    for _ in 0..20 {
        match client
            .get("x.example.com", "/")
            .await
            .unwrap()
            .status
            .as_u16()
        {
            200 => statuses[0] += 1,
            500 => statuses[1] += 1,
            other => panic!("status {other}"),
        }
    }
    assert!((8..=12).contains(&statuses[1]), "{statuses:?}");
}

fn plain(port: u16, backend: &Backend) -> ir::Snapshot {
    SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build()
}
