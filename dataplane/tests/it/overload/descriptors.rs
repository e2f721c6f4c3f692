//! More clients than descriptors: they wait, nobody spins, and the admin API answers.

use std::time::Duration;

use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::snapshot::{cluster, free_port, listener, stream_route};
use dataplane_testkit::{
    Backend, ControlPlane, DEADLINE, SnapshotBuilder, StreamBackend, until, within,
};
use http::Method;
use ir::Snapshot;
use ir::cluster::ClusterProtocol;
use ir::listener::ListenerProtocol;
use ir::stream_route::StreamKind;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::binary::{Binary, is_there};
use crate::support::at;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_256_descriptors_600_clients_are_served_in_turn() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let Some((mut gateway, control_plane)) = narrow(&snapshot).await else {
        return;
    };

    // Silent ones take every place there is.
    let mut clients = Vec::new();
    for _ in 0..600 {
        clients.push(Http1Client::connect(at(port)).await.unwrap());
    }
    let paused = "cause=\"descriptors\"} ";
    until(DEADLINE, async || {
        let metrics = gateway.text("/metrics").await;
        metrics
            .lines()
            .any(|line| line.contains(paused) && !line.ends_with(" 0"))
    })
    .await;

    // Meanwhile nobody spins, the admin API answers, and new configuration is taken.
    let (ticks, since) = (gateway.cpu_ticks(), Instant::now());
    takes_an_update(&control_plane, &snapshot).await;
    while since.elapsed() < Duration::from_secs(3) {
        assert_eq!(gateway.status("/readyz").await, 200);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let used = gateway.cpu_ticks() - ticks;
    assert!(used <= 45, "{used} ticks of CPU in 3 s");

    // Everyone who asks is answered, in turn: those who wait get the places of those who are done.
    let mut asking = Vec::new();
    for mut client in clients {
        asking.push(tokio::spawn(async move {
            let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
            client.send_bytes(request).await?;
            let response = client.read_response(&Method::GET).await?;
            Ok::<_, dataplane_testkit::client::ClientError>(response.status.as_u16())
        }));
    }
    let mut served = 0;
    for asked in asking {
        let answer = within("an answer", asked).await.unwrap();
        served += usize::from(answer.is_ok());
    }
    assert!(served >= 590, "{served} of 600 were answered");
    has_stayed_calm(&mut gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_256_descriptors_600_streams_leave_some_for_the_admin_api() {
    let backend = StreamBackend::tcp("b").await;
    let port = free_port();
    let to = &[("app/db:1", 1)];
    let endpoints = &[backend.address()];
    let snapshot = SnapshotBuilder::new("v1")
        .listener(listener("infra/gw/tcp", port, ListenerProtocol::Tcp))
        .stream_route(stream_route(
            StreamKind::Tcp,
            "tcp/app/db",
            "infra/gw/tcp",
            &[],
            to,
        ))
        .add_cluster(cluster("app/db:1", ClusterProtocol::Tcp, endpoints))
        .build();
    let Some((mut gateway, control_plane)) = narrow(&snapshot).await else {
        return;
    };
    let mut clients = Vec::new();
    for _ in 0..600 {
        // Some are refused before they have looked at their new connection.
        clients.extend(TcpStream::connect(at(port)).await);
    }
    let refused = "nantian_gateway_dataplane_tcp_overload_rejected_total";
    until(DEADLINE, async || {
        gateway.metric(refused).await.unwrap_or_default() > 0.0
    })
    .await;
    takes_an_update(&control_plane, &snapshot).await;
    for _ in 0..5 {
        assert_eq!(gateway.status("/readyz").await, 200);
    }
    let mut served = 0;
    for client in &mut clients {
        served += usize::from(within("an answer", client.read_u8()).await.is_ok());
    }
    assert!((30..=120).contains(&served), "{served} of 600 were served");
    assert_eq!(backend.open_connections(), served);
    drop(clients);
    until(DEADLINE, async || {
        match TcpStream::connect(at(port)).await {
            Ok(mut again) => again.read_u8().await.is_ok(),
            Err(_) => false,
        }
    })
    .await;
    has_stayed_calm(&mut gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_have_the_share_of_descriptors_that_is_set() {
    if !is_there("prlimit", "running out of descriptors") {
        return;
    }
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .build();
    let mut limits = Vec::new();
    for keys in [
        "descriptorReserve: 32, descriptorClientPercent: 60",
        "descriptorReserve: 82, descriptorClientPercent: 60",
        "descriptorReserve: 32, descriptorClientPercent: 30",
    ] {
        let wrapper = ["prlimit", "--nofile=256:256", "--"];
        let keys = format!(
            "runtimeTuning: {{httpCapacity: {{workerThreads: 1}}}}\nruntimeProtection: {{{keys}}}\n"
        );
        let (gateway, _control_plane) = Binary::serving(&snapshot, &wrapper, &keys).await;
        let said = gateway.said();
        // {"level":"INFO",…,"connections":120}
        let (_, behind) = said.split_once("\"connections\":").expect(&said);
        let digits = behind.split(|it: char| !it.is_ascii_digit()).next();
        limits.push(digits.unwrap().parse::<usize>().unwrap());
    }
    let [usual, reserved, halved] = limits[..] else {
        panic!("{limits:?}");
    };
    assert_eq!(usual - reserved, 50 * 60 / 100, "{limits:?}");
    assert!((halved * 2).abs_diff(usual) <= 1, "{limits:?}");
}

/// One with 256 descriptors; `None` where that cannot be had.
async fn narrow(snapshot: &Snapshot) -> Option<(Binary, ControlPlane)> {
    if !is_there("prlimit", "running out of descriptors") {
        return None;
    }
    let wrapper = ["prlimit", "--nofile=256:256", "--"];
    let keys = "runtimeTuning: {httpCapacity: {workerThreads: 2}}\n";
    Some(Binary::serving(snapshot, &wrapper, keys).await)
}

/// The control plane still gets through.
async fn takes_an_update(control_plane: &ControlPlane, snapshot: &Snapshot) {
    let next = SnapshotBuilder::from(snapshot, "v2").build();
    control_plane.push_snapshot(&next).await;
    within("the update", async {
        while control_plane.answer().await.version != "v2" {}
    })
    .await;
}

/// It runs, and has not flooded its log.
fn has_stayed_calm(gateway: &mut Binary) {
    assert!(gateway.is_running());
    let lines = gateway.said().lines().count();
    assert!(lines < 60, "a flood of {lines} lines: {}", gateway.said());
}
