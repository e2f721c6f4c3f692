//! Rights of a shim that follows some namespaces only: it serves these, and can read no other.

use dataplane_testkit::snapshot::free_port;
use e2e::api_server::ApiServer;
use e2e::chart::{Tools, objects};
use serde_json::Value;

use crate::cluster::{ALONE, Place, condition, log_in, wait_sent_to};

/// What of the chart says who may do what.
const KINDS: [&str; 5] = [
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
];

/// The account of a control plane in the namespace `release`, with the rights that the chart gives it
/// where it follows `watched`.
fn account(tools: &Tools, server: &ApiServer, release: &str, watched: &str) -> String {
    let set = format!(
        "namespace.name={release},fullnameOverride={release},controlplane.implementation=shim,\
         controlplane.shim.watchNamespaces={{{watched}}}"
    );
    let rendered = tools.render(&["-n", release, "--set", &set]).unwrap();
    let objects = objects(&rendered).unwrap();
    let rights = objects
        .iter()
        .filter(|it| KINDS.iter().any(|kind| it["kind"] == *kind));
    let text: String = rights.map(|it| format!("---\n{it}\n")).collect();
    server.apply(&text).unwrap();
    format!("{release}-controlplane")
}

#[tokio::test]
async fn a_shim_of_some_namespaces_serves_them_and_can_read_no_other() {
    let (Some(tools), Some(server)) = (Tools::shared(), ApiServer::shared()) else {
        return;
    };
    let release = server.namespace("release").unwrap();
    let other = server.namespace("unwatched").unwrap();
    let place = Place::new(server, "watched", ALONE);
    let watched = place.namespace.as_str();
    let account = account(tools, server, &release, watched);

    let who = format!("system:serviceaccount:{release}:{account}");
    for (question, namespace, may) in [
        ("get secrets", watched, true),
        ("get secrets", &release, true),
        ("get secrets", &other, false),
        ("list httproutes.gateway.networking.k8s.io", watched, true),
        ("list httproutes.gateway.networking.k8s.io", &other, false),
        (
            "patch gateways.gateway.networking.k8s.io --subresource=status",
            watched,
            true,
        ),
        (
            "patch gateways.gateway.networking.k8s.io --subresource=status",
            &other,
            false,
        ),
        ("create services", watched, true),
        ("create services", &other, false),
        ("get secrets", "kube-system", false),
        ("list gatewayclasses.gateway.networking.k8s.io", "", true),
        ("list secrets", "", false),
        ("patch namespaces", "", false),
    ] {
        let mut arguments = vec!["auth", "can-i", "--as", &who];
        arguments.extend(question.split(' '));
        match namespace {
            "" => arguments.push("-A"),
            namespace => arguments.extend(["-n", namespace]),
        }
        let answer = server.kubectl(&arguments, "").unwrap();
        let said = if may { "yes" } else { "no" };
        assert_eq!(answer.stdout.trim(), said, "{question} in {namespace:?}");
    }

    let settings = place.settings.path().join("shim.yaml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}watchNamespaces: [{watched}]\n")).unwrap();
    let kubeconfig = log_in(&place, &release, &account);
    let (shim, _data_plane, port) = place.served_by(&kubeconfig).await;
    place.programmed().await;
    let faults = shim.admin.told_all().await;
    let is_refused = |it: &String| it.contains("may not be listed");
    assert!(!faults.iter().any(is_refused), "{faults:?}");

    // A Secret elsewhere is told of, and neither asked for nor waited for.
    let listener = format!(
        "{{name: tls, port: {}, protocol: HTTPS, tls: {{certificateRefs: \
         [{{name: elsewhere, namespace: {other}}}]}}}}",
        free_port()
    );
    let gateway = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: tls, namespace: {watched}}}\n\
         spec: {{gatewayClassName: {watched}, listeners: [{listener}]}}"
    );
    server.apply(&gateway).unwrap();
    let is_told = |gateway: &Value| {
        let conditions = &gateway["status"]["listeners"][0]["conditions"];
        condition(conditions, "ResolvedRefs")["reason"] == "RefNotPermitted"
    };
    place.wait("gateway", "tls", is_told).await;
    place.route("two.test");
    wait_sent_to(port, "two.test").await;
}
