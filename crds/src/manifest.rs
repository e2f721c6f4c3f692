//! The CustomResourceDefinitions, as files.
//!
//! `crdgen` writes them, a test compares them with what is committed. The text is the same on every
//! machine: fields stand in the order of their names.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{
    AIService, BackendLBPolicy, DirectResponse, RoutePolicy, SecurityPolicy, TokenPolicy,
    WasmPlugin,
};

/// Where the files stand in the repository.
pub const FOLDER: &str = "manifests/crds";

/// Every definition, in the order of the kinds' names.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        AIService::crd(),
        BackendLBPolicy::crd(),
        DirectResponse::crd(),
        RoutePolicy::crd(),
        SecurityPolicy::crd(),
        TokenPolicy::crd(),
        WasmPlugin::crd(),
    ]
}

/// Name and text of each file.
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
    files.collect()
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
