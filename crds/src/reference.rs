//! A page for each kind: its fields with their types, bounds and meaning, from the schema.
//!
//! `crdgen` writes them under `docs/reference/crds`; a test holds them against the types.

use std::fmt::Write;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// Where the pages stand in the repository.
pub const FOLDER: &str = "docs/reference/crds";

/// Name and text of each page; the first lists the others.
pub fn files() -> Vec<(String, String)> {
    let definitions = crate::manifest::definitions();
    let mut index = String::from(
        "# Kinds of the gateway\n\nGroup `gateway.nantian.dev`, version `v1alpha1`. \
         The definitions are in `manifests/crds`; `kubectl get nantian -A` lists every object.\n\n\
         | kind | short | what it is |\n|---|---|---|\n",
    );
    for definition in &definitions {
        let names = &definition.spec.names;
        let short = names
            .short_names
            .iter()
            .flatten()
            .next()
            .map_or("", String::as_str);
        let what = spec_of(definition)
            .and_then(|spec| spec.description.as_deref())
            .unwrap_or_default();
        let what = what.split(" Example:").next().unwrap_or_default();
        let _ = writeln!(
            index,
            "| [{0}]({1}.md) | `{short}` | {2} |",
            names.kind,
            names.singular.as_deref().unwrap_or_default(),
            cell(what)
        );
    }
    let mut files = vec![("README.md".to_owned(), index)];
    files.extend(definitions.iter().map(page));
    files
}

fn spec_of(definition: &CustomResourceDefinition) -> Option<&JSONSchemaProps> {
    let schema = definition.spec.versions.first()?.schema.as_ref()?;
    schema
        .open_api_v3_schema
        .as_ref()?
        .properties
        .as_ref()?
        .get("spec")
}

fn page(definition: &CustomResourceDefinition) -> (String, String) {
    let names = &definition.spec.names;
    let name = format!("{}.md", names.singular.as_deref().unwrap_or_default());
    let Some(spec) = spec_of(definition) else {
        return (name, String::new());
    };
    let mut text = format!(
        "# {}\n\n{}\n",
        names.kind,
        sentences(spec.description.as_deref().unwrap_or_default())
    );
    let mut rules = Vec::new();
    text += "\n| field | type | meaning |\n|---|---|---|\n";
    rows(spec, "spec", &mut text, &mut rules);
    if !rules.is_empty() {
        text += "\nRefused with these words:\n\n";
        for (path, message) in rules {
            let _ = writeln!(text, "- `{path}`: {message}");
        }
    }
    (name, text)
}

fn rows(
    schema: &JSONSchemaProps,
    path: &str,
    text: &mut String,
    rules: &mut Vec<(String, String)>,
) {
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        rules.push((path.to_owned(), rule.message.clone().unwrap_or_default()));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        rows(items, &format!("{path}[]"), text, rules);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        rows(values, &format!("{path}.*"), text, rules);
    }
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let needed = if required.contains(name) {
            ", required"
        } else {
            ""
        };
        let meaning = cell(field.description.as_deref().unwrap_or_default());
        let _ = writeln!(
            text,
            "| `{}` | {}{needed} | {meaning} |",
            path.trim_start_matches("spec."),
            kind_of(field)
        );
        rows(field, &path, text, rules);
    }
}

fn kind_of(field: &JSONSchemaProps) -> String {
    let mut kind = match (
        field.type_.as_deref(),
        &field.items,
        &field.additional_properties,
    ) {
        (_, Some(JSONSchemaPropsOrArray::Schema(items)), _) => {
            format!("list of {}", kind_of(items))
        }
        (_, _, Some(JSONSchemaPropsOrBool::Schema(values))) => {
            format!("map of {}", kind_of(values))
        }
        (Some(kind), ..) => kind.to_owned(),
        (None, ..) => "any".to_owned(),
    };
    if field.pattern.as_deref() == Some(crate::duration::PATTERN) {
        "duration".clone_into(&mut kind);
    }
    let values: Vec<_> = field
        .enum_
        .iter()
        .flatten()
        .filter_map(|value| value.0.as_str())
        .collect();
    if !values.is_empty() {
        kind = format!("`{}`", values.join("`, `"));
    }
    match (field.minimum, field.maximum) {
        (Some(min), Some(max)) => kind + &format!(", {min} to {max}"),
        (Some(min), None) => kind + &format!(", {min} or more"),
        (None, _) => kind,
    }
}

/// Text within a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// One sentence a line, as everywhere in the documentation.
fn sentences(text: &str) -> String {
    text.replace('\n', " ").replace(". ", ".\n")
}
