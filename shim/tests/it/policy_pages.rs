//! Pages under `docs/policies`: what they show is read and accepted, and every policy that is served
//! has one.

use std::fs;
use std::path::Path;

use shim::cluster_view::Kind;

use crate::folder::{GATEWAY, SERVICE, lines, read, route, translated};

/// Page and its manifests, in the order in which they stand.
fn shown() -> Vec<(String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policies");
    let mut pages: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.sort();
    let manifests = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let blocks = text.split("```yaml\n").skip(1);
        let blocks = blocks.map(|block| block.split("```").next().unwrap().to_owned());
        // What does not begin as an object is a part of one.
        let whole = blocks.filter(|block| block.starts_with("apiVersion: gateway.nantian.dev"));
        whole.collect::<Vec<_>>()
    };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    pages
        .iter()
        .map(|path| (name(path), manifests(path)))
        .collect()
}

const KINDS: [(&str, Kind); 3] = [
    ("BackendLBPolicy", Kind::BackendLbPolicy),
    ("RoutePolicy", Kind::RoutePolicy),
    ("SecurityPolicy", Kind::SecurityPolicy),
];

/// The namespace of the pages has what they name.
fn around() -> String {
    let rule = "rules:\n- backendRefs: [{name: cart, port: 80}]";
    let routes: String = ["cart", "admin", "uploads"]
        .map(|name| route(name, rule))
        .concat();
    let public = GATEWAY
        .replace(
            "name: gw, namespace: infra",
            "name: public, namespace: shop",
        )
        .split_once("---\n")
        .unwrap()
        .1
        .to_owned();
    format!("{GATEWAY}{public}{SERVICE}{routes}")
}

#[test]
fn every_manifest_of_a_policy_page_is_accepted() {
    let mut seen = 0;
    for (page, manifests) in shown() {
        for manifest in manifests {
            assert_eq!(*read(&manifest).faults, [], "{page}");
            let translation = translated(&format!("{}{manifest}", around()));
            let mut judged = 0;
            for object in manifest.split("---\n") {
                let field = |name: &str| {
                    let at = object.find(name).unwrap() + name.len();
                    let rest = &object[at..];
                    rest[..rest.find([',', '\n', '}']).unwrap()]
                        .trim()
                        .to_owned()
                };
                let kind = field("kind:");
                let Some((_, known)) = KINDS.iter().find(|(name, _)| *name == kind) else {
                    continue;
                };
                let key = format!("{}/{}", field("namespace:"), field("name:"));
                let said = lines(&translation, *known, &key).join("\n");
                assert!(said.contains("Accepted=True"), "{page}: {key}: {said}");
                assert!(!said.contains("=False"), "{page}: {key}: {said}");
                judged += 1;
            }
            seen += judged;
        }
    }
    assert!(seen >= 8, "{seen}: the manifests were not found");
}

#[test]
fn every_part_of_a_policy_is_on_a_page() {
    let pages = shown();
    let text = |(page, _): &(String, Vec<String>)| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policies");
        fs::read_to_string(path.join(page)).unwrap()
    };
    let all: String = pages.iter().map(text).collect();
    for part in [
        "sessionPersistence",
        "loadBalancing",
        "consistentHash",
        "slowStart",
        "panicThresholdPercent",
        "zones",
        "healthCheck",
        "outlierDetection",
        "circuitBreaker",
        "retryBudget",
        "timeout",
        "bodyLimit",
        "connection",
        "rateLimit",
        "allowCIDRs",
        "denyCIDRs",
        "allowOrigins",
        "RoutePolicy",
        "SecurityPolicy",
        "BackendLBPolicy",
    ] {
        assert!(all.contains(part), "{part} is on no page of docs/policies");
    }
}
