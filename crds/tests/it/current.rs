//! What is committed is what the types say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn committed(folder: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let files = entries.map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read_to_string(entry.path()).unwrap())
    });
    files.collect()
}

fn compare(folder: &str, made: Vec<(String, String)>) {
    let made: BTreeMap<_, _> = made.into_iter().collect();
    let committed = committed(folder);
    let names: Vec<_> = made.keys().collect();
    assert_eq!(committed.keys().collect::<Vec<_>>(), names, "in {folder}");
    for (name, text) in &made {
        assert!(
            committed[name] == *text,
            "{folder}/{name} is not current, run `cargo run -p crds --bin crdgen`"
        );
    }
}

#[test]
fn the_definitions_are_current() {
    compare(crds::manifest::FOLDER, crds::manifest::files().unwrap());
}

#[test]
fn the_pages_are_current() {
    compare(crds::reference::FOLDER, crds::reference::files());
}

#[test]
fn a_second_writing_is_the_same() {
    assert_eq!(
        crds::manifest::files().unwrap(),
        crds::manifest::files().unwrap()
    );
}

#[test]
fn every_kind_can_be_listed_and_says_whether_it_works() {
    for definition in crds::manifest::definitions() {
        let names = &definition.spec.names;
        let kind = &names.kind;
        assert_eq!(
            names.categories.as_deref(),
            Some(&["nantian".to_owned()][..]),
            "{kind}"
        );
        assert_eq!(names.short_names.as_ref().map(Vec::len), Some(1), "{kind}");
        let version = &definition.spec.versions[0];
        let columns: Vec<_> = version
            .additional_printer_columns
            .iter()
            .flatten()
            .collect();
        assert!(columns.iter().any(|column| column.name == "Age"), "{kind}");
        if kind != "DirectResponse" {
            assert!(
                columns.iter().any(|column| column.name == "Accepted"),
                "{kind}"
            );
        }
        let status = version.subresources.as_ref().unwrap().status.as_ref();
        assert!(status.is_some(), "{kind}");
        let label = definition.metadata.labels.iter().flatten().next();
        let label = label.map(|(name, value)| (name.as_str(), value.as_str()));
        let expected = match kind.as_str() {
            "AIService" | "DirectResponse" => None,
            "RoutePolicy" | "SecurityPolicy" => Some("Inherited"),
            _ => Some("Direct"),
        };
        assert_eq!(
            label,
            expected.map(|value| ("gateway.networking.k8s.io/policy", value)),
            "{kind}"
        );
    }
}
