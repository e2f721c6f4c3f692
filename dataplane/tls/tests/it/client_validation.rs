//! Client certificates, by mode of the listener.

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_tls::ServerTls;
use ir::listener::{ClientValidation, ClientValidationMode};

use crate::support::{compile, shake_hands, simple};

/// A server with `mode`, and clients: trusted, expired, of another authority, without certificate.
struct Cast {
    server: ServerTls,
    trusted: (TlsClient, Vec<u8>),
    strangers: [(&'static str, TlsClient); 4],
}

fn cast(mode: ClientValidationMode) -> Cast {
    let (authority, secrets, mut listener, _) = simple();
    let (clients, ended) = (Authority::new("clients"), Authority::expired("ended"));
    listener.tls.as_mut().unwrap().client_validation = Some(ClientValidation {
        ca_pems: match mode {
            ClientValidationMode::RejectAll => Vec::new(),
            _ => vec![ended.pem().to_owned(), clients.pem().to_owned()],
        },
        mode,
    });
    let client = TlsClient::trusting(&authority);
    let good = clients.client("good");
    let other = Authority::new("others").client("good");
    let of_ended = ended.client("good");
    Cast {
        server: compile(&[listener], &secrets),
        trusted: (client.clone().identity(&good), good.leaf.clone()),
        strangers: [
            (
                "expired",
                client.clone().identity(&clients.expired_client("old")),
            ),
            (
                "of an authority that has ended",
                client.clone().identity(&of_ended),
            ),
            ("untrusted", client.clone().identity(&other)),
            ("anonymous", client),
        ],
    }
}

#[tokio::test]
async fn valid_only_lets_in_holders_of_a_trusted_certificate() {
    let cast = cast(ClientValidationMode::AllowValidOnly);
    let (client, leaf) = cast.trusted;
    for client in [client.clone().tls12_only(), client] {
        let (session, _) = shake_hands(&cast.server, &client, "a.test").await.agreed();
        assert_eq!(session.client_certificate.as_deref(), Some(&leaf[..]));
        // The resumed session knows the client too.
        let (session, _) = shake_hands(&cast.server, &client, "a.test").await.agreed();
        assert!(session.is_resumed);
        assert_eq!(session.client_certificate.as_deref(), Some(&leaf[..]));
    }
    for (who, client) in cast.strangers {
        for client in [client.clone().tls12_only(), client] {
            let outcome = shake_hands(&cast.server, &client, "a.test").await;
            assert!(outcome.client.is_err(), "{who}");
            let reason = outcome.server.unwrap_err().reason();
            assert_eq!(reason, "client_certificate", "{who}");
        }
    }
}

#[tokio::test]
async fn fallback_lets_everyone_in_and_knows_only_the_trusted() {
    let cast = cast(ClientValidationMode::AllowInsecureFallback);
    let (client, leaf) = cast.trusted;
    let (session, _) = shake_hands(&cast.server, &client, "a.test").await.agreed();
    assert_eq!(session.client_certificate.as_deref(), Some(&leaf[..]));
    for (who, client) in cast.strangers {
        for client in [client.clone().tls12_only(), client] {
            for _ in 0..2 {
                let outcome = shake_hands(&cast.server, &client, "a.test").await;
                assert_eq!(outcome.agreed().0.client_certificate, None, "{who}");
            }
        }
    }
}

#[tokio::test]
async fn reject_all_lets_nobody_in() {
    let cast = cast(ClientValidationMode::RejectAll);
    let trusted = ("trusted", cast.trusted.0);
    for (who, client) in cast.strangers.into_iter().chain([trusted]) {
        let refused = shake_hands(&cast.server, &client, "a.test").await.refused();
        let expected = ("client_certificate", Some("AccessDenied".to_owned()));
        assert_eq!(refused, expected, "{who}");
    }
}

#[test]
fn anchors_that_cannot_be_read_are_a_violation_and_never_an_open_door() {
    let (_, secrets, mut listener, _) = simple();
    for mode in [
        ClientValidationMode::AllowValidOnly,
        ClientValidationMode::AllowInsecureFallback,
    ] {
        for ca_pems in [vec![], vec!["no PEM".to_owned()]] {
            listener.tls.as_mut().unwrap().client_validation =
                Some(ClientValidation { ca_pems, mode });
            let violations = ServerTls::compile(&[&listener], &secrets, None).unwrap_err();
            let paths: Vec<_> = violations.iter().map(|v| v.path.as_str()).collect();
            assert_eq!(paths, ["tls.client_validation.ca_pems"]);
        }
    }
}
