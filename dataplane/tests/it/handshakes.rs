//! Listeners that end TLS: which host belongs to which handshake, who comes in, which sessions are
//! resumed, and what a change costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dataplane::bootstrap::Bootstrap;
use dataplane_telemetry::access_log::Sink;
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::grpc;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::{TlsClient, agreed};
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, SnapshotBuilder};
use ir::Snapshot;
use ir::listener::{ClientValidation, ClientValidationMode};

use crate::support::{Gateway, at};

mod changed;
mod refused;
mod stop;

const NAMES: &[&str] = &["example.org", "second.org", "unknown.org", "*.wildcard.org"];

/// One certificate for all of [`NAMES`], and listeners with these host names on one port.
fn coalescing(port: u16, authority: &Authority, listeners: &[(&str, &[&str])]) -> SnapshotBuilder {
    let mut builder =
        SnapshotBuilder::new("v1").certificate("infra/cert", &authority.server(NAMES));
    for (name, hosts) in listeners {
        builder = builder.https_listener(&format!("infra/gw/{name}"), port, hosts, &["infra/cert"]);
    }
    builder
}

/// Asks over one connection for one host after the other.
async fn statuses(stream_of: &TlsClient, port: u16, sni: &str, hosts: &[&str]) -> Vec<u16> {
    let stream = stream_of.connect(at(port), sni).await.unwrap();
    let mut found = Vec::new();
    if agreed(&stream).alpn.as_deref() == Some("h2") {
        let client = Http2Client::over(stream).await.unwrap();
        for host in hosts {
            found.push(client.get(host, "/").await.unwrap().status.as_u16());
        }
        assert!(client.is_open().await, "{sni}");
    } else {
        let mut client = Http1Client::over(stream);
        for host in hosts {
            found.push(client.get(host, "/").await.unwrap().status.as_u16());
        }
    }
    found
}

#[tokio::test]
async fn a_request_for_another_listener_is_misdirected_and_its_connection_goes_on() {
    let backend = Backend::http1("b").await;
    let authority = Authority::new("test");
    let port = free_port();
    let all = coalescing(
        port,
        &authority,
        &[
            ("any", &[]),
            ("second", &["second.org"]),
            ("wild", &["*.wildcard.org"]),
            ("fourth", &["fourth.wildcard.org"]),
        ],
    );
    let mut route = dataplane_testkit::snapshot::http_route(
        "shop/any",
        "example.org",
        "/",
        &[("shop/b:80", 1)],
    );
    route.listeners = vec!["infra/gw/any".into()];
    let mut rest =
        dataplane_testkit::snapshot::http_route("shop/rest", "", "/", &[("shop/b:80", 1)]);
    rest.listeners = ["second", "wild", "fourth"]
        .map(|name| format!("infra/gw/{name}").into())
        .into();
    let snapshot = all
        .http_route(route)
        .http_route(rest)
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    // Each row is one connection.
    for (sni, rows) in [
        (
            "example.org",
            &[
                ("example.org", 200),
                ("second.org", 421),
                ("unknown.org", 404),
                ("example.org", 200),
            ][..],
        ),
        (
            "second.org",
            &[
                ("second.org", 200),
                ("example.org", 421),
                ("unknown.org", 421),
                ("second.org", 200),
            ],
        ),
        (
            "third.wildcard.org",
            &[
                ("third.wildcard.org", 200),
                ("fifth.wildcard.org", 200),
                ("fourth.wildcard.org", 421),
                ("second.org", 421),
                ("unknown.org", 421),
                ("third.wildcard.org", 200),
            ],
        ),
        (
            "fourth.wildcard.org",
            &[("fifth.wildcard.org", 421), ("fourth.wildcard.org", 200)],
        ),
        (
            "unknown.org",
            &[
                ("example.org", 200),
                ("unknown.org", 404),
                ("example.org", 200),
            ],
        ),
    ] {
        for alpn in ["h2", "http/1.1"] {
            let tls = TlsClient::trusting(&authority).alpn(&[alpn]);
            let hosts: Vec<_> = rows.iter().map(|(host, _)| *host).collect();
            let expected: Vec<_> = rows.iter().map(|(_, status)| *status).collect();
            let found = statuses(&tls, port, sni, &hosts).await;
            assert_eq!(found, expected, "{alpn} {sni}");
        }
    }
}

#[tokio::test]
async fn a_host_of_no_listener_is_not_found() {
    let backend = Backend::http1("b").await;
    let authority = Authority::new("test");
    let port = free_port();
    let listeners: &[(&str, &[&str])] = &[("one", &["example.org"]), ("two", &["second.org"])];
    let snapshot = coalescing(port, &authority, listeners)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let tls = TlsClient::trusting(&authority).alpn(&["h2"]);
    let hosts = ["unknown.org", "second.org", "example.org"];
    assert_eq!(
        statuses(&tls, port, "example.org", &hosts).await,
        [404, 421, 200]
    );
}

#[tokio::test]
async fn http_and_grpc_routes_share_a_listener() {
    let web = Backend::http1("web").await;
    let calls = Backend::start("calls", dataplane_testkit::backend::Kind::Grpc).await;
    let authority = Authority::new("test");
    let port = free_port();
    let snapshot = coalescing(port, &authority, &[("any", &["example.org"])])
        .route("shop/web", "", "/", "shop/web:80")
        .grpc("shop/calls", "", "it.Echo", "shop/calls:90")
        .cluster("shop/web:80", &[web.address()])
        .h2c_cluster("shop/calls:90", &[calls.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let tls = TlsClient::trusting(&authority).alpn(&["h2"]);
    let stream = tls.connect(at(port), "example.org").await.unwrap();
    let client = Http2Client::over(stream).await.unwrap();
    for _ in 0..3 {
        let reply = grpc::unary(&client, "example.org", "/it.Echo/Say", &[], b"hello").await;
        assert_eq!(reply.unwrap().status, Some(0));
        let page = client.get("example.org", "/it.Echo.html").await.unwrap();
        assert_eq!(page.json()["backend"], "web");
    }
}

/// A listener `name` that asks for certificates of `clients`.
fn asking(snapshot: &mut Snapshot, name: &str, clients: &Authority, mode: ClientValidationMode) {
    let mut listener = (**snapshot.listeners.get(name).unwrap()).clone();
    listener.tls.as_mut().unwrap().client_validation = Some(ClientValidation {
        ca_pems: vec![clients.pem().to_owned()],
        mode,
    });
    listener.settings.client_certificate_field = Some(true);
    snapshot.listeners.insert(listener);
}

/// What comes of one request over a new connection: the status and whether the session was resumed.
async fn try_once(tls: &TlsClient, port: u16, name: &str) -> Option<(u16, bool)> {
    let stream = tls.connect(at(port), name).await.ok()?;
    let is_resumed = agreed(&stream).is_resumed;
    let response = Http1Client::over(stream).get(name, "/").await.ok()?;
    Some((response.status.as_u16(), is_resumed))
}

#[tokio::test]
async fn sessions_cross_neither_listeners_nor_ports_nor_a_change_of_authority() {
    use ClientValidationMode::{AllowInsecureFallback, AllowValidOnly};
    let backend = Backend::http1("b").await;
    let (authority, clients) = (Authority::new("test"), Authority::new("clients"));
    let (port, other_port) = (free_port(), free_port());
    let listeners: &[(&str, &[&str])] = &[("open", &["example.org"]), ("closed", &["second.org"])];
    let snapshot = coalescing(port, &authority, listeners)
        .https_listener(
            "infra/gw/port",
            other_port,
            &["example.org"],
            &["infra/cert"],
        )
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .with(|snapshot| {
            asking(snapshot, "infra/gw/closed", &clients, AllowValidOnly);
            asking(snapshot, "infra/gw/port", &clients, AllowValidOnly);
        })
        .build();
    let gateway = Gateway::serving(&snapshot).await;
    let anonymous = TlsClient::trusting(&authority);
    for client in [anonymous.clone().tls12_only(), anonymous.tls13_only()] {
        // An anonymous session, which its own listener resumes and no other.
        let client = client.resuming_anywhere();
        assert_eq!(
            try_once(&client, port, "example.org").await,
            Some((200, false))
        );
        assert_eq!(
            try_once(&client, port, "example.org").await,
            Some((200, true))
        );
        for (elsewhere, name) in [(port, "second.org"), (other_port, "example.org")] {
            // A session that was just made is offered there.
            assert!(try_once(&client, port, "example.org").await.is_some());
            assert_eq!(try_once(&client, elsewhere, name).await, None, "{name}");
        }
    }
    let known = TlsClient::trusting(&authority).identity(&clients.client("known"));
    let version = |version: &str, snapshot: &Snapshot| SnapshotBuilder::from(snapshot, version);
    let mut current = snapshot;
    for (round, client) in [known.clone().tls12_only(), known.tls13_only()]
        .into_iter()
        .enumerate()
    {
        assert_eq!(
            try_once(&client, port, "second.org").await,
            Some((200, false))
        );
        assert_eq!(
            try_once(&client, port, "second.org").await,
            Some((200, true))
        );
        // Another listener changes: sessions of this one live on.
        let next = version(&format!("other{round}"), &current)
            .with(|snapshot| asking(snapshot, "infra/gw/port", &clients, AllowInsecureFallback))
            .build();
        gateway.apply(&next).await;
        assert_eq!(
            try_once(&client, port, "second.org").await,
            Some((200, true))
        );
        // One authority more, which ours is still among: a full handshake, with the certificate.
        let strangers = Authority::new("strangers");
        let more = version(&format!("more{round}"), &next)
            .with(|snapshot| {
                let mut listener = (**snapshot.listeners.get("infra/gw/closed").unwrap()).clone();
                let validation = listener.tls.as_mut().unwrap().client_validation.as_mut();
                validation.unwrap().ca_pems.push(strangers.pem().to_owned());
                snapshot.listeners.insert(listener);
            })
            .build();
        gateway.apply(&more).await;
        assert_eq!(
            try_once(&client, port, "second.org").await,
            Some((200, false))
        );
        assert_eq!(
            try_once(&client, port, "second.org").await,
            Some((200, true))
        );
        // Ours is no longer among them: the session does not help.
        let others = version(&format!("others{round}"), &more)
            .with(|snapshot| asking(snapshot, "infra/gw/closed", &strangers, AllowValidOnly))
            .build();
        gateway.apply(&others).await;
        assert_eq!(try_once(&client, port, "second.org").await, None);
        // Trusted again, and known again only by a full handshake.
        current = version(&format!("again{round}"), &others)
            .with(|snapshot| asking(snapshot, "infra/gw/closed", &clients, AllowValidOnly))
            .build();
        gateway.apply(&current).await;
        assert_eq!(
            try_once(&client, port, "second.org").await,
            Some((200, false))
        );
    }
}

#[tokio::test]
async fn backends_and_the_log_are_told_verified_certificates_and_no_others() {
    use ClientValidationMode::AllowInsecureFallback;
    let backend = Backend::http1("b").await;
    let (authority, clients) = (Authority::new("test"), Authority::new("clients"));
    let port = free_port();
    let snapshot = coalescing(port, &authority, &[("any", &["example.org"])])
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .with(|it| asking(it, "infra/gw/any", &clients, AllowInsecureFallback))
        .build();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let gateway = Gateway::with(&snapshot, |bootstrap: &mut Bootstrap| {
        bootstrap.access_log = Some(dataplane_telemetry::access_log::Settings {
            sink: Sink::File(path.clone()),
            ..dataplane_telemetry::access_log::Settings::default()
        });
    })
    .await;
    let uri = "spiffe://shop.example/ns/a/sa/b";
    let known = clients.client_with("worker, seven", &[uri], &["w7.shop.example"]);
    let stranger = Authority::new("strangers").client("worker, seven");
    let anonymous = TlsClient::trusting(&authority);
    let lie = "GET / HTTP/1.1\r\nhost: example.org\r\nX-Forwarded-Client-Cert: Hash=00;URI=spiffe://root\r\n\r\n";
    let mut told = Vec::new();
    for client in [
        anonymous.clone().identity(&known),
        anonymous.clone().identity(&known).tls12_only(),
        anonymous.clone().identity(&stranger),
        anonymous,
    ] {
        let stream = client.connect(at(port), "example.org").await.unwrap();
        let mut client = Http1Client::over(stream);
        client.send_bytes(lie.as_bytes()).await.unwrap();
        let response = client.read_response(&http::Method::GET).await.unwrap();
        told.push(response.json()["headers"]["x-forwarded-client-cert"][0].clone());
    }
    let field = told[0].as_str().unwrap();
    let (hash, rest) = field.strip_prefix("Hash=").unwrap().split_at(64);
    let expected =
        ";Subject=\"CN=worker\\2C seven\";URI=spiffe://shop.example/ns/a/sa/b;DNS=w7.shop.example";
    assert_eq!(rest, expected);
    assert_eq!(told[1], *field);
    assert!(told[2].is_null() && told[3].is_null(), "{told:?}");
    assert!(gateway.stopped().await);
    let lines = dataplane_testkit::eventually("all lines are written", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<serde_json::Value> = lines.collect();
        (lines.len() == 4).then_some(lines)
    })
    .await;
    let known = lines
        .iter()
        .filter(|line| line["client_cert_sha256"] == hash);
    let known: Vec<_> = known.collect();
    assert_eq!(known.len(), 2);
    assert!(
        known
            .iter()
            .all(|line| line["client_cert_subject"] == "CN=worker\\2C seven"
                && line["client_cert_san"] == uri)
    );
    let unknown = lines
        .iter()
        .filter(|line| line["client_cert_sha256"].is_null());
    assert_eq!(unknown.count(), 2);
}

/// Clients of both protocols over TLS, half of which come anew for each request.
struct Load {
    stop: Arc<AtomicBool>,
    passed: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(port: u16, authority: &Authority) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let passed = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for (index, alpn) in ["h2", "http/1.1"].repeat(4).into_iter().enumerate() {
            let (stop, passed) = (stop.clone(), passed.clone());
            let tls = TlsClient::trusting(authority).alpn(&[alpn]);
            let keeps = index < 4;
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let stream = tls.connect(at(port), "example.org").await.unwrap();
                    if alpn == "h2" {
                        let client = Http2Client::over(stream).await.unwrap();
                        loop {
                            let response = client.get("example.org", "/").await.unwrap();
                            assert_eq!(response.status, 200);
                            passed.fetch_add(1, Ordering::Relaxed);
                            if !keeps || stop.load(Ordering::Relaxed) {
                                break;
                            }
                        }
                        continue;
                    }
                    let mut client = Http1Client::over(stream);
                    loop {
                        let response = client.get("example.org", "/").await.unwrap();
                        assert_eq!(response.status, 200);
                        passed.fetch_add(1, Ordering::Relaxed);
                        let ends = response.header("connection") == "close";
                        if ends || !keeps || stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                }
            }));
        }
        Self {
            stop,
            passed,
            tasks,
        }
    }

    async fn passes(&self, count: usize) {
        let goal = self.passed.load(Ordering::Relaxed) + count;
        dataplane_testkit::until(dataplane_testkit::DEADLINE, async || {
            self.passed.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    /// Ends it; a request that failed has panicked its client.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.passed.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_certificates_and_changing_listeners_cost_no_request() {
    let backend = Backend::http1("b").await;
    let authority = Authority::new("test");
    let (port, other_port) = (free_port(), free_port());
    let mut current = coalescing(port, &authority, &[("one", &["example.org"])])
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let gateway = Gateway::serving(&current).await;
    let load = Load::start(port, &authority);
    for round in 0..12 {
        load.passes(20).await;
        let next = SnapshotBuilder::from(&current, &format!("r{round}"))
            .certificate("infra/cert", &authority.server(NAMES))
            .with(|snapshot| {
                // A neighbour on the same port, and one with a socket of its own, come and go.
                let names = ["infra/gw/two", "infra/gw/three"];
                if round % 2 == 1 {
                    for name in names {
                        snapshot.listeners.remove(name);
                    }
                    return;
                }
                let one = snapshot.listeners.get("infra/gw/one").unwrap().clone();
                for (name, port, host) in [
                    (names[0], port, "second.org"),
                    (names[1], other_port, "example.org"),
                ] {
                    let mut listener = (*one).clone();
                    listener.name = name.into();
                    listener.port = port.try_into().unwrap();
                    listener.hostnames = vec![ir::Hostname::new(host).unwrap()];
                    snapshot.listeners.insert(listener);
                }
            })
            .build();
        gateway.change(&current, &next).await;
        current = next;
        // Who comes now is shown the new certificate.
        let shown = TlsClient::trusting(&authority);
        let stream = shown.connect(at(port), "example.org").await.unwrap();
        let served = current.secrets.get("infra/cert").unwrap();
        let served = served.certificate.as_ref().unwrap().chain().unwrap();
        assert_eq!(agreed(&stream).leaf, served[0].as_ref());
    }
    load.passes(100).await;
    assert!(load.end().await >= 340);
    assert!(gateway.stopped().await);
}
