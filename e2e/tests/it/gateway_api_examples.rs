//! The example manifests that the Gateway API project publishes, served as their text says.
//!
//! Files are taken as they are. Beside them stand what a cluster would hold: Services with endpoints,
//! Secrets, and the Gateways that some routes name. Files that define one object in several variants
//! are served one by one. A route that names no Gateway is attached to nothing, which is told; what
//! it says is then proved with a parent written into its text.

mod attachment;
mod backend_tls;
mod grpc;
mod headers;
mod redirects;
mod refused;
mod routing;
mod tls;
mod weights;

use std::collections::BTreeMap;

use e2e::{Scenario, published};

/// A folder with these examples; nothing when they cannot be had.
fn example(files: &[&str]) -> Option<Scenario> {
    let folder = published::examples()?;
    let scenario = Scenario::new().unwrap();
    for file in files {
        scenario.copy(&folder.join(file)).unwrap();
    }
    Some(scenario)
}

/// A folder with one example, with a Gateway `default/parent` written in as the parent of its route.
fn with_parent(file: &str) -> Option<Scenario> {
    let folder = published::examples()?;
    let scenario = Scenario::new().unwrap();
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    let parent = "\nspec:\n  parentRefs:\n  - name: parent\n";
    assert_eq!(text.matches("\nspec:\n").count(), 1, "{file}: one route");
    assert!(!text.contains("parentRefs"), "{file} has a parent");
    let text = text.replacen("\nspec:\n", parent, 1);
    scenario.write("example.yaml", &text).unwrap();
    let gateway = e2e::manifest::http_gateway("default/parent", &[("http", 80)]);
    scenario.add("parent.yaml", [gateway]).unwrap();
    Some(scenario)
}

/// About `percent` of all answers came from `backend`, with a deviation nobody sees by chance.
#[track_caller]
fn assert_share(seen: &BTreeMap<String, usize>, backend: &str, percent: f64) {
    let total: usize = seen.values().sum();
    let count = seen.get(backend).copied().unwrap_or_default();
    let (total, share) = (total as f64, percent / 100.0);
    let deviation = (total * share * (1.0 - share)).sqrt();
    let off = (count as f64 - total * share).abs();
    assert!(off <= 5.0 * deviation, "{backend} has {count} in {seen:?}");
}

/// One line of `told` begins with `start` and holds `part`.
#[track_caller]
fn assert_told(told: &[String], start: &str, part: &str) {
    let found = told
        .iter()
        .any(|line| line.starts_with(start) && line.contains(part));
    assert!(found, "no `{start}…{part}…` in {told:#?}");
}

#[test]
fn every_published_example_has_a_test() {
    let Some(folder) = published::examples() else {
        return;
    };
    let tests = [
        include_str!("gateway_api_examples/attachment.rs"),
        include_str!("gateway_api_examples/backend_tls.rs"),
        include_str!("gateway_api_examples/grpc.rs"),
        include_str!("gateway_api_examples/headers.rs"),
        include_str!("gateway_api_examples/redirects.rs"),
        include_str!("gateway_api_examples/refused.rs"),
        include_str!("gateway_api_examples/routing.rs"),
        include_str!("gateway_api_examples/tls.rs"),
        include_str!("gateway_api_examples/weights.rs"),
    ];
    let mut files = published::files(folder).unwrap();
    assert!(files.len() > 50, "{} holds {files:?}", folder.display());
    files.retain(|file| {
        !tests
            .iter()
            .any(|test| test.contains(&format!("\"{file}\"")))
    });
    assert_eq!(files, Vec::<String>::new(), "examples without a test");
}
