//! `manifests/base` and `manifests/standalone` hold what the chart renders, without its Secrets and
//! what only Helm reads; the overlays build on them, and an API server takes them.
//!
//! `UPDATE_GOLDEN=1` writes both folders anew.

use std::collections::BTreeMap;
use std::fs;

use e2e::api_server::ApiServer;
use e2e::chart::{Tools, objects, root, title};
use serde_json::Value;

use super::{dry_run, values};

/// A folder, and the value file it is made with.
const FOLDERS: &[(&str, Option<&str>)] = &[("base", None), ("standalone", Some("standalone"))];
const OVERLAYS: &[&str] = &["overlays/dev", "overlays/kind", "overlays/production"];

/// What the chart renders, as far as it goes into manifests.
fn of_chart(tools: &Tools, file: Option<&str>) -> Vec<Value> {
    let mut arguments = vec![
        "-n",
        "default",
        "--set",
        "crds.install=false,tests.enabled=false",
    ];
    let path = file.map(|name| values(name).display().to_string());
    if let Some(path) = &path {
        arguments.extend(["-f", path]);
    }
    let mut objects = objects(&tools.render(&arguments).unwrap()).unwrap();
    objects.retain(|it| it["kind"] != "Secret");
    for object in &mut objects {
        strip(&mut object["metadata"]);
        if object["spec"]["template"].is_object() {
            strip(&mut object["spec"]["template"]["metadata"]);
        }
    }
    objects.sort_by_key(title);
    objects
}

/// Takes away what is only Helm's.
fn strip(metadata: &mut Value) {
    let of_helm = [
        "helm.sh/chart",
        "app.kubernetes.io/managed-by",
        "checksum/config",
    ];
    for part in ["labels", "annotations"] {
        let Some(entries) = metadata[part].as_object_mut() else {
            // Reading a field that is missing leaves a null.
            metadata.as_object_mut().unwrap().remove(part);
            continue;
        };
        entries.retain(|name, _| !of_helm.contains(&name.as_str()));
        if entries.is_empty() {
            metadata.as_object_mut().unwrap().remove(part);
        }
    }
}

/// The file that an object stands in.
fn file_of(object: &Value) -> &'static str {
    let component = &object["metadata"]["labels"]["app.kubernetes.io/component"];
    match object["kind"].as_str().unwrap() {
        "Namespace" => "namespace.yaml",
        "GatewayClass" => "gatewayclass.yaml",
        "NetworkPolicy" => "networkpolicies.yaml",
        "ServiceAccount" | "ClusterRole" | "ClusterRoleBinding" | "Role" | "RoleBinding" => {
            "rbac.yaml"
        }
        _ if component == "controlplane" => "controlplane.yaml",
        _ => "dataplane.yaml",
    }
}

fn write(folder: &str, objects: &[Value]) {
    let folder = root().join("manifests").join(folder);
    let mut files: BTreeMap<&str, String> = BTreeMap::new();
    for object in objects {
        let file = files.entry(file_of(object)).or_insert_with(|| {
            "# Made of the chart: UPDATE_GOLDEN=1 cargo test -p e2e --test it chart\n".to_owned()
        });
        *file += &format!("---\n{}", serde_yaml::to_string(object).unwrap());
    }
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn the_manifests_are_what_the_chart_renders() {
    let Some(tools) = Tools::shared() else { return };
    for (folder, file) in FOLDERS {
        let wanted = of_chart(tools, *file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            write(folder, &wanted);
        }
        let mut there = objects(&tools.kustomize(folder).unwrap()).unwrap();
        there.sort_by_key(title);
        let titles = |objects: &[Value]| objects.iter().map(title).collect::<Vec<_>>();
        assert_eq!(titles(&there), titles(&wanted), "{folder}");
        for (there, wanted) in there.iter().zip(&wanted) {
            let about = format!("{folder}: {}; UPDATE_GOLDEN=1 takes it over", title(wanted));
            assert_eq!(there, wanted, "{about}");
        }
    }
}

#[test]
fn an_api_server_takes_every_overlay_and_the_kinds() {
    let (Some(tools), Some(server)) = (Tools::shared(), ApiServer::shared()) else {
        return;
    };
    // A dry run makes no namespace, and without one nothing in it is taken.
    let _ = server.kubectl(&["create", "namespace", "nantian-gw"], "");
    for folder in OVERLAYS.iter().chain(&["base", "standalone", "crds"]) {
        dry_run(
            server,
            folder,
            &objects(&tools.kustomize(folder).unwrap()).unwrap(),
        );
    }
}
