//! Manifests as text: what a cluster would hold beside the Gateways and routes of an example.
//!
//! Objects are written as JSON documents of a YAML file. Keys are `namespace/name`.

use std::net::SocketAddr;

use dataplane_testkit::certificate::Identity;
use serde_json::{Value, json};

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// The documents of one file.
pub fn file(objects: impl IntoIterator<Item = Value>) -> String {
    let documents = objects.into_iter().map(|object| format!("---\n{object}\n"));
    documents.collect()
}

/// A Service with one port, and the EndpointSlice that says where it is.
pub fn service(key: &str, port: u16, endpoint: SocketAddr) -> [Value; 2] {
    let name = split(key).1;
    let slice = format!("{name}-{port}");
    let mut metadata = metadata_of(&format!("{}/{slice}", split(key).0));
    metadata["labels"] = json!({ "kubernetes.io/service-name": name });
    [
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata_of(key),
            "spec": { "ports": [{ "name": "it", "port": port }] },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv4",
            "ports": [{ "name": "it", "port": endpoint.port() }],
            "endpoints": [{ "addresses": [endpoint.ip().to_string()] }],
        }),
    ]
}

/// A Secret of type `kubernetes.io/tls`.
pub fn certificate(key: &str, identity: &Identity) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata_of(key),
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": identity.chain_pem, "tls.key": identity.key_pem },
    })
}

/// A ConfigMap with a certificate authority.
pub fn authority(key: &str, pem: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata_of(key),
        "data": { "ca.crt": pem },
    })
}

/// A namespace with labels.
pub fn namespace(name: &str, labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value)))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "labels": labels },
    })
}

/// A GatewayClass of that controller.
pub fn gateway_class(name: &str, controller: &str) -> Value {
    json!({
        "apiVersion": GATEWAY_API,
        "kind": "GatewayClass",
        "metadata": { "name": name },
        "spec": { "controllerName": controller },
    })
}

/// A Gateway of class `nantian-gw` with HTTP listeners for routes of all namespaces.
pub fn http_gateway(key: &str, listeners: &[(&str, u16)]) -> Value {
    let listeners = listeners.iter().map(|(name, port)| {
        json!({
            "name": name,
            "protocol": "HTTP",
            "port": port,
            "allowedRoutes": { "namespaces": { "from": "All" } },
        })
    });
    gateway(key, listeners.collect())
}

/// A Gateway of class `nantian-gw` with these listeners.
pub fn gateway(key: &str, listeners: Vec<Value>) -> Value {
    json!({
        "apiVersion": GATEWAY_API,
        "kind": "Gateway",
        "metadata": metadata_of(key),
        "spec": { "gatewayClassName": "nantian-gw", "listeners": listeners },
    })
}

/// An HTTPRoute at the Gateway `parent` with these rules.
pub fn http_route(key: &str, parent: &str, hostnames: &[&str], rules: Value) -> Value {
    let (namespace, name) = split(parent);
    json!({
        "apiVersion": GATEWAY_API,
        "kind": "HTTPRoute",
        "metadata": metadata_of(key),
        "spec": {
            "parentRefs": [{ "namespace": namespace, "name": name }],
            "hostnames": hostnames,
            "rules": rules,
        },
    })
}

/// An HTTPRoute at the Gateway `parent` that sends everything to one Service (`name:port`, or
/// `namespace/name:port`).
pub fn route_to(key: &str, parent: &str, hostnames: &[&str], service: &str) -> Value {
    let rules = json!([{ "backendRefs": [backend(service)] }]);
    http_route(key, parent, hostnames, rules)
}

/// A backend reference to `name:port` or `namespace/name:port`.
pub fn backend(service: &str) -> Value {
    let (key, port) = service.split_once(':').unwrap_or((service, ""));
    let mut backend = json!({ "name": key, "port": port.parse().unwrap_or(0) });
    if let Some((namespace, name)) = key.split_once('/') {
        backend["namespace"] = json!(namespace);
        backend["name"] = json!(name);
    }
    backend
}

fn metadata_of(key: &str) -> Value {
    let (namespace, name) = split(key);
    json!({ "namespace": namespace, "name": name })
}

fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("default", key))
}
