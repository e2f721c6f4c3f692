//! Examples that end TLS: which certificate is shown to whom, and whose Secret may be used.

use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::agreed;

use e2e::{Running, manifest};

use super::{assert_share, example};

/// The Secret of the certificate that a client of `name` is shown.
async fn shown(it: &Running, name: &str, secrets: &[&str]) -> String {
    let stream = it.tls(443, name, &["h2", "http/1.1"]).await.unwrap();
    let agreed = agreed(&stream);
    assert_eq!(agreed.alpn.as_deref(), Some("h2"), "{name}");
    let found = secrets
        .iter()
        .find(|secret| it.scenario.identity(secret).leaf == agreed.leaf);
    (*found.expect("a certificate of ours")).to_owned()
}

#[tokio::test]
async fn tls_basic_has_a_certificate_for_each_host() {
    let Some(mut it) = example(&["tls-basic.yaml"]) else {
        return;
    };
    let foo = "default/foo-example-com-cert";
    let bar = "default/bar-example-com-cert";
    it.certificate(foo, &["foo.example.com"]).unwrap();
    it.certificate(bar, &["bar.example.com"]).unwrap();
    it.backend("default/app", 80).await.unwrap();
    let route = manifest::route_to("default/all", "default/tls-basic", &[], "app:80");
    it.add("route.yaml", [route]).unwrap();
    let it = it.serve(&[443]).await.unwrap();
    for (name, secret) in [("foo.example.com", foo), ("bar.example.com", bar)] {
        assert_eq!(shown(&it, name, &[foo, bar]).await, secret);
        let answer = it.get_tls(443, name, "/").await.unwrap();
        assert_eq!(answer.header("x-backend"), "default/app");
    }
    assert!(it.tls(443, "baz.example.com", &["h2"]).await.is_err());
    // A connection for one host is not for the other (RFC 9110, section 15.5.20).
    let stream = it.tls(443, "foo.example.com", &["h2"]).await.unwrap();
    let client = Http2Client::over(stream).await.unwrap();
    let answer = client.get("bar.example.com", "/").await.unwrap();
    assert_eq!(answer.status, 421);
}

#[tokio::test]
async fn wildcard_tls_gateway_prefers_the_exact_host() {
    let Some(mut it) = example(&["wildcard-tls-gateway.yaml"]) else {
        return;
    };
    let foo = "default/foo-example-com-cert";
    let wildcard = "default/wildcard-example-com-cert";
    it.certificate(foo, &["foo.example.com"]).unwrap();
    it.certificate(wildcard, &["*.example.com"]).unwrap();
    it.backend("default/app", 80).await.unwrap();
    let route = manifest::route_to("default/all", "default/wildcard-tls-gateway", &[], "app:80");
    it.add("route.yaml", [route]).unwrap();
    let it = it.serve(&[443]).await.unwrap();
    let rows = [
        ("foo.example.com", foo),
        ("bar.example.com", wildcard),
        ("baz.example.com", wildcard),
    ];
    for (name, secret) in rows {
        assert_eq!(shown(&it, name, &[foo, wildcard]).await, secret, "{name}");
        let answer = it.get_tls(443, name, "/").await.unwrap();
        assert_eq!(answer.header("x-backend"), "default/app", "{name}");
    }
}

#[tokio::test]
async fn tls_cert_cross_namespace_needs_and_has_a_grant() {
    let Some(mut it) = example(&["tls-cert-cross-namespace.yaml"]) else {
        return;
    };
    let secret = "gateway-api-example-ns2/wildcard-example-com-cert";
    it.certificate(secret, &["*.example.com"]).unwrap();
    it.backend("gateway-api-example-ns1/app", 80).await.unwrap();
    let route = manifest::route_to(
        "gateway-api-example-ns1/all",
        "gateway-api-example-ns1/cross-namespace-tls-gateway",
        &[],
        "app:80",
    );
    it.add("route.yaml", [route]).unwrap();
    let it = it.serve(&[443]).await.unwrap();
    assert_eq!(shown(&it, "any.example.com", &[secret]).await, secret);
    let answer = it.get_tls(443, "any.example.com", "/").await.unwrap();
    assert_eq!(answer.header("x-backend"), "gateway-api-example-ns1/app");
}

#[tokio::test]
async fn cross_namespace_routing_shares_a_gateway() {
    let Some(mut it) = example(&[
        "cross-namespace-routing/0-namespaces.yaml",
        "cross-namespace-routing/gateway.yaml",
        "cross-namespace-routing/site-route.yaml",
        "cross-namespace-routing/store-route.yaml",
    ]) else {
        return;
    };
    let host = "foo.example.com";
    it.certificate("infra-ns/foo-example-com", &[host]).unwrap();
    for key in [
        "site-ns/home",
        "site-ns/login-v1",
        "site-ns/login-v2",
        "store-ns/store",
    ] {
        it.backend(key, 8080).await.unwrap();
    }
    it.backend("no-external-access/app", 8080).await.unwrap();
    let outsider = manifest::route_to(
        "no-external-access/route",
        "infra-ns/shared-gateway",
        &[],
        "app:8080",
    );
    it.add("outsider.yaml", [outsider]).unwrap();
    let it = it.serve(&[443]).await.unwrap();
    for (path, backend) in [
        ("/", "site-ns/home"),
        ("/storefront", "site-ns/home"),
        ("/store", "store-ns/store"),
        ("/store/1", "store-ns/store"),
    ] {
        let answer = it.get_tls(443, host, path).await.unwrap();
        assert_eq!(answer.header("x-backend"), backend, "{path}");
    }
    let stream = it.tls(443, host, &["http/1.1"]).await.unwrap();
    let client = dataplane_testkit::client::http1::Http1Client::over(stream);
    let seen = e2e::scenario::spread(client, host, "/login", 400)
        .await
        .unwrap();
    assert_share(&seen, "site-ns/login-v1", 90.0);
    assert_share(&seen, "site-ns/login-v2", 10.0);
    let told = it.told("HTTPRoute", "no-external-access/route").await;
    let start = "parent infra-ns/shared-gateway Accepted=False NotAllowedByListeners";
    super::assert_told(&told, start, "");
}
