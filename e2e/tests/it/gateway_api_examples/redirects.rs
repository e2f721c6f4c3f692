//! Examples that redirect.

use dataplane_testkit::client::Response;

use e2e::{Running, Scenario, manifest};

use super::{example, with_parent};

/// Status and `Location`, with the port at which the listener is bound put back to none.
fn redirect(it: &Running, answer: &Response) -> (u16, String) {
    let bound = format!(":{}/", it.ports.address(80).port());
    let location = answer.header("location").replace(&bound, "/");
    (answer.status.as_u16(), location)
}

#[tokio::test]
async fn http_redirect_goes_to_https_which_serves() {
    let Some(mut it) = example(&["http-redirect.yaml"]) else {
        return;
    };
    let host = "my-filter.example.com";
    it.certificate("gateway-api-example-ns1/example-com-cert", &[host])
        .unwrap();
    it.backend("gateway-api-example-ns1/my-filter-svc1", 80)
        .await
        .unwrap();
    let it = it.serve(&[80, 443]).await.unwrap();
    let answer = it.get(80, host, "/a/b?c=d").await.unwrap();
    let location = format!("https://{host}/a/b?c=d");
    assert_eq!(
        (answer.status.as_u16(), answer.header("location")),
        (302, &*location)
    );
    let answer = it.get_tls(443, host, "/a/b").await.unwrap();
    assert_eq!(
        answer.header("x-backend"),
        "gateway-api-example-ns1/my-filter-svc1"
    );
}

#[tokio::test]
async fn http_redirect_path_keeps_host_and_scheme() {
    let Some(it) = example(&["http-redirect-path.yaml"]) else {
        return;
    };
    let gateway =
        manifest::http_gateway("gateway-api-example-ns1/my-filter-gateway", &[("http", 80)]);
    it.add("gateway.yaml", [gateway]).unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let answer = it.get(80, "my-filter.example.com", "/a/b").await.unwrap();
    let expected = (302, "http://my-filter.example.com/foo".to_owned());
    assert_eq!(redirect(&it, &answer), expected);
}

/// The Gateway of the folder `http-redirect-rewrite` with one or two of its routes.
fn redirect_gateway(routes: &[&str]) -> Option<Scenario> {
    let mut files = vec!["http-redirect-rewrite/gateway-redirect-http-https.yaml"];
    files.extend(routes);
    let mut it = example(&files)?;
    it.certificate("default/redirect-example", &["redirect.example"])
        .unwrap();
    Some(it)
}

#[tokio::test]
async fn redirects_keep_their_status_and_the_method() {
    let Some(it) = redirect_gateway(&[
        "http-redirect-rewrite/httproute-redirect-303.yaml",
        "http-redirect-rewrite/httproute-redirect-307.yaml",
        "http-redirect-rewrite/httproute-redirect-308.yaml",
    ]) else {
        return;
    };
    let it = it.serve(&[80, 443]).await.unwrap();
    let rows = [
        (
            "POST",
            "forms.example.com",
            "/submit-form",
            (303, "http://forms.example.com/thank-you"),
        ),
        ("GET", "forms.example.com", "/submit-form", (404, "")),
        (
            "POST",
            "api.example.com",
            "/api/v1/users",
            (307, "http://api.example.com/api/v2"),
        ),
        (
            "PUT",
            "api.example.com",
            "/old-api/x",
            (308, "http://api.example.com/new-api"),
        ),
        ("GET", "api.example.com", "/older-api", (404, "")),
    ];
    for (method, host, path, (status, location)) in rows {
        let answer = it.send(80, method, host, path, &[]).await.unwrap();
        let expected = (status, location.to_owned());
        assert_eq!(redirect(&it, &answer), expected, "{method} {host}{path}");
    }
}

#[tokio::test]
async fn redirect_http_and_https_share_a_host() {
    let Some(mut it) = redirect_gateway(&[
        "http-redirect-rewrite/httproute-redirect-http.yaml",
        "http-redirect-rewrite/httproute-redirect-https.yaml",
    ]) else {
        return;
    };
    it.backend("default/example-svc", 80).await.unwrap();
    let it = it.serve(&[80, 443]).await.unwrap();
    let answer = it.get(80, "redirect.example", "/x").await.unwrap();
    let expected = (301, "https://redirect.example/x".to_owned());
    assert_eq!(redirect(&it, &answer), expected);
    let answer = it.get_tls(443, "redirect.example", "/x").await.unwrap();
    assert_eq!(answer.header("x-backend"), "default/example-svc");
}

#[tokio::test]
async fn redirects_replace_the_full_path_or_its_prefix() {
    let rows = [
        (
            "http-redirect-rewrite/httproute-redirect-full.yaml",
            "http://redirect.example/paprika",
        ),
        (
            "http-redirect-rewrite/httproute-redirect-prefix.yaml",
            "http://redirect.example/paprika/hot",
        ),
    ];
    for (file, location) in rows {
        let Some(it) = with_parent(file) else { return };
        let it = it.serve(&[80]).await.unwrap();
        let answer = it
            .get(80, "redirect.example", "/cayenne/hot")
            .await
            .unwrap();
        assert_eq!(redirect(&it, &answer), (302, location.to_owned()), "{file}");
    }
}

#[tokio::test]
async fn simple_http_https_redirects_to_port_443_and_serves_there() {
    let Some(mut it) = example(&[
        "simple-http-https/gateway.yaml",
        "simple-http-https/tls-redirect-route.yaml",
        "simple-http-https/foo-route.yaml",
        "simple-http-https/bar-route.yaml",
    ]) else {
        return;
    };
    it.certificate("default/example-com", &["*.example.com"])
        .unwrap();
    it.certificate("default/foo-com", &["*.foo.com"]).unwrap();
    for service in ["foo-app", "foo-orders-app", "bar-app"] {
        it.backend(&format!("default/{service}"), 80).await.unwrap();
    }
    let it = it.serve(&[80, 443, 8443]).await.unwrap();
    for host in ["foo.example.com", "bar.example.com"] {
        let answer = it.get(80, host, "/orders").await.unwrap();
        let expected = (302, format!("https://{host}/orders"));
        assert_eq!(redirect(&it, &answer), expected);
    }
    let answer = it.get(80, "baz.example.com", "/").await.unwrap();
    assert_eq!(answer.status, 404);
    let rows = [
        ("foo.example.com", "/", "default/foo-app"),
        ("foo.example.com", "/orders/1", "default/foo-orders-app"),
        ("bar.example.com", "/orders", "default/bar-app"),
        ("baz.example.com", "/", ""),
    ];
    for (host, path, backend) in rows {
        let answer = it.get_tls(443, host, path).await.unwrap();
        assert_eq!(answer.header("x-backend"), backend, "{host}{path}");
    }
    // The third listener has a certificate and no routes.
    let answer = it.get_tls(8443, "any.foo.com", "/").await.unwrap();
    assert_eq!(answer.status, 404);
}
