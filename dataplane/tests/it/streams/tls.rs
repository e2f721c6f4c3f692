//! TLS routes: passed through or ended, side by side on one port, by the name asked for.

use std::net::SocketAddr;

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::tls::{TlsClient, agreed};
use dataplane_testkit::snapshot::{cluster, free_port, http_route, stream_route};
use dataplane_testkit::{Backend, SnapshotBuilder, StreamBackend, within};
use ir::Snapshot;
use ir::cluster::ClusterProtocol;
use ir::stream_route::StreamKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{line, rest};
use crate::support::{Gateway, at};

const PASSED: &str = "infra/gw/passed";
const ENDED: &str = "infra/gw/ended";
const WEB: &str = "infra/gw/web";

/// All three kinds of TLS listener on one port, and the backends behind them.
struct Mixed {
    authority: Authority,
    _plain: StreamBackend,
    _secure: Backend,
    _web: Backend,
    snapshot: Snapshot,
    port: u16,
}

impl Mixed {
    async fn new() -> Self {
        let authority = Authority::new("test");
        let port = free_port();
        let plain = StreamBackend::tcp("plain").await;
        let own = authority.server(&["*.passed.test", "deep.ended.test"]);
        let kind = dataplane_testkit::backend::Kind::Http1;
        let secure = Backend::start_tls("secure", kind, &own).await;
        let web = Backend::http1("web").await;
        let names: &[&str] = &["a.passed.test", "*.passed.test", "deep.ended.test"];
        let mut web_route = http_route("app/web", "", "/", &[("app/web:80", 1)]);
        web_route.listeners = vec![WEB.into()];
        let tls = |key, listener, names, to| {
            stream_route(StreamKind::Tls, key, listener, names, &[(to, 1)])
        };
        let tcp_cluster = |key, address: SocketAddr| cluster(key, ClusterProtocol::Tcp, &[address]);
        let snapshot = SnapshotBuilder::new("v1")
            .certificate("infra/ended", &authority.server(&["*.ended.test"]))
            .certificate("infra/web", &authority.server(&["web.test"]))
            .passthrough_listener(PASSED, port, &["*.passed.test", "deep.ended.test"])
            .tls_listener(ENDED, port, &["*.ended.test"], &["infra/ended"])
            .https_listener(WEB, port, &["web.test"], &["infra/web"])
            .stream_route(tls("tls/app/passed", PASSED, names, "app/secure:443"))
            .stream_route(tls(
                "tls/app/ended",
                ENDED,
                &["*.ended.test"],
                "app/plain:1",
            ))
            .http_route(web_route)
            .add_cluster(tcp_cluster("app/secure:443", secure.address()))
            .add_cluster(tcp_cluster("app/plain:1", plain.address()))
            .cluster("app/web:80", &[web.address()])
            .build();
        Self {
            authority,
            _plain: plain,
            _secure: secure,
            _web: web,
            snapshot,
            port,
        }
    }
}

#[tokio::test]
async fn the_name_decides_between_passing_ending_and_http() {
    let it = Mixed::new().await;
    let _gateway = Gateway::serving(&it.snapshot).await;
    let client = TlsClient::trusting(&it.authority);
    for (name, backend) in [
        ("a.passed.test", "secure"),
        ("B.Passed.TEST", "secure"),
        ("deep.ended.test", "secure"),
        ("web.test", "web"),
    ] {
        let tls = client.connect(at(it.port), name).await.unwrap();
        let mut http = Http1Client::over(tls);
        let response = http.get(&name.to_lowercase(), "/").await.unwrap();
        assert_eq!(response.status, 200, "{name}");
        let body = String::from_utf8_lossy(&response.body).into_owned();
        let headers = format!("{:?}", response.headers);
        assert!(
            body.contains(backend) || headers.contains(backend),
            "{name}: {headers} {body}"
        );
    }
    let mut tls = client.connect(at(it.port), "x.ended.test").await.unwrap();
    assert_eq!(line(&mut tls).await, "plain");
    tls.write_all(b"hidden").await.unwrap();
    tls.shutdown().await.unwrap();
    assert_eq!(rest(&mut tls).await.unwrap(), b"hiddenbye");
}

#[tokio::test]
async fn what_passes_through_is_agreed_on_with_the_backend() {
    let it = Mixed::new().await;
    let _gateway = Gateway::serving(&it.snapshot).await;
    let client = TlsClient::trusting(&it.authority);
    for client in [client.clone().tls12_only(), client.tls13_only()] {
        let through = client.connect(at(it.port), "a.passed.test").await.unwrap();
        let straight = client
            .connect(it._secure.address(), "a.passed.test")
            .await
            .unwrap();
        assert_eq!(agreed(&through).leaf, agreed(&straight).leaf);
    }
}

#[tokio::test]
async fn names_that_nobody_has_are_reset() {
    let it = Mixed::new().await;
    let gateway = Gateway::serving(&it.snapshot).await;
    let client = TlsClient::trusting(&it.authority);
    let refused = async |client: &TlsClient, name: &str| {
        let error = client.connect(at(it.port), name).await.expect_err(name);
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{name}: {error}"
        );
    };
    refused(&client, "passed.test").await;
    refused(&client, "other.test").await;
    refused(&client.clone().without_sni(), "a.passed.test").await;
    // A listener has it, and no route.
    let second = SnapshotBuilder::from(&it.snapshot, "v2")
        .with(|snapshot| drop(snapshot.stream_routes.remove("tls/app/passed")))
        .build();
    gateway.change(&it.snapshot, &second).await;
    refused(&client, "a.passed.test").await;
}

#[tokio::test]
async fn a_hello_may_come_in_any_pieces() {
    let it = Mixed::new().await;
    let _gateway = Gateway::serving(&it.snapshot).await;
    for name in ["a.passed.test", "x.ended.test", "web.test"] {
        // Between client and gateway sits somebody who sends a few bytes at a time.
        let (near, far) = tokio::io::duplex(64 * 1024);
        let port = it.port;
        tokio::spawn(async move {
            let mut tcp = TcpStream::connect(at(port)).await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let (mut from, mut to) = tokio::io::split(far);
            let (mut reader, mut writer) = tcp.split();
            let slow = async {
                let mut buf = [0; 7];
                while let Ok(read @ 1..) = from.read(&mut buf).await {
                    writer.write_all(&buf[..read]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let _ = tokio::join!(slow, tokio::io::copy(&mut reader, &mut to));
        });
        let client = TlsClient::trusting(&it.authority);
        let tls = within("a handshake", client.over(near, name)).await;
        assert!(tls.is_ok(), "{name}: {:?}", tls.err());
    }
}

#[tokio::test]
async fn where_tls_only_ends_nobodys_names_get_an_alert() {
    let authority = Authority::new("test");
    let port = free_port();
    let plain = StreamBackend::tcp("plain").await;
    let names = &["x.ended.test"];
    let to = &[("app/plain:1", 1)];
    let snapshot = SnapshotBuilder::new("v1")
        .certificate("infra/ended", &authority.server(&["*.ended.test"]))
        .tls_listener(ENDED, port, &["*.ended.test"], &["infra/ended"])
        .stream_route(stream_route(StreamKind::Tls, "tls/a/x", ENDED, names, to))
        .add_cluster(cluster(
            "app/plain:1",
            ClusterProtocol::Tcp,
            &[plain.address()],
        ))
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let client = TlsClient::trusting(&authority);
    for (client, name, what) in [
        (&client, "other.test", "a name of no listener"),
        (&client.clone().without_sni(), "x.ended.test", "no name"),
        (&client, "y.ended.test", "a name of no route"),
    ] {
        let error = client.connect(at(port), name).await.expect_err(what);
        assert!(error.to_string().contains("Unrecogni"), "{what}: {error}");
    }
    let mut tls = client.connect(at(port), "x.ended.test").await.unwrap();
    assert_eq!(line(&mut tls).await, "plain");
}

#[tokio::test]
async fn a_removed_listener_drains_though_others_share_its_port() {
    let it = Mixed::new().await;
    let gateway = Gateway::with(&it.snapshot, |bootstrap| {
        bootstrap.streams.drain = std::time::Duration::from_millis(300);
    })
    .await;
    let client = TlsClient::trusting(&it.authority);
    let mut passed = client.connect(at(it.port), "a.passed.test").await.unwrap();
    let mut ended = client.connect(at(it.port), "x.ended.test").await.unwrap();
    assert_eq!(line(&mut ended).await, "plain");
    let second = SnapshotBuilder::from(&it.snapshot, "v2")
        .with(|snapshot| {
            drop(snapshot.listeners.remove(PASSED));
            drop(snapshot.stream_routes.remove("tls/app/passed"));
        })
        .build();
    gateway.change(&it.snapshot, &second).await;
    assert!(rest(&mut passed).await.is_err(), "it is cut in the end");
    ended.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    let read = within("the other one goes on", ended.read_exact(&mut got));
    read.await.unwrap();
    // A listener that only changes keeps its connections.
    let third = SnapshotBuilder::from(&second, "v3")
        .with(|snapshot| {
            let listener = snapshot.listeners.get(ENDED).unwrap();
            let mut changed = ir::Listener::clone(listener);
            changed
                .metadata
                .insert("changed".to_owned(), "yes".to_owned());
            snapshot.listeners.insert(changed);
        })
        .build();
    gateway.change(&second, &third).await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    ended.write_all(b"pong").await.unwrap();
    let read = within("it goes on", ended.read_exact(&mut got));
    read.await.unwrap();
    assert_eq!(&got, b"pong");
}
