//! `nantian-shim serve --source kube` against a real API server: objects in, statuses and traffic out.
//!
//! Every test has a namespace and a controller name of its own, so that they share one API server
//! where they do not stop it. Traffic is a redirect, which needs no backend: an API server refuses
//! endpoints on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use dataplane_testkit::snapshot::free_port;
use e2e::api_server::ApiServer;
use e2e::gateway::{ControlPlane, DataPlane, free_address};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the API server, the shim and the data plane together may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// A namespace with a GatewayClass, and settings for shims that serve it.
pub(crate) struct Place<'a> {
    pub(crate) server: &'a ApiServer,
    pub(crate) namespace: String,
    pub(crate) settings: tempfile::TempDir,
}

impl<'a> Place<'a> {
    pub(crate) fn new(server: &'a ApiServer, prefix: &str, more: &str) -> Self {
        let namespace = server.namespace(prefix).unwrap();
        let settings = tempfile::tempdir().unwrap();
        let text = format!("controllerName: example.net/{namespace}\n{more}\n");
        std::fs::write(settings.path().join("shim.yaml"), text).unwrap();
        let place = Self {
            server,
            namespace,
            settings,
        };
        let class = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n\
             metadata: {{name: {0}}}\nspec: {{controllerName: example.net/{0}}}",
            place.namespace
        );
        server.apply(&class).unwrap();
        place
    }

    pub(crate) async fn shim(&self) -> ControlPlane {
        self.shim_by(self.server.kubeconfig()).await
    }

    /// A shim that reaches the API server another way.
    pub(crate) async fn shim_by(&self, kubeconfig: &Path) -> ControlPlane {
        let settings = self.settings.path().join("shim.yaml");
        ControlPlane::follow(kubeconfig, &settings, free_address())
            .await
            .unwrap()
    }

    /// The same with a data plane and a Gateway at that port, once a route has become traffic.
    pub(crate) async fn served_by(&self, kubeconfig: &Path) -> (ControlPlane, DataPlane, u16) {
        let shim = self.shim_by(kubeconfig).await;
        let data_plane = DataPlane::spawn(shim.grpc, None, |_| ()).unwrap();
        let port = free_port();
        self.gateway(port);
        self.route("one.test");
        wait_sent_to(port, "one.test").await;
        (shim, data_plane, port)
    }

    pub(crate) fn gateway(&self, port: u16) {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
             metadata: {{name: gw, namespace: {0}}}\nspec:\n  gatewayClassName: {0}\n  \
             addresses: [{{type: IPAddress, value: 127.0.0.1}}]\n  \
             listeners: [{{name: http, port: {port}, protocol: HTTP}}]",
            self.namespace
        );
        self.server.apply(&text).unwrap();
    }

    /// A route that sends everybody to `host`.
    pub(crate) fn route(&self, host: &str) {
        self.server
            .apply(&self.route_text("HTTPRoute", host))
            .unwrap();
    }

    fn route_text(&self, kind: &str, host: &str) -> String {
        let filters = "[{type: RequestRedirect, requestRedirect: {hostname: HOST}}]";
        let rule = match kind {
            "HTTPRoute" => format!("filters: {}", filters.replace("HOST", host)),
            _ => "backendRefs: [{name: nobody, port: 80}]".to_owned(),
        };
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
             metadata: {{name: r, namespace: {}}}\nspec:\n  parentRefs: [{{name: gw}}]\n  \
             rules: [{{{rule}}}]",
            self.namespace
        )
    }

    pub(crate) fn object(&self, kind: &str, name: &str) -> Value {
        let arguments = ["get", kind, name, "-n", &self.namespace, "-o", "json"];
        let answer = self.server.kubectl(&arguments, "").unwrap();
        serde_json::from_str(&answer.stdout).unwrap_or_default()
    }

    /// Waits until the object is as claimed.
    pub(crate) async fn wait(
        &self,
        kind: &str,
        name: &str,
        claim: impl Fn(&Value) -> bool,
    ) -> Value {
        let end = Instant::now() + LIMIT;
        loop {
            let object = self.object(kind, name);
            if claim(&object) {
                return object;
            }
            assert!(
                Instant::now() < end,
                "{kind} {name} never got there: {object:#}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the Gateway is programmed in its present generation.
    pub(crate) async fn programmed(&self) -> Value {
        let is_programmed = |gateway: &Value| {
            let claim = condition(&gateway["status"]["conditions"], "Programmed");
            claim["status"] == "True"
                && claim["observedGeneration"] == gateway["metadata"]["generation"]
        };
        self.wait("gateway", "gw", is_programmed).await
    }
}

pub(crate) fn condition<'a>(conditions: &'a Value, kind: &str) -> &'a Value {
    let list = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .find(|it| it["type"] == kind)
        .unwrap_or(&Value::Null)
}

/// Where the gateway sends whoever asks at `port`; empty when nobody answers.
pub(crate) async fn sent_to(port: u16) -> String {
    let ask = async {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), ask).await;
    let answer = answer.ok().and_then(Result::ok).unwrap_or_default();
    let location = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location")
            .then(|| value.trim().to_owned())
    });
    location.unwrap_or_default()
}

pub(crate) async fn wait_sent_to(port: u16, host: &str) {
    let end = Instant::now() + LIMIT;
    while !sent_to(port).await.contains(host) {
        assert!(Instant::now() < end, "requests never went to {host}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) const ALONE: &str = "leaderElection: {enabled: false}";

#[tokio::test]
async fn what_a_cluster_holds_is_served_and_told() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "told", ALONE);
    let port = free_port();
    let shim = place.shim().await;
    place.gateway(port);
    place.route("one.test");
    // Nobody serves it yet, and it says so.
    place
        .wait("gateway", "gw", |gateway| {
            let claim = condition(&gateway["status"]["conditions"], "Programmed");
            claim["status"] == "Unknown" && claim["reason"] == "Pending"
        })
        .await;
    let _data_plane = DataPlane::start(shim.grpc, None, |_| ()).await.unwrap();
    let gateway = place.programmed().await;
    let listener = &gateway["status"]["listeners"][0];
    assert_eq!(listener["attachedRoutes"], 1, "{gateway:#}");
    assert_eq!(
        condition(&listener["conditions"], "Programmed")["status"],
        "True"
    );
    assert_eq!(gateway["status"]["addresses"][0]["value"], "127.0.0.1");
    // Programmed means that it answers, now.
    assert!(sent_to(port).await.contains("one.test"));
    let class = place.object("gatewayclass", &place.namespace);
    assert_eq!(
        condition(&class["status"]["conditions"], "Accepted")["status"],
        "True"
    );
    let features = class["status"]["supportedFeatures"].as_array().unwrap();
    assert!(features.iter().any(|it| it["name"] == "HTTPRoute"));

    place.route("two.test");
    wait_sent_to(port, "two.test").await;
    let at_this_generation = |route: &Value| {
        let parent = &route["status"]["parents"][0];
        let claim = condition(&parent["conditions"], "Accepted");
        claim["status"] == "True" && claim["observedGeneration"] == route["metadata"]["generation"]
    };
    let route = place.wait("httproute", "r", at_this_generation).await;
    let parent = &route["status"]["parents"][0];
    assert_eq!(parent["parentRef"], route["spec"]["parentRefs"][0]);

    let arguments = ["delete", "httproute", "r", "-n", &place.namespace];
    assert!(server.kubectl(&arguments, "").unwrap().is_success);
    place
        .wait("gateway", "gw", |it| {
            it["status"]["listeners"][0]["attachedRoutes"] == 0
        })
        .await;
    assert_eq!(sent_to(port).await, "");
}

#[tokio::test]
async fn a_refusal_names_the_culprit_and_makes_an_event() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "refused", ALONE);
    let port = free_port();
    let shim = place.shim().await;
    let _data_plane = DataPlane::spawn(shim.grpc, None, |_| ()).unwrap();
    place.gateway(port);
    let route = place.route_text("GRPCRoute", "");
    server.apply(&route).unwrap();
    place
        .wait("grpcroute", "r", |route| {
            let conditions = &route["status"]["parents"][0]["conditions"];
            let claim = condition(conditions, "ResolvedRefs");
            claim["status"] == "False" && claim["reason"] == "BackendNotFound"
        })
        .await;
    let arguments = ["get", "events", "-n", &place.namespace, "-o", "json"];
    let end = Instant::now() + LIMIT;
    loop {
        let events = server.kubectl(&arguments, "").unwrap().stdout;
        if events.contains("BackendNotFound") {
            break;
        }
        assert!(Instant::now() < end, "no event came: {events}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_a_data_plane_refuses_is_told_at_the_object() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "nacked", ALONE);
    // Somebody has the port, so that no data plane can bind it.
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let shim = place.shim().await;
    let _data_plane = DataPlane::spawn(shim.grpc, None, |_| ()).unwrap();
    place.gateway(port);
    let gateway = place
        .wait("gateway", "gw", |gateway| {
            let conditions = &gateway["status"]["listeners"][0]["conditions"];
            condition(conditions, "Programmed")["status"] == "False"
        })
        .await;
    let conditions = &gateway["status"]["listeners"][0]["conditions"];
    let message = condition(conditions, "Programmed")["message"].to_string();
    assert!(message.contains("dp-1"), "{message}");
    assert_eq!(
        condition(conditions, "Accepted")["reason"],
        "PortUnavailable"
    );
}

#[tokio::test]
async fn entries_of_other_controllers_stay_as_they_are() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "others", ALONE);
    let shim = place.shim().await;
    let _data_plane = DataPlane::spawn(shim.grpc, None, |_| ()).unwrap();
    place.gateway(free_port());
    place.route("one.test");
    let is_ours =
        |entry: &Value| entry["controllerName"] == format!("example.net/{}", place.namespace);
    let has_ours = |route: &Value| {
        let parents = route["status"]["parents"].as_array();
        parents.is_some_and(|parents| parents.iter().any(is_ours))
    };
    let route = place.wait("httproute", "r", has_ours).await;
    let mut parents = route["status"]["parents"].clone();
    let theirs = serde_json::json!({
        "controllerName": "example.org/other",
        "parentRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "elsewhere" },
        "conditions": [{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2020-01-01T00:00:00Z",
        }],
    });
    parents.as_array_mut().unwrap().push(theirs.clone());
    let patch = serde_json::json!({ "status": { "parents": parents } }).to_string();
    let arguments = [
        "patch",
        "httproute",
        "r",
        "-n",
        &place.namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    let answer = server.kubectl(&arguments, "").unwrap();
    assert!(answer.is_success, "{}", answer.stderr);

    place.route("two.test");
    let is_told = |route: &Value| {
        let parents = route["status"]["parents"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ours = parents
            .iter()
            .find(|it| is_ours(it))
            .cloned()
            .unwrap_or_default();
        condition(&ours["conditions"], "Accepted")["observedGeneration"]
            == route["metadata"]["generation"]
    };
    let route = place.wait("httproute", "r", is_told).await;
    let parents = route["status"]["parents"].as_array().unwrap();
    assert!(parents.contains(&theirs), "{route:#}");
    assert_eq!(parents.len(), 2);
}

#[tokio::test]
async fn a_restarted_shim_changes_nothing() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "restart", ALONE);
    let port = free_port();
    let mut shim = place.shim().await;
    let grpc = shim.grpc;
    let data_plane = DataPlane::spawn(grpc, None, |_| ()).unwrap();
    place.gateway(port);
    place.route("one.test");
    wait_sent_to(port, "one.test").await;
    place
        .wait("gateway", "gw", |it| {
            it["status"]["listeners"][0]["attachedRoutes"] == 1
        })
        .await;
    let before = place.programmed().await;
    shim.process.kill().unwrap();
    data_plane.connected(false).await;
    assert!(sent_to(port).await.contains("one.test"));
    let settings = place.settings.path().join("shim.yaml");
    let _again = ControlPlane::follow(server.kubeconfig(), &settings, grpc)
        .await
        .unwrap();
    data_plane.connected(true).await;
    place.route("two.test");
    wait_sent_to(port, "two.test").await;
    let after = place.object("gateway", "gw");
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&before), version(&after), "{before:#} {after:#}");
}

#[tokio::test]
async fn one_of_two_shims_serves_and_the_other_takes_over() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let election = "leaderElection: {namespace: default, id: LEASE, leaseDuration: 3s, \
                    renewDeadline: 2s, retryPeriod: 500ms}";
    let lease = format!("lease-{}", free_port());
    let place = Place::new(server, "lease", &election.replace("LEASE", &lease));
    let port = free_port();
    place.gateway(port);
    place.route("one.test");
    let mut first = place.shim().await;
    let _one = DataPlane::start(first.grpc, None, |_| ()).await.unwrap();
    wait_sent_to(port, "one.test").await;
    place.programmed().await;
    let second = place.shim().await;
    let other = DataPlane::spawn(second.grpc, None, |it| it["nodeId"] = "dp-2".into()).unwrap();
    let text = second.admin.text("/metrics").await;
    assert!(
        text.contains("nantian_gateway_controlplane_leader 0"),
        "{text}"
    );
    first.process.kill().unwrap();
    let killed = Instant::now();
    loop {
        let text = second.admin.text("/metrics").await;
        if text.contains("nantian_gateway_controlplane_leader 1") {
            break;
        }
        assert!(
            killed.elapsed() < Duration::from_secs(15),
            "nobody took over"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    other.connected(true).await;
    // Traffic never stopped.
    assert!(sent_to(port).await.contains("one.test"));
}

#[tokio::test]
async fn with_services_each_gateway_gets_one_and_ports_of_its_own() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let namespace =
        "addresses: {strategy: service, serviceType: ClusterIP, dataPlaneService: NS/dp}";
    let place = Place::new(server, "services", ALONE);
    let text = format!(
        "controllerName: example.net/{0}\n{ALONE}\n{1}\n",
        place.namespace,
        namespace.replace("NS", &place.namespace)
    );
    std::fs::write(place.settings.path().join("shim.yaml"), text).unwrap();
    let data_planes = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: dp-1, namespace: {0}, labels: {{kubernetes.io/service-name: dp}}}}\n\
         endpoints: [{{addresses: [192.0.2.7]}}]",
        place.namespace
    );
    server.apply(&data_planes).unwrap();
    let _shim = place.shim().await;
    for name in ["one", "two"] {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
             metadata: {{name: {name}, namespace: {0}}}\nspec:\n  gatewayClassName: {0}\n  \
             infrastructure: {{labels: {{team: {name}}}, annotations: {{note: kept}}}}\n  \
             listeners: [{{name: http, port: 80, protocol: HTTP}}]",
            place.namespace
        );
        server.apply(&text).unwrap();
    }
    let mut bound = Vec::new();
    for name in ["one", "two"] {
        let service = format!("{name}-nantian");
        let object = place
            .wait("service", &service, |it| {
                it["spec"]["ports"][0]["port"] == 80
            })
            .await;
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["gateway.networking.k8s.io/gateway-name"], name);
        assert_eq!(labels["team"], name);
        assert_eq!(object["metadata"]["annotations"]["note"], "kept");
        let port = object["spec"]["ports"][0]["targetPort"].clone();
        let slice = place
            .wait("endpointslice", &format!("{service}-ipv4"), |it| {
                it["endpoints"][0]["addresses"][0] == "192.0.2.7"
            })
            .await;
        assert_eq!(slice["ports"][0]["port"], port);
        bound.push(port);
        // No data plane is there, but the address is.
        place
            .wait("gateway", name, |it| {
                it["status"]["addresses"][0]["value"] == object["spec"]["clusterIP"]
            })
            .await;
    }
    assert_ne!(bound[0], bound[1]);
}

#[tokio::test]
async fn an_api_server_may_go_and_a_kind_may_go_and_come_back() {
    if std::env::var_os("E2E_KUBECONFIG").is_some() {
        // Someone's cluster is not stopped.
        return;
    }
    let Some(server) = ApiServer::start() else {
        return;
    };
    let place = Place::new(&server, "gone", ALONE);
    let port = free_port();
    let shim = place.shim().await;
    let _data_plane = DataPlane::spawn(shim.grpc, None, |_| ()).unwrap();
    place.gateway(port);
    place.route("one.test");
    wait_sent_to(port, "one.test").await;

    server.stop().unwrap();
    assert!(sent_to(port).await.contains("one.test"));
    server.resume().unwrap();
    place.route("two.test");
    wait_sent_to(port, "two.test").await;

    let crd = "customresourcedefinition/grpcroutes.gateway.networking.k8s.io";
    let definition = server
        .kubectl(&["get", crd, "-o", "json"], "")
        .unwrap()
        .stdout;
    let route = place.route_text("GRPCRoute", "");
    let has_status = |route: &Value| !route["status"]["parents"][0]["conditions"].is_null();
    server.apply(&route).unwrap();
    place.wait("grpcroute", "r", has_status).await;
    assert!(server.kubectl(&["delete", crd], "").unwrap().is_success);
    assert!(sent_to(port).await.contains("two.test"));
    let mut definition: Value = serde_json::from_str(&definition).unwrap();
    let metadata = definition["metadata"].as_object_mut().unwrap();
    metadata.retain(|field, _| matches!(field.as_str(), "name" | "annotations" | "labels"));
    definition.as_object_mut().unwrap().remove("status");
    server.apply(&definition.to_string()).unwrap();
    let end = Instant::now() + LIMIT;
    while server.apply(&route).is_err() {
        assert!(Instant::now() < end, "the kind never came back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    place.wait("grpcroute", "r", has_status).await;
}

/// A kubeconfig for the shim's service account, which has the rights of `manifests/shim/rbac.yaml`
/// after `edit` has changed them; names are made the place's own.
fn account(place: &Place<'_>, edit: impl Fn(&str) -> String) -> std::path::PathBuf {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/shim/rbac.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let text = edit(&text).replace("nantian-gw", &place.namespace);
    place.server.apply(&text).unwrap();
    log_in(
        place,
        &place.namespace,
        &format!("{}-shim", place.namespace),
    )
}

/// A kubeconfig for a service account of that namespace.
pub(crate) fn log_in(place: &Place<'_>, namespace: &str, account: &str) -> std::path::PathBuf {
    let arguments = ["create", "token", account, "-n", namespace];
    let token = place.server.kubectl(&arguments, "").unwrap();
    assert!(token.is_success, "{}", token.stderr);
    let known = std::fs::read_to_string(place.server.kubeconfig()).unwrap();
    let lines = known.lines().map(|line| match line.starts_with("users:") {
        true => format!(
            "users: [{{name: u, user: {{token: {}}}}}]",
            token.stdout.trim()
        ),
        false => line.to_owned(),
    });
    let path = place.settings.path().join("kubeconfig");
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
    path
}

#[tokio::test]
async fn the_rights_of_the_manifest_are_enough() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "rights", ALONE);
    let kubeconfig = account(&place, str::to_owned);
    let (shim, _data_plane, _) = place.served_by(&kubeconfig).await;
    place.programmed().await;
    let faults = shim.admin.told_all().await;
    assert!(
        !faults.iter().any(|it| it.contains("may not be listed")),
        "{faults:?}"
    );
}

#[tokio::test]
async fn a_kind_that_may_not_be_listed_is_named_and_the_others_are_served() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "rightless", ALONE);
    // All but TLSRoutes; other tests may have installed kinds of our own.
    let kinds = "[gatewayclasses, gateways, listenersets, httproutes, grpcroutes, tcproutes, \
                 udproutes, referencegrants, backendtlspolicies, xbackendtrafficpolicies, \
                 backendlbpolicies, routepolicies, securitypolicies, directresponses, aiservices, \
                 tokenpolicies, wasmplugins]";
    let some = |text: &str| text.replacen("resources: [\"*\"]", &format!("resources: {kinds}"), 1);
    let kubeconfig = account(&place, some);
    let (shim, _data_plane, _) = place.served_by(&kubeconfig).await;
    let is_named = |told: &[String]| {
        let mut told = told.iter();
        told.any(|it| it.contains("TLSRoute") && it.contains("may not be listed"))
    };
    let told = shim.admin.told_all().await;
    assert!(is_named(&told), "{told:?}");
    // It is made good as soon as it may be.
    account(&place, str::to_owned);
    let end = Instant::now() + LIMIT;
    while is_named(&shim.admin.told_all().await) {
        assert!(Instant::now() < end, "the right did not help");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
