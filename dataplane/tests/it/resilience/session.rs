//! Clients come back to their endpoint, on every replica, until it is gone or their time is up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dataplane::session_secret::{self, SecretFile};
use dataplane_config::Overlap;
use dataplane_testkit::backend::{Kind, Script};
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::{cluster, free_port};
use dataplane_testkit::{Backend, SnapshotBuilder, eventually, within};
use http::{Request, header};
use ir::SecretText;
use ir::backend_policy::BackendPolicy;
use ir::cluster::{Balancing, ClusterProtocol};
use ir::policy::{SessionCarrier, SessionPersistence};

use super::{Case, ejecting};
use crate::support::{Gateway, at, http_route};

const BACKENDS: usize = 4;

fn persistence(carrier: SessionCarrier) -> SessionPersistence {
    SessionPersistence {
        session_name: Some("sid".to_owned()),
        absolute_timeout: None,
        idle_timeout: None,
        carrier,
    }
}

async fn backends() -> Vec<Backend> {
    let mut all = Vec::new();
    for name in ["a", "b", "c", "d"].into_iter().take(BACKENDS) {
        all.push(Backend::http1(name).await);
    }
    all
}

/// A case whose rule keeps clients, over endpoints taken at random.
fn case(backends: &[Backend], session: &SessionPersistence) -> Case {
    let endpoints: Vec<_> = backends.iter().map(Backend::address).collect();
    let mut case = Case::new(&endpoints, BackendPolicy::default());
    case.cluster.balancing = Balancing::Random;
    case.route.rules[0].session_persistence = Some(Arc::new(session.clone()));
    case
}

/// A client that keeps one cookie and one header field, as browsers and agents do.
#[derive(Default)]
struct Client {
    cookie: Option<String>,
    header: Option<String>,
    /// Attributes of the last cookie.
    attributes: String,
}

impl Client {
    async fn get(&mut self, port: u16, path: &str) -> Response {
        let mut request = Request::get(path).header(header::HOST, "x");
        if let Some(cookie) = &self.cookie {
            let other = "theme=dark; ";
            request = request.header(header::COOKIE, format!("{other}sid={cookie}"));
        }
        if let Some(value) = &self.header {
            request = request.header("sid", value);
        }
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let response = client
            .send(request.body(Bytes::new()).unwrap())
            .await
            .unwrap();
        if let Some(text) = response.headers.get(header::SET_COOKIE) {
            let text = text.to_str().unwrap().strip_prefix("sid=").unwrap();
            let (value, attributes) = text.split_once("; ").unwrap();
            self.cookie = Some(value.to_owned());
            self.attributes = attributes.to_owned();
        }
        if let Some(value) = response.headers.get("sid") {
            self.header = Some(value.to_str().unwrap().to_owned());
        }
        response
    }

    /// Which backend answers.
    async fn served_by(&mut self, port: u16) -> String {
        let response = self.get(port, "/").await;
        assert_eq!(response.status, 200);
        name_of(&response)
    }
}

fn name_of(response: &Response) -> String {
    response.json()["backend"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_client_comes_back_to_its_endpoint_and_is_told_once() {
    for carrier in [
        SessionCarrier::SessionCookie,
        SessionCarrier::PermanentCookie,
        SessionCarrier::Header,
    ] {
        let backends = backends().await;
        let session = SessionPersistence {
            absolute_timeout: Some(Duration::from_secs(3600)),
            ..persistence(carrier)
        };
        let case = case(&backends, &session);
        let gateway = case.serve().await;
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            let mut client = Client::default();
            let first = client.served_by(case.port).await;
            let expected = match carrier {
                SessionCarrier::SessionCookie => "Path=/; HttpOnly; SameSite=Lax",
                SessionCarrier::PermanentCookie => "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600",
                SessionCarrier::Header => "",
            };
            assert_eq!(client.attributes, expected);
            for _ in 0..5 {
                let response = client.get(case.port, "/").await;
                assert_eq!(name_of(&response), first);
                assert!(!response.headers.contains_key(header::SET_COOKIE));
                assert!(!response.headers.contains_key("sid"));
            }
            seen.insert(first);
        }
        assert!(seen.len() > BACKENDS / 2, "clients are spread: {carrier:?}");
        let count = |outcome: &str| {
            let name = format!("session_persistence_sessions_total{{outcome=\"{outcome}\"}}");
            gateway.metric(&name, &[])
        };
        assert_eq!((count("began"), count("kept")), (20, 100));
        assert_eq!(
            gateway.metric("session_persistence_route_rule_count", &[]),
            1
        );
        assert_eq!(
            gateway.metric("session_persistence_ephemeral_secret", &[]),
            1
        );
    }
}

#[tokio::test]
async fn replicas_with_one_secret_know_each_others_sessions() {
    let backends = backends().await;
    let session = persistence(SessionCarrier::SessionCookie);
    let cases = [(); 3].map(|()| case(&backends, &session));
    let secrets = [
        "one secret for both",
        "one secret for both",
        "a secret of its own",
    ];
    let mut gateways = Vec::new();
    for (case, secret) in cases.iter().zip(secrets) {
        let snapshot = case.snapshot("v1");
        let started = Gateway::with(&snapshot, |bootstrap| {
            bootstrap.session_secret = Some(SecretText::new(secret.to_owned()));
        });
        gateways.push(started.await);
    }
    let mut elsewhere = 0;
    for _ in 0..20 {
        let mut client = Client::default();
        let first = client.served_by(cases[0].port).await;
        assert_eq!(client.served_by(cases[1].port).await, first);
        elsewhere += usize::from(client.served_by(cases[2].port).await != first);
    }
    assert!(elsewhere > 0, "another secret opens nothing");
    let refused = "session_persistence_sessions_total{outcome=\"refused\"}";
    assert_eq!(gateways[2].metric(refused, &[]), 20);
    assert_eq!(gateways[1].metric(refused, &[]), 0);
    assert_eq!(
        gateways[0].metric("session_persistence_ephemeral_secret", &[]),
        0
    );
}

#[tokio::test]
async fn when_its_endpoint_is_gone_a_client_gets_another_and_stays_there() {
    let mut backends = backends().await;
    let session = persistence(SessionCarrier::SessionCookie);
    let first_case = case(&backends, &session);
    let gateway = first_case.serve().await;
    let mut client = Client::default();
    let first = client.served_by(first_case.port).await;
    backends.retain(|backend| backend.name() != first);
    let mut fewer = case(&backends, &session);
    fewer.port = first_case.port;
    gateway.apply(&fewer.snapshot("v2")).await;
    let held = client.cookie.clone();
    let second = client.served_by(fewer.port).await;
    assert_ne!(second, first);
    assert_ne!(client.cookie, held, "it was told");
    for _ in 0..5 {
        assert_eq!(client.served_by(fewer.port).await, second);
    }
    let moved = "session_persistence_sessions_total{outcome=\"moved\"}";
    assert_eq!(gateway.metric(moved, &[]), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_left_out_keeps_no_session() {
    let failing = Script::answer("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n");
    let bad = Backend::start("bad", Kind::Scripted(failing)).await;
    let good = [Backend::http1("a").await, Backend::http1("b").await];
    let endpoints = [bad.address(), good[0].address(), good[1].address()];
    let mut case = Case::new(&endpoints, ejecting(3));
    case.cluster.session_persistence = Some(Arc::new(persistence(SessionCarrier::SessionCookie)));
    let _gateway = case.serve().await;
    let mut client = Client::default();
    while client.get(case.port, "/").await.status != 503 {
        client = Client::default();
    }
    for _ in 0..2 {
        assert_eq!(client.get(case.port, "/").await.status, 503, "it is kept");
    }
    // An answer counts once it is through, which may be after the client has it.
    let elsewhere = async { while client.get(case.port, "/").await.status == 503 {} };
    within("the endpoint is left out", elsewhere).await;
    let second = client.served_by(case.port).await;
    for _ in 0..5 {
        assert_eq!(client.served_by(case.port).await, second);
    }
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_up() {
    let backends = backends().await;
    let session = SessionPersistence {
        absolute_timeout: Some(Duration::from_millis(600)),
        ..persistence(SessionCarrier::Header)
    };
    let case = case(&backends, &session);
    let gateway = case.serve().await;
    let mut client = Client::default();
    client.served_by(case.port).await;
    let held = client.header.clone();
    let ended = async {
        while client.header == held {
            client.served_by(case.port).await;
        }
    };
    within("the session ends", ended).await;
    let began = "session_persistence_sessions_total{outcome=\"began\"}";
    assert_eq!(gateway.metric(began, &[]), 2);
}

#[tokio::test]
async fn a_session_of_a_rule_stays_with_its_backend_and_not_with_one_of_weight_0() {
    let (blue, green) = (Backend::http1("blue").await, Backend::http1("green").await);
    let port = free_port();
    let snapshot = |version: &str, weights: [u32; 2]| {
        let keys = [("shop/blue:80", weights[0]), ("shop/green:80", weights[1])];
        let mut route = http_route("shop/r", "", "/", &keys);
        route.rules[0].session_persistence =
            Some(Arc::new(persistence(SessionCarrier::SessionCookie)));
        SnapshotBuilder::new(version)
            .http_listener("infra/gw/http", port)
            .http_route(route)
            .add_cluster(cluster(
                "shop/blue:80",
                ClusterProtocol::Http,
                &[blue.address()],
            ))
            .add_cluster(cluster(
                "shop/green:80",
                ClusterProtocol::Http,
                &[green.address()],
            ))
            .build()
    };
    let gateway = Gateway::serving(&snapshot("v1", [1, 1])).await;
    let mut client = Client::default();
    while client.served_by(port).await != "green" {
        client = Client::default();
    }
    gateway.apply(&snapshot("v2", [99, 1])).await;
    for _ in 0..10 {
        assert_eq!(
            client.served_by(port).await,
            "green",
            "whatever the weights"
        );
    }
    gateway.apply(&snapshot("v3", [1, 0])).await;
    assert_eq!(client.served_by(port).await, "blue");
}

#[tokio::test]
async fn calls_over_http2_keep_their_endpoint_too() {
    let mut endpoints = Vec::new();
    for name in ["a", "b", "c"] {
        endpoints.push(Backend::start(name, Kind::Http2).await);
    }
    let session = persistence(SessionCarrier::Header);
    let mut case = case(&endpoints, &session);
    case.cluster.protocol = ClusterProtocol::H2c;
    let _gateway = case.serve().await;
    let client = Http2Client::connect(at(case.port)).await.unwrap();
    let first = client.get("x", "/").await.unwrap();
    let value = first.header("sid").to_owned();
    for _ in 0..10 {
        let request = Request::get("http://x/").header("sid", &value);
        let again = client.send(request.body(Bytes::new()).unwrap()).await;
        let again = again.unwrap();
        assert_eq!(name_of(&again), name_of(&first));
        assert_eq!(again.header("sid"), "");
    }
}

#[tokio::test]
async fn nonsense_in_place_of_a_session_is_balanced_and_gets_one() {
    let backends = backends().await;
    let case = case(&backends, &persistence(SessionCarrier::SessionCookie));
    let _gateway = case.serve().await;
    for nonsense in ["", "x", "%00", "AAAA", &"A".repeat(3000), "10.0.0.1:80"] {
        let mut client = Client {
            cookie: Some(nonsense.to_owned()),
            ..Client::default()
        };
        client.served_by(case.port).await;
        assert_ne!(client.cookie.as_deref(), Some(nonsense));
    }
}

#[tokio::test]
async fn a_new_secret_is_taken_while_running_and_no_session_ends() {
    let backends = backends().await;
    let session = persistence(SessionCarrier::SessionCookie);
    let cases = [(); 2].map(|()| case(&backends, &session));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let says = |secret: &str| std::fs::write(&path, format!("{secret}\n")).unwrap();
    says("the first secret");
    let file = SecretFile {
        path: path.clone(),
        interval: Duration::from_millis(10),
        overlap: Overlap {
            seals_after: Duration::from_millis(50),
            former_opens_for: Duration::from_secs(600),
        },
    };
    let first = Gateway::with(&cases[0].snapshot("v1"), |bootstrap| {
        bootstrap.session_secret = Some(session_secret::read(&path).unwrap());
        bootstrap.session_secret_file = Some(file);
    })
    .await;
    let second = Gateway::with(&cases[1].snapshot("v1"), |bootstrap| {
        bootstrap.session_secret = Some(SecretText::new("the second secret".to_owned()));
    })
    .await;
    let mut clients: Vec<(Client, String)> = Vec::new();
    for _ in 0..10 {
        let mut client = Client::default();
        let name = client.served_by(cases[0].port).await;
        clients.push((client, name));
    }
    // What cannot be used changes nothing.
    says("short");
    let unusable = || first.metric("session_persistence_secret_file_unusable", &[]);
    eventually("the file was looked at", || (unusable() == 1).then_some(())).await;
    says("the second secret");
    let taken = || first.metric("session_persistence_secrets_taken_total", &[]);
    eventually("the secret was taken", || (taken() == 1).then_some(())).await;
    assert_eq!(unusable(), 0);
    for (client, name) in &mut clients {
        let held = client.cookie.clone();
        assert_eq!(client.served_by(cases[0].port).await, *name, "it is kept");
        assert_ne!(client.cookie, held, "it was told again");
        let told = client.cookie.clone();
        assert_eq!(client.served_by(cases[1].port).await, *name, "so elsewhere");
        assert_eq!(client.cookie, told);
    }
    let refused = "session_persistence_sessions_total{outcome=\"refused\"}";
    assert_eq!(
        (first.metric(refused, &[]), second.metric(refused, &[])),
        (0, 0)
    );
}
