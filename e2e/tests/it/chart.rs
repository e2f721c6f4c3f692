//! The chart: what it renders is what was agreed on, an API server takes it, and the data plane takes
//! the settings in it.
//!
//! `UPDATE_GOLDEN=1` writes the expected renders anew; look at the difference before it is committed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use e2e::api_server::ApiServer;
use e2e::chart::{Tools, chart, objects, root, title};
use e2e::process::{DATA_PLANE, Process};
use e2e::published;
use serde_json::Value;

mod disruption;
mod kustomize;
mod readme;
mod rights;
mod schema;
mod told;

/// The value files that come with the chart.
const FILES: &[&str] = &["dev", "staging", "production", "ai-gateway", "standalone"];
/// Groups of operators, whose kinds are installed into the test's API server where they can be had.
const OF_OPERATORS: &[&str] = &["monitoring.coreos.com", "cert-manager.io"];

fn values(name: &str) -> PathBuf {
    chart().join(format!("values-{name}.yaml"))
}

/// The chart with one of its value files, without the kinds of our own.
fn rendered(tools: &Tools, name: &str) -> String {
    let file = values(name).display().to_string();
    let namespace = ["-n", "nantian-gw", "--set", "crds.install=false"];
    tools
        .render(&[&["-f", &file], &namespace[..]].concat())
        .unwrap()
}

/// Without what is drawn by lot or told by a clock.
fn settled(text: &str) -> String {
    let mut is_secret = false;
    let mut is_data = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line == "---" {
            (is_secret, is_data) = (false, false);
        }
        is_secret |= line == "kind: Secret";
        is_data |= is_secret && line == "data:";
        let drawn = is_data && line.starts_with("  ") || line.contains("/renew-after:");
        lines.push(match line.split_once(": ") {
            Some((key, _)) if drawn => format!("{key}: drawn"),
            _ => line.to_owned(),
        });
    }
    lines.join("\n") + "\n"
}

#[test]
fn every_value_file_passes_the_linter() {
    let Some(tools) = Tools::shared() else { return };
    for name in FILES {
        let said = tools.lint(&values(name)).unwrap();
        assert!(said.contains("0 chart(s) failed"), "{name}: {said}");
    }
}

#[test]
fn every_value_file_renders_as_agreed() {
    let Some(tools) = Tools::shared() else { return };
    for name in FILES {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data/chart")
            .join(format!("{name}.yaml"));
        let now = settled(&rendered(tools, name));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &now).unwrap();
        }
        let agreed = fs::read_to_string(&golden).unwrap_or_default();
        let differs = now
            .lines()
            .zip(agreed.lines())
            .find(|(now, then)| now != then);
        assert!(
            now == agreed,
            "{name} renders otherwise, at {differs:?}; UPDATE_GOLDEN=1 takes it over"
        );
    }
}

#[test]
fn values_that_mean_nothing_are_refused() {
    let Some(tools) = Tools::shared() else { return };
    for (set, said) in [
        ("featureMode=fancy", "featureMode"),
        ("dataplane.kind=StatefulSet", "/dataplane/kind"),
        ("dataplane.replica=3", "replica"),
        ("controlplane.implementation=other", "implementation"),
        ("dataplane.image.digest=latest", "digest"),
        ("dataplane.service.type=External", "service/type"),
        ("dataplane.antiAffinity=much", "antiAffinity"),
        ("dataplane.config.runtimeTunin.x=1", "runtimeTunin"),
        (
            "dataplane.sessionPersistence.sharedSecret=short",
            "sharedSecret",
        ),
        ("gatewayClass.controllerName=nantian", "controllerName"),
        ("serviceMonitor.interval=often", "interval"),
        ("certs.selfSigned.caDurationDays=0", "caDurationDays"),
        ("dataplane.terminationGracePeriodSeconds=30", "at least 65"),
        ("controlplane.enabled=false", "controlPlaneAddr"),
        ("controlplane.grpcTLS.enabled=false", "must agree"),
        (
            "serviceMonitor.enabled=true,podMonitor.enabled=true",
            "twice",
        ),
        ("gatewayAPI.channel=beta", "gatewayAPI/channel"),
        (
            "dataplane.adminAuth.bearerTokenFile=token",
            "bearerTokenFile",
        ),
        // Whoever serves the control plane asks data planes with the same token.
        (
            "dataplane.adminAuth.bearerTokenFile=/run/token",
            "dataplane.adminAuth.existingSecret",
        ),
    ] {
        let error = tools.render(&["--set", set]).expect_err(set).to_string();
        assert!(error.contains(said), "{set}: {error}");
    }
}

#[test]
fn values_that_mean_something_are_taken() {
    let Some(tools) = Tools::shared() else { return };
    for (set, shown) in [
        ("dataplane.kind=DaemonSet", "kind: DaemonSet"),
        ("global.imageRegistry=-", "image: nantian-gw/dataplane:"),
        (
            "global.imageRegistry=r.test",
            "image: r.test/nantian-gw/dataplane:",
        ),
        ("fullnameOverride=edge", "name: edge-dataplane"),
        ("global.commonLabels.team=edge", "team: edge"),
        (
            "dataplane.accessLogVolume.enabled=true",
            "path: /var/log/nantian-gw/access.log",
        ),
        ("dataplane.lastGoodVolume.enabled=true", "lastGoodCache:"),
        (
            "dataplane.hostNetwork=true",
            "dnsPolicy: ClusterFirstWithHostNet",
        ),
        ("podMonitor.enabled=true", "kind: PodMonitor"),
        (
            "serviceMonitor.fromNamespaces={prometheus}",
            "kubernetes.io/metadata.name: prometheus",
        ),
        ("gatewayAPI.channel=experimental", "kind: Deployment"),
        ("networkPolicies.adminFrom=null", "kind: NetworkPolicy"),
        (
            "dataplane.adminAuth.bearerTokenFile=/run/token,dataplane.adminAuth.existingSecret=token",
            "bearerTokenFile: /run/token",
        ),
        ("hpa.enabled=true", "kind: HorizontalPodAutoscaler"),
        ("certs.certManager.enabled=true", "kind: Issuer"),
        (
            "featureMode=experimental",
            "enableExperimentalGateway: true",
        ),
        ("dataplane.config.log.level=debug", "level: debug"),
        (
            "controlplane.implementation=shim,controlplane.config.adminTLS.enabled=true",
            "{path: /livez, port: admin, scheme: HTTPS}",
        ),
        (
            "controlplane.grpcTLS.enabled=false,dataplane.xdsTLS.enabled=false",
            "http://nantian-gw-",
        ),
    ] {
        let text = tools.render(&["--set", set]).unwrap();
        assert!(text.contains(shown), "{set} shows no `{shown}`");
    }
}

#[test]
fn pods_are_held_to_the_rules_of_hygiene() {
    let Some(tools) = Tools::shared() else { return };
    for name in FILES {
        let objects = objects(&rendered(tools, name)).unwrap();
        let workloads = objects.iter().filter(|it| it["kind"] == "Deployment");
        for workload in workloads {
            let pod = &workload["spec"]["template"]["spec"];
            let container = &pod["containers"][0]["securityContext"];
            let about = format!("{name}: {}", title(workload));
            assert_eq!(pod["securityContext"]["runAsUser"], 65532, "{about}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{about}");
            let seccomp = &pod["securityContext"]["seccompProfile"]["type"];
            assert_eq!(seccomp, "RuntimeDefault", "{about}");
            assert_eq!(container["readOnlyRootFilesystem"], true, "{about}");
            assert_eq!(container["allowPrivilegeEscalation"], false, "{about}");
            assert_eq!(container["capabilities"]["drop"][0], "ALL", "{about}");
            if title(workload).ends_with("-dataplane") {
                assert_eq!(pod["automountServiceAccountToken"], false, "{about}");
            }
        }
    }
}

/// The settings file of the data plane in what was rendered.
fn bootstrap(objects: &[Value]) -> String {
    let is_settings = |it: &&Value| title(it) == "ConfigMap/nantian-gw-dataplane-config";
    let settings = objects.iter().find(is_settings).unwrap();
    settings["data"]["config.yaml"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_data_plane_takes_the_settings_of_every_value_file() {
    let Some(tools) = Tools::shared() else { return };
    for name in FILES {
        let folder = tempfile::tempdir().unwrap();
        for file in [
            "admin-auth/token",
            "session-persistence/session-persistence",
            "xds-tls/ca.crt",
            "xds-tls/tls.crt",
            "xds-tls/tls.key",
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "0123456789abcdef0123456789abcdef").unwrap();
        }
        let here = folder.path().display().to_string();
        let text = bootstrap(&objects(&rendered(tools, name)).unwrap());
        let file = folder.path().join("config.yaml");
        // A pod is told its name by the environment.
        let text = text.replace("/etc/nantian-gw", &here) + "\nnodeId: pod\n";
        fs::write(&file, text).unwrap();
        let arguments = ["--check", "--config", file.to_str().unwrap()];
        let finished = Process::run(DATA_PLANE, arguments).await.unwrap();
        assert_eq!(finished.code, Some(0), "{name}: {}", finished.stderr);
        assert!(
            !finished.stdout.contains("has no effect yet"),
            "{name}: {}",
            finished.stdout
        );
    }
}

#[test]
fn an_api_server_takes_what_every_value_file_renders() {
    let (Some(tools), Some(server)) = (Tools::shared(), ApiServer::shared()) else {
        return;
    };
    // Objects are asked about where nobody has made them.
    let namespace = server.namespace("chart").unwrap();
    let has_operators = install_operators(server);
    let mut kinds = BTreeSet::new();
    for name in FILES {
        let file = values(name).display().to_string();
        let text = tools
            .render(&[
                "-f",
                &file,
                "--set",
                &format!("namespace.name={namespace}"),
                "-n",
                &namespace,
            ])
            .unwrap();
        let mut objects = objects(&text).unwrap();
        if !has_operators {
            objects.retain(|it| !is_of_operator(it));
        }
        kinds.extend(objects.iter().map(|it| it["kind"].to_string()));
        dry_run(server, name, &objects);
    }
    if has_operators {
        for kind in [
            "Certificate",
            "Issuer",
            "NetworkPolicy",
            "PrometheusRule",
            "ServiceMonitor",
        ] {
            assert!(kinds.contains(&format!("\"{kind}\"")), "no file has {kind}");
        }
    }
}

fn is_of_operator(object: &Value) -> bool {
    let group = object["apiVersion"].as_str().unwrap_or_default();
    OF_OPERATORS
        .iter()
        .any(|operator| group.starts_with(operator))
}

/// Teaches the API server the kinds of operators; false where they cannot be had.
fn install_operators(server: &ApiServer) -> bool {
    let Some(kinds) = published::kinds_of_operators() else {
        return false;
    };
    let text: String = kinds.iter().map(|it| format!("---\n{it}\n")).collect();
    server.apply(&text).unwrap();
    let names = kinds
        .iter()
        .map(|it| format!("crd/{}", it["metadata"]["name"].as_str().unwrap()));
    let mut arguments = vec![
        "wait".to_owned(),
        "--for=condition=Established".to_owned(),
        "--timeout=60s".to_owned(),
    ];
    arguments.extend(names);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let answer = server.kubectl(&arguments, "").unwrap();
    assert!(answer.is_success, "{}", answer.stderr);
    true
}

#[test]
fn an_api_server_takes_objects_of_operators_that_no_value_file_has() {
    let (Some(tools), Some(server)) = (Tools::shared(), ApiServer::shared()) else {
        return;
    };
    if !install_operators(server) {
        return;
    }
    let namespace = server.namespace("operators").unwrap();
    for set in [
        "podMonitor.enabled=true",
        "certs.certManager.enabled=true,certs.certManager.issuerRef.name=company",
        "serviceMonitor.enabled=true,prometheusRule.enabled=true,controlplane.implementation=shim",
    ] {
        let set = format!("{set},namespace.name={namespace},crds.install=false");
        let text = tools.render(&["--set", &set, "-n", &namespace]).unwrap();
        let mut objects = objects(&text).unwrap();
        objects.retain(is_of_operator);
        assert!(!objects.is_empty(), "{set}");
        dry_run(server, &set, &objects);
    }
}

/// The API server takes these objects, whose fields it knows.
fn dry_run(server: &ApiServer, about: &str, objects: &[Value]) {
    let text: String = objects.iter().map(|it| format!("---\n{it}\n")).collect();
    let arguments = [
        "apply",
        "--server-side",
        "--dry-run=server",
        "--force-conflicts",
        "-f",
        "-",
    ];
    let answer = server.kubectl(&arguments, &text).unwrap();
    assert!(answer.is_success, "{about}: {}", answer.stderr);
}

#[test]
fn the_version_is_that_of_the_workspace() {
    let text = fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let chart: Value = serde_yaml::from_str(&text).unwrap();
    let workspace = env!("CARGO_PKG_VERSION");
    assert_eq!(chart["version"], workspace);
    assert_eq!(chart["appVersion"], workspace);
    let script = root().join("manifests/version");
    let done = std::process::Command::new(script).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{said}; manifests/version changes it everywhere"
    );
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), workspace);
}

#[test]
fn the_shim_has_the_same_rights_by_chart_and_by_hand() {
    let Some(tools) = Tools::shared() else { return };
    for (extra, file) in [
        (
            "controlplane.shim.mesh.enabled=false",
            "manifests/shim/rbac.yaml",
        ),
        (
            "controlplane.shim.mesh.enabled=true",
            "manifests/mesh/rbac.yaml",
        ),
    ] {
        let set = format!("controlplane.implementation=shim,{extra}");
        let rendered = objects(&tools.render(&["--set", &set]).unwrap()).unwrap();
        let by_hand = objects(&fs::read_to_string(root().join(file)).unwrap()).unwrap();
        let rules = |objects: &[Value]| {
            let role = objects.iter().find(|it| it["kind"] == "ClusterRole");
            role.unwrap()["rules"].as_array().unwrap().clone()
        };
        let granted = rules(&rendered);
        for rule in rules(&by_hand) {
            assert!(
                granted.contains(&rule),
                "{file} grants what the chart does not: {rule}"
            );
        }
    }
}
