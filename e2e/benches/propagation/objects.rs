//! The objects that the parts write, as JSON.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// The Gateway `default/gw` with one HTTP listener; everybody may attach to it.
pub(crate) fn gateway(port: u16) -> Value {
    json!({
        "apiVersion": GATEWAY_API, "kind": "Gateway",
        "metadata": { "name": "gw", "namespace": "default" },
        "spec": {
            "gatewayClassName": "propagation",
            "addresses": [{ "type": "IPAddress", "value": "127.0.0.1" }],
            "allowedListeners": { "namespaces": { "from": "All" } },
            "listeners": [{
                "name": "http", "port": port, "protocol": "HTTP",
                "allowedRoutes": { "namespaces": { "from": "All" } },
            }],
        },
    })
}

/// The class of it.
pub(crate) fn class() -> Value {
    json!({
        "apiVersion": GATEWAY_API, "kind": "GatewayClass",
        "metadata": { "name": "propagation" },
        "spec": { "controllerName": "example.net/propagation" },
    })
}

/// A namespace.
pub(crate) fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

/// A Service with ports 80 and 8080, as far as the gateway cares.
pub(crate) fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "clusterIP": "None", "ports": [
            { "name": "http", "port": 80 }, { "name": "alternative", "port": 8080 },
        ] },
    })
}

/// Where the Pods of a Service are.
pub(crate) fn slice(namespace: &str, service: &str, pods: &[Ipv4Addr], port: u16) -> Value {
    let endpoints = pods
        .iter()
        .map(|pod| json!({ "addresses": [pod.to_string()], "conditions": { "ready": true } }));
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"), "namespace": namespace,
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": port }, { "name": "alternative", "port": port }],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

/// A route of `default/gw` for one host with these rules.
pub(crate) fn route(namespace: &str, name: &str, host: &str, rules: Value) -> Value {
    let parent = json!({ "name": "gw", "namespace": "default" });
    route_of(namespace, name, host, parent, rules)
}

/// The same with another parent.
pub(crate) fn route_of(
    namespace: &str,
    name: &str,
    host: &str,
    parent: Value,
    rules: Value,
) -> Value {
    let mut route = json!({
        "apiVersion": GATEWAY_API, "kind": "HTTPRoute",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "hostnames": [host] },
    });
    route["spec"]["parentRefs"] = Value::Array(vec![parent]);
    route["spec"]["rules"] = rules;
    route
}

/// The rules of a route that is measured: its path goes to the Service `backend`, with fields added
/// both ways, all others to a Service that does not exist.
pub(crate) fn measured_rules(number: usize) -> Value {
    let filters = json!([
        { "type": "RequestHeaderModifier", "requestHeaderModifier": {
            "add": [{ "name": "added-header", "value": "added-value" }] } },
        { "type": "ResponseHeaderModifier", "responseHeaderModifier": {
            "add": [{ "name": "added-resp-header", "value": "added-resp-value" }] } },
    ]);
    let rule = |path: String, backend: &str| {
        json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
            "filters": filters, "backendRefs": [{ "name": backend, "port": 80 }],
        })
    };
    json!([
        rule(format!("/{number}"), "backend"),
        rule("/".to_owned(), "invalid-backend")
    ])
}

/// The rules of a route with one path to one Service.
pub(crate) fn plain_rules(path: &str, service: &str, port: u16) -> Value {
    json!([{
        "matches": [{ "path": { "type": "PathPrefix", "value": path } }],
        "backendRefs": [{ "name": service, "port": port }],
    }])
}
