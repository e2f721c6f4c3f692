//! Examples of what is not served yet: each is named in a condition, and nothing is done by halves.

use e2e::manifest;

use super::{assert_told, example};

#[tokio::test]
async fn gateway_addresses_that_cannot_be_had_are_told() {
    let Some(mut it) = example(&["gateway-addresses.yaml"]) else {
        return;
    };
    // Beside it, a Gateway that is served: one of them does not stop the other.
    it.backend("default/app", 80).await.unwrap();
    it.add(
        "beside.yaml",
        [
            manifest::http_gateway("default/beside", &[("http", 8080)]),
            manifest::route_to("default/route", "default/beside", &[], "app:80"),
            serde_json::json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": { "name": "elsewhere", "namespace": "default" },
                "spec": {
                    "gatewayClassName": "example",
                    "addresses": [{ "value": "192.0.2.1" }],
                    "listeners": [{ "name": "http", "protocol": "HTTP", "port": 80 }],
                },
            }),
        ],
    )
    .unwrap();
    let it = it.serve(&[80, 8080]).await.unwrap();
    let told = it.told("Gateway", "default/gateway-addresses").await;
    assert_told(&told, "Accepted=False UnsupportedAddress", "Hostname");
    let told = it.told("Gateway", "default/elsewhere").await;
    assert_told(&told, "Programmed=False AddressNotUsable", "192.0.2.1");
    let answer = it.get(8080, "any.test", "/").await.unwrap();
    assert_eq!(answer.header("x-backend"), "default/app");
}

#[tokio::test]
async fn tls_routing_without_its_backends_is_accepted_and_its_references_told() {
    let Some(it) = example(&["tls-routing/gateway.yaml", "tls-routing/tls-route.yaml"]) else {
        return;
    };
    let it = it.serve(&[443]).await.unwrap();
    let told = it.told("TLSRoute", "default/example-route").await;
    assert_told(&told, "parent default/example-gateway Accepted=True", "");
}

#[tokio::test]
async fn http_request_mirroring_copies_to_the_second_service() {
    let Some(mut it) = example(&["http-request-mirroring/httproute-mirroring.yaml"]) else {
        return;
    };
    it.backend("default/foo-v1", 8080).await.unwrap();
    it.backend("default/foo-v2", 8080).await.unwrap();
    let gateway = manifest::http_gateway("default/mirror-gateway", &[("http", 80)]);
    it.add("gateway.yaml", [gateway]).unwrap();
    let it = it.serve(&[80]).await.unwrap();
    let answer = it.get(80, "mirror.example", "/").await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-backend"), "default/foo-v1");
}

#[tokio::test]
async fn multicluster_backends_that_nobody_imported_are_told() {
    let rows = [
        ("multicluster/httproute-simple.yaml", "/"),
        ("multicluster/httproute-location.yaml", "/west"),
    ];
    for (file, path) in rows {
        let Some(it) = example(&["multicluster/0-namespaces.yaml", file]) else {
            return;
        };
        let gateway = manifest::http_gateway("default/external-http", &[("http", 80)]);
        it.add("gateway.yaml", [gateway]).unwrap();
        let it = it.serve(&[80]).await.unwrap();
        let told = it.told("HTTPRoute", "default/store").await;
        let start = "parent default/external-http ResolvedRefs=False BackendNotFound";
        assert_told(&told, start, "there is no ServiceImport");
        let answer = it.get(80, "any.test", path).await.unwrap();
        assert_eq!(answer.status, 500, "{file}");
    }
}

#[tokio::test]
async fn multicluster_routes_without_a_gateway_are_told() {
    let Some(it) = example(&[
        "multicluster/httproute-gamma.yaml",
        "multicluster/httproute-referencegrant.yaml",
    ]) else {
        return;
    };
    let it = it.serve(&[]).await.unwrap();
    let told = it.told("HTTPRoute", "default/store").await;
    assert_told(
        &told,
        "parent default/store Accepted=False NoMatchingParent",
        "ServiceImport",
    );
    let told = it.told("HTTPRoute", "foo/foo").await;
    assert_told(&told, "spec.parentRefs: is absent", "attached to nothing");
}
