//! What is spoken inside TLS: by the port's protocol and what the backend agrees on.

use dataplane_testkit::backend::{Kind, Secured};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::{grpc, websocket};
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, SnapshotBuilder};
use futures_util::{SinkExt as _, StreamExt as _};
use ir::cluster::ClusterProtocol;

use super::{CLUSTER, LISTENER, NAME, handshake, secured, snapshot, trusting};
use crate::support::{Gateway, at};

const H1: &str = "http/1.1";
const H2: &str = "h2";

#[tokio::test]
async fn the_protocol_is_the_ports_or_what_the_backend_agrees_on() {
    let ours = Authority::new("ours");
    let identity = ours.server(&[NAME]);
    // port, backend and what it takes by ALPN -> what is agreed on; none means not reached
    type Row<'a> = (
        ClusterProtocol,
        Kind,
        &'a [&'a str],
        Option<Option<&'a str>>,
    );
    let rows: Vec<Row<'_>> = vec![
        (ClusterProtocol::Https, Kind::Http1, &[H1], Some(Some(H1))),
        (ClusterProtocol::Https, Kind::Http2, &[H2], Some(Some(H2))),
        (
            ClusterProtocol::Https,
            Kind::Http2,
            &[H2, H1],
            Some(Some(H2)),
        ),
        (ClusterProtocol::Https, Kind::Http1, &[], Some(None)),
        (ClusterProtocol::Tcp, Kind::Http2, &[H2], Some(Some(H2))),
        (ClusterProtocol::Tcp, Kind::Http1, &[H1], Some(Some(H1))),
        (
            ClusterProtocol::Other("X".into()),
            Kind::Http1,
            &[H1],
            Some(Some(H1)),
        ),
        // The port says which HTTP: nothing else is offered.
        (
            ClusterProtocol::Http,
            Kind::Http1,
            &[H2, H1],
            Some(Some(H1)),
        ),
        (ClusterProtocol::H2c, Kind::Http2, &[H1, H2], Some(Some(H2))),
        (ClusterProtocol::H2c, Kind::Http1, &[H1], None),
        (ClusterProtocol::H2c, Kind::Http1, &[], None),
        (ClusterProtocol::Http, Kind::Http2, &[H2], None),
    ];
    for (protocol, kind, alpn, expected) in rows {
        let what = format!("{protocol:?} {kind:?} {alpn:?}");
        let tls = Secured::new(&identity).alpn(alpn);
        let backend = Backend::start_secured("b", kind, &tls).await;
        let endpoints = [backend.address()];
        let port = free_port();
        let cluster = secured(CLUSTER, protocol, &endpoints, trusting(&ours));
        let _gateway = Gateway::serving(&snapshot("v1", port, cluster)).await;
        let response = http1::get(at(port), "x", "/").await.unwrap();
        let status = if expected.is_some() { 200 } else { 502 };
        assert_eq!(response.status, status, "{what}");
        assert_eq!(
            backend.requests(),
            usize::from(expected.is_some()),
            "{what}"
        );
        if let Some(alpn) = expected {
            assert_eq!(handshake(&backend).await.alpn.as_deref(), alpn, "{what}");
        }
    }
}

#[tokio::test]
async fn grpc_over_tls_keeps_its_trailers() {
    let ours = Authority::new("ours");
    for protocol in [
        ClusterProtocol::Tcp,
        ClusterProtocol::Https,
        ClusterProtocol::Grpc,
        ClusterProtocol::Grpcs,
    ] {
        let tls = Secured::new(&ours.server(&[NAME])).alpn(&["h2"]);
        let backend = Backend::start_secured("b", Kind::Grpc, &tls).await;
        let port = free_port();
        let endpoints = [backend.address()];
        let snapshot = SnapshotBuilder::new("v1")
            .http_listener(LISTENER, port)
            .grpc("shop/g", "", "demo.Echo", CLUSTER)
            .add_cluster(secured(
                CLUSTER,
                protocol.clone(),
                &endpoints,
                trusting(&ours),
            ))
            .build();
        let _gateway = Gateway::serving(&snapshot).await;
        let client = Http2Client::connect(at(port)).await.unwrap();
        let metadata = [("x-want", "grpc_status=7")];
        let path = "/demo.Echo/Say";
        let reply = grpc::unary(&client, "x", path, &[], b"hello")
            .await
            .unwrap();
        assert_eq!(
            (reply.status, &*reply.messages[0]),
            (Some(0), &b"hello"[..])
        );
        let reply = grpc::unary(&client, "x", path, &metadata, b"hello")
            .await
            .unwrap();
        assert_eq!(reply.status, Some(7), "{protocol:?}");
        assert_eq!(handshake(&backend).await.alpn.as_deref(), Some("h2"));
        assert_eq!(backend.connections(), 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_call_to_a_backend_that_is_not_trusted_is_unavailable() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let tls = Secured::new(&other.server(&[NAME])).alpn(&["h2"]);
    let backend = Backend::start_secured("b", Kind::Grpc, &tls).await;
    let port = free_port();
    let endpoints = [backend.address()];
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener(LISTENER, port)
        .grpc("shop/g", "", "demo.Echo", CLUSTER)
        .add_cluster(secured(
            CLUSTER,
            ClusterProtocol::Grpcs,
            &endpoints,
            trusting(&ours),
        ))
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    let reply = grpc::unary(&client, "x", "/demo.Echo/Say", &[], b"hello")
        .await
        .unwrap();
    assert_eq!(reply.status, Some(14));
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn websockets_pass_over_tls() {
    let ours = Authority::new("ours");
    // A backend that would rather speak HTTP/2 is offered HTTP/1.1 for them.
    for alpn in [&["http/1.1"][..], &["h2", "http/1.1"], &[]] {
        let tls = Secured::new(&ours.server(&[NAME])).alpn(alpn);
        let backend = Backend::start_secured("b", Kind::WebSocket, &tls).await;
        let port = free_port();
        let endpoints = [backend.address()];
        let cluster = secured(CLUSTER, ClusterProtocol::Https, &endpoints, trusting(&ours));
        let _gateway = Gateway::serving(&snapshot("v1", port, cluster)).await;
        let (mut socket, _) = websocket::connect(at(port), "x", "/ws").await.unwrap();
        for size in [0, 1, 70_000] {
            let message = websocket::Message::binary(vec![3_u8; size]);
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
        let expected = if alpn.is_empty() {
            None
        } else {
            Some("http/1.1")
        };
        assert_eq!(handshake(&backend).await.alpn.as_deref(), expected);
    }
}
