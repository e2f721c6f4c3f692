//! The whole gateway in one process: manifests in, traffic through it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::websocket::{self, Message};
use dataplane_testkit::client::{grpc, http1};
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::within;
use futures_util::{SinkExt, StreamExt};
use shim::demo;
use shim::standalone::{self, Standalone};
use shim::translate::{Classes, PortMap};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Starts an echo backend and gives the manifests of its Service.
async fn backend(name: &'static str, shutdown: &CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    demo::start_one(name, listener, shutdown.clone());
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec:
  ports:
    - {{name: http, port: 80}}
    - {{name: grpc, port: 9000, appProtocol: kubernetes.io/h2c}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}
  namespace: default
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}, {{name: grpc, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"
    )
}

fn gateway(port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: nantian-gw}}
spec: {{controllerName: gateway.networking.k8s.io/nantian-gw}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: web, namespace: default}}
spec:
  gatewayClassName: nantian-gw
  listeners: [{{name: http, protocol: HTTP, port: {port}}}]
"
    )
}

fn write_routes(folder: &Path, backend: &str) {
    let routes = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: default}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [shop.test, ws.test]
  rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: grpc, namespace: default}}
spec:
  parentRefs: [{{name: web}}]
  hostnames: [grpc.test]
  rules: [{{backendRefs: [{{name: {backend}, port: 9000}}]}}]
"
    );
    std::fs::write(folder.join("routes.yaml"), routes).unwrap();
}

/// Which backend answers, once one does.
async fn answering(addr: SocketAddr) -> Option<String> {
    let response = http1::get(addr, "shop.test", "/").await.ok()?;
    if response.status != 200 {
        return None;
    }
    Some(response.json()["backend"].as_str()?.to_owned())
}

/// Waits until `backend` answers.
async fn wait_for(addr: SocketAddr, backend: &str) {
    let look = async {
        while answering(addr).await.as_deref() != Some(backend) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(&format!("{backend} answers"), look).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_become_traffic_and_edits_reach_it() {
    let shutdown = CancellationToken::new();
    let backends = CancellationToken::new();
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let one = backend("echo-1", &backends).await;
    let two = backend("echo-2", &backends).await;
    std::fs::write(folder.path().join("gateway.yaml"), gateway(port)).unwrap();
    std::fs::write(folder.path().join("backends.yaml"), one + &two).unwrap();
    write_routes(folder.path(), "echo-1");
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let running = tokio::spawn(standalone::run(
        Standalone {
            folders: vec![folder.path().to_owned()],
            is_demo: false,
            ports: PortMap::default(),
            classes: Classes::Any,
            admin_addr: loopback,
            control_admin_addr: loopback,
        },
        shutdown.clone(),
    ));
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait_for(addr, "echo-1").await;

    let client = Http2Client::connect(addr).await.unwrap();
    let path = "/nantian.demo.v1.Echo/Say";
    let reply = grpc::unary(&client, "grpc.test", path, &[], b"hello")
        .await
        .unwrap();
    assert_eq!(
        (reply.status, reply.messages),
        (Some(0), vec![Bytes::from("hello")])
    );
    let (mut socket, _) = websocket::connect(addr, "ws.test", "/ws").await.unwrap();
    socket.send(Message::text("before")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("before")
    );

    write_routes(folder.path(), "echo-2");
    wait_for(addr, "echo-2").await;
    socket.send(Message::text("after")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("after")
    );
    drop((socket, client));

    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port_hurts_no_other_listener_and_serves_once_it_is_free() {
    let shutdown = CancellationToken::new();
    let backends = CancellationToken::new();
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let (port, admin) = (free_port(), free_port());
    let backend = backend("echo", &backends).await;
    // Two listeners on the taken port: both are named at once.
    let listeners = format!(
        "listeners: [{{name: http, protocol: HTTP, port: {port}}}, \
         {{name: busy, protocol: HTTP, port: {taken_port}}}, \
         {{name: busy-too, protocol: HTTP, port: {taken_port}, hostname: too.test}}]"
    );
    let one = format!("listeners: [{{name: http, protocol: HTTP, port: {port}}}]");
    let gateway = gateway(port).replace(&one, &listeners);
    assert!(gateway.contains("busy-too"));
    std::fs::write(folder.path().join("gateway.yaml"), gateway).unwrap();
    std::fs::write(folder.path().join("backends.yaml"), backend).unwrap();
    write_routes(folder.path(), "echo");
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let running = tokio::spawn(standalone::run(
        Standalone {
            folders: vec![folder.path().to_owned()],
            is_demo: false,
            ports: PortMap::default(),
            classes: Classes::Any,
            admin_addr: loopback(0),
            control_admin_addr: loopback(admin),
        },
        shutdown.clone(),
    ));
    let started = std::time::Instant::now();
    wait_for(loopback(port), "echo").await;
    assert!(started.elapsed() < Duration::from_secs(5));

    let status = http1::get(loopback(admin), "admin", "/api/v1/status").await;
    let status = status.unwrap().json();
    let objects = status["objects"].as_array().unwrap();
    let gateway = objects.iter().find(|object| object["kind"] == "Gateway");
    for index in [1, 2] {
        let conditions = &gateway.unwrap()["listeners"][index]["conditions"];
        let programmed = conditions.as_array().unwrap().iter();
        let programmed = programmed
            .clone()
            .find(|c| c["type"] == "Programmed")
            .unwrap();
        assert_eq!(programmed["status"], "False");
        let message = programmed["message"].as_str().unwrap();
        for words in [
            "data plane standalone",
            &format!("0.0.0.0:{taken_port}"),
            "another program has it, stop that or choose another port",
        ] {
            assert!(message.contains(words), "{words} is missing in {message}");
        }
    }

    drop(taken);
    wait_for(loopback(taken_port), "echo").await;
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
