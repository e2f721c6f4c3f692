//! Every command of the pages about installing is run somewhere, or is said why not.
//!
//! The pages are read and each line of their `sh` blocks must be in [`COMMANDS`], which names the step
//! of `e2e/install/main.py`, the script or the test that runs it. Nothing is run here.

use std::fs;

use e2e::chart::root;

use self::How::{Not, Script, Step};

enum How {
    /// A step of `e2e/install/main.py`, in a cluster.
    Step(&'static str),
    /// A script of this repository, run by `.ci/run` or by hand.
    Script(&'static str),
    /// Nobody runs it, because of this.
    Not(&'static str),
}

/// How commands begin, and who runs them.
const COMMANDS: &[(&str, How)] = &[
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
    (
        "kubectl -n shop ",
        Not(
            "it wants another gateway beside this one; two parents of a route are in the conformance suite",
        ),
    ),
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

/// The lines of a page's `sh` blocks, with what continues them.
fn commands(page: &str) -> Vec<String> {
    let mut is_inside = false;
    let mut found: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in page.lines().map(str::trim) {
        if line.starts_with("```") {
            is_inside = line == "```sh";
        } else if is_inside && !line.is_empty() {
            match found.last_mut() {
                Some(last) if goes_on => last.push_str(line),
                _ => found.push(line.to_owned()),
            }
            goes_on = line.ends_with('\\');
        }
    }
    found
}

#[test]
fn every_command_about_installing_is_run_or_is_said_why_not() {
    let steps = fs::read_to_string(root().join("e2e/install/main.py")).unwrap();
    for (command, how) in COMMANDS {
        match how {
            Step(name) => assert!(steps.contains(&format!("def {name}(")), "{command}: {name}"),
            Script(path) => assert!(root().join(path).is_file(), "{command}: {path}"),
            Not(reason) => assert!(!reason.is_empty(), "{command}"),
        }
    }
    let mut used = vec![false; COMMANDS.len()];
    for entry in fs::read_dir(root().join("docs/install")).unwrap() {
        let path = entry.unwrap().path();
        for command in commands(&fs::read_to_string(&path).unwrap()) {
            let at = COMMANDS
                .iter()
                .position(|(begins, _)| command.starts_with(begins));
            let at = at.unwrap_or_else(|| panic!("{}: nobody runs `{command}`", path.display()));
            used[at] = true;
        }
    }
    for ((command, _), is_used) in COMMANDS.iter().zip(used) {
        assert!(
            is_used,
            "no page has a command that begins with `{command}`"
        );
    }
}
