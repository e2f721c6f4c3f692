//! The listener is chosen by the server name the client asks for.

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_tls::{HandshakeError, Seen};
use ir::Hostname;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::support::{compile, listener, secrets, shake_hands, simple};

#[tokio::test]
async fn the_most_specific_listener_takes_the_client() {
    let names: &[&str] = &["x.a.test", "y.a.test", "y.b.a.test", "other.test", "a.test"];
    let authority = Authority::new("test");
    let secrets = secrets(&authority, &[("ns/all", names)]);
    let server = compile(
        &[
            listener("ns/gw/any", &[], &["ns/all"]),
            listener("ns/gw/wild", &["*.a.test"], &["ns/all"]),
            listener("ns/gw/deep", &["*.b.a.test"], &["ns/all"]),
            listener("ns/gw/exact", &["x.a.test"], &["ns/all"]),
        ],
        &secrets,
    );
    let client = TlsClient::trusting(&authority);
    for (name, expected) in [
        ("x.a.test", "ns/gw/exact"),
        ("X.A.test", "ns/gw/exact"),
        ("y.a.test", "ns/gw/wild"),
        ("y.b.a.test", "ns/gw/deep"),
        ("a.test", "ns/gw/any"),
        ("other.test", "ns/gw/any"),
    ] {
        let (session, _) = shake_hands(&server, &client, name).await.agreed();
        assert_eq!(&*session.listener, expected, "{name}");
        assert_eq!(session.sni, Some(name.to_ascii_lowercase()));
    }
    let (session, _) = shake_hands(&server, &client.without_sni(), "a.test")
        .await
        .agreed();
    assert_eq!((&*session.listener, session.sni), ("ns/gw/any", None));
}

#[tokio::test]
async fn a_name_nobody_serves_gets_unrecognized_name() {
    let (authority, secrets, mut listener, _) = simple();
    listener.hostnames = vec![Hostname::new("www.a.test").unwrap()];
    let server = compile(&[listener], &secrets);
    let client = TlsClient::trusting(&authority);
    let expected = ("unknown_server_name", Some("UnrecognisedName".to_owned()));
    for version in [client.clone().tls12_only(), client.clone().tls13_only()] {
        assert_eq!(
            shake_hands(&server, &version, "a.test").await.refused(),
            expected
        );
    }
    let nameless = client.without_sni();
    assert_eq!(
        shake_hands(&server, &nameless, "a.test").await.refused(),
        expected
    );
}

#[tokio::test]
async fn names_of_the_tls_settings_go_before_those_of_the_listener() {
    let (authority, secrets, mut listener, _) = simple();
    listener.hostnames = vec![Hostname::new("a.test").unwrap()];
    let names = vec![Hostname::new("www.a.test").unwrap()];
    listener.tls.as_mut().unwrap().sni_hosts = names;
    let server = compile(&[listener], &secrets);
    let client = TlsClient::trusting(&authority);
    assert!(
        shake_hands(&server, &client, "www.a.test")
            .await
            .server
            .is_ok()
    );
    assert!(
        shake_hands(&server, &client, "a.test")
            .await
            .server
            .is_err()
    );
}

#[tokio::test]
async fn of_two_listeners_with_one_name_the_first_is_chosen() {
    let (authority, secrets, first, _) = simple();
    let second = listener("ns/gw/two", &[], &["ns/a"]);
    let client = TlsClient::trusting(&authority);
    for (listeners, expected) in [
        ([first.clone(), second.clone()], "ns/gw/one"),
        ([second, first], "ns/gw/two"),
    ] {
        let server = compile(&listeners, &secrets);
        let (session, _) = shake_hands(&server, &client, "a.test").await.agreed();
        assert_eq!(&*session.listener, expected);
    }
}

#[tokio::test]
async fn bytes_that_are_no_client_hello_are_a_protocol_error() {
    let (_, secrets, listener, _) = simple();
    let server = compile(&[listener], &secrets);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[22, 3, 1, 0, 2, 1, 0],
        &[0xff; 600],
    ] {
        let (mut near, far) = duplex(4096);
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let error = server.accept(far, &mut Seen::default()).await.unwrap_err();
        assert!(
            matches!(error, HandshakeError::Protocol(_) | HandshakeError::Io(_)),
            "{error:?}"
        );
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert!(
            answer.is_empty() || answer[0] == 21,
            "only an alert: {answer:?}"
        );
    }
}
