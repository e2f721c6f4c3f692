//! `values.schema.json` knows every key there is, and none that is not.
//!
//! What it refuses is tested in `chart.rs`, by Helm itself.

use std::collections::BTreeSet;
use std::fs;

use e2e::chart::{chart, root};
use serde_json::Value;

fn schema() -> Value {
    let text = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_schema_knows_every_value_and_no_other() {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let mut schema = schema();
    // What Helm gives to charts below this one, or takes for one above it, stands in no values.
    let keys = schema["properties"].as_object_mut().unwrap();
    keys.retain(|name, _| !name.starts_with("gateway-api-crds-") && name != "enabled");
    let mut known = 0;
    same_keys(
        "",
        &schema,
        &serde_yaml::from_str(&text).unwrap(),
        &mut known,
    );
    assert!(known > 150, "only {known} keys were compared");
}

/// The keys of a map of values, and of the maps in it, are those of its schema, which refuses others.
fn same_keys(path: &str, schema: &Value, value: &Value, known: &mut usize) {
    // Maps without keys of their own are taken as they are, such as labels.
    let (Some(value), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    else {
        return;
    };
    let keys: BTreeSet<_> = value.keys().collect();
    let has: BTreeSet<_> = properties.keys().collect();
    assert_eq!(
        keys, has,
        "values.yaml and values.schema.json below {path:?}"
    );
    let others = &schema["additionalProperties"];
    let is_shared = path == ".global";
    assert!(
        is_shared || *others == false,
        "{path:?} takes keys that nobody reads"
    );
    for (key, value) in value {
        *known += 1;
        same_keys(&format!("{path}.{key}"), &properties[key], value, known);
    }
}

#[test]
fn the_schema_knows_every_section_of_the_bootstrap_file() {
    let schema = schema();
    let known = &schema["properties"]["dataplane"]["properties"]["config"]["propertyNames"]["enum"];
    let page = fs::read_to_string(root().join("docs/reference/bootstrap.md")).unwrap();
    let keys = page.lines().filter_map(|line| {
        let entry = line
            .strip_prefix("| `")
            .or_else(|| line.strip_prefix("- `"))?;
        entry.split(['.', '`']).next()
    });
    for section in keys {
        let is_known = known.as_array().unwrap().iter().any(|it| it == section);
        assert!(
            is_known,
            "values.schema.json refuses dataplane.config.{section}"
        );
    }
}
