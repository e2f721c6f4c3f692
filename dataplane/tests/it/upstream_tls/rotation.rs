//! Certificates that change under running traffic: overlap costs nothing, a gap lets nothing through.

use dataplane_testkit::backend::{Kind, Secured};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, eventually};
use ir::Snapshot;
use ir::cluster::ClusterProtocol;

use super::{CLUSTER, LISTENER, NAME, policy, secured, snapshot};
use crate::support::{Gateway, at};
use crate::update::Load;

/// A gateway that trusts these authorities and shows that client certificate.
fn serving(
    version: &str,
    port: u16,
    backend: &Backend,
    authorities: &[&Authority],
    client: Option<&dataplane_testkit::certificate::Identity>,
) -> Snapshot {
    let pems: Vec<_> = authorities.iter().map(|it| it.pem()).collect();
    let endpoints = [backend.address()];
    let cluster = secured(
        CLUSTER,
        ClusterProtocol::Https,
        &endpoints,
        policy(NAME, &pems),
    );
    let mut snapshot = snapshot(version, port, cluster);
    if let Some(client) = client {
        snapshot.secrets.insert(client.secret("infra/client"));
        let mut listener = (**snapshot.listeners.get(LISTENER).unwrap()).clone();
        listener.backend_client_certificate = Some("infra/client".into());
        snapshot.listeners.insert(listener);
    }
    snapshot
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_replaced_under_load_without_loss() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    for kind in [Kind::Http1, Kind::Http2] {
        let alpn = if matches!(kind, Kind::Http2) {
            "h2"
        } else {
            "http/1.1"
        };
        let tls = Secured::new(&old.server(&[NAME])).alpn(&[alpn]);
        let backend = Backend::start_secured("b", kind, &tls).await;
        let port = free_port();
        let gateway = Gateway::serving(&serving("v1", port, &backend, &[&old], None)).await;
        let load = Load::start(port);
        load.passes(100).await;
        gateway
            .apply(&serving("v2", port, &backend, &[&old, &new], None))
            .await;
        load.passes(100).await;
        tls.show(&new.server(&[NAME]));
        load.passes(100).await;
        gateway
            .apply(&serving("v3", port, &backend, &[&new], None))
            .await;
        load.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_replaced_under_load_without_loss() {
    let server = Authority::new("server");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (first, second) = (old.client("gateway"), new.client("gateway"));
    for kind in [Kind::Http1, Kind::Http2] {
        let alpn = if matches!(kind, Kind::Http2) {
            "h2"
        } else {
            "http/1.1"
        };
        let tls = Secured::new(&server.server(&[NAME])).alpn(&[alpn]);
        let tls = tls.requiring(&[&old]);
        let backend = Backend::start_secured("b", kind, &tls).await;
        let port = free_port();
        let with = |version, client| serving(version, port, &backend, &[&server], Some(client));
        let gateway = Gateway::serving(&with("v1", &first)).await;
        let load = Load::start(port);
        load.passes(100).await;
        tls.trust(&[&old, &new]);
        gateway.apply(&with("v2", &second)).await;
        tls.trust(&[&new]);
        load.passes(100).await;
        load.end().await;
        let shown = eventually("a handshake", || backend.handshakes().pop()).await;
        assert_eq!(shown.client, Some(second.leaf.clone()));
    }
}

#[tokio::test]
async fn an_authority_that_is_taken_away_stops_also_what_is_connected() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    for kind in [Kind::Http1, Kind::Http2] {
        let alpn = if matches!(kind, Kind::Http2) {
            "h2"
        } else {
            "http/1.1"
        };
        let tls = Secured::new(&old.server(&[NAME])).alpn(&[alpn]);
        let backend = Backend::start_secured("b", kind, &tls).await;
        let port = free_port();
        let gateway = Gateway::serving(&serving("v1", port, &backend, &[&old], None)).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
        gateway
            .apply(&serving("v2", port, &backend, &[&new], None))
            .await;
        // The connection is still there and open, and was made by the old rule.
        assert_eq!(client.get("x", "/").await.unwrap().status, 502);
        assert_eq!(backend.requests(), 1);
        gateway
            .apply(&serving("v3", port, &backend, &[&old, &new], None))
            .await;
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn what_does_not_concern_a_policy_leaves_its_connections_alone() {
    let ours = Authority::new("ours");
    let tls = Secured::new(&ours.server(&[NAME])).alpn(&["http/1.1"]);
    let backend = Backend::start_secured("b", Kind::Http1, &tls).await;
    let port = free_port();
    let one_worker = |bootstrap: &mut dataplane::bootstrap::Bootstrap| bootstrap.workers = 1;
    let first = serving("v1", port, &backend, &[&ours], None);
    let gateway = Gateway::with(&first, one_worker).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    assert_eq!(client.get("x", "/").await.unwrap().status, 200);
    for version in ["v2", "v3"] {
        let mut next = serving(version, port, &backend, &[&ours], None);
        next.secrets
            .insert(ours.server(&[version]).secret("infra/other"));
        gateway.apply(&next).await;
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
    }
    assert_eq!(backend.connections(), 1);
}
