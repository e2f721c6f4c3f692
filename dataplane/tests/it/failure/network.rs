//! A network that swallows packets: connections that never come up, and one that dies in silence.
//!
//! Packets are dropped by nftables in a network of the test's own, which a copy of this test process
//! is put into; so it needs root and the programs, and says so where they are missing.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::snapshot::{cluster, free_port};
use dataplane_testkit::{Backend, SnapshotBuilder};
use http::Request;
use ir::Snapshot;
use ir::cluster::ClusterProtocol;
use tokio::time::Instant;

use crate::binary::is_there;
use crate::support::{Gateway, at};

const INSIDE: &str = "NANTIAN_TEST_OWN_NETWORK";
const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

#[test]
fn a_black_hole_costs_its_timeout_and_no_request() {
    for program in ["unshare", "ip", "nft"] {
        if !is_there(program, "a network that drops packets") {
            return;
        }
    }
    let tried = Command::new("unshare").args(["--net", "true"]).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: a network that drops packets: unshare --net is not allowed here");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .arg("--net")
        .arg(test)
        .args(["--exact", "failure::network::inside", "--ignored"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

/// `hole` first and then `there`, so that the turn comes to both.
fn to(version: &str, port: u16, endpoints: &[SocketAddr]) -> Snapshot {
    let mut backends = cluster("shop/b:80", ClusterProtocol::Http, endpoints);
    backends.connect_timeout = CONNECT_TIMEOUT;
    SnapshotBuilder::new(version)
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/", "shop/b:80")
        .add_cluster(backends)
        .build()
}

fn swallow(address: SocketAddr) {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let rule = ["ip", "daddr", &ip, "tcp", "dport", &port, "drop"];
    run(&[&["nft", "add", "rule", "inet", "hole", "out"], &rule[..]].concat());
}

#[tokio::test]
#[ignore = "run by the test above, in a network of its own"]
async fn inside() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    run(&["ip", "link", "set", "lo", "up"]);
    run(&["nft", "add", "table", "inet", "hole"]);
    let hook = "{ type filter hook output priority 0; }";
    run(&["nft", "add", "chain", "inet", "hole", "out", hook]);
    let there = Backend::http1("there").await;
    let hole = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), free_port()));
    swallow(hole);

    let port = free_port();
    let first = to("v1", port, &[hole, there.address()]);
    let gateway = Gateway::with(&first, |bootstrap| {
        bootstrap.http.response_start_timeout = Duration::from_millis(700);
    })
    .await;
    // Nothing of a request is in a connection that never came up: a POST goes elsewhere, too.
    for method in ["GET", "POST", "GET", "POST", "GET", "POST"] {
        let began = Instant::now();
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let request = Request::builder().method(method).uri("/");
        let request = request.header("host", "x").body("body".into()).unwrap();
        assert_eq!(client.send(request).await.unwrap().status, 200, "{method}");
        assert!(
            began.elapsed() < CONNECT_TIMEOUT * 5,
            "{:?}",
            began.elapsed()
        );
    }

    // Nowhere else to go.
    gateway.apply(&to("v2", port, &[hole])).await;
    let began = Instant::now();
    let response = http1::get(at(port), "x", "/").await.unwrap();
    assert_eq!(response.status, 504);
    assert!(response.text().contains("(connect_timeout)"));
    assert!(
        began.elapsed() < CONNECT_TIMEOUT * 8,
        "{:?}",
        began.elapsed()
    );

    // A kept connection whose other end is suddenly not there any more.
    gateway.apply(&to("v3", port, &[there.address()])).await;
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
    swallow(there.address());
    let began = Instant::now();
    let response = http1::get(at(port), "x", "/").await.unwrap();
    assert_eq!(response.status, 504);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    run(&["nft", "flush", "chain", "inet", "hole", "out"]);
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
}
