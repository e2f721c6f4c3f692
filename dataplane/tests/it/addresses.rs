//! Clients that may come in by their address, and those that may not: listeners, routes, clusters.

use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, SnapshotBuilder};
use ir::Snapshot;
use ir::listener::{ListenerProtocol, ListenerSettings, TrustedProxies};
use ir::policy::SecurityPolicy;

use crate::support::{Gateway, at};

fn lists(allow: &[&str], deny: &[&str]) -> std::sync::Arc<SecurityPolicy> {
    let owned = |list: &[&str]| list.iter().map(|block| (*block).to_owned()).collect();
    std::sync::Arc::new(SecurityPolicy {
        allow_cidrs: owned(allow),
        deny_cidrs: owned(deny),
        ..SecurityPolicy::default()
    })
}

/// Where a policy stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    Listener,
    Route,
    Cluster,
}

fn snapshot(
    port: u16,
    backend: &Backend,
    place: Place,
    policy: &std::sync::Arc<SecurityPolicy>,
) -> Snapshot {
    let mut listener =
        dataplane_testkit::snapshot::listener("infra/gw/http", port, ListenerProtocol::Http);
    // What the client in front of us says about the one behind it is believed.
    listener.settings = ListenerSettings {
        trusted_proxies: Some(TrustedProxies {
            hops: 0,
            sources: vec!["127.0.0.0/8".parse().unwrap()],
        }),
        ..ListenerSettings::default()
    };
    if matches!(place, Place::Listener) {
        listener.security_policy = Some(policy.clone());
    }
    let mut snapshot = SnapshotBuilder::new("v1")
        .listener(listener)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    match place {
        Place::Listener => {}
        Place::Route => {
            let mut route = (**snapshot.http_routes.get("shop/r").unwrap()).clone();
            route.security_policy = Some(policy.clone());
            snapshot.http_routes.insert(route);
        }
        Place::Cluster => {
            let mut cluster = (**snapshot.clusters.get("shop/b:80").unwrap()).clone();
            cluster.security_policy = Some(policy.clone());
            snapshot.clusters.insert(cluster);
        }
    }
    snapshot
}

async fn status(port: u16, client: &str) -> u16 {
    let mut connection = Http1Client::connect(at(port)).await.unwrap();
    let request =
        format!("GET / HTTP/1.1\r\nhost: shop.example\r\nx-forwarded-for: {client}\r\n\r\n");
    connection.send_bytes(request.as_bytes()).await.unwrap();
    let response = connection.read_response(&http::Method::GET).await.unwrap();
    response.status.as_u16()
}

#[tokio::test]
async fn lists_hold_wherever_they_stand() {
    let backend = Backend::http1("b").await;
    for place in [Place::Listener, Place::Route, Place::Cluster] {
        let port = free_port();
        let policy = lists(&["10.0.0.0/8", "2001:db8::/32"], &["10.6.6.0/24"]);
        let gateway = Gateway::serving(&snapshot(port, &backend, place, &policy)).await;
        for (client, expected) in [
            ("10.1.2.3", 200),
            ("2001:db8::7", 200),
            ("10.6.6.6", 403),
            ("11.0.0.1", 403),
            ("2001:db9::7", 403),
        ] {
            assert_eq!(status(port, client).await, expected, "{place:?} {client}");
        }
        drop(gateway);
    }
}

#[tokio::test]
async fn a_changed_list_holds_at_once_and_lets_everyone_in_when_it_is_gone() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let nobody = lists(&[], &["0.0.0.0/0", "::/0"]);
    let first = snapshot(port, &backend, Place::Route, &nobody);
    let gateway = Gateway::serving(&first).await;
    assert_eq!(status(port, "10.1.2.3").await, 403);
    let mut second = snapshot(port, &backend, Place::Route, &lists(&[], &[]));
    second.version = ir::Version::new("v2");
    gateway.apply(&second).await;
    assert_eq!(status(port, "10.1.2.3").await, 200);
}
