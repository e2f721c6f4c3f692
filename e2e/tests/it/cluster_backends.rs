//! Backends and parents that are no plain Services, against a real API server: ServiceImports, and
//! Services that data planes stand in for.
//!
//! Nothing runs controllers there, so the test writes the EndpointSlices that Kubernetes would.

use dataplane_testkit::snapshot::free_port;
use e2e::api_server::ApiServer;
use e2e::gateway::DataPlane;
use serde_json::Value;

use crate::cluster::{ALONE, Place, condition, wait_sent_to};

/// The kind as the Multi-Cluster Services API has it, as far as it counts here.
const IMPORTS: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: serviceimports.multicluster.x-k8s.io}
spec:
  group: multicluster.x-k8s.io
  scope: Namespaced
  names: {kind: ServiceImport, plural: serviceimports, singular: serviceimport}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

/// Installs the kind, and waits until it is there.
pub(crate) fn install_imports(server: &ApiServer) {
    server.apply(IMPORTS).unwrap();
    let established = [
        "wait",
        "--for=condition=Established",
        "crd/serviceimports.multicluster.x-k8s.io",
        "--timeout=30s",
    ];
    assert!(server.kubectl(&established, "").unwrap().is_success);
}

fn resolved(route: &Value) -> &Value {
    condition(&route["status"]["parents"][0]["conditions"], "ResolvedRefs")
}

fn slice(name: &str, labels: &str, address: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, labels: {{{labels}}}}}\naddressType: IPv4\n\
         endpoints: [{{addresses: [{address}], conditions: {{ready: true}}}}]\n\
         ports: [{{name: http, port: 8080}}]\n"
    )
}

fn apply(place: &Place<'_>, text: &str) {
    let arguments = ["apply", "-n", &place.namespace, "-f", "-"];
    let answer = place.server.kubectl(&arguments, text).unwrap();
    assert!(answer.is_success, "{}", answer.stderr);
}

fn delete(place: &Place<'_>, kind: &str, name: &str) {
    let arguments = ["delete", kind, name, "-n", &place.namespace];
    assert!(place.server.kubectl(&arguments, "").unwrap().is_success);
}

#[tokio::test]
async fn an_import_is_a_backend_as_soon_as_its_kind_is_installed() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "import", ALONE);
    let shim = place.shim().await;
    place.gateway(free_port());
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n\
                 spec:\n  parentRefs: [{name: gw}]\n  rules: [{backendRefs: [{group: \
                 multicluster.x-k8s.io, kind: ServiceImport, name: cart, port: 80}]}]\n";
    apply(&place, route);
    let is_unknown = |route: &Value| resolved(route)["reason"] == "BackendNotFound";
    place.wait("httproute", "r", is_unknown).await;

    install_imports(server);
    let import = "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceImport\n\
                  metadata: {name: cart}\nspec: {type: ClusterSetIP, ports: [{name: http, port: \
                  80, protocol: TCP}]}\n";
    let label = "multicluster.kubernetes.io/service-name: cart";
    let imported = format!("{import}{}", slice("imported", label, "192.0.2.77"));
    apply(&place, &imported);
    let is_known = |route: &Value| resolved(route)["status"] == "True";
    place.wait("httproute", "r", is_known).await;
    let snapshot = shim.admin.text("/api/v1/config/snapshot").await;
    assert!(snapshot.contains("192.0.2.77"), "{snapshot}");

    delete(&place, "serviceimport", "cart");
    place.wait("httproute", "r", is_unknown).await;
}

#[tokio::test]
async fn a_service_with_routes_is_led_to_data_planes_and_back() {
    if std::env::var_os("E2E_KUBECONFIG").is_some() {
        // Others' shims, whose mesh is off, would lead it back.
        return;
    }
    let Some(server) = ApiServer::start() else {
        return;
    };
    let planes = server.namespace("planes").unwrap();
    let port = free_port();
    let more = format!(
        "{ALONE}\nmesh: {{enabled: true, dataPlaneService: {planes}/dp, firstPort: {port}, \
         lastPort: {port}}}"
    );
    let place = Place::new(&server, "mesh", &more);
    let data_planes = slice("dp-1", "kubernetes.io/service-name: dp", "192.0.2.10");
    let there = ["apply", "-n", &planes, "-f", "-"];
    assert!(server.kubectl(&there, &data_planes).unwrap().is_success);
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\nspec: {selector: {app: \
                   cart}, ports: [{name: http, port: 80, targetPort: 8080}]}\n";
    let own = "kubernetes.io/service-name: cart";
    apply(
        &place,
        &format!("{service}{}", slice("cart-1", own, "192.0.2.1")),
    );
    let shim = place.shim().await;
    let _data_plane = DataPlane::start(shim.grpc, None, |_| ()).await.unwrap();
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n\
                 spec:\n  parentRefs: [{group: '', kind: Service, name: cart, port: 80}]\n  rules: \
                 [{filters: [{type: RequestRedirect, requestRedirect: {hostname: mesh.test}}]}]\n";
    apply(&place, route);

    let shadow = "nantian-gw-shadow-cart";
    let is_there = |it: &Value| it["metadata"]["name"].is_string();
    let made = place.wait("service", shadow, is_there).await;
    assert_eq!(made["spec"]["selector"]["app"], "cart");
    assert_eq!(made["spec"]["clusterIP"], "None");
    let kept = format!(
        "kubernetes.io/service-name: {shadow}, nantian.dev/service-role: mesh-backend-shadow, \
         nantian.dev/original-service-name: cart"
    );
    apply(&place, &slice("shadow-1", &kept, "192.0.2.1"));
    let key = "nantian.dev/mesh-frontend";
    let is_led = |it: &Value| it["spec"]["selector"][key] == "true";
    place.wait("service", "cart", is_led).await;
    let frontend = "cart-nantian-mesh-ipv4";
    let leads = place.object("endpointslice", frontend);
    assert_eq!(leads["endpoints"][0]["addresses"][0], "192.0.2.10");
    assert_eq!(leads["ports"][0]["port"], port);
    wait_sent_to(port, "mesh.test").await;
    // As Kubernetes does, now that no pod has that key.
    delete(&place, "endpointslice", "cart-1");

    delete(&place, "httproute", "r");
    let is_free = |it: &Value| it["spec"]["selector"][key].is_null();
    place.wait("service", "cart", is_free).await;
    assert!(is_there(&place.object("endpointslice", frontend)));
    apply(&place, &slice("cart-2", own, "192.0.2.1"));
    place.wait("endpointslice", frontend, Value::is_null).await;
    place.wait("service", shadow, Value::is_null).await;
}
