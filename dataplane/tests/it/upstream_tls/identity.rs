//! The gateway's own certificate, and connections that never cross from one identity to another.

use dataplane_testkit::backend::{Kind, Secured};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::snapshot::{free_port, http_route, listener};
use dataplane_testkit::{Backend, SnapshotBuilder};
use ir::Snapshot;
use ir::cluster::ClusterProtocol;
use ir::listener::ListenerProtocol;

use super::{CLUSTER, LISTENER, NAME, handshake, policy, secured, snapshot, trusting};
use crate::support::{Gateway, at};

const SECRET: &str = "infra/client";

/// The listener shows the certificate in that secret, there or not.
fn showing(mut snapshot: Snapshot, listener: &str, secret: &str) -> Snapshot {
    let mut changed = (**snapshot.listeners.get(listener).unwrap()).clone();
    changed.backend_client_certificate = Some(secret.into());
    snapshot.listeners.insert(changed);
    snapshot
}

#[tokio::test]
async fn a_certificate_is_shown_to_who_asks_and_missed_by_who_needs_it() {
    let ours = Authority::new("ours");
    let other = Authority::new("other");
    let client = ours.client("gateway");
    let server = Secured::new(&ours.server(&[NAME])).alpn(&["http/1.1"]);
    // backend, has the gateway a certificate -> is it reached, what is seen
    let rows = [
        ("not asked", server.clone(), true, true, false),
        ("asked", server.clone().asking(&[&ours]), true, true, true),
        (
            "asked and not there",
            server.clone().asking(&[&ours]),
            false,
            true,
            false,
        ),
        (
            "needed",
            server.clone().requiring(&[&ours]),
            true,
            true,
            true,
        ),
        (
            "needed and not there",
            server.clone().requiring(&[&ours]),
            false,
            false,
            false,
        ),
        (
            "of another authority",
            server.requiring(&[&other]),
            true,
            false,
            false,
        ),
    ];
    for (what, tls, has_one, is_reached, is_seen) in rows {
        let backend = Backend::start_secured("b", Kind::Http1, &tls).await;
        let port = free_port();
        let endpoints = [backend.address()];
        let cluster = secured(CLUSTER, ClusterProtocol::Https, &endpoints, trusting(&ours));
        let mut snapshot = showing(snapshot("v1", port, cluster), LISTENER, SECRET);
        if has_one {
            snapshot.secrets.insert(client.secret(SECRET));
        }
        let _gateway = Gateway::serving(&snapshot).await;
        let response = http1::get(at(port), "x", "/").await.unwrap();
        let expected = if is_reached { 200 } else { 502 };
        assert_eq!(response.status, expected, "{what}");
        assert_eq!(backend.requests(), usize::from(is_reached), "{what}");
        if is_reached {
            let seen = handshake(&backend).await.client;
            assert_eq!(seen, is_seen.then(|| client.leaf.clone()), "{what}");
        }
    }
}

/// Two names at one backend, each with a policy of its own and a route of its own.
#[tokio::test]
async fn one_endpoint_under_two_policies_has_connections_of_its_own_for_each() {
    let ours = Authority::new("ours");
    let identity = ours.server(&["one.example", "two.example"]);
    for (kind, protocol) in [(Kind::Http1, "http/1.1"), (Kind::Http2, "h2")] {
        let tls = Secured::new(&identity).alpn(&[protocol]);
        let backend = Backend::start_secured("b", kind, &tls).await;
        let port = free_port();
        let mut builder = SnapshotBuilder::new("v1").http_listener(LISTENER, port);
        for name in ["one", "two"] {
            let key = format!("shop/{name}:443");
            let policy = policy(&format!("{name}.example"), &[ours.pem()]);
            let endpoints = [backend.address()];
            builder = builder
                .route(&format!("shop/{name}"), "", &format!("/{name}"), &key)
                .add_cluster(secured(&key, ClusterProtocol::Https, &endpoints, policy));
        }
        let one_worker = |bootstrap: &mut dataplane::bootstrap::Bootstrap| bootstrap.workers = 1;
        let _gateway = Gateway::with(&builder.build(), one_worker).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        for _ in 0..10 {
            for path in ["/one", "/two"] {
                assert_eq!(client.get("x", path).await.unwrap().status, 200);
            }
        }
        assert_eq!(backend.requests(), 20, "{protocol}");
        assert_eq!(
            backend.connections(),
            2,
            "{protocol}: each is kept and used again"
        );
        let seen = backend.handshakes();
        let names: Vec<_> = seen.iter().map(|it| it.server_name.as_deref()).collect();
        assert_eq!(
            names,
            [Some("one.example"), Some("two.example")],
            "{protocol}"
        );
        assert!(seen.iter().all(|it| !it.is_resumed), "{protocol}");
    }
}

#[tokio::test]
async fn what_came_in_at_one_gateway_never_goes_out_under_anothers_certificate() {
    let ours = Authority::new("ours");
    let (red, blue) = (ours.client("red"), ours.client("blue"));
    for (kind, protocol) in [(Kind::Http1, "http/1.1"), (Kind::Http2, "h2")] {
        let tls = Secured::new(&ours.server(&[NAME])).alpn(&[protocol]);
        let tls = tls.asking(&[&ours]);
        let backend = Backend::start_secured("b", kind, &tls).await;
        let endpoints = [backend.address()];
        let gateways = ["infra/red/http", "infra/blue/http", "infra/none/http"];
        let ports = [free_port(), free_port(), free_port()];
        let mut builder = SnapshotBuilder::new("v1");
        for (name, port) in gateways.iter().zip(ports) {
            builder = builder.listener(listener(name, port, ListenerProtocol::Http));
        }
        let mut route = http_route("shop/r", "", "/", &[(CLUSTER, 1)]);
        route.listeners = gateways.iter().map(|&name| name.into()).collect();
        let snapshot = builder
            .http_route(route)
            .certificate("infra/red", &red)
            .certificate("infra/blue", &blue)
            .add_cluster(secured(
                CLUSTER,
                ClusterProtocol::Https,
                &endpoints,
                trusting(&ours),
            ))
            .build();
        let snapshot = showing(snapshot, "infra/red/http", "infra/red");
        let snapshot = showing(snapshot, "infra/blue/http", "infra/blue");
        let one_worker = |bootstrap: &mut dataplane::bootstrap::Bootstrap| bootstrap.workers = 1;
        let _gateway = Gateway::with(&snapshot, one_worker).await;
        let mut clients = Vec::new();
        for port in ports {
            clients.push(Http1Client::connect(at(port)).await.unwrap());
        }
        for _ in 0..5 {
            for client in &mut clients {
                assert_eq!(client.get("x", "/").await.unwrap().status, 200);
            }
        }
        let shown: Vec<_> = backend
            .handshakes()
            .into_iter()
            .map(|it| it.client)
            .collect();
        let expected = [Some(red.leaf.clone()), Some(blue.leaf.clone()), None];
        assert_eq!(shown, expected, "{protocol}: one connection for each");
    }
}

#[tokio::test]
async fn sessions_are_resumed_under_one_policy_only() {
    let ours = Authority::new("ours");
    let identity = ours.server(&[NAME]);
    let tls = Secured::new(&identity).alpn(&["http/1.1"]);
    let backend = Backend::start_secured("b", Kind::Http1, &tls).await;
    let port = free_port();
    let endpoints = [backend.address()];
    let with = |version: &str, policy| {
        let cluster = secured(CLUSTER, ClusterProtocol::Https, &endpoints, policy);
        snapshot(version, port, cluster)
    };
    let one_worker = |bootstrap: &mut dataplane::bootstrap::Bootstrap| bootstrap.workers = 1;
    let gateway = Gateway::with(&with("v1", trusting(&ours)), one_worker).await;
    // Each answer that ends its connection needs another one.
    let ask = async || {
        let response = http1::get(at(port), "x", "/?close=body&bytes=10").await;
        drop(response);
    };
    ask().await;
    ask().await;
    let seen: Vec<_> = backend
        .handshakes()
        .iter()
        .map(|it| it.is_resumed)
        .collect();
    assert_eq!(seen, [false, true]);
    // The same names, but other authorities beside ours: a policy of its own.
    let other = Authority::new("other");
    let wider = policy(NAME, &[ours.pem(), other.pem()]);
    gateway.apply(&with("v2", wider)).await;
    ask().await;
    let seen: Vec<_> = backend
        .handshakes()
        .iter()
        .map(|it| it.is_resumed)
        .collect();
    assert_eq!(seen, [false, true, false]);
}
