//! The certificate is chosen by the server name among those of the listener; bad ones are refused.

use std::time::{Duration, SystemTime};

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_tls::ServerTls;
use ir::secret::{Certificate, CertificateError, SecretText};
use ir::{Resources, Secret};

use crate::support::{compile, listener, shake_hands, simple};

#[tokio::test]
async fn exact_names_beat_wildcards_beat_the_first() {
    let authority = Authority::new("test");
    let first = authority.server(&["first.test", "deep.x.a.test"]);
    let wild = authority.server(&["*.a.test"]);
    let exact = authority.server(&["x.a.test", "y.a.test"]);
    let secrets: Resources<Secret> = [
        first.secret("ns/first"),
        wild.secret("ns/wild"),
        exact.secret("ns/exact"),
    ]
    .into_iter()
    .collect();
    let refs = ["ns/first", "ns/wild", "ns/exact"];
    let server = compile(&[listener("ns/gw/one", &[], &refs)], &secrets);
    let client = TlsClient::trusting(&authority);
    for (name, expected) in [
        ("x.a.test", &exact),
        ("z.a.test", &wild),
        ("first.test", &first),
        // A wildcard in a certificate covers one label only.
        ("deep.x.a.test", &first),
    ] {
        let (_, agreed) = shake_hands(&server, &client, name).await.agreed();
        assert!(agreed.leaf == expected.leaf, "{name}");
    }
    let nameless = client.without_sni();
    let (_, agreed) = shake_hands(&server, &nameless, "first.test").await.agreed();
    assert!(agreed.leaf == first.leaf);
}

#[tokio::test]
async fn an_expired_certificate_is_served_and_reported() {
    let authority = Authority::new("test");
    let secrets: Resources<Secret> = [authority.expired_server(&["A.test"]).secret("ns/old")]
        .into_iter()
        .collect();
    let server = compile(&[listener("ns/gw/one", &[], &["ns/old"])], &secrets);
    let facts: Vec<_> = server.certificates().collect();
    assert_eq!(facts.len(), 1);
    assert_eq!(
        (&*facts[0].secret, &facts[0].names[..]),
        ("ns/old", &["a.test".to_owned()][..])
    );
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(978_307_200);
    assert_eq!(facts[0].not_after, end);

    let client = TlsClient::trusting(&authority);
    let outcome = shake_hands(&server, &client, "a.test").await;
    // It is the client who minds.
    assert_eq!(outcome.server.unwrap_err().reason(), "protocol");
}

#[test]
fn every_bad_reference_is_named() {
    let (_, mut secrets, good, _) = simple();
    secrets.insert(Secret {
        key: "ns/empty".into(),
        certificate: None,
        htpasswd: None,
        oidc_client_secret: None,
        values: std::collections::BTreeMap::new(),
    });
    let bad = listener("ns/gw/bad", &[], &["ns/a", "ns/gone", "ns/empty"]);
    let none = listener("ns/gw/none", &[], &[]);
    let mut plain = listener("ns/gw/plain", &[], &[]);
    plain.tls = None;
    let violations = ServerTls::compile(&[&bad, &good, &none, &plain], &secrets, None);
    let found: Vec<_> = violations
        .unwrap_err()
        .iter()
        .map(|v| format!("{} {}", v.object, v.path))
        .collect();
    assert_eq!(
        found,
        [
            "Listener ns/gw/bad tls.certificate_refs[1]",
            "Listener ns/gw/bad tls.certificate_refs[2]",
            "Listener ns/gw/none tls.certificate_refs",
            "Listener ns/gw/plain tls",
        ]
    );
}

#[test]
fn a_key_of_another_pair_is_refused() {
    let authority = Authority::new("test");
    let (one, two) = (authority.server(&["a.test"]), authority.server(&["a.test"]));
    let pair = Certificate::new(one.chain_pem, SecretText::new(two.key_pem));
    assert_eq!(pair, Err(CertificateError::Mismatch));
}
