//! Sessions are resumed at the listener they were made at, as long as nothing there changed.

use dataplane_testkit::client::tls::TlsClient;
use dataplane_tls::ServerTls;
use ir::Hostname;
use ir::listener::{ClientValidation, ClientValidationMode, TlsVersion};

use crate::support::{compile, listener, recompile, shake_hands, simple};

async fn resumes(server: &ServerTls, client: &TlsClient, name: &str) -> bool {
    let (session, agreed) = shake_hands(server, client, name).await.agreed();
    assert_eq!(session.is_resumed, agreed.is_resumed);
    session.is_resumed
}

fn both(client: TlsClient) -> [TlsClient; 2] {
    [client.clone().tls12_only(), client.tls13_only()]
}

#[tokio::test]
async fn a_second_connection_resumes() {
    let (authority, secrets, listener, _) = simple();
    let server = compile(&[listener], &secrets);
    for client in both(TlsClient::trusting(&authority)) {
        assert!(!resumes(&server, &client, "a.test").await);
        assert!(resumes(&server, &client, "a.test").await);
    }
}

#[tokio::test]
async fn an_unchanged_listener_resumes_after_an_update() {
    let (authority, secrets, one, identity) = simple();
    let server = compile(std::slice::from_ref(&one), &secrets);
    let mut renamed = one.clone();
    renamed.hostnames = vec![Hostname::new("a.test").unwrap()];
    let mut same_again = secrets.clone();
    same_again.insert(identity.secret("ns/a"));
    let another = listener("ns/gw/two", &["b.test"], &["ns/a"]);
    for (next, secrets) in [
        (vec![one.clone()], &secrets),
        (vec![one.clone()], &same_again),
        (vec![another, one], &secrets),
        (vec![renamed], &secrets),
    ] {
        for client in both(TlsClient::trusting(&authority)) {
            assert!(!resumes(&server, &client, "a.test").await);
            let next = recompile(&next, secrets, Some(&server));
            assert!(resumes(&next, &client, "a.test").await);
        }
    }
}

#[tokio::test]
async fn a_changed_listener_does_not_resume() {
    let (authority, secrets, one, identity) = simple();
    let server = compile(std::slice::from_ref(&one), &secrets);
    let mut renewed = secrets.clone();
    renewed.insert(authority.server(&["a.test"]).secret("ns/a"));
    let mut second = secrets.clone();
    second.insert(identity.secret("ns/b"));
    let with = |change: &dyn Fn(&mut ir::listener::ListenerTls)| {
        let mut next = one.clone();
        change(next.tls.as_mut().unwrap());
        next
    };
    let more = with(&|tls| tls.certificate_refs.push("ns/b".into()));
    let bounded = with(&|tls| tls.max_version = TlsVersion::V1_2);
    let validating = with(&|tls| {
        tls.client_validation = Some(ClientValidation {
            ca_pems: vec![authority.pem().to_owned()],
            mode: ClientValidationMode::AllowInsecureFallback,
        });
    });
    for (what, next, secrets) in [
        ("certificate", one.clone(), &renewed),
        ("certificates", more, &second),
        ("versions", bounded, &secrets),
        ("client validation", validating, &secrets),
    ] {
        let client = TlsClient::trusting(&authority).tls12_only();
        assert!(!resumes(&server, &client, "a.test").await);
        let next = recompile(&[next], secrets, Some(&server));
        assert!(!resumes(&next, &client, "a.test").await, "{what}");
    }
}

#[tokio::test]
async fn a_session_does_not_cross_listeners() {
    let (authority, secrets, one, _) = simple();
    // The same but for the name, and but for who may come in.
    let twin = listener("ns/gw/two", &[], &["ns/a"]);
    let server = compile(std::slice::from_ref(&one), &secrets);
    for client in both(TlsClient::trusting(&authority)) {
        assert!(!resumes(&server, &client, "a.test").await);
        let next = recompile(std::slice::from_ref(&twin), &secrets, Some(&server));
        assert!(!resumes(&next, &client, "a.test").await);
    }
}

#[tokio::test]
async fn an_anonymous_session_opens_no_listener_that_wants_certificates() {
    let (authority, secrets, open, _) = simple();
    let mut closed = open.clone();
    closed.tls.as_mut().unwrap().client_validation = Some(ClientValidation {
        ca_pems: vec![authority.pem().to_owned()],
        mode: ClientValidationMode::AllowValidOnly,
    });
    let server = compile(std::slice::from_ref(&open), &secrets);
    for client in both(TlsClient::trusting(&authority)) {
        assert!(!resumes(&server, &client, "a.test").await);
        let next = recompile(std::slice::from_ref(&closed), &secrets, Some(&server));
        let outcome = shake_hands(&next, &client, "a.test").await;
        assert_eq!(outcome.server.unwrap_err().reason(), "client_certificate");
    }
}
