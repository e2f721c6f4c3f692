//! What the chart tells its users is true of what it renders: its notes, and comments on values.

use std::fs;

use e2e::chart::{Tools, chart, objects, title};

use super::settled;

/// The notes as an installation with these values shows them, and whether there are certificates of
/// the chart's beside them.
///
/// `helm template` leaves notes out, so they are rendered within an object.
fn notes(tools: &Tools, set: &str) -> (String, bool) {
    let text = fs::read_to_string(chart().join("templates/NOTES.txt")).unwrap();
    let text: String = text.lines().map(|line| format!("  {line}\n")).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.yaml");
    let object = "apiVersion: v1\nkind: Notes\nmetadata: {name: notes}\ntext: |\n";
    fs::write(&file, format!("{object}{text}")).unwrap();
    let shown = format!("extraObjects[0]={}", file.display());
    let set = format!("crds.install=false,{set}");
    let rendered = tools
        .render(&["--set-file", &shown, "--set", &set])
        .unwrap();
    let objects = objects(&rendered).unwrap();
    let notes = objects.iter().find(|it| it["kind"] == "Notes").unwrap();
    let is_authority = |it| title(it) == "Secret/nantian-gw-grpc-ca";
    let text = notes["text"].as_str().unwrap().to_owned();
    (text, objects.iter().any(is_authority))
}

#[test]
fn renewal_is_promised_of_certificates_that_the_chart_makes() {
    let Some(tools) = Tools::shared() else { return };
    let server = "controlplane.grpcTLS.existingSecret=server";
    let client = "dataplane.xdsTLS.existingSecret=client";
    let lives = "certs.selfSigned.serverDurationDays=100,certs.selfSigned.clientDurationDays=30";
    for (set, days) in [
        (lives.to_owned(), Some(30)),
        (format!("{lives},{server}"), Some(30)),
        (format!("{lives},{client}"), Some(100)),
        (format!("{server},{client}"), None),
        (format!("{server},dataplane.enabled=false"), None),
        (
            "controlplane.grpcTLS.enabled=false,dataplane.xdsTLS.enabled=false".to_owned(),
            None,
        ),
        ("certs.generate=false".to_owned(), None),
        ("certs.certManager.enabled=true".to_owned(), None),
    ] {
        let (said, is_made) = notes(tools, &set);
        assert!(said.contains("kubectl wait"), "{set}: {said}");
        let is_promised = said.contains("renewed by `helm upgrade`");
        assert_eq!(is_promised, days.is_some(), "{set}: {said}");
        assert_eq!(is_made, days.is_some(), "{set}");
        if let Some(days) = days {
            let life = format!("last {days} days");
            assert!(said.contains(&life), "{set}: {said}");
        }
    }
}

#[test]
fn the_feature_mode_is_said_to_be_that_of_the_control_plane_that_looks_at_it() {
    let Some(tools) = Tools::shared() else { return };
    let of = |control_plane: &str, mode: &str| {
        let set = format!("controlplane.implementation={control_plane},featureMode={mode}");
        settled(&tools.render(&["--set", &set]).unwrap())
    };
    let [standard, experimental] = ["standard", "experimental"].map(|mode| of("shim", mode));
    assert!(standard == experimental, "the shim looks at featureMode");
    let [standard, experimental] = ["standard", "experimental"].map(|mode| of("gateway", mode));
    assert!(standard != experimental, "nobody looks at featureMode");

    let values = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let schema = fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let (comment, _) = values.split_once("\nfeatureMode:").unwrap();
    let described = &schema["properties"]["featureMode"]["description"];
    for said in [comment.lines().last(), described.as_str()] {
        let said = said.unwrap();
        assert!(said.contains("the control plane of production"), "{said}");
        let excepts = said.to_lowercase().contains("the shim does not look at it");
        assert!(excepts, "{said}");
    }
}

#[test]
fn an_empty_list_of_ports_opens_none() {
    let Some(tools) = Tools::shared() else { return };
    let set = "crds.install=false,dataplane.networkPolicy.listenerPorts=null,\
               controlplane.networkPolicy.egressPorts=null";
    let rendered = tools.render(&["--set", set]).unwrap();
    let mut objects = objects(&rendered).unwrap();
    objects.retain(|it| it["kind"] == "NetworkPolicy");
    assert_eq!(objects.len(), 2);
    for object in objects {
        for rule in ["ingress", "egress"].map(|it| object["spec"][it].as_array().unwrap()) {
            for part in rule {
                let peers = part.get("from").or_else(|| part.get("to"));
                // Names may be asked for anywhere.
                let is_dns = part["ports"][0]["port"] == 53;
                assert!(is_dns || peers.is_some(), "{}: {part}", title(&object));
                assert!(part.get("ports").is_none_or(|it| !it.is_null()));
            }
        }
    }
}

#[test]
fn a_token_in_a_file_of_the_pod_needs_no_secret() {
    let Some(tools) = Tools::shared() else { return };
    let secret = "nantian-gw-dataplane-admin-auth";
    let has = |set: &str| {
        let set = format!("crds.install=false,controlplane.implementation=shim{set}");
        tools.render(&["--set", &set]).unwrap().contains(secret)
    };
    assert!(has(""));
    assert!(!has(",dataplane.adminAuth.bearerTokenFile=/run/token"));
}
