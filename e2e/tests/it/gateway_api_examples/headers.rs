//! Examples that edit request headers, or rewrite host and path.

use dataplane_testkit::client::Response;
use serde_json::json;

use e2e::{Running, manifest};

use super::{example, with_parent};

/// Values of a request header, as the backend saw them, joined as lists are.
fn seen(answer: &Response, name: &str) -> Option<String> {
    let json = answer.json();
    let values = json["headers"][name].as_array()?;
    let values: Vec<_> = values.iter().filter_map(|value| value.as_str()).collect();
    Some(values.join(","))
}

#[tokio::test]
async fn http_filter_adds_to_what_the_client_sent() {
    let Some(mut it) = with_parent("http-filter.yaml") else {
        return;
    };
    it.backend("default/my-filter-svc1", 80).await.unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let answer = it.get(80, "my.filter.com", "/").await.unwrap();
    assert_eq!(seen(&answer, "my-header").as_deref(), Some("foo"));
    let own = [("my-header", "own")];
    let answer = it.get_with(80, "my.filter.com", "/", &own).await.unwrap();
    assert_eq!(seen(&answer, "my-header").as_deref(), Some("own,foo"));
}

async fn header_example(file: &str) -> Option<Running> {
    let mut it = example(&[file])?;
    it.backend("default/echo", 8080).await.unwrap();
    let gateway = manifest::http_gateway("default/acme-gw", &[("http", 80)]);
    it.add("gateway.yaml", [gateway]).unwrap();
    Some(it.serve(&[80]).await.unwrap())
}

#[tokio::test]
async fn http_request_header_add_set_and_remove_do_so() {
    let rows = [
        (
            "http-request-header-add.yaml",
            "/add-a-request-header",
            "my-header-name",
            Some("own,my-header-value"),
        ),
        (
            "http-request-header-set.yaml",
            "/edit-a-request-header",
            "my-header-name",
            Some("my-new-header-value"),
        ),
        (
            "http-request-header-remove.yaml",
            "/remove-a-request-header",
            "x-request-id",
            None,
        ),
    ];
    for (file, path, name, expected) in rows {
        let Some(it) = header_example(file).await else {
            return;
        };
        let own = [(name, "own"), ("x-other", "stays")];
        let answer = it.get_with(80, "any.test", path, &own).await.unwrap();
        assert_eq!(answer.header("x-backend"), "default/echo", "{file}");
        assert_eq!(seen(&answer, name).as_deref(), expected, "{file}");
        assert_eq!(seen(&answer, "x-other").as_deref(), Some("stays"), "{file}");
        let answer = it.get(80, "any.test", "/other").await.unwrap();
        assert_eq!(answer.status, 404, "{file}");
    }
}

#[tokio::test]
async fn rewrites_change_host_and_path() {
    let rows = [
        (
            "http-redirect-rewrite/httproute-rewrite-full-path.yaml",
            "/cardamom/x?q=1",
            "/fennel",
        ),
        (
            "http-redirect-rewrite/httproute-rewrite-prefix-path.yaml",
            "/cardamom/x?q=1",
            "/fennel/x",
        ),
        (
            "http-redirect-rewrite/httproute-rewrite.yaml",
            "/cardamom/x?q=1",
            "/cardamom/x",
        ),
    ];
    for (file, path, expected) in rows {
        let Some(mut it) = with_parent(file) else {
            return;
        };
        it.backend("default/example-svc", 80).await.unwrap();
        let it = it.serve(&[80]).await.unwrap();
        let answer = it.get(80, "rewrite.example", path).await.unwrap();
        assert_eq!(answer.status, 200, "{file}");
        let told = answer.json();
        assert_eq!(told["path"], expected, "{file}");
        assert_eq!(told["query"], "q=1", "{file}");
        let host = told["headers"]["host"].clone();
        assert_eq!(host, json!(["elsewhere.example"]), "{file}");
    }
}

#[tokio::test]
async fn http_rewrite_without_a_backend_has_nowhere_to_go() {
    let Some(it) = example(&["http-rewrite.yaml"]) else {
        return;
    };
    let gateway =
        manifest::http_gateway("gateway-api-example-ns1/my-filter-gateway", &[("http", 80)]);
    it.add("gateway.yaml", [gateway]).unwrap();
    let it = it.serve(&[80]).await.unwrap();
    // HTTPRouteRule.backendRefs: without one, and without a redirect, requests are answered with 500.
    let answer = it.get(80, "my-filter.example.com", "/any").await.unwrap();
    assert_eq!(answer.status, 500);
    let answer = it.get(80, "other.example.com", "/any").await.unwrap();
    assert_eq!(answer.status, 404);
}
