//! Which Secrets and ConfigMaps an object names.
//!
//! Read from the object as it came, by the shapes that Gateway API and our own kinds use, so that a
//! new policy needs no line here. Naming one too many costs a look at it, nothing else. Whether a
//! reference is allowed is judged by the translation.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::api::DynamicObject;
use serde_json::{Map, Value};

use crate::cluster_view::Kind;

/// Kinds that name none, and are many or large.
const WITHOUT: &[&str] = &[
    "Service",
    "ServiceImport",
    "EndpointSlice",
    "Namespace",
    "Pod",
    "ReferenceGrant",
];
/// References of one object that are followed.
const REFERENCES_MAX: usize = 1024;

/// A Secret or ConfigMap.
pub(super) type Wanted = (Kind, Arc<str>);

/// Every Secret and ConfigMap that the object names.
pub(super) fn of(kind: &str, object: &DynamicObject) -> BTreeSet<Wanted> {
    let mut found = BTreeSet::new();
    if !WITHOUT.contains(&kind)
        && let Some(spec) = object.data.get("spec")
    {
        let own = object.metadata.namespace.as_deref().unwrap_or_default();
        walk("", spec, own, &mut found);
    }
    found
}

fn walk(field: &str, value: &Value, own: &str, found: &mut BTreeSet<Wanted>) {
    if found.len() >= REFERENCES_MAX {
        return;
    }
    match value {
        Value::Object(map) => {
            found.extend(reference(field, map, own));
            for (field, value) in map {
                walk(field, value, own, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| walk(field, value, own, found)),
        // `auth.secret: name`, `htpasswdRef: name`, perhaps with a namespace before it.
        Value::String(name) if implied(field).is_some() && is_name(name) => {
            let key = if name.contains('/') {
                name.as_str().into()
            } else {
                format!("{own}/{name}").into()
            };
            found.extend(implied(field).map(|kind| (kind, key)));
        }
        _ => {}
    }
}

fn reference(field: &str, map: &Map<String, Value>, own: &str) -> Option<Wanted> {
    let text = |key: &str| map.get(key).and_then(Value::as_str);
    let name = text("name").filter(|name| is_name(name))?;
    let kind = match text("kind") {
        Some(kind) if matches!(text("group"), None | Some("" | "core")) => match kind {
            "Secret" => Kind::Secret,
            "ConfigMap" => Kind::ConfigMap,
            _ => return None,
        },
        Some(_) => return None,
        None => implied(field)?,
    };
    let namespace = text("namespace").unwrap_or(own);
    Some((kind, format!("{namespace}/{name}").into()))
}

/// What a field of that name refers to when it does not say so.
fn implied(field: &str) -> Option<Kind> {
    let field = field.to_ascii_lowercase();
    let has = |part: &str| field.contains(part);
    if has("configmap") {
        Some(Kind::ConfigMap)
    } else if has("secret") || has("htpasswd") || has("certificateref") || has("keyref") {
        Some(Kind::Secret)
    } else {
        None
    }
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'/');
    !name.is_empty()
        && name.len() <= 317
        && name.bytes().all(is_plain)
        && !name.starts_with('/')
        && !name.ends_with('/')
        && name.matches('/').count() <= 1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(spec: Value) -> Vec<String> {
        let object = DynamicObject {
            types: None,
            metadata: kube::api::ObjectMeta {
                namespace: Some("shop".to_owned()),
                ..kube::api::ObjectMeta::default()
            },
            data: json!({ "spec": spec }),
        };
        let found = of("Gateway", &object).into_iter();
        found.map(|(kind, key)| format!("{kind} {key}")).collect()
    }

    #[test]
    fn references_are_found_in_every_shape_we_know() {
        let rows = [
            (
                json!({"listeners": [{"tls": {"certificateRefs": [{"name": "a"}, {"name": "b", "namespace": "infra", "kind": "Secret", "group": ""}]}}]}),
                vec!["Secret infra/b", "Secret shop/a"],
            ),
            (
                json!({"validation": {"caCertificateRefs": [{"kind": "ConfigMap", "group": "", "name": "ca"}]}}),
                vec!["ConfigMap shop/ca"],
            ),
            (
                json!({"tls": {"backend": {"clientCertificateRef": {"name": "c"}}}}),
                vec!["Secret shop/c"],
            ),
            (
                json!({"auth": {"secretRef": {"name": "key", "key": "k"}}}),
                vec!["Secret shop/key"],
            ),
            (json!({"auth": {"secret": "key"}}), vec!["Secret shop/key"]),
            (
                json!({"wasm": {"configMap": {"name": "module"}}}),
                vec!["ConfigMap shop/module"],
            ),
            (
                json!({"authn": {"basicAuth": {"htpasswdRef": "users"}}}),
                vec!["Secret shop/users"],
            ),
            (
                json!({"rules": [{"backendRefs": [{"name": "web", "kind": "Service"}, {"name": "x"}]}]}),
                vec![],
            ),
            (
                json!({"rules": [{"certificateRefs": [{"name": "x", "kind": "Secret", "group": "acme.io"}]}]}),
                vec![],
            ),
            (json!({"secret": "../../etc"}), vec![]),
        ];
        for (spec, expected) in rows {
            assert_eq!(found(spec.clone()), expected, "{spec}");
        }
    }
}
