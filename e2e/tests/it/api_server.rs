//! The API server that tests of controllers run against.

use e2e::api_server::ApiServer;

#[test]
fn it_holds_the_gateway_api_and_survives_a_restart() {
    let Some(server) = ApiServer::start() else {
        return;
    };
    let namespace = server.namespace("restart").unwrap();
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: kept}\n\
                 spec: {controllerName: example.com/none}\n";
    server.apply(class).unwrap();
    if std::env::var_os("E2E_KUBECONFIG").is_some() {
        // Someone's cluster is not stopped.
        return;
    }
    server.stop().unwrap();
    assert!(
        !server
            .kubectl(&["get", "gatewayclass"], "")
            .unwrap()
            .is_success
    );
    server.resume().unwrap();
    let answer = server
        .kubectl(&["get", "gatewayclass,namespace", "-o", "name"], "")
        .unwrap();
    assert!(answer.is_success, "{}", answer.stderr);
    for name in [
        "gatewayclass.gateway.networking.k8s.io/kept",
        &format!("namespace/{namespace}"),
    ] {
        assert!(
            answer.stdout.lines().any(|line| line == name),
            "{name} in {}",
            answer.stdout
        );
    }
}
