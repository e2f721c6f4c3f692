//! Tells XMesh objects of our controller which features of a mesh are served.
//!
//! `control_plane.rs` runs [`tell`] where the mesh is on. The kind is experimental and may not be
//! installed; then it is looked for again from time to time. Nothing depends on what is told.

use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::runtime::watcher::{Config, Event, watcher};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, info};

/// The names of Gateway API v1.5.1 for what is served, sorted.
pub const SUPPORTED: &[&str] = &[
    "Mesh",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
];

/// Pause after a failure, be it that the kind is not installed.
const PAUSE: Duration = Duration::from_secs(15);

/// Writes statuses for as long as this is polled and this replica leads.
pub async fn tell(client: Client, controller_name: String, mut leading: watch::Receiver<bool>) {
    loop {
        if leading.wait_for(|leading| *leading).await.is_err() {
            return;
        }
        tokio::select! {
            changed = leading.changed() => if changed.is_err() { return },
            () = follow(&client, &controller_name) => {}
        }
    }
}

async fn follow(client: &Client, controller_name: &str) {
    let kind = GroupVersionKind::gvk("gateway.networking.x-k8s.io", "v1alpha1", "XMesh");
    let resource = ApiResource::from_gvk_with_plural(&kind, "xmeshes");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut events = std::pin::pin!(watcher(api.clone(), Config::default()));
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                if let Some(status) = wanted(&object, controller_name)
                    && let Some(name) = &object.metadata.name
                {
                    let patch = Patch::Merge(json!({ "status": status }));
                    match api
                        .patch_status(name, &PatchParams::default(), &patch)
                        .await
                    {
                        Ok(_) => info!(mesh = %name, "status written"),
                        Err(error) => debug!(mesh = %name, %error, "status was not written"),
                    }
                }
            }
            Ok(_) => {}
            Err(error) => {
                debug!(%error, "XMesh cannot be followed");
                sleep(PAUSE).await;
            }
        }
    }
}

/// What a mesh of ours is told, unless it has been.
fn wanted(object: &DynamicObject, controller_name: &str) -> Option<Value> {
    let text = |path: &str| object.data.pointer(path).and_then(Value::as_str);
    if text("/spec/controllerName") != Some(controller_name) {
        return None;
    }
    let generation = object.metadata.generation.unwrap_or_default();
    let features: Vec<_> = SUPPORTED
        .iter()
        .map(|name| json!({ "name": name }))
        .collect();
    let conditions = object
        .data
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    let is_accepted = conditions.into_iter().flatten().any(|condition| {
        condition["type"] == "Accepted"
            && condition["status"] == "True"
            && condition["observedGeneration"] == generation
    });
    let is_told = object.data.pointer("/status/supportedFeatures") == Some(&json!(features));
    if is_accepted && is_told {
        return None;
    }
    Some(json!({
        "conditions": [{
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "routes may have Services as parents",
            "observedGeneration": generation,
            "lastTransitionTime": Time(jiff::Timestamp::now()),
        }],
        "supportedFeatures": features,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(controller: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XMesh",
            "metadata": { "name": "m", "generation": 2 },
            "spec": { "controllerName": controller },
        }))
        .unwrap()
    }

    #[test]
    fn a_mesh_of_ours_is_told_once_and_another_controllers_never() {
        assert!(SUPPORTED.is_sorted_by(|a, b| a < b));
        assert_eq!(wanted(&mesh("example.org/other"), "example.org/ours"), None);
        let mut ours = mesh("example.org/ours");
        let status = wanted(&ours, "example.org/ours").unwrap();
        ours.data["status"] = status;
        assert_eq!(wanted(&ours, "example.org/ours"), None);
        ours.metadata.generation = Some(3);
        assert!(wanted(&ours, "example.org/ours").is_some());
    }
}
