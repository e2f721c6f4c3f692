//! Versions and protocols are agreed on within the listener's bounds, or not at all.

use dataplane_testkit::client::tls::TlsClient;
use dataplane_tls::{Alpn, Seen};
use ir::listener::{ListenerProtocol, TlsVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::support::{compile, shake_hands, simple};

#[tokio::test]
async fn the_better_common_protocol_is_chosen() {
    let (authority, secrets, listener, _) = simple();
    let server = compile(&[listener], &secrets);
    for (offer, alpn) in [
        (&["h2", "http/1.1"][..], Some(Alpn::H2)),
        (&["http/1.1", "h2"], Some(Alpn::H2)),
        (&["http/1.1"], Some(Alpn::Http1)),
        (&["spdy/3", "http/1.1"], Some(Alpn::Http1)),
        (&[], None),
    ] {
        let client = TlsClient::trusting(&authority).alpn(offer);
        let (session, _) = shake_hands(&server, &client, "a.test").await.agreed();
        assert_eq!(session.alpn, alpn, "{offer:?}");
    }
}

#[tokio::test]
async fn without_a_common_protocol_there_is_an_alert() {
    let (authority, secrets, listener, _) = simple();
    let server = compile(&[listener], &secrets);
    let client = TlsClient::trusting(&authority).alpn(&["spdy/3"]);
    for client in [client.clone().tls12_only(), client.tls13_only()] {
        let refused = shake_hands(&server, &client, "a.test").await.refused();
        assert_eq!(
            refused,
            ("no_alpn_overlap", Some("NoApplicationProtocol".to_owned()))
        );
    }
}

#[tokio::test]
async fn a_listener_for_bytes_leaves_the_protocol_open() {
    let (authority, secrets, mut listener, _) = simple();
    listener.protocol = ListenerProtocol::Tls;
    let server = compile(&[listener], &secrets);
    let client = TlsClient::trusting(&authority).alpn(&["postgresql"]);
    let (session, agreed) = shake_hands(&server, &client, "a.test").await.agreed();
    assert_eq!((session.alpn, agreed.alpn), (None, None));
}

#[tokio::test]
async fn versions_stay_within_the_bounds() {
    use TlsVersion::{V1_2, V1_3};
    let (authority, secrets, mut listener, _) = simple();
    let client = TlsClient::trusting(&authority);
    for (min, max, offer, version) in [
        (V1_2, V1_3, client.clone(), Some(V1_3)),
        (V1_2, V1_3, client.clone().tls12_only(), Some(V1_2)),
        (V1_2, V1_2, client.clone(), Some(V1_2)),
        (V1_3, V1_3, client.clone(), Some(V1_3)),
        (V1_3, V1_3, client.clone().tls12_only(), None),
        (V1_2, V1_2, client.clone().tls13_only(), None),
    ] {
        let tls = listener.tls.as_mut().unwrap();
        (tls.min_version, tls.max_version) = (min, max);
        let server = compile(std::slice::from_ref(&listener), &secrets);
        let outcome = shake_hands(&server, &offer, "a.test").await;
        match version {
            Some(version) => assert_eq!(outcome.agreed().0.version, version),
            None => {
                let refused = ("protocol", Some("ProtocolVersion".to_owned()));
                assert_eq!(outcome.refused(), refused, "{min:?}..{max:?}");
            }
        }
    }
}

#[tokio::test]
async fn tls_1_0_and_1_1_are_refused() {
    let (_, secrets, listener, _) = simple();
    let server = compile(&[listener], &secrets);
    for minor in [1, 2] {
        let (mut near, far) = duplex(4096);
        near.write_all(&old_client_hello(minor)).await.unwrap();
        assert_eq!(
            server
                .accept(far, &mut Seen::default())
                .await
                .unwrap_err()
                .reason(),
            "protocol"
        );
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        // A fatal alert, protocol_version.
        assert_eq!((answer[0], &answer[5..]), (21, &[2, 70][..]));
    }
}

/// A ClientHello of TLS 1.`minor - 1` that offers two old suites and the extensions of its time.
fn old_client_hello(minor: u8) -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 4, 0xc0, 0x09, 0xc0, 0x13]);
    body.extend([1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}
