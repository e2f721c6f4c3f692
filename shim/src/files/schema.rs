//! The names a field may have, for messages about one that is unknown.
//!
//! Read from the types' own JSON schema, and only when a fault is reported, so nothing here costs a
//! valid object anything.

use k8s_openapi::schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use super::place::Step;

/// The valid name nearest to that of the field at `path` among those allowed there.
pub(super) fn nearest<T: JsonSchema>(path: &[Step]) -> Option<String> {
    let (Step::Key(field), path) = path.split_last()? else {
        return None;
    };
    let schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<T>();
    let root = schema.as_value();
    let mut places = vec![root];
    for next in path {
        places = places
            .into_iter()
            .flat_map(|place| step(root, place, next))
            .collect();
    }
    let names = places
        .into_iter()
        .flat_map(|place| alternatives(root, place))
        .filter_map(|place| place.get("properties").and_then(Value::as_object));
    names
        .flat_map(|properties| properties.keys())
        .map(|name| {
            (
                strsim::damerau_levenshtein(&name.to_lowercase(), &field.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .min()
        .map(|(_, name)| name.clone())
}

fn step<'a>(root: &'a Value, place: &'a Value, next: &Step) -> Vec<&'a Value> {
    alternatives(root, place)
        .into_iter()
        .filter_map(|place| match next {
            Step::Item(_) => place.get("items"),
            Step::Key(key) => place
                .get("properties")
                .and_then(|properties| properties.get(key))
                .or_else(|| place.get("additionalProperties")),
        })
        .collect()
}

/// `place` itself and everything it points to or may be.
fn alternatives<'a>(root: &'a Value, place: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![place];
    let mut next = 0;
    // A schema that refers to itself must not keep us here.
    while next < found.len() && found.len() < 64 {
        let place = found[next];
        next += 1;
        if let Some(pointer) = place.get("$ref").and_then(Value::as_str) {
            found.extend(root.pointer(pointer.trim_start_matches('#')));
        }
        for word in ["anyOf", "oneOf", "allOf"] {
            found.extend(
                place
                    .get(word)
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten(),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use gateway_api::experimental::httproutes::HttpRoute;
    use k8s_openapi::api::core::v1::Service;

    use super::*;

    #[test]
    fn the_nearest_name_is_found_at_any_depth() {
        fn near<T: JsonSchema>(path: &str) -> Option<String> {
            let steps = path.split('.').map(|step| match step.parse() {
                Ok(index) => Step::Item(index),
                Err(_) => Step::Key(step.to_owned()),
            });
            nearest::<T>(&steps.collect::<Vec<_>>())
        }
        for (found, expected) in [
            (near::<HttpRoute>("spec.hostname"), Some("hostnames")),
            (
                near::<HttpRoute>("spec.rules.0.backendrefs"),
                Some("backendRefs"),
            ),
            (
                near::<HttpRoute>("spec.rules.0.filters.1.urlRewrite.hostnme"),
                Some("hostname"),
            ),
            (
                near::<Service>("spec.ports.0.targetport"),
                Some("targetPort"),
            ),
            (near::<HttpRoute>("spec.xyzzy"), None),
        ] {
            assert_eq!(found.as_deref(), expected);
        }
    }
}
