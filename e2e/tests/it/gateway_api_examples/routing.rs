//! Examples that choose a backend by host, path, header, query or method.

use dataplane_testkit::eventually;
use serde_json::json;

use e2e::manifest;
use e2e::scenario::Fields;

use super::{assert_told, example, with_parent};

#[tokio::test]
async fn basic_http_matches_by_everything_at_once() {
    let Some(mut it) = example(&["basic-http.yaml"]) else {
        return;
    };
    it.backend("default/my-service1", 8080).await.unwrap();
    it.backend("default/my-service2", 8080).await.unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let thing = "/some/thing/else?great=example";
    let magic: Fields<'_> = &[("magic", "foo")];
    let rows: [(&str, &str, &str, Fields<'_>, &str); 9] = [
        ("GET", "foo.com", "/bar", &[], "default/my-service1"),
        ("POST", "foo.com", "/bar/x", &[], "default/my-service1"),
        ("GET", "foo.com", thing, magic, "default/my-service2"),
        ("GET", "foo.com", "/barn", &[], ""),
        ("GET", "foo.com", thing, &[], ""),
        ("GET", "foo.com", "/some/thing", magic, ""),
        ("GET", "foo.com", "/some/thing?great=other", magic, ""),
        ("POST", "foo.com", thing, magic, ""),
        ("GET", "other.com", "/bar", &[], ""),
    ];
    for (method, host, path, fields, backend) in rows {
        let answer = it.send(80, method, host, path, fields).await.unwrap();
        assert_eq!(answer.header("x-backend"), backend, "{method} {host}{path}");
        let status = if backend.is_empty() { 404 } else { 200 };
        assert_eq!(answer.status, status, "{method} {host}{path}");
    }
    let told = it.told("GatewayClass", "example").await;
    let refused = "Accepted=False InvalidParameters";
    assert_told(&told, refused, "spec.parametersRef");
}

#[tokio::test]
async fn simple_gateway_sends_everything_to_one_service() {
    let Some(mut it) = example(&[
        "simple-gateway/gateway.yaml",
        "simple-gateway/httproute.yaml",
    ]) else {
        return;
    };
    it.backend("default/foo-svc", 8080).await.unwrap();
    let it = it.serve(&[80]).await.unwrap();
    for (host, path) in [("any.test", "/"), ("10.0.0.1", "/a/b?c=d")] {
        let answer = it.get(80, host, path).await.unwrap();
        assert_eq!(answer.header("x-backend"), "default/foo-svc");
    }
    let told = it.gateway.control_plane.told_all().await;
    let bad: Vec<_> = told.iter().filter(|line| line.contains("=False")).collect();
    assert!(
        bad.iter().all(|line| line.contains("Conflicted")),
        "{bad:#?}"
    );
}

#[tokio::test]
async fn http_routing_chooses_by_host_path_and_header() {
    let Some(mut it) = example(&[
        "http-routing/gateway.yaml",
        "http-routing/foo-httproute.yaml",
        "http-routing/bar-httproute.yaml",
    ]) else {
        return;
    };
    it.backend("default/example-svc", 80).await.unwrap();
    for service in ["foo-svc", "bar-svc", "bar-svc-canary"] {
        let key = format!("default/{service}");
        it.backend(&key, 8080).await.unwrap();
    }
    let it = it.serve(&[80]).await.unwrap();
    let rows: [(&str, &str, Fields<'_>, &str); 7] = [
        ("example.com", "/any", &[], "default/example-svc"),
        ("foo.example.com", "/login", &[], "default/foo-svc"),
        ("foo.example.com", "/logout", &[], ""),
        ("bar.example.com", "/", &[], "default/bar-svc"),
        (
            "bar.example.com",
            "/",
            &[("env", "prod")],
            "default/bar-svc",
        ),
        (
            "bar.example.com",
            "/x",
            &[("env", "canary")],
            "default/bar-svc-canary",
        ),
        ("baz.example.com", "/login", &[], ""),
    ];
    for (host, path, fields, backend) in rows {
        let answer = it.get_with(80, host, path, fields).await.unwrap();
        assert_eq!(
            answer.header("x-backend"),
            backend,
            "{host}{path} {fields:?}"
        );
    }
}

#[tokio::test]
async fn default_match_http_matches_every_path() {
    let Some(mut it) = example(&["default-match-http.yaml"]) else {
        return;
    };
    it.backend("default/my-service-2", 8080).await.unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let host = "default-match.com";
    let magic = [("magic", "default-match")];
    let answer = it.get(80, host, "/example/exact").await.unwrap();
    assert_eq!(answer.header("x-backend"), "default/my-service-2");
    let answer = it.get(80, host, "/other").await.unwrap();
    assert_eq!(answer.status, 404);
    // The first rule's backend is of a kind we do not know: its requests fail, and it is told.
    let answer = it.get_with(80, host, "/other", &magic).await.unwrap();
    assert_eq!(answer.status, 500);
    let told = it.told("HTTPRoute", "default/default-match-route").await;
    assert_told(
        &told,
        "parent default/default-match-gw ResolvedRefs=False InvalidKind",
        "CustomBackend",
    );
}

#[tokio::test]
async fn httproute_matches_paths_by_segment() {
    let Some(mut it) = with_parent("httproute.yaml") else {
        return;
    };
    for service in ["my-service-1", "my-service-2", "my-service-3"] {
        it.backend(&format!("default/{service}"), 8080)
            .await
            .unwrap();
    }
    let it = it.serve(&[80]).await.unwrap();
    let rows = [
        ("/mypath", "default/my-service-1"),
        ("/mypath/", "default/my-service-1"),
        ("/mypath/012", "default/my-service-1"),
        ("/mypath-012", "default/my-service-2"),
        ("/mypath-012/x", "default/my-service-2"),
        ("/mypath-0123", ""),
        ("/my%20path/123", "default/my-service-3"),
        ("/my%20path/123/4", "default/my-service-3"),
    ];
    for (path, backend) in rows {
        let answer = it.get(80, "any.test", path).await.unwrap();
        assert_eq!(answer.header("x-backend"), backend, "{path}");
    }
}

#[tokio::test]
async fn httproute_without_a_parent_is_told_so() {
    let files = [
        ("httproute.yaml", "HTTPRoute", "default/my-app"),
        ("http-filter.yaml", "HTTPRoute", "default/http-filter-1"),
        ("grpc-filter.yaml", "GRPCRoute", "default/grpc-filter-1"),
        (
            "traffic-splitting/simple-split.yaml",
            "HTTPRoute",
            "default/simple-split",
        ),
        (
            "traffic-splitting/traffic-split-1.yaml",
            "HTTPRoute",
            "default/foo-route",
        ),
        (
            "traffic-splitting/grpc-traffic-split-2.yaml",
            "GRPCRoute",
            "default/foo-route",
        ),
    ];
    let names = files.map(|(file, ..)| file);
    // The two routes called foo-route are of two kinds, so all six live in one folder.
    let Some(it) = example(&names) else { return };
    let it = it.serve(&[]).await.unwrap();
    for (file, kind, key) in files {
        let told = it.told(kind, key).await;
        assert_told(&told, "spec.parentRefs: is absent", "attached to nothing");
        let printed = || it.gateway.process.stdout().contains(key).then_some(());
        eventually(file, printed).await;
    }
}

#[tokio::test]
async fn reference_grant_opens_services_to_one_namespace() {
    let Some(mut it) = example(&["reference-grant.yaml"]) else {
        return;
    };
    it.backend("default/shared", 8080).await.unwrap();
    let rule = |namespace: &str| {
        manifest::route_to(
            &format!("{namespace}/route"),
            "default/web",
            &[&format!("{namespace}.test")],
            "default/shared:8080",
        )
    };
    let gateway = manifest::http_gateway("default/web", &[("http", 80)]);
    it.add("routes.yaml", [gateway, rule("prod"), rule("dev")])
        .unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let granted = it.get(80, "prod.test", "/").await.unwrap();
    assert_eq!(granted.header("x-backend"), "default/shared");
    let refused = it.get(80, "dev.test", "/").await.unwrap();
    assert_eq!(refused.status, 500);
    let told = it.told("HTTPRoute", "dev/route").await;
    assert_told(
        &told,
        "parent default/web ResolvedRefs=False RefNotPermitted",
        "ReferenceGrant",
    );
}

#[tokio::test]
async fn multicluster_method_knows_methods_and_names_what_nobody_imported() {
    let Some(mut it) = example(&["multicluster/httproute-method.yaml"]) else {
        return;
    };
    it.backend("default/unused", 8080).await.unwrap();
    let gateway = manifest::http_gateway("default/api-gw", &[("http", 80)]);
    let by_method = manifest::http_route(
        "default/own",
        "default/api-gw",
        &["own.test"],
        json!([{ "matches": [{ "method": "PUT" }],
                 "backendRefs": [manifest::backend("unused:8080")] }]),
    );
    it.add("gateway.yaml", [gateway, by_method]).unwrap();
    let it = it.serve(&[80]).await.unwrap();
    for method in ["GET", "POST", "PUT"] {
        let answer = it.send(80, method, "own.test", "/", &[]).await.unwrap();
        // Where the more specific host matches nothing, the route for all hosts is asked.
        let status = if method == "PUT" { 200 } else { 500 };
        assert_eq!(answer.status, status, "{method}");
    }
    let told = it.told("HTTPRoute", "default/api").await;
    assert_told(&told, "parent default/api-gw Accepted=True", "");
    assert_told(
        &told,
        "parent default/api-gw ResolvedRefs=False BackendNotFound",
        "there is no ServiceImport",
    );
}
