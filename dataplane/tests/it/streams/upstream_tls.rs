//! TCP and TLS routes to backends that are reached over TLS: bytes arrive whole, and only there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Secured, Step};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::snapshot::{cluster, free_port, listener, stream_route};
use dataplane_testkit::{Backend, SnapshotBuilder, eventually, within};
use ir::cluster::{BackendTls, ClusterProtocol};
use ir::listener::{ListenerProtocol, TlsVersion};
use ir::stream_route::StreamKind;
use ir::{Hostname, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Gateway, at};

const TCP: &str = "infra/gw/tcp";
const TLS: &str = "infra/gw/tls";
const CLUSTER: &str = "app/db:5432";
const NAME: &str = "db.example";

fn trusting(authority: &Authority) -> BackendTls {
    BackendTls {
        hostname: Hostname::new(NAME).unwrap(),
        use_system_ca_certificates: false,
        ca_pems: vec![authority.pem().to_owned()],
        subject_alt_names: Vec::new(),
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
    }
}

/// A TCP listener and one that ends TLS, both in front of the same endpoints.
struct Front {
    snapshot: Snapshot,
    tcp: u16,
    tls: u16,
    client: TlsClient,
}

impl Front {
    fn new(endpoints: &[SocketAddr], policy: BackendTls) -> Self {
        let authority = Authority::new("front");
        let (tcp, tls) = (free_port(), free_port());
        let mut cluster = cluster(CLUSTER, ClusterProtocol::Tcp, endpoints);
        cluster.tls = Some(Arc::new(policy));
        cluster.connect_timeout = Duration::from_millis(300);
        let clusters = &[(CLUSTER, 1)];
        let names = &["front.test"];
        let to = stream_route(StreamKind::Tcp, "tcp/app/db", TCP, &[], clusters);
        let ended = stream_route(StreamKind::Tls, "tls/app/db", TLS, names, clusters);
        let snapshot = SnapshotBuilder::new("v1")
            .certificate("infra/front", &authority.server(names))
            .listener(listener(TCP, tcp, ListenerProtocol::Tcp))
            .tls_listener(TLS, tls, names, &["infra/front"])
            .stream_route(to)
            .stream_route(ended)
            .add_cluster(cluster)
            .build();
        Self {
            snapshot,
            tcp,
            tls,
            client: TlsClient::trusting(&authority),
        }
    }
}

/// Sends these bytes, ends, and reads what comes back.
async fn echoed(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    bytes: &[u8],
) -> std::io::Result<Vec<u8>> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        // An end that is cut while bytes are on their way is told by the reader.
        let _ = writer.write_all(bytes).await;
        let _ = writer.shutdown().await;
    };
    let read = async {
        let mut back = Vec::new();
        reader.read_to_end(&mut back).await.map(|_| back)
    };
    let ((), back) = within("the echo ends", async { tokio::join!(write, read) }).await;
    back
}

#[tokio::test]
async fn bytes_arrive_whole_over_tls_and_each_end_is_passed_on() {
    let ours = Authority::new("ours");
    let client = ours.client("gateway");
    for alpn in [&["postgresql"][..], &[]] {
        let tls = Secured::new(&ours.server(&[NAME]))
            .alpn(alpn)
            .requiring(&[&ours]);
        let backend = Backend::start_secured("db", Kind::TcpEcho, &tls).await;
        let mut front = Front::new(&[backend.address()], trusting(&ours));
        front.snapshot.secrets.insert(client.secret("infra/client"));
        for name in [TCP, TLS] {
            let mut changed = (**front.snapshot.listeners.get(name).unwrap()).clone();
            changed.backend_client_certificate = Some("infra/client".into());
            front.snapshot.listeners.insert(changed);
        }
        let _gateway = Gateway::serving(&front.snapshot).await;
        let bytes: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut tcp = TcpStream::connect(at(front.tcp)).await.unwrap();
        assert!(echoed(&mut tcp, &bytes).await.unwrap() == bytes);
        let mut ended = front
            .client
            .connect(at(front.tls), "front.test")
            .await
            .unwrap();
        assert!(echoed(&mut ended, &bytes).await.unwrap() == bytes);
        let seen = backend.handshakes();
        assert_eq!(seen.len(), 2);
        for handshake in seen {
            // Whose protocol it is cannot be known, so none is named.
            assert_eq!(handshake.alpn, None);
            assert_eq!(handshake.server_name.as_deref(), Some(NAME));
            assert_eq!(handshake.client.as_ref(), Some(&client.leaf));
        }
        eventually("it is let go", || {
            (backend.open_connections() == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn who_is_not_trusted_gets_no_byte_and_the_client_is_cut() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let rows = [
        ("another authority", other.server(&[NAME])),
        ("another name", ours.server(&["other.example"])),
        ("expired", ours.expired_server(&[NAME])),
    ];
    for (what, identity) in rows {
        let tls = Secured::new(&identity);
        let backend = Backend::start_secured("db", Kind::TcpEcho, &tls).await;
        let front = Front::new(&[backend.address()], trusting(&ours));
        let gateway = Gateway::serving(&front.snapshot).await;
        let mut tcp = TcpStream::connect(at(front.tcp)).await.unwrap();
        assert!(echoed(&mut tcp, b"secret").await.is_err(), "{what}");
        let mut ended = front
            .client
            .connect(at(front.tls), "front.test")
            .await
            .unwrap();
        assert!(echoed(&mut ended, b"secret").await.is_err(), "{what}");
        assert_eq!(backend.handshakes(), [], "{what}");
        let text = gateway.scrape();
        assert!(
            text.contains("reason=\"upstream_certificate\""),
            "{what}: {text}"
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_at_tls_is_passed_over() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let garbage = Script::new([
        Step::Send(Bytes::from_static(b"220 hello\r\n")),
        Step::Finish,
    ]);
    let bad = [
        Backend::start("garbage", Kind::Scripted(garbage)).await,
        Backend::start("silent", Kind::BlackHole).await,
        Backend::start_secured(
            "other",
            Kind::TcpEcho,
            &Secured::new(&other.server(&[NAME])),
        )
        .await,
    ];
    for bad in bad {
        let tls = Secured::new(&ours.server(&[NAME]));
        let good = Backend::start_secured("good", Kind::TcpEcho, &tls).await;
        let front = Front::new(&[bad.address(), good.address()], trusting(&ours));
        let _gateway = Gateway::serving(&front.snapshot).await;
        for _ in 0..3 {
            let mut tcp = TcpStream::connect(at(front.tcp)).await.unwrap();
            assert_eq!(
                echoed(&mut tcp, b"hello").await.unwrap(),
                b"hello",
                "{}",
                bad.name()
            );
        }
    }
}

#[tokio::test]
async fn an_end_without_close_notify_does_not_look_complete() {
    let ours = Authority::new("ours");
    let script = Script::new([Step::Read(1), Step::Send(Bytes::from_static(b"half of "))]);
    let tls = Secured::new(&ours.server(&[NAME]));
    let backend = Backend::start_secured("db", Kind::Scripted(script), &tls).await;
    let front = Front::new(&[backend.address()], trusting(&ours));
    let _gateway = Gateway::serving(&front.snapshot).await;
    let mut tcp = TcpStream::connect(at(front.tcp)).await.unwrap();
    assert!(echoed(&mut tcp, b"x").await.is_err());
}
