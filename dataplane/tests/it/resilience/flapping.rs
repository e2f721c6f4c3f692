//! One of four endpoints is cut and restored, with real sockets and in real time.
//!
//! Takes almost four minutes, so it runs only when it is asked for:
//! `cargo test -p dataplane --test it flapping -- --ignored --nocapture`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dataplane_testkit::Backend;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::snapshot::free_port;
use ir::backend_policy::{BackendPolicy, OutlierDetection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};

use super::Case;
use crate::support::{Gateway, at};

const PHASE: Duration = Duration::from_secs(22);
const PHASES: u32 = 10;
const CLIENTS: u64 = 8;
/// 200 a second, all clients together.
const PACE: Duration = Duration::from_millis(5 * CLIENTS);

/// Answers whatever comes on one connection.
async fn answer(mut stream: TcpStream, served: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 4096];
    while let Ok(1..) = stream.read(&mut buffer).await {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        if stream.write_all(ok).await.is_err() {
            return;
        }
        served.fetch_add(1, Ordering::Relaxed);
    }
}

/// Cut for a phase, there for a phase, and so on.
async fn flap(address: SocketAddr, served: Arc<AtomicUsize>) {
    let start = Instant::now();
    for phase in 0..PHASES {
        let end = start + PHASE * (phase + 1);
        if phase % 2 == 0 {
            sleep_until(end).await;
            continue;
        }
        let listener = TcpListener::bind(address).await.unwrap();
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = sleep_until(end) => break,
                Ok((stream, _)) = listener.accept() => {
                    open.spawn(answer(stream, served.clone()));
                }
            }
        }
    }
}

#[tokio::test]
#[ignore = "takes almost four minutes"]
async fn a_flapping_endpoint_costs_few_requests_with_real_sockets() {
    let backends = [
        Backend::http1("a").await,
        Backend::http1("b").await,
        Backend::http1("c").await,
    ];
    let flapping = at(free_port());
    let mut endpoints: Vec<_> = backends.iter().map(Backend::address).collect();
    endpoints.push(flapping);
    let policy = BackendPolicy {
        outlier_detection: Some(OutlierDetection::default()),
        ..BackendPolicy::default()
    };
    let case = Case::new(&endpoints, policy);
    let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
        bootstrap.http.connect_retries = 0;
    })
    .await;
    let served = Arc::new(AtomicUsize::new(0));
    let flap = tokio::spawn(flap(flapping, served.clone()));
    let until = Instant::now() + PHASE * PHASES;
    let port = case.port;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            tokio::spawn(async move {
                let (mut sent, mut failed) = (0_usize, 0_usize);
                let mut client = Http1Client::connect(at(port)).await.unwrap();
                let mut pace = interval(PACE);
                while Instant::now() < until {
                    pace.tick().await;
                    sent += 1;
                    let is_well = client.get("x", "/").await.is_ok_and(|it| it.status == 200);
                    if !is_well {
                        failed += 1;
                        client = Http1Client::connect(at(port)).await.unwrap();
                    }
                }
                (sent, failed)
            })
        })
        .collect();
    let (mut sent, mut failed) = (0, 0);
    for client in clients {
        let (own, own_failed) = client.await.unwrap();
        sent += own;
        failed += own_failed;
    }
    flap.await.unwrap();
    let served = served.load(Ordering::Relaxed);
    let ejections = gateway.metric("backend_endpoint_ejections_total", &[]);
    eprintln!("{sent} sent, {failed} failed, {served} by the flapping one, {ejections} ejections");
    assert!(failed < 162, "{failed} of {sent}");
    assert!(served >= 4_500, "{served} of {sent}");
}
