//! TLS towards backends, by real handshakes: who is reached, and what the other side sees of us.
//!
//! Every backend remembers its handshakes, so a claim about a name, a certificate or a protocol is
//! what the backend saw. A backend that is not to be trusted must never see a request.

use std::net::SocketAddr;
use std::sync::Arc;

use dataplane_testkit::backend::{Handshake, Kind, Secured};
use dataplane_testkit::certificate::{Authority, Identity};
use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::{cluster, free_port};
use dataplane_testkit::{Backend, SnapshotBuilder, eventually};
use ir::cluster::{BackendTls, ClusterProtocol, SubjectAltName};
use ir::listener::TlsVersion;
use ir::{Hostname, Snapshot};

use crate::support::{Gateway, at};

mod hostile;
mod identity;
mod protocol;
mod rotation;

const LISTENER: &str = "infra/gw/http";
const CLUSTER: &str = "shop/b:443";
const NAME: &str = "b.example";

/// A policy that trusts these PEM texts and asks for `name`.
fn policy(name: &str, ca_pems: &[&str]) -> BackendTls {
    BackendTls {
        hostname: Hostname::new(name).unwrap(),
        use_system_ca_certificates: false,
        ca_pems: ca_pems.iter().map(|&pem| pem.to_owned()).collect(),
        subject_alt_names: Vec::new(),
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
    }
}

/// A policy that trusts `authority` for [`NAME`].
fn trusting(authority: &Authority) -> BackendTls {
    policy(NAME, &[authority.pem()])
}

/// A cluster that is reached over TLS.
fn secured(
    key: &str,
    protocol: ClusterProtocol,
    endpoints: &[SocketAddr],
    policy: BackendTls,
) -> ir::Cluster {
    let mut cluster = cluster(key, protocol, endpoints);
    cluster.tls = Some(Arc::new(policy));
    cluster
}

/// One listener, one route, one cluster.
fn snapshot(version: &str, port: u16, cluster: ir::Cluster) -> Snapshot {
    SnapshotBuilder::new(version)
        .http_listener(LISTENER, port)
        .route("shop/r", "", "/", &cluster.key.clone())
        .add_cluster(cluster)
        .build()
}

/// An HTTP/1.1 backend that shows `identity`.
async fn backend(identity: &Identity) -> Backend {
    let tls = Secured::new(identity).alpn(&["http/1.1"]);
    Backend::start_secured("b", Kind::Http1, &tls).await
}

/// The only handshake so far.
async fn handshake(backend: &Backend) -> Handshake {
    eventually("a handshake", || backend.handshakes().pop()).await
}

/// How often connections to [`CLUSTER`] failed for `reason`.
fn failures(gateway: &Gateway, reason: &str) -> u64 {
    let labels = [
        &*format!("backend=\"{CLUSTER}\""),
        &format!("reason=\"{reason}\""),
    ];
    gateway.metric("backend_connection_errors_total", &labels)
}

fn names(list: &[&str]) -> Vec<SubjectAltName> {
    let name = |text: &&str| match text.contains("://") {
        true => SubjectAltName::Uri((*text).to_owned()),
        false => SubjectAltName::Hostname(Hostname::new(text).unwrap()),
    };
    list.iter().map(name).collect()
}

/// Asks once; says whether the backend was reached, and holds it to what that means.
async fn is_reached(what: &str, identity: &Identity, policy: BackendTls) -> bool {
    let backend = backend(identity).await;
    let port = free_port();
    let name = policy.hostname.to_string();
    let endpoints = [backend.address()];
    let cluster = secured(CLUSTER, ClusterProtocol::Https, &endpoints, policy);
    let gateway = Gateway::serving(&snapshot("v1", port, cluster)).await;
    let response = http1::get(at(port), "any.example", "/").await.unwrap();
    let is_reached = response.status == 200;
    if is_reached {
        assert_eq!(backend.requests(), 1, "{what}");
        let seen = handshake(&backend).await;
        assert_eq!(seen.server_name, Some(name), "{what}");
        assert!(seen.is_tls13, "{what}");
        assert_eq!(seen.client, None, "{what}: nobody asked for one");
    } else {
        assert_eq!(response.status, 502, "{what}");
        assert_eq!(backend.requests(), 0, "{what}: it must not see a request");
        assert!(failures(&gateway, "upstream_certificate") > 0, "{what}");
        let text = response.text();
        assert!(
            !text.contains("example"),
            "{what}: it says too much: {text}"
        );
    }
    is_reached
}

#[tokio::test]
async fn authority_name_and_dates_decide_who_is_reached() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let past = Authority::expired("past");
    let both = format!("{}{}", other.pem(), ours.pem());
    let with_past = format!("{}{}", past.pem(), ours.pem());
    let good = ours.server(&[NAME]);
    let trust = |pem: &str| policy(NAME, &[pem]);
    let rows = [
        ("right", &good, trust(ours.pem()), true),
        ("another authority", &good, trust(other.pem()), false),
        ("one bundle of two", &good, trust(&both), true),
        (
            "two bundles",
            &good,
            policy(NAME, &[other.pem(), ours.pem()]),
            true,
        ),
        (
            "another name",
            &ours.server(&["c.example"]),
            trust(ours.pem()),
            false,
        ),
        (
            "a name below",
            &ours.server(&["a.b.example"]),
            trust(ours.pem()),
            false,
        ),
        (
            "one of two names",
            &ours.server(&["c.example", NAME]),
            trust(ours.pem()),
            true,
        ),
        (
            "a wildcard",
            &ours.server(&["*.shop.example"]),
            policy("b.shop.example", &[ours.pem()]),
            true,
        ),
        (
            "a wildcard of two labels",
            &ours.server(&["*.shop.example"]),
            policy("a.b.shop.example", &[ours.pem()]),
            false,
        ),
        (
            "a wildcard for a whole top level",
            &ours.server(&["*.example"]),
            trust(ours.pem()),
            false,
        ),
        (
            "a wildcard below the name",
            &ours.server(&["*.b.example"]),
            trust(ours.pem()),
            false,
        ),
        (
            "an address",
            &ours.server(&["127.0.0.1"]),
            trust(ours.pem()),
            false,
        ),
        (
            "expired",
            &ours.expired_server(&[NAME]),
            trust(ours.pem()),
            false,
        ),
        (
            "a client's certificate",
            &ours.client(NAME),
            trust(ours.pem()),
            false,
        ),
        (
            "an expired authority",
            &past.server(&[NAME]),
            trust(past.pem()),
            false,
        ),
        ("beside an expired one", &good, trust(&with_past), true),
    ];
    for (what, identity, policy, expected) in rows {
        assert_eq!(is_reached(what, identity, policy).await, expected, "{what}");
    }
}

#[tokio::test]
async fn with_alternative_names_any_one_of_them_must_be_there_and_the_host_name_is_sni_only() {
    let ours = Authority::new("ours");
    let spiffe = "spiffe://cluster.example/ns/shop/sa/b";
    let by_uri = ours.server_with_uris(&[], &[spiffe]);
    let by_both = ours.server_with_uris(&["pod.example"], &[spiffe]);
    let by_name = ours.server(&[NAME]);
    let wild = ours.server(&["*.pods.example"]);
    let pod = ours.server(&["a.pods.example"]);
    let deep = ours.server(&["a.b.pods.example"]);
    let rows: [(&str, &Identity, &[&str], bool); 12] = [
        ("a name", &by_both, &["pod.example"], true),
        ("in other case", &by_both, &["POD.example"], true),
        (
            "the host name does not count",
            &by_name,
            &["pod.example"],
            false,
        ),
        (
            "unless it is listed",
            &by_name,
            &["pod.example", NAME],
            true,
        ),
        ("a URI", &by_uri, &[spiffe], true),
        (
            "another URI",
            &by_uri,
            &["spiffe://cluster.example/ns/shop/sa/c"],
            false,
        ),
        (
            "a URI is compared whole",
            &by_uri,
            &["spiffe://cluster.example/ns/shop"],
            false,
        ),
        ("either", &by_uri, &["pod.example", spiffe], true),
        ("a URI is no name", &by_uri, &["cluster.example"], false),
        (
            "a wildcard that is expected",
            &pod,
            &["*.pods.example"],
            true,
        ),
        ("is one label", &deep, &["*.pods.example"], false),
        ("a wildcard that is shown", &wild, &["a.pods.example"], true),
    ];
    for (what, identity, expected, is_meant) in rows {
        let mut policy = trusting(&ours);
        policy.subject_alt_names = names(expected);
        let found = is_reached(what, identity, policy).await;
        assert_eq!(found, is_meant, "{what}");
    }
    // A good name does not make up for a bad chain.
    let mut policy = trusting(&Authority::new("other"));
    policy.subject_alt_names = names(&["pod.example", spiffe]);
    assert!(!is_reached("a name without a chain", &by_both, policy).await);
}

#[tokio::test]
async fn versions_are_bounded_by_the_policy() {
    let ours = Authority::new("ours");
    for (version, is_tls13) in [(TlsVersion::V1_2, false), (TlsVersion::V1_3, true)] {
        let backend = backend(&ours.server(&[NAME])).await;
        let mut policy = trusting(&ours);
        (policy.min_version, policy.max_version) = (version, version);
        let endpoints = [backend.address()];
        let cluster = secured(CLUSTER, ClusterProtocol::Https, &endpoints, policy);
        let port = free_port();
        let _gateway = Gateway::serving(&snapshot("v1", port, cluster)).await;
        assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
        assert_eq!(handshake(&backend).await.is_tls13, is_tls13);
    }
}

#[tokio::test]
async fn a_cluster_that_speaks_tls_without_a_policy_is_never_reached_in_plain_text() {
    for protocol in [ClusterProtocol::Https, ClusterProtocol::Grpcs] {
        let backend = Backend::http1("b").await;
        let port = free_port();
        let cluster = cluster(CLUSTER, protocol.clone(), &[backend.address()]);
        let _gateway = Gateway::serving(&snapshot("v1", port, cluster)).await;
        let response = http1::get(at(port), "x", "/").await.unwrap();
        assert_eq!(response.status, 500, "{protocol:?}");
        assert_eq!(backend.connections(), 0, "{protocol:?}");
    }
}
