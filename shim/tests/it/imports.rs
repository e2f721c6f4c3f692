//! ServiceImports as backends: endpoints by label, grants by kind, and what is told when one is not
//! there.

use std::collections::BTreeSet;

use shim::cluster_view::Kind;
use shim::conditions::{ConditionType as Type, Truth};
use shim::translate::{Settings, Translation, translate};

use crate::folder::{translated, view};

const REST: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: nantian-gw}
spec: {controllerName: gateway.networking.k8s.io/nantian-gw}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: shop}
spec:
  gatewayClassName: nantian-gw
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
endpoints: [{addresses: [192.0.2.1]}]
ports: [{name: http, port: 8080}]
";

fn import(kind: &str) -> String {
    format!(
        "---\napiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceImport\n\
         metadata: {{name: cart, namespace: shop}}\n\
         spec: {{type: {kind}, ports: [{{name: http, port: 80, protocol: TCP}}]}}\n"
    )
}

/// A slice of the import; Kubernetes may know it under the name of a derived Service as well.
fn slice(address: &str, labels: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: imported, namespace: shop, labels: {{{labels}\
         multicluster.kubernetes.io/service-name: cart}}}}\naddressType: IPv4\n\
         endpoints: [{{addresses: [{address}]}}]\nports: [{{name: http, port: 9090}}]\n"
    )
}

fn route(namespace: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: route, namespace: {namespace}}}\nspec:\n  \
         parentRefs: [{{name: gw, namespace: shop}}]\n  rules: [{{backendRefs: [\
         {{name: cart, namespace: shop, port: 80}}, {{group: multicluster.x-k8s.io, \
         kind: ServiceImport, name: cart, namespace: shop, port: 80}}]}}]\n"
    )
}

/// Endpoints of every cluster that the route may reach.
fn endpoints(translation: &Translation) -> BTreeSet<String> {
    let clusters = translation.snapshot().clusters.iter();
    let endpoints = clusters.flat_map(|cluster| {
        let of = |it: &ir::Endpoint| format!("{}={:?}:{}", cluster.key, it.address, it.port);
        cluster.endpoints.iter().map(of).collect::<Vec<_>>()
    });
    endpoints.collect()
}

fn resolved(translation: &Translation, namespace: &str) -> (Truth, &'static str, String) {
    let status = translation.status(Kind::HttpRoute, &format!("{namespace}/route"));
    let parent = status.unwrap().parents.first().unwrap();
    let found = parent
        .conditions
        .iter()
        .find(|it| it.kind == Type::ResolvedRefs);
    let found = found.unwrap();
    (found.status, found.reason, found.message.clone())
}

#[test]
fn an_import_and_a_service_of_its_name_are_two_backends() {
    for labels in ["", "kubernetes.io/service-name: derived-cart, "] {
        let text = REST.to_owned() + &import("ClusterSetIP") + &slice("192.0.2.9", labels);
        let translation = translated(&(text + &route("shop")));
        let (truth, reason, message) = resolved(&translation, "shop");
        assert_eq!((truth, reason), (Truth::True, "ResolvedRefs"), "{message}");
        let expected = [
            "shop/cart.serviceimport:80=Ip(192.0.2.9):9090",
            "shop/cart:80=Ip(192.0.2.1):8080",
        ];
        assert_eq!(endpoints(&translation), expected.map(str::to_owned).into());
    }
}

#[test]
fn an_import_that_cannot_be_used_says_why_and_is_picked_up_when_it_can() {
    let text = REST.to_owned() + &slice("192.0.2.9", "") + &route("shop");
    let before = translated(&text);
    let (_, reason, message) = resolved(&before, "shop");
    assert_eq!(reason, "BackendNotFound");
    assert!(message.contains("no ServiceImport shop/cart"), "{message}");

    let headless = translated(&(text.clone() + &import("Headless")));
    assert_eq!(resolved(&headless, "shop").1, "UnsupportedValue");

    let there = view(&(text + &import("ClusterSetIP")));
    let after = translate(&there, &Settings::default(), Some(&before));
    assert_eq!(resolved(&after, "shop").1, "ResolvedRefs");
    assert_eq!(endpoints(&after).len(), 2);
}

#[test]
fn a_grant_for_services_is_none_for_imports() {
    for (kind, expected) in [
        ("Service", "RefNotPermitted"),
        ("ServiceImport", "ResolvedRefs"),
    ] {
        let grant = format!(
            "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata: {{name: grant, namespace: shop}}\nspec:\n  \
             from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: web}}]\n  \
             to: [{{group: '', kind: Service}}, {{group: {}, kind: {kind}}}]\n",
            if kind == "Service" {
                "''"
            } else {
                "multicluster.x-k8s.io"
            }
        );
        let text = REST.to_owned() + &import("ClusterSetIP") + &slice("192.0.2.9", "") + &grant;
        let translation = translated(&(text + &route("web")));
        assert_eq!(resolved(&translation, "web").1, expected, "{kind}");
    }
}
