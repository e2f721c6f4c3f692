//! The CustomResourceDefinitions, as files.
//!
//! `crdgen` writes them, a test compares them with what is committed. The text is the same on every
//! machine: fields stand in the order of their names.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition,
};
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{
    AIService, BackendLBPolicy, DirectResponse, RoutePolicy, SecurityPolicy, TokenPolicy,
    WasmPlugin,
};

/// Where the files stand in the repository.
pub const FOLDER: &str = "manifests/crds";

/// Where a policy says whether it is accepted.
const OF_POLICY: Option<&str> = Some(".status.ancestors[0].conditions");

/// Every definition, in the order of the kinds' names.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        with_columns(AIService::crd(), Some(".status.conditions")),
        with_columns(BackendLBPolicy::crd(), OF_POLICY),
        // It is told nothing of its own: routes say what became of it.
        with_columns(DirectResponse::crd(), None),
        with_columns(RoutePolicy::crd(), OF_POLICY),
        with_columns(SecurityPolicy::crd(), OF_POLICY),
        with_columns(TokenPolicy::crd(), OF_POLICY),
        with_columns(WasmPlugin::crd(), OF_POLICY),
    ]
}

/// Adds, behind a kind's own columns, whether it is accepted and why not, by the conditions at that
/// path, and its age.
fn with_columns(
    mut definition: CustomResourceDefinition,
    conditions: Option<&str>,
) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let columns = version.additional_printer_columns.get_or_insert_default();
        let mut add = |name: &str, type_: &str, json_path: String| {
            columns.push(CustomResourceColumnDefinition {
                name: name.to_owned(),
                type_: type_.to_owned(),
                json_path,
                ..CustomResourceColumnDefinition::default()
            });
        };
        if let Some(conditions) = conditions {
            for (name, field) in [("Accepted", "status"), ("Reason", "reason")] {
                let path = format!("{conditions}[?(@.type==\"Accepted\")].{field}");
                add(name, "string", path);
            }
        }
        add("Age", "date", ".metadata.creationTimestamp".to_owned());
    }
    definition
}

/// Name and text of each file: a definition each, and what Kustomize wants to know of them.
pub fn files() -> anyhow::Result<Vec<(String, String)>> {
    let files = definitions().into_iter().map(|definition| {
        let name = format!(
            "{}_{}.yaml",
            definition.spec.group, definition.spec.names.plural
        );
        let mut value = serde_json::to_value(&definition)?;
        describe(&mut value);
        Ok((name, yaml(&value)?))
    });
    let mut files: Vec<_> = files.collect::<anyhow::Result<_>>()?;
    files.sort();
    files.push(("kustomization.yaml".to_owned(), kustomization(&files)));
    Ok(files)
}

/// The list of the other files.
fn kustomization(files: &[(String, String)]) -> String {
    let mut text = String::from(
        "# The kinds of gateway.nantian.dev. Those of the Gateway API come from its own project.\n\
         apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n",
    );
    for (name, _) in files {
        text += "  - ";
        text += name;
        text.push('\n');
    }
    text
}

/// The root's own text says more than the one that `kube` puts there.
fn describe(definition: &mut Value) {
    for version in definition["spec"]["versions"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        if let Some(text) = schema["properties"]["spec"]["description"].as_str() {
            let text = text.to_owned();
            schema["description"] = Value::String(text);
        }
    }
}

fn yaml(value: &Value) -> anyhow::Result<String> {
    let mut text = String::from("# Written by `cargo run -p crds --bin crdgen`; do not edit.\n");
    text += &serde_yaml::to_string(value)?;
    Ok(text)
}
