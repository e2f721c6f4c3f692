//! Examples about which routes a Gateway takes.

use e2e::manifest;

use super::{assert_told, example};

#[tokio::test]
async fn gateway_strict_takes_routes_of_one_namespace() {
    let Some(mut it) = example(&[
        "0-namespaces.yaml",
        "http-route-attachment/gateway-strict.yaml",
        "http-route-attachment/httproute.yaml",
    ]) else {
        return;
    };
    it.backend("gateway-api-example-ns2/foo-svc", 8080)
        .await
        .unwrap();
    it.backend("default/app", 8080).await.unwrap();
    let outsider = manifest::route_to(
        "default/outsider",
        "gateway-api-example-ns1/foo-gateway",
        &["outsider.test"],
        "app:8080",
    );
    it.add("outsider.yaml", [outsider]).unwrap();
    let it = it.serve(&[80]).await.unwrap();
    for host in ["any.test", "outsider.test"] {
        let answer = it.get(80, host, "/").await.unwrap();
        assert_eq!(
            answer.header("x-backend"),
            "gateway-api-example-ns2/foo-svc",
            "{host}"
        );
    }
    let told = it.told("HTTPRoute", "default/outsider").await;
    let start = "parent gateway-api-example-ns1/foo-gateway Accepted=False NotAllowedByListeners";
    assert_told(&told, start, "");
}

#[tokio::test]
async fn gateway_namespaces_takes_routes_by_label() {
    let Some(mut it) = example(&["http-route-attachment/gateway-namespaces.yaml"]) else {
        return;
    };
    let parent = "gateway-api-example-ns1/prod-gateway";
    it.backend("shown/app", 8080).await.unwrap();
    it.backend("hidden/app", 8080).await.unwrap();
    it.add(
        "routes.yaml",
        [
            manifest::namespace("shown", &[("expose-apps", "true")]),
            manifest::namespace("hidden", &[]),
            manifest::route_to("shown/route", parent, &["shown.test"], "app:8080"),
            manifest::route_to("hidden/route", parent, &["hidden.test"], "app:8080"),
        ],
    )
    .unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let answer = it.get(80, "shown.test", "/").await.unwrap();
    assert_eq!(answer.header("x-backend"), "shown/app");
    let answer = it.get(80, "hidden.test", "/").await.unwrap();
    assert_eq!(answer.status, 404);
    let told = it.told("HTTPRoute", "hidden/route").await;
    assert_told(
        &told,
        &format!("parent {parent} Accepted=False NotAllowedByListeners"),
        "",
    );
}
