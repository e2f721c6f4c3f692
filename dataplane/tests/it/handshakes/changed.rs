//! Connections that stand when a listener begins to ask something else of its clients.

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::snapshot::{cluster, free_port, stream_route};
use dataplane_testkit::{Backend, SnapshotBuilder, StreamBackend, within};
use ir::Snapshot;
use ir::cluster::ClusterProtocol;
use ir::listener::{ClientValidation, ClientValidationMode};
use ir::stream_route::StreamKind;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::{NAMES, coalescing};
use crate::streams::{line, rest};
use crate::support::{Gateway, at};
use ClientValidationMode::{AllowInsecureFallback, AllowValidOnly, RejectAll};

const HOST: &str = "example.org";
const LISTENER: &str = "infra/gw/one";

/// The listener asks for certificates of these authorities, or for none.
fn asking(
    base: &Snapshot,
    version: &str,
    asked: Option<(ClientValidationMode, &[&Authority])>,
) -> Snapshot {
    let change = |snapshot: &mut Snapshot| {
        let mut listener = (**snapshot.listeners.get(LISTENER).unwrap()).clone();
        listener.tls.as_mut().unwrap().client_validation =
            asked.map(|(mode, authorities)| ClientValidation {
                ca_pems: authorities.iter().map(|it| it.pem().to_owned()).collect(),
                mode,
            });
        snapshot.listeners.insert(listener);
    };
    SnapshotBuilder::from(base, version).with(change).build()
}

/// One connection of each protocol.
struct Kept<S>(Http1Client<S>, Http2Client);

async fn keep(tls: &TlsClient, port: u16) -> Kept<impl AsyncRead + AsyncWrite + Unpin> {
    let h1 = tls.clone().alpn(&["http/1.1"]);
    let h2 = tls.clone().alpn(&["h2"]);
    let h1 = h1.connect(at(port), HOST).await.unwrap();
    let h2 = h2.connect(at(port), HOST).await.unwrap();
    Kept(Http1Client::over(h1), Http2Client::over(h2).await.unwrap())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Kept<S> {
    /// What both are answered.
    async fn status(&mut self) -> u16 {
        let one = self.0.get(HOST, "/").await.unwrap();
        let two = self.1.get(HOST, "/").await.unwrap();
        assert_eq!(one.status, two.status);
        let is_sent_away = one.status == 421;
        assert_eq!(one.header("connection") == "close", is_sent_away);
        one.status.as_u16()
    }
}

/// What is asked of clients, and whose authorities vouch for them; nothing is asked without.
type Asked<'a> = Option<(ClientValidationMode, &'a [&'a Authority])>;
/// What it is, before, whether the client has a certificate, after, and the status that a connection
/// gets which stands by then.
type Row<'a> = (&'static str, Asked<'a>, bool, Asked<'a>, u16);

fn changes<'a>(
    by_ours: &'a [&'a Authority],
    by_both: &'a [&'a Authority],
    by_other: &'a [&'a Authority],
) -> [Row<'a>; 10] {
    let valid = |by| Some((AllowValidOnly, by));
    let may = |by| Some((AllowInsecureFallback, by));
    [
        (
            "one more authority",
            valid(by_ours),
            true,
            valid(by_both),
            200,
        ),
        (
            "another authority",
            valid(by_ours),
            true,
            valid(by_other),
            421,
        ),
        (
            "one less, not its own",
            valid(by_both),
            true,
            valid(by_ours),
            200,
        ),
        (
            "one less, its own",
            valid(by_both),
            true,
            valid(by_other),
            421,
        ),
        ("asked from now on", None, false, valid(by_ours), 421),
        ("invited from now on", None, false, may(by_ours), 200),
        ("must, not may", may(by_ours), false, valid(by_ours), 421),
        (
            "must, not may, and has",
            may(by_ours),
            true,
            valid(by_ours),
            200,
        ),
        // It would be let in, but as somebody else.
        (
            "unknown from now on",
            may(by_ours),
            true,
            may(by_other),
            421,
        ),
        ("nobody", may(by_ours), true, Some((RejectAll, &[])), 421),
    ]
}

/// The gateway's authority, two of clients, a client with a certificate of the first and one with
/// none.
struct Parties {
    authority: Authority,
    ours: Authority,
    other: Authority,
    known: TlsClient,
    anonymous: TlsClient,
}

impl Parties {
    fn new() -> Self {
        let authority = Authority::new("test");
        let ours = Authority::new("ours");
        Self {
            known: TlsClient::trusting(&authority).identity(&ours.client("known")),
            anonymous: TlsClient::trusting(&authority),
            other: Authority::new("other"),
            authority,
            ours,
        }
    }
}

#[tokio::test]
async fn who_would_not_be_let_in_any_more_is_sent_away() {
    let backend = Backend::http1("b").await;
    let Parties {
        authority,
        ours,
        other,
        known,
        anonymous,
    } = Parties::new();
    let (by_ours, by_both, by_other) = ([&ours], [&ours, &other], [&other]);
    let port = free_port();
    let base = coalescing(port, &authority, &[("one", &[HOST])])
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let gateway = Gateway::serving(&base).await;
    let rows = changes(&by_ours, &by_both, &by_other);
    for (index, (what, before, is_known, after, expected)) in rows.into_iter().enumerate() {
        let client = if is_known { &known } else { &anonymous };
        gateway
            .apply(&asking(&base, &format!("before{index}"), before))
            .await;
        let mut kept = keep(client, port).await;
        assert_eq!(kept.status().await, 200, "{what}");
        let changed = asking(&base, &format!("after{index}"), after);
        gateway.apply(&changed).await;
        assert_eq!(kept.status().await, expected, "{what}");
        if expected == 200 {
            // Another certificate of the gateway is no reason to go.
            let renewed = SnapshotBuilder::from(&changed, &format!("renewed{index}"))
                .certificate("infra/cert", &authority.server(NAMES))
                .build();
            gateway.apply(&renewed).await;
            assert_eq!(kept.status().await, 200, "{what}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_would_not_be_let_in_any_more_is_cut() {
    let backend = StreamBackend::tcp("plain").await;
    let Parties {
        authority,
        ours,
        other,
        known,
        anonymous,
    } = Parties::new();
    let (by_ours, by_both, by_other) = ([&ours], [&ours, &other], [&other]);
    let port = free_port();
    let route = stream_route(
        StreamKind::Tls,
        "tls/app/r",
        LISTENER,
        &[HOST],
        &[("app/b:1", 1)],
    );
    let base = SnapshotBuilder::new("base")
        .certificate("infra/cert", &authority.server(NAMES))
        .tls_listener(LISTENER, port, &[HOST], &["infra/cert"])
        .stream_route(route)
        .add_cluster(cluster(
            "app/b:1",
            ClusterProtocol::Tcp,
            &[backend.address()],
        ))
        .build();
    let gateway = Gateway::with(&base, |bootstrap| bootstrap.workers = 1).await;
    let rows = changes(&by_ours, &by_both, &by_other);
    for (index, (what, before, is_known, after, expected)) in rows.into_iter().enumerate() {
        let client = if is_known { &known } else { &anonymous };
        let first = asking(&base, &format!("before{index}"), before);
        gateway.apply(&first).await;
        let mut tls = client.connect(at(port), HOST).await.unwrap();
        assert_eq!(line(&mut tls).await, "plain", "{what}");
        gateway
            .apply(&asking(&base, &format!("after{index}"), after))
            .await;
        if expected == 200 {
            tls.write_all(b"more").await.unwrap();
            tls.shutdown().await.unwrap();
            assert_eq!(rest(&mut tls).await.unwrap(), b"morebye", "{what}");
        } else {
            let ended = within("it is cut", rest(&mut tls)).await;
            assert!(ended.is_err(), "{what}: no clean end");
        }
    }
    // All are judged at once: whoever is still there then stays.
    let invited = asking(&base, "invited", Some((AllowInsecureFallback, &by_ours)));
    gateway.apply(&invited).await;
    let mut stays = known.connect(at(port), HOST).await.unwrap();
    let mut goes = anonymous.connect(at(port), HOST).await.unwrap();
    for tls in [&mut stays, &mut goes] {
        assert_eq!(line(tls).await, "plain");
    }
    let asked = asking(&base, "asked", Some((AllowValidOnly, &by_ours)));
    gateway.apply(&asked).await;
    assert!(rest(&mut goes).await.is_err());
    stays.shutdown().await.unwrap();
    assert_eq!(rest(&mut stays).await.unwrap(), b"bye");

    let cut = gateway.metric("stream_sessions_total", &["client_certificate"]);
    let expected = changes(&by_ours, &by_both, &by_other);
    let expected = expected.iter().filter(|row| row.4 == 421).count() + 1;
    assert_eq!(cut, expected as u64);
}
