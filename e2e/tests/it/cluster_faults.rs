//! A cluster that misbehaves under traffic: watches that expire, namespaces that go, huge objects.
//!
//! All beside a host that is asked without a pause and must always answer. An API server that goes
//! and a CRD that goes are in `cluster.rs`, bad objects and how fast a repair heals in
//! `bad_objects.rs`.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::free_port;
use e2e::api_server::ApiServer;
use e2e::gateway::{ControlPlane, DataPlane};
use e2e::kube_api::{Name, Proxy};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::cluster::{ALONE, LIMIT, Place, condition};

/// Between the shim and the API server: it can be cut, and can say of every watch that it expired.
struct Relay {
    shared: Arc<Shared>,
    port: u16,
    folder: tempfile::TempDir,
    _proxy: Proxy,
}

struct Shared {
    upstream: SocketAddr,
    is_cut: AtomicBool,
    /// Paths whose next watch has expired.
    expired: Mutex<Option<HashSet<String>>>,
    refused: AtomicUsize,
    connections: Mutex<Vec<JoinHandle<()>>>,
}

impl Relay {
    async fn start(server: &ApiServer) -> Self {
        let proxy = Proxy::start(server).await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream: proxy.address(),
            is_cut: AtomicBool::new(false),
            expired: Mutex::new(None),
            refused: AtomicUsize::new(0),
            connections: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if !accepting.is_cut.load(Ordering::SeqCst) {
                    let task = tokio::spawn(relay(stream, Arc::clone(&accepting)));
                    accepting.connections.lock().unwrap().push(task);
                }
            }
        });
        Self {
            shared,
            port,
            folder: tempfile::tempdir().unwrap(),
            _proxy: proxy,
        }
    }

    fn kubeconfig(&self) -> PathBuf {
        let path = self.folder.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\n\
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{}'}}}}]\n\
             users: [{{name: u, user: {{}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\ncurrent-context: c\n",
            self.port
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Ends every connection and takes no new one.
    fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Connections are taken again, and the first watch of each kind has expired.
    fn mend(&self) {
        *self.shared.expired.lock().unwrap() = Some(HashSet::new());
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }

    /// How many watches were told that they expired.
    fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// True for the first watch of that path after [`Relay::mend`].
    fn has_expired(&self, path: &str) -> bool {
        let mut expired = self.expired.lock().unwrap();
        expired
            .as_mut()
            .is_some_and(|told| told.insert(path.to_owned()))
    }
}

/// One request and its answer; then the connection ends, so that every request is seen.
async fn relay(mut client: TcpStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head.windows(4).position(|it| it == b"\r\n\r\n") {
            break end;
        }
        if !matches!(client.read_buf(&mut head).await, Ok(1..)) {
            return;
        }
    };
    let line = String::from_utf8_lossy(&head[..end]).into_owned();
    let target = line.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if query.contains("watch=true") && shared.has_expired(path) {
        let count = shared.refused.fetch_add(1, Ordering::SeqCst);
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired",
            "code": 410, "message": "too old resource version", "metadata": {},
        });
        // API servers say it as an event, those behind a proxy that ends watches as a status.
        let (code, body) = match count % 2 {
            0 => ("200 OK", json!({ "type": "ERROR", "object": status })),
            _ => ("410 Gone", status),
        };
        let body = format!("{body}\n");
        let answer = format!(
            "HTTP/1.1 {code}\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        // A client that is gone needs no answer.
        let _ = client.write_all(answer.as_bytes()).await;
        return;
    }
    let Ok(mut upstream) = TcpStream::connect(shared.upstream).await else {
        return;
    };
    let rest = head.split_off(end);
    head.extend_from_slice(b"\r\nconnection: close");
    head.extend_from_slice(&rest);
    if upstream.write_all(&head).await.is_ok() {
        // Either side may end it.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
    }
}

/// Asks a host over and over; what is not sent to `steady.test` is a failure.
struct Witness {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl Witness {
    fn start(port: u16, host: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut requests, mut failures) = (0, Vec::new());
            while !ended.load(Ordering::SeqCst) {
                let location = location(port, host).await;
                if location != "steady.test" {
                    failures.push(location);
                }
                requests += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (requests, failures)
        });
        Self { stop, task }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        let (requests, failures) = self.task.await.unwrap();
        assert!(requests > 10, "{requests} requests are none");
        assert_eq!(failures, Vec::<String>::new(), "of {requests} requests");
    }
}

/// The host where the gateway sends a host; the status where it sends it nowhere.
async fn location(port: u16, host: &str) -> String {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match http1::get(address, host, "/").await {
        Ok(answer) if answer.status == 302 => {
            let location = answer.header("location").trim_start_matches("http://");
            location.split(':').next().unwrap_or_default().to_owned()
        }
        Ok(answer) => answer.status.to_string(),
        Err(error) => error.to_string(),
    }
}

async fn wait_location(port: u16, host: &str, expected: &str) {
    let end = Instant::now() + LIMIT;
    loop {
        let location = location(port, host).await;
        if location == expected {
            return;
        }
        assert!(Instant::now() < end, "{host}: {location}, not {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn gateway(place: &Place<'_>, port: u16) {
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "name": "gw", "namespace": place.namespace },
        "spec": {
            "gatewayClassName": place.namespace,
            "addresses": [{ "type": "IPAddress", "value": "127.0.0.1" }],
            "allowedListeners": { "namespaces": { "from": "All" } },
            "listeners": [{
                "name": "http", "port": port, "protocol": "HTTP",
                "allowedRoutes": { "namespaces": { "from": "All" } },
            }],
        },
    });
    place.server.apply(&object.to_string()).unwrap();
}

/// A route of the place's Gateway that sends `<name>.test` to `to`.
fn route(place: &Place<'_>, namespace: &str, name: &str, to: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "parentRefs": [{ "name": "gw", "namespace": place.namespace }],
            "hostnames": [format!("{name}.test")],
            "rules": [{ "filters": [{
                "type": "RequestRedirect", "requestRedirect": { "hostname": to },
            }] }],
        },
    })
}

/// The Gateway at `port`, what serves it, and a host `steady.test` that is asked all the time.
async fn served(
    place: &Place<'_>,
    port: u16,
    shim: ControlPlane,
) -> (ControlPlane, DataPlane, Witness) {
    let data_plane = DataPlane::start(shim.grpc, None, |_| ()).await.unwrap();
    gateway(place, port);
    let steady = route(place, &place.namespace, "steady", "steady.test");
    place.server.apply(&steady.to_string()).unwrap();
    wait_location(port, "steady.test", "steady.test").await;
    (shim, data_plane, Witness::start(port, "steady.test"))
}

/// Neither process may have ended or panicked.
fn unharmed(shim: &mut ControlPlane, data_plane: &mut DataPlane) {
    for process in [&mut shim.process, &mut data_plane.process] {
        assert!(process.is_running(), "{}", process.said());
        let said = process.said();
        assert!(!said.contains("panicked at"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_watch_is_listed_again_and_loses_nothing() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "expired", ALONE);
    let relay = Relay::start(server).await;
    let shim = place.shim_by(&relay.kubeconfig()).await;
    let port = free_port();
    let (mut shim, mut data_plane, witness) = served(&place, port, shim).await;
    let here = &place.namespace;
    let apply = |name: &str, to: &str| {
        let route = route(&place, here, name, to);
        server.apply(&route.to_string()).unwrap();
    };
    apply("changed", "one.test");
    apply("gone", "one.test");
    wait_location(port, "changed.test", "one.test").await;
    wait_location(port, "gone.test", "one.test").await;

    relay.cut();
    apply("changed", "two.test");
    apply("new", "one.test");
    let delete = ["delete", "httproute", "gone", "-n", here];
    assert!(server.kubectl(&delete, "").unwrap().is_success);
    relay.mend();
    wait_location(port, "changed.test", "two.test").await;
    wait_location(port, "new.test", "one.test").await;
    wait_location(port, "gone.test", "404 Not Found").await;
    // Every kind, not only the one that changed.
    let end = Instant::now() + LIMIT;
    while relay.refused() < 10 {
        assert!(Instant::now() < end, "{} watches", relay.refused());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What follows comes by watches again.
    apply("changed", "three.test");
    wait_location(port, "changed.test", "three.test").await;
    place
        .wait("gateway", "gw", |it| {
            it["status"]["listeners"][0]["attachedRoutes"] == 3
        })
        .await;
    witness.end().await;
    unharmed(&mut shim, &mut data_plane);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_is_deleted_takes_its_hosts_and_no_others() {
    const ROUTES: usize = 40;
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "keeps", ALONE);
    let port = free_port();
    let shim = place.shim().await;
    let (mut shim, mut data_plane, witness) = served(&place, port, shim).await;
    let other = server.namespace("goes").unwrap();
    let set_port = free_port();
    let names: Vec<String> = (0..ROUTES).map(|number| format!("goes-{number}")).collect();
    let mut objects: Vec<Value> = names
        .iter()
        .map(|name| route(&place, &other, name, "one.test"))
        .collect();
    objects.push(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ListenerSet",
        "metadata": { "name": "set", "namespace": other },
        "spec": {
            "parentRef": { "name": "gw", "namespace": place.namespace },
            "listeners": [{ "name": "http", "port": set_port, "protocol": "HTTP" }],
        },
    }));
    let mut of_set = route(&place, &other, "set", "one.test");
    of_set["spec"]["parentRefs"] = json!([{
        "group": "gateway.networking.k8s.io", "kind": "ListenerSet", "name": "set",
    }]);
    objects.push(of_set);
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    server.apply(&list.to_string()).unwrap();
    for name in [&names[0], &names[ROUTES - 1]] {
        wait_location(port, &format!("{name}.test"), "one.test").await;
    }
    wait_location(set_port, "set.test", "one.test").await;

    // As the namespace controller does: marked, emptied kind by kind, and finalized.
    let delete = ["delete", "namespace", &other, "--wait=false"];
    assert!(server.kubectl(&delete, "").unwrap().is_success);
    // Someone does not know yet, and is refused or overtaken.
    let late = route(&place, &other, &names[1], "late.test");
    let _ = server.apply(&late.to_string());
    for kind in ["listenersets", "httproutes"] {
        let delete = ["delete", kind, "--all", "-n", &other, "--wait=false"];
        assert!(server.kubectl(&delete, "").unwrap().is_success);
    }
    let finalize = format!("/api/v1/namespaces/{other}/finalize");
    let empty = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": other },
        "spec": { "finalizers": [] },
    });
    let arguments = ["replace", "--raw", &finalize, "-f", "-"];
    let finalized = server.kubectl(&arguments, &empty.to_string()).unwrap();
    assert!(finalized.is_success, "{}", finalized.stderr);
    for name in &names {
        wait_location(port, &format!("{name}.test"), "404 Not Found").await;
    }
    let counts = |gateway: &Value, routes: u64, sets: u64| {
        let status = &gateway["status"];
        status["listeners"][0]["attachedRoutes"] == routes && status["attachedListenerSets"] == sets
    };
    place.wait("gateway", "gw", |it| counts(it, 1, 0)).await;

    // It comes back under its old name.
    let create = ["create", "namespace", &other];
    assert!(server.kubectl(&create, "").unwrap().is_success);
    server.apply(&list.to_string()).unwrap();
    for name in &names {
        wait_location(port, &format!("{name}.test"), "one.test").await;
    }
    wait_location(set_port, "set.test", "one.test").await;
    let all = ROUTES as u64 + 1;
    place.wait("gateway", "gw", |it| counts(it, all, 1)).await;
    witness.end().await;
    unharmed(&mut shim, &mut data_plane);
}

/// A route with as many matches as the API server takes, and a megabyte of them; its last rule sends
/// everything to `to`.
fn huge(place: &Place<'_>, name: &str, to: &str) -> Value {
    let mut route = route(place, &place.namespace, name, to);
    let last = route["spec"]["rules"][0].clone();
    let header = |number: usize| json!({ "name": format!("x-{number}"), "value": "v".repeat(600) });
    let headers: Vec<Value> = (0..16).map(header).collect();
    let rules = (0..15).map(|rule| {
        let matches = (0..8).map(|number| {
            json!({
                "path": { "type": "PathPrefix", "value": format!("/{rule}/{number}") },
                "headers": headers,
            })
        });
        json!({
            "matches": matches.collect::<Vec<_>>(),
            "filters": [{
                "type": "RequestRedirect", "requestRedirect": { "hostname": "rule.test" },
            }],
        })
    });
    let mut rules: Vec<Value> = rules.collect();
    rules.push(last);
    route["spec"]["rules"] = rules.into();
    route
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_of_a_megabyte_are_served_and_hold_up_nobody() {
    let Some(server) = ApiServer::shared() else {
        return;
    };
    let place = Place::new(server, "huge", ALONE);
    let port = free_port();
    let shim = place.shim().await;
    let (mut shim, mut data_plane, witness) = served(&place, port, shim).await;
    let proxy = Proxy::start(server).await.unwrap();
    let mut api = proxy.connect().await.unwrap();
    let names = ["huge-1", "huge-2", "huge-3", "huge-4"];
    for name in names {
        let route = huge(&place, name, "one.test");
        assert!(route.to_string().len() > 1 << 20);
        api.create(&route).await.unwrap();
    }
    for name in names {
        wait_location(port, &format!("{name}.test"), "one.test").await;
    }
    let is_accepted = |route: &Value| {
        let conditions = &route["status"]["parents"][0]["conditions"];
        condition(conditions, "Accepted")["status"] == "True"
    };
    place.wait("httproute", "huge-4", is_accepted).await;
    // Small ones beside them are as quick as ever, and huge ones can be edited.
    let small = route(&place, &place.namespace, "small", "one.test");
    api.create(&small).await.unwrap();
    wait_location(port, "small.test", "one.test").await;
    api.merge(&huge(&place, "huge-1", "two.test"))
        .await
        .unwrap();
    wait_location(port, "huge-1.test", "two.test").await;
    for name in names {
        let name = Name {
            kind: "HTTPRoute",
            namespace: &place.namespace,
            name,
        };
        api.delete(name).await.unwrap();
    }
    for name in names {
        wait_location(port, &format!("{name}.test"), "404 Not Found").await;
    }
    witness.end().await;
    unharmed(&mut shim, &mut data_plane);
}
