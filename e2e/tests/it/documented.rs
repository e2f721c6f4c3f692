//! Every command of the pages about installing and operating is run somewhere, or is said why not.
//!
//! The pages are read and each line of their `sh` blocks must be in [`INSTALL`] or [`OPERATIONS`], which
//! name the step of `e2e/install/main.py`, the script or the test that runs it. Nothing is run here.

use std::fs;

use e2e::chart::root;

use self::How::{Not, Script, Step, Test};

enum How {
    /// A step of `e2e/install/main.py`, in a cluster.
    Step(&'static str),
    /// A script of this repository, run by `.ci/run` or by hand.
    Script(&'static str),
    /// A test beside this one, `file::name`.
    Test(&'static str),
    /// Nobody runs it, because of this.
    Not(&'static str),
}

/// How commands begin, and who runs them.
type Commands = [(&'static str, How)];

/// Of `docs/install`.
const INSTALL: &Commands = &[
    (
        "cargo build --release",
        Not("CI builds for debugging; releases are built so"),
    ),
    ("for program in", Script("manifests/release")),
    (
        "STRIP=1 manifests/images/build",
        Script("manifests/release"),
    ),
    ("done", Script("manifests/release")),
    ("kind ", Not("kind needs Docker")),
    (
        "kubectl apply --server-side -f https://",
        Step("four_commands"),
    ),
    (
        "helm install nantian-gw charts/nantian-gw -n",
        Step("four_commands"),
    ),
    (
        "helm install nantian-gw charts/nantian-gw --set gatewayAPI.installCRDs",
        Not("Helm installs what the step four_commands applies; the chart's part is rendered"),
    ),
    ("charts/fetch-gateway-api-crds", Script("manifests/release")),
    ("kubectl apply -k manifests/samples", Step("four_commands")),
    ("curl ", Step("four_commands")),
    ("helm test", Step("helm_test")),
    (
        "kubectl apply --server-side -k manifests/crds",
        Step("kustomize"),
    ),
    ("manifests/secrets", Step("kustomize")),
    (
        "kubectl apply --server-side -k manifests/standalone",
        Step("kustomize"),
    ),
    (
        "kubectl apply --server-side -k your-overlay",
        Step("kind_overlay"),
    ),
    ("kubectl -n nantian-gw rollout status", Step("rolled_out")),
    ("kubectl -n shop ", Step("migration")),
    ("e2e/cluster/build all", Script("e2e/cluster/build")),
    (
        "E2E_BINARIES=$PWD/target/release e2e/install/run",
        Script("e2e/install/run"),
    ),
    ("e2e/install/run", Script("e2e/install/run")),
    (
        "kubectl get gateways -A",
        Not("it only shows what is there"),
    ),
    ("helm uninstall", Step("uninstall")),
    ("kubectl delete namespace", Step("uninstall")),
    ("kubectl delete -k manifests/crds", Step("kustomize")),
    ("helm upgrade", Step("upgrade")),
];

/// Two programs on a machine, by the page about them.
const TWO_PROCESSES: How =
    Test("operations::two_processes_are_joined_by_the_commands_of_their_page");
/// The shim at an API server, by the page about it.
const API_SERVER: How = Test("operations::an_api_server_is_followed_by_the_commands_of_its_page");
/// Requests as they end, by the page about it.
const LIVE_TRACE: How = Test("operations::a_live_trace_is_shown_by_the_commands_of_its_page");

/// Of `docs/operations`.
const OPERATIONS: &Commands = &[
    (
        "cargo build --release",
        Not("CI builds for debugging; releases are built so"),
    ),
    // console.md, kind.md, stream.md
    (
        "kubectl -n nantian-gw port-forward deployment/nantian-gw-dataplane 19080",
        Step("look"),
    ),
    ("leader=$(kubectl -n nantian-gw get lease", Step("look")),
    (
        "kubectl -n nantian-gw port-forward $leader 18081",
        Step("look"),
    ),
    ("token=$(kubectl -n nantian-gw get secret", Step("look")),
    ("curl -s -H \"Authorization: Bearer", Step("look")),
    ("kubectl -n nantian-gw exec", Step("look")),
    ("kubectl -n nantian-gw logs", Step("look")),
    ("kubectl -n samples describe gateway", Step("look")),
    ("kubectl -n samples get gateway", Step("look")),
    ("kubectl -n samples wait", Step("look")),
    ("for program in", Script("manifests/release")),
    (
        "STRIP=1 manifests/images/build",
        Script("manifests/release"),
    ),
    ("done", Script("manifests/release")),
    ("kind create cluster", Not("kind needs Docker")),
    (
        "kubectl apply --server-side -f https://",
        Step("four_commands"),
    ),
    (
        "kubectl apply --server-side -k manifests/crds",
        Step("kind_overlay"),
    ),
    ("manifests/secrets", Step("kind_overlay")),
    ("kubectl apply -k manifests/samples", Step("kind_overlay")),
    (
        "kubectl -n samples run client",
        Not("its image is on the internet; the steps ask by themselves"),
    ),
    // kubernetes.md
    ("kubectl apply -f", API_SERVER),
    ("nantian-shim serve --source kube", API_SERVER),
    ("kubectl -n shop describe service", API_SERVER),
    ("kubectl get gateway,httproute", API_SERVER),
    ("kubectl describe httproute", API_SERVER),
    // two-processes.md
    ("mkdir -p target/mtls", TWO_PROCESSES),
    ("openssl ", TWO_PROCESSES),
    ("printf 'subjectAltName", TWO_PROCESSES),
    ("for name in control-plane dp-1", TWO_PROCESSES),
    ("target/release/nantian-", TWO_PROCESSES),
    ("curl -s http://127.0.0.1:", TWO_PROCESSES),
    // live-trace.md
    ("nantian-dataplane trace", LIVE_TRACE),
    ("curl -sN 'http://127.0.0.1:19080/api/v1/trace", LIVE_TRACE),
    // scale.md, tracing.md
    ("e2e/cluster/build light", Script("e2e/cluster/build")),
    (
        "cargo bench -p e2e --bench propagation",
        Script("e2e/benches/propagation/main.rs"),
    ),
    (
        "docker run",
        Not("it needs Docker; tests send spans to a collector of their own"),
    ),
];

/// The lines of a page's `sh` blocks, with what continues them.
fn commands(page: &str) -> Vec<String> {
    let mut is_inside = false;
    let mut found: Vec<String> = Vec::new();
    let mut goes_on = false;
    // What ends the text that a command reads from the page.
    let mut text_ends: Option<String> = None;
    for line in page.lines().map(str::trim) {
        if line.starts_with("```") {
            is_inside = line == "```sh";
        } else if let Some(end) = &text_ends {
            if line == end {
                text_ends = None;
            }
        } else if is_inside && !line.is_empty() && !line.starts_with('#') {
            match found.last_mut() {
                Some(last) if goes_on => last.push_str(line),
                _ => found.push(line.to_owned()),
            }
            goes_on = line.ends_with('\\');
            text_ends = line.split_once("<<'").map(|(_, end)| end.replace('\'', ""));
        }
    }
    found
}

/// What runs commands is there.
fn exists(command: &str, how: &How) {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    match how {
        Step(name) => {
            let steps = read("e2e/install/main.py");
            assert!(steps.contains(&format!("def {name}(")), "{command}: {name}");
        }
        Script(path) => assert!(root().join(path).is_file(), "{command}: {path}"),
        Test(path) => {
            let (file, name) = path.split_once("::").unwrap();
            let tests = read(&format!("e2e/tests/it/{file}.rs"));
            assert!(tests.contains(&format!("fn {name}(")), "{command}: {path}");
        }
        Not(reason) => assert!(!reason.is_empty(), "{command}"),
    }
}

/// Each command of the folder's pages but those is in the list, and the list has no others.
fn every_command_is_run(folder: &str, but: &[&str], list: &Commands) {
    for (command, how) in list {
        exists(command, how);
    }
    let mut used = vec![false; list.len()];
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "md") || but.iter().any(|it| path.ends_with(it)) {
            continue;
        }
        for command in commands(&fs::read_to_string(&path).unwrap()) {
            let at = list
                .iter()
                .position(|(begins, _)| command.starts_with(begins));
            assert!(at.is_some(), "{}: nobody runs `{command}`", path.display());
            used[at.unwrap_or_default()] = true;
        }
    }
    for ((command, _), is_used) in list.iter().zip(used) {
        assert!(
            is_used,
            "no page of {folder} has a command that begins with `{command}`"
        );
    }
}

#[test]
fn every_command_about_installing_is_run_or_is_said_why_not() {
    every_command_is_run("docs/install", &[], INSTALL);
}

#[test]
fn every_command_about_operating_is_run_or_is_said_why_not() {
    // `tasks.rs` runs what these show.
    let but = ["explain.md", "troubleshooting.md"];
    every_command_is_run("docs/operations", &but, OPERATIONS);
}
