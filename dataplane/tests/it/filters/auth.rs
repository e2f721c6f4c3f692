//! External authorization: who may pass, what the service sees and changes, and that it fails closed.

use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::Backend;
use dataplane_testkit::backend::{Kind, Script, Step, closed_address};
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::snapshot::{free_port, target};
use dataplane_testkit::{SnapshotBuilder, snapshot};
use http::{Method, Request};
use ir::Filter;
use ir::cluster::ClusterProtocol;
use ir::filter::{ExternalAuth, ExternalAuthProtocol};

use super::both;
use super::capture::{Capture, OK};
use crate::support::{Gateway, at, http_route};

fn over_http(path: &str, allowed: &[&str], returned: &[&str], body_max: u32) -> Filter {
    let texts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Filter::ExternalAuth(ExternalAuth {
        backend: target("shop/auth:80"),
        protocol: ExternalAuthProtocol::Http {
            path_prefix: path.to_owned(),
            allowed_headers: texts(allowed),
            allowed_response_headers: texts(returned),
        },
        forward_body_bytes_max: body_max,
    })
}

fn over_grpc() -> Filter {
    Filter::ExternalAuth(ExternalAuth {
        backend: target("shop/auth:80"),
        protocol: ExternalAuthProtocol::Grpc {
            allowed_headers: Vec::new(),
        },
        forward_body_bytes_max: 0,
    })
}

async fn serving(
    filter: Filter,
    backend: &Backend,
    auth: Option<std::net::SocketAddr>,
) -> (Gateway, u16) {
    let protocol = match &filter {
        Filter::ExternalAuth(ExternalAuth {
            protocol: ExternalAuthProtocol::Grpc { .. },
            ..
        }) => ClusterProtocol::H2c,
        _ => ClusterProtocol::Http,
    };
    let port = free_port();
    let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
    route.rules[0].filters = vec![filter];
    let mut builder = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/b:80", &[backend.address()]);
    if let Some(auth) = auth {
        builder = builder.add_cluster(snapshot::cluster("shop/auth:80", protocol, &[auth]));
    }
    let gateway = Gateway::with(&builder.build(), |bootstrap| {
        bootstrap.http.authorization_timeout = Duration::from_millis(500);
    })
    .await;
    (gateway, port)
}

#[tokio::test]
async fn the_service_sees_what_it_may_and_adds_what_it_may() {
    let backend = Backend::http1("b").await;
    let yes = "HTTP/1.1 200 OK\r\nx-user: ann\r\nx-other: 1\r\ncontent-length: 2\r\n\
               content-type: x/y\r\n\r\nok";
    let auth = Capture::answering(yes).await;
    for (returned, gets_other) in [(&[][..], true), (&["x-user", "x-role"][..], false)] {
        let filter = over_http("/check/", &["x-seen"], returned, 0);
        let (_gateway, port) = serving(filter, &backend, Some(auth.address)).await;
        let fields = [
            ("authorization", "Bearer t"),
            ("x-seen", "1"),
            ("x-hidden", "1"),
            ("x-user", "forged"),
            ("x-role", "forged"),
        ];
        let before = auth.seen().len();
        for answer in both(port, Method::GET, "/a?q=1", &fields).await {
            assert_eq!(answer.status, 200);
            let headers = &answer.json()["headers"];
            assert_eq!(headers["x-user"], serde_json::json!(["ann"]));
            assert_eq!(headers["x-other"].is_array(), gets_other);
            // What the service alone may say is not taken from the client.
            assert_eq!(headers["x-role"].is_array(), gets_other);
            assert!(headers["content-type"].is_null());
        }
        for seen in &auth.seen()[before..] {
            assert!(seen.starts_with("GET /check/a?q=1 HTTP/1.1\r\n"), "{seen}");
            for part in [
                "host: x.example.com",
                "authorization: Bearer t",
                "x-seen: 1",
            ] {
                assert!(seen.contains(&format!("\r\n{part}\r\n")), "{seen}");
            }
            assert!(seen.contains("\r\ncontent-length: 0\r\n"), "{seen}");
            assert!(!seen.contains("x-hidden"), "{seen}");
        }
    }
}

#[tokio::test]
async fn a_no_goes_to_the_client_and_nothing_to_the_backend() {
    let backend = Backend::http1("b").await;
    for (said, status, field, body) in [
        (
            "HTTP/1.1 401 No\r\nwww-authenticate: Basic\r\ncontent-length: 2\r\n\r\nno",
            401,
            ("www-authenticate", "Basic"),
            "no",
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n",
            302,
            ("location", "/login"),
            "",
        ),
        (
            "HTTP/1.1 204 No Content\r\nx-a: 1\r\n\r\n",
            403,
            ("x-a", "1"),
            "",
        ),
    ] {
        let auth = Capture::answering(said).await;
        let filter = over_http("", &[], &[], 0);
        let (_gateway, port) = serving(filter, &backend, Some(auth.address)).await;
        for answer in both(port, Method::GET, "/", &[]).await {
            assert_eq!(answer.status, status);
            assert_eq!((answer.header(field.0), &*answer.text()), (field.1, body));
        }
    }
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn a_body_is_shown_whole_or_the_request_refused() {
    let (backend, auth) = (Backend::http1("b").await, Capture::answering(OK).await);
    let filter = over_http("", &[], &["x-none"], 1000);
    let (_gateway, port) = serving(filter, &backend, Some(auth.address)).await;
    let mut sent = 0;
    for (length, chunked) in [(1000, false), (1000, true), (1001, false), (1001, true)] {
        let body = "y".repeat(length);
        let mut request = Request::post("/echo").header("host", "x.example.com");
        let mut bytes = body.clone();
        if chunked {
            request = request.header("transfer-encoding", "chunked");
            bytes = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
        }
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let answer = client
            .send(request.body(Bytes::from(bytes)).unwrap())
            .await
            .unwrap();
        if length > 1000 {
            assert_eq!(answer.status, 413);
            continue;
        }
        sent += 1;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, body.clone()));
        let seen = auth.requests(sent).await.remove(sent - 1);
        assert!(seen.contains("content-length: 1000") && seen.ends_with(&body));
    }
    assert_eq!((backend.requests(), auth.seen().len()), (2, 2));
}

#[tokio::test]
async fn without_a_clear_yes_nobody_passes() {
    let backend = Backend::http1("b").await;
    let scripted = async |answer: String| {
        let script = Script::new([Step::ReadHead, Step::Send(answer.into()), Step::Hold]);
        Backend::start("auth", Kind::Scripted(script)).await
    };
    let huge =
        "HTTP/1.1 403 No\r\ncontent-length: 1000000000\r\n\r\n".to_owned() + &"x".repeat(1 << 20);
    let services = [
        Backend::start("hole", Kind::BlackHole).await,
        Backend::start(
            "reset",
            Kind::Scripted(Script::new([Step::ReadHead, Step::Reset])),
        )
        .await,
        scripted("nonsense\r\n\r\n".to_owned()).await,
        scripted("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nx".to_owned()).await,
        scripted("HTTP/1.1 200 OK\r\nx-a: 1\nx-b: \r2\r\ncontent-length: 0\r\n\r\n".to_owned())
            .await,
        scripted(huge).await,
    ];
    let gone = closed_address();
    let addresses = services.iter().map(Backend::address).chain([gone]);
    for (at, address) in addresses.enumerate() {
        for filter in [over_http("", &[], &[], 0), over_grpc()] {
            let (_gateway, port) = serving(filter, &backend, Some(address)).await;
            for answer in both(port, Method::GET, "/", &[]).await {
                assert_eq!(answer.status, 503, "{at}");
                assert!(answer.text().contains("authorization_failed"), "{at}");
            }
        }
    }
    let (_gateway, port) = serving(over_grpc(), &backend, None).await;
    for answer in both(port, Method::GET, "/", &[]).await {
        assert_eq!(answer.status, 500);
    }
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn the_time_of_the_request_runs_while_the_service_thinks() {
    let backend = Backend::http1("b").await;
    let auth = Backend::start("hole", Kind::BlackHole).await;
    let port = free_port();
    let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
    route.rules[0].filters = vec![over_http("", &[], &[], 0)];
    route.rules[0].timeouts.request = Some(Duration::from_millis(100));
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/b:80", &[backend.address()])
        .cluster("shop/auth:80", &[auth.address()])
        .build();
    let _gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.http.authorization_timeout = Duration::from_secs(3600);
    })
    .await;
    for answer in both(port, Method::GET, "/", &[]).await {
        assert_eq!(answer.status, 504);
        assert!(
            answer.text().contains("request_timeout"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(backend.requests(), 0);
}

/// A field of a protobuf message that holds bytes, in the short form.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap();
    assert!(length < 128);
    [&[number << 3 | 2, length][..], value].concat()
}

fn option(name: &str, value: &str) -> Vec<u8> {
    let header = [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
    field(1, &header)
}

fn h2_frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// An HTTP/2 server that answers its first call with this body.
async fn grpc_service(body: Vec<u8>, trailer: &str) -> Backend {
    let literal = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        let mut field = vec![0, length(name)];
        field.extend_from_slice(name.as_bytes());
        field.push(length(value));
        field.extend_from_slice(value.as_bytes());
        field
    };
    let head = [vec![0x88], literal("content-type", "application/grpc")].concat();
    let answer = [
        h2_frame(1, 4, 1, &head),
        h2_frame(0, 0, 1, &body),
        h2_frame(1, 5, 1, &literal("grpc-status", trailer)),
    ]
    .concat();
    let script = Script::new([
        Step::ReadHead,
        Step::Send(h2_frame(4, 0, 0, &[]).into()),
        // What is left of the preface.
        Step::Read(6),
        Step::ReadHttp2Stream,
        Step::Send(answer.into()),
        Step::Hold,
    ]);
    Backend::start("auth", Kind::Scripted(script)).await
}

fn message(response: &[u8]) -> Vec<u8> {
    let length = u32::try_from(response.len()).unwrap().to_be_bytes();
    [&[0][..], &length, response].concat()
}

#[tokio::test]
async fn a_service_of_envoys_protocol_is_understood_and_not_trusted_blindly() {
    let backend = Backend::http1("b").await;
    let ok = |fields: &[Vec<u8>]| field(3, &fields.concat());
    let denied = field(
        2,
        &[
            field(1, &[8, 0x91, 0x03]),
            field(2, &option("x-why", "because")),
            field(3, b"go away"),
        ]
        .concat(),
    );
    let edits = ok(&[
        field(2, &option("x-user", "ann")),
        field(2, &option("content-length", "7")),
        field(5, b"x-secret"),
        field(6, &option("x-answer", "1")),
    ]);
    let smuggled = ok(&[field(2, &option("x-user", "a\r\nx-admin: 1"))]);
    let wrong_name = ok(&[field(2, &option("x user", "a"))]);
    let mut compressed = message(&edits);
    compressed[0] = 1;
    let mut long = message(&edits);
    long[4] += 1;
    for (body, trailer, status) in [
        (message(&edits), "0", 200),
        (message(&[]), "0", 200),
        (message(&denied), "0", 401),
        (message(&[10, 2, 8, 7]), "0", 403),
        (message(&smuggled), "0", 503),
        (message(&wrong_name), "0", 503),
        (message(b"\xff\xff\xff\xff"), "0", 503),
        (message(&edits), "14", 503),
        (compressed, "0", 503),
        (long, "0", 503),
        (b"\0\0".to_vec(), "0", 503),
        (Vec::new(), "0", 503),
        ([message(&[]), message(&[])].concat(), "0", 503),
    ] {
        let auth = grpc_service(body.clone(), trailer).await;
        let (_gateway, port) = serving(over_grpc(), &backend, Some(auth.address())).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let request = Request::get("/a")
            .header("host", "x.example.com")
            .header("x-secret", "1")
            .body(Bytes::new())
            .unwrap();
        let answer = client.send(request).await.unwrap();
        assert_eq!(
            answer.status,
            status,
            "{body:?} {trailer}: {}",
            answer.text()
        );
        if body == message(&edits) && status == 200 {
            assert_eq!(answer.header("x-answer"), "1");
            let headers = &answer.json()["headers"];
            assert_eq!(headers["x-user"], serde_json::json!(["ann"]));
            assert!(headers["x-secret"].is_null() && headers["content-length"].is_null());
        }
        if status == 401 {
            assert_eq!(
                (answer.header("x-why"), &*answer.text()),
                ("because", "go away")
            );
        }
    }
}
