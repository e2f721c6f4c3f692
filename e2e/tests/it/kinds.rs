//! The kinds of the gateway in an API server: definitions it takes, objects it takes or refuses.
//!
//! The objects are those of `crds/tests/data`, which the offline check is held against as well.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::api_server::ApiServer;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The server with our definitions in it; nothing where there is no server.
pub(crate) fn server() -> Option<&'static ApiServer> {
    let server = ApiServer::shared()?;
    let folder = root().join("manifests/crds");
    let folder = folder.to_str().unwrap();
    let apply = ["apply", "--server-side", "--force-conflicts", "-k", folder];
    let answer = server.kubectl(&apply, "").unwrap();
    assert!(answer.is_success, "{}", answer.stderr);
    let wait = [
        "wait",
        "--for=condition=Established",
        "--timeout=30s",
        "crd",
        "--all",
    ];
    let answer = server.kubectl(&wait, "").unwrap();
    assert!(answer.is_success, "{}", answer.stderr);
    Some(server)
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("crds/tests/data").join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn good_objects_are_taken_whole_and_listed() {
    let Some(server) = server() else {
        return;
    };
    let namespace = server.namespace("good").unwrap();
    for file in files("good") {
        let text = fs::read_to_string(&file).unwrap();
        let create = ["-n", &namespace, "create", "--validate=strict", "-f", "-"];
        let answer = server.kubectl(&create, &text).unwrap();
        assert!(answer.is_success, "{}: {}", file.display(), answer.stderr);
    }
    // The category and the columns; what nobody reported on yet has an empty cell.
    let answer = server
        .kubectl(&["-n", &namespace, "get", "nantian"], "")
        .unwrap();
    assert!(answer.is_success, "{}", answer.stderr);
    for kind in [
        "aiservice",
        "backendlbpolicy",
        "directresponse",
        "routepolicy",
        "securitypolicy",
        "tokenpolicy",
        "wasmplugin",
    ] {
        let name = format!("{kind}.gateway.nantian.dev/everything");
        assert!(
            answer.stdout.contains(&name),
            "{name} in\n{}",
            answer.stdout
        );
    }
    let answer = server
        .kubectl(
            &["-n", &namespace, "get", "blbp", "everything", "-o", "wide"],
            "",
        )
        .unwrap();
    assert!(
        answer.stdout.contains("ACCEPTED") && answer.stdout.contains("ConsistentHash"),
        "{}",
        answer.stdout
    );
}

#[test]
fn bad_objects_are_refused_with_words_that_help() {
    let Some(server) = server() else {
        return;
    };
    let namespace = server.namespace("bad").unwrap();
    for file in files("bad") {
        let text = fs::read_to_string(&file).unwrap();
        for document in text.split("---\n") {
            let expected = document
                .lines()
                .find_map(|line| line.strip_prefix("# expect: "))
                .unwrap();
            let create = ["-n", &namespace, "create", "--dry-run=server", "-f", "-"];
            let answer = server.kubectl(&create, document).unwrap();
            assert!(!answer.is_success, "taken:\n{document}");
            assert!(
                answer.stderr.contains(expected),
                "{expected:?} is not in\n{}\nof\n{document}",
                answer.stderr
            );
        }
    }
}

#[test]
fn a_status_shows_in_the_columns() {
    let Some(server) = server() else {
        return;
    };
    let namespace = server.namespace("status").unwrap();
    let policy = "apiVersion: gateway.nantian.dev/v1alpha1\nkind: BackendLBPolicy\nmetadata: {name: a}\n\
                  spec: {targetRefs: [{group: '', kind: Service, name: a}], loadBalancing: {type: Random}}\n";
    let answer = server
        .kubectl(&["-n", &namespace, "create", "-f", "-"], policy)
        .unwrap();
    assert!(answer.is_success, "{}", answer.stderr);
    let status = r#"{"status": {"ancestors": [{
        "ancestorRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"},
        "controllerName": "gateway.networking.k8s.io/nantian-gw",
        "conditions": [{"type": "Accepted", "status": "False", "reason": "Conflicted", "message": "older",
                        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}]}]}}"#;
    let patch = [
        "-n",
        &namespace,
        "patch",
        "blbp",
        "a",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ];
    let answer = server.kubectl(&patch, "").unwrap();
    assert!(answer.is_success, "{}", answer.stderr);
    let answer = server
        .kubectl(&["-n", &namespace, "get", "blbp", "a"], "")
        .unwrap();
    let row = answer.stdout.lines().nth(1).unwrap_or_default();
    assert!(
        row.contains("False") && row.contains("Conflicted"),
        "{}",
        answer.stdout
    );
}
