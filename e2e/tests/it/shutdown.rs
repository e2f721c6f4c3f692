//! The end of a process: nothing under way is lost, and whoever asks twice need not wait.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::until;
use e2e::gateway::{ControlPlane, DataPlane, START_LIMIT, free_address};
use e2e::load::Load;
use e2e::process::Process;

use crate::support::{answers, small_gateway};

/// A request that takes a while, sent and not answered yet.
async fn slow_request(address: SocketAddr, delay_ms: u32) -> Http1Client {
    let mut client = Http1Client::connect(address).await.unwrap();
    let request = format!("GET /slow?delay_ms={delay_ms} HTTP/1.1\r\nhost: any.test\r\n\r\n");
    client.send_bytes(request.as_bytes()).await.unwrap();
    client
}

/// Ends it with a second signal while a slow request holds it up.
async fn second_signal_ends_at_once(process: &mut Process) {
    process.terminate().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(process.is_running(), "a running request is waited for");
    let asked = Instant::now();
    process.terminate().unwrap();
    let finished = process.ended().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(3), "{finished:?}");
    assert_eq!(finished.code, Some(1), "{finished:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_plane_drains_under_load_and_exits_with_0() {
    let port = free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let it = small_gateway(port).await;
    let control_plane = ControlPlane::start(it.folder(), free_address(), None, &[])
        .await
        .unwrap();
    let mut data_plane = DataPlane::start(control_plane.grpc, None, |_| ())
        .await
        .unwrap();
    answers(address, "one").await;
    let load = Load::start(address, "any.test", "/", 5, 3);
    load.advance(300).await;
    let mut slow = slow_request(address, 2500).await;
    until(START_LIMIT, || async {
        let lines = it.of("default/one").request_lines();
        lines.iter().any(|line| line.contains("/slow"))
    })
    .await;

    data_plane.process.terminate().unwrap();
    load.ends_when_refused();
    until(START_LIMIT, || async {
        data_plane.admin.status("/readyz").await == 503
    })
    .await;
    let answer = slow.read_response(&http::Method::GET).await.unwrap();
    assert_eq!(answer.status, 200);
    let finished = data_plane.process.ended().await.unwrap();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_data_plane_asked_twice_ends_at_once() {
    let port = free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let it = small_gateway(port).await;
    let control_plane = ControlPlane::start(it.folder(), free_address(), None, &[])
        .await
        .unwrap();
    let mut data_plane = DataPlane::start(control_plane.grpc, None, |_| ())
        .await
        .unwrap();
    answers(address, "one").await;
    let _slow = slow_request(address, 20_000).await;
    second_signal_ends_at_once(&mut data_plane.process).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_drains_under_load_and_exits_with_0() {
    let mut it = small_gateway(80).await.serve(&[80]).await.unwrap();
    let address = it.ports.address(80);
    let load = Load::start(address, "any.test", "/", 5, 3);
    load.advance(300).await;
    let mut slow = slow_request(address, 2000).await;
    load.advance(50).await;
    load.ends_when_refused();
    it.gateway.process.terminate().unwrap();
    let answer = slow.read_response(&http::Method::GET).await.unwrap();
    assert_eq!(answer.status, 200);
    let finished = it.gateway.process.ended().await.unwrap();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test]
async fn standalone_asked_twice_ends_at_once() {
    let mut it = small_gateway(80).await.serve(&[80]).await.unwrap();
    let _slow = slow_request(it.ports.address(80), 20_000).await;
    second_signal_ends_at_once(&mut it.gateway.process).await;
}
