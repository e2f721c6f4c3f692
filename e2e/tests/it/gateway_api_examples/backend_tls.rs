//! Examples of TLS to backends: by an authority of one's own, and by those of the system.

use dataplane_testkit::backend::Kind;
use dataplane_testkit::certificate::Authority;

use e2e::{Running, manifest};

use super::{assert_told, example};

const POLICIES: [&str; 2] = [
    "backendtlspolicy/backendtlspolicy-ca-certs.yaml",
    "backendtlspolicy/backendtlspolicy-system-certs.yaml",
];

/// The Services of both policies behind TLS with certificates for these names, and routes to them.
/// The authority of `auth` is that of the backends, or another one.
async fn served(auth: &str, dev: &str, other: Option<&Authority>) -> Option<Running> {
    let mut it = example(&POLICIES)?;
    let gateway = manifest::http_gateway("default/web", &[("http", 80)]);
    let pem = other.unwrap_or_else(|| it.authority()).pem().to_owned();
    let mut objects = vec![gateway, manifest::authority("default/auth-cert", &pem)];
    for (service, name) in [("auth", auth), ("dev", dev)] {
        let key = format!("default/{service}");
        it.secured_backend(Kind::Http1, &key, 443, name)
            .await
            .unwrap();
        let host = format!("{service}.test");
        let backend = format!("{service}:443");
        objects.push(manifest::route_to(&key, "default/web", &[&host], &backend));
    }
    it.add("routes.yaml", objects).unwrap();
    Some(it.serve(&[80]).await.unwrap())
}

#[tokio::test]
async fn backends_that_show_the_policys_name_are_reached_over_tls() {
    let Some(it) = served("auth.example.com", "dev.example.com", None).await else {
        return;
    };
    for (service, policy) in [("auth", "tls-upstream-auth"), ("dev", "tls-upstream-dev")] {
        let answer = it.get(80, &format!("{service}.test"), "/").await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-backend"), format!("default/{service}"));
        let told = it
            .told("BackendTLSPolicy", &format!("default/{policy}"))
            .await;
        let at = "parent default/web";
        assert_told(&told, &format!("{at} Accepted=True Accepted"), "");
        assert_told(&told, &format!("{at} ResolvedRefs=True ResolvedRefs"), "");
    }
}

#[tokio::test]
async fn backends_that_show_another_name_or_come_from_another_authority_get_no_request() {
    let other = Authority::new("other");
    // Certificates of auth and dev, whom auth's policy trusts -> who is reached
    let rows = [
        ("auth.example.com", "auth.example.com", None, [true, false]),
        ("dev.example.com", "dev.example.com", None, [false, true]),
        (
            "auth.example.com",
            "dev.example.com",
            Some(&other),
            [false, true],
        ),
    ];
    for (auth, dev, authority, reached) in rows {
        let Some(it) = served(auth, dev, authority).await else {
            return;
        };
        for (service, is_reached) in ["auth", "dev"].iter().zip(reached) {
            let answer = it.get(80, &format!("{service}.test"), "/").await.unwrap();
            let status = if is_reached { 200 } else { 502 };
            assert_eq!(answer.status, status, "{service}");
            let requests = it.scenario.of(&format!("default/{service}")).requests();
            assert_eq!(requests, usize::from(is_reached), "{service}");
        }
    }
}
