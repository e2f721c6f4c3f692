//! The process as a whole: stopped for a while, with a clock that jumps, with nobody who reads what
//! it writes, with a control plane whose name nobody knows.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until, within};
use http::Method;
use ir::Snapshot;
use tokio::time::Instant;

use super::to;
use crate::binary::{Binary, is_there};
use crate::support::at;

/// Longer than every deadline that is set below.
const STANDSTILL: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_process_that_stood_still_goes_on_where_it_was() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let first = to("v1", port, &[backend.address()]);
    let keys = "runtimeTuning: {httpKeepaliveIdleTimeoutMs: 60000}\n\
                xdsTransport: {staleStreamTimeoutMs: 2000}\n";
    let (gateway, control_plane) = Binary::serving(&first, &[], keys).await;
    let mut kept = Http1Client::connect(at(port)).await.unwrap();
    let http2 = Http2Client::connect(at(port)).await.unwrap();
    assert_eq!(kept.get("x", "/").await.unwrap().status, 200);
    assert_eq!(http2.get("x", "/").await.unwrap().status, 200);
    let mut running = Http1Client::connect(at(port)).await.unwrap();
    let slow = b"GET /?delay_ms=500 HTTP/1.1\r\nhost: x\r\n\r\n";
    running.send_bytes(slow).await.unwrap();
    until(DEADLINE, async || backend.requests() == 3).await;

    gateway.signal("STOP");
    // Who comes meanwhile waits in the kernel.
    let mut waiting = Http1Client::connect(at(port)).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    waiting.send_bytes(request).await.unwrap();
    let stopped = Instant::now();
    tokio::time::sleep(STANDSTILL).await;
    gateway.signal("CONT");

    for client in [&mut running, &mut waiting] {
        let response = within("an answer", client.read_response(&Method::GET)).await;
        assert_eq!(response.unwrap().status, 200);
    }
    assert_eq!(kept.get("x", "/").await.unwrap().status, 200);
    assert_eq!(http2.get("x", "/").await.unwrap().status, 200);
    assert!(stopped.elapsed() < STANDSTILL + DEADLINE);
    // The stream was silent for longer than it may be: another one stands soon.
    let next = SnapshotBuilder::from(&first, "v2").build();
    control_plane.greet_with(&next);
    until(DEADLINE, async || {
        control_plane.push_snapshot(&next).await;
        gateway.text("/api/v1/config/version").await.contains("v2")
    })
    .await;
}

/// Where Debian puts the library, whatever the machine is called.
fn faketime() -> Option<String> {
    let folders = fs::read_dir("/usr/lib").ok()?;
    let mut libraries = folders
        .filter_map(Result::ok)
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    let library = libraries.find(|library| library.is_file())?;
    Some(library.display().to_string())
}

#[tokio::test]
async fn a_clock_that_jumps_by_a_quarter_of_an_hour_ends_nothing_and_starts_nothing() {
    let Some(library) = faketime() else {
        eprintln!("SKIPPED: a clock that jumps: there is no libfaketime here, install it");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let offset = folder.path().join("offset");
    let jump = |text: &str| {
        let draft = folder.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(&draft, &offset).unwrap();
    };
    jump("+0");
    let variables = [
        format!("LD_PRELOAD={library}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "FAKETIME_DISABLE_SHM=1".to_owned(),
    ];
    let mut wrapper = vec!["env"];
    wrapper.extend(variables.iter().map(String::as_str));
    let backend = Backend::http1("b").await;
    let port = free_port();
    let first = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "x.example.com", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let (gateway, control_plane) = Binary::serving(&first, &wrapper, "").await;
    control_plane.acked("v1").await;
    let mut kept = Http1Client::connect(at(port)).await.unwrap();
    let before = minute_of_day(&mut kept).await;
    let reconnects = control_plane.streams_opened();
    for (text, minutes) in [("+15m", 15), ("-15m", -15), ("+0", 0)] {
        let mut running = Http1Client::connect(at(port)).await.unwrap();
        let slow = b"GET /?delay_ms=700 HTTP/1.1\r\nhost: x.example.com\r\n\r\n";
        running.send_bytes(slow).await.unwrap();
        jump(text);
        // The process sees the other time: it writes it into each response.
        within("the jump", async {
            // A minute may have passed, and midnight too.
            while (minute_of_day(&mut kept).await - before - minutes + 1).rem_euclid(24 * 60) > 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let response = running.read_response(&Method::GET).await.unwrap();
        assert_eq!(response.status, 200, "{text}");
        // Nothing has passed: no deadline, no stream, no freshness of the configuration.
        let report = gateway.text("/api/v1/xds/status").await;
        assert!(report.contains("\"connected\":true"), "{report}");
        assert!(report.contains("\"stale\":false"), "{report}");
        assert_eq!(control_plane.streams_opened(), reconnects, "{text}");
    }
    let next = SnapshotBuilder::from(&first, "v2").build();
    control_plane.push_change(&first, &next).await;
    control_plane.acked("v2").await;
}

/// The time of day by the gateway's clock, from the date of an answer of its own.
async fn minute_of_day(client: &mut Http1Client) -> i64 {
    let response = client.get("nowhere.example.com", "/").await.unwrap();
    assert_eq!(response.status, 404);
    // Sat, 21 Nov 2026 15:21:29 GMT
    let time = response.header("date").split(' ').nth(4).unwrap();
    let mut parts = time.split(':').map(|part| part.parse::<i64>().unwrap());
    parts.next().unwrap() * 60 + parts.next().unwrap()
}

#[tokio::test]
async fn output_that_nobody_reads_stops_no_traffic() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let first = to("v1", port, &[backend.address()]);
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    // Open for reading too, so that it fills up instead of breaking.
    let script = format!(
        "mkfifo {0} && exec 3<>{0} && exec \"$@\" >&3 2>&3",
        pipe.display()
    );
    let wrapper = ["sh", "-c", &script, "sh"];
    let keys = "log: {level: trace, nonBlockingBufferedLines: 1000}\n\
                accessLog: {enabled: true, path: stdout, sampleRate: 1.0, queueBytes: 65536}\n";
    let (gateway, control_plane) = Binary::serving(&first, &wrapper, keys).await;
    control_plane.acked("v1").await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let lost = "access_log_writer_dropped_lines_total";
    let mut asked = 0;
    while gateway.metric(lost).await.is_none_or(|lost| lost == 0.0) {
        for _ in 0..100 {
            let response = client.get("x", "/").await.unwrap();
            assert_eq!(response.status, 200);
            if response.header("connection") == "close" {
                client = Http1Client::connect(at(port)).await.unwrap();
            }
        }
        asked += 100;
        assert!(asked < 50_000, "nothing is lost");
    }
    assert_eq!(gateway.status("/readyz").await, 200);
    let next = SnapshotBuilder::from(&first, "v2").build();
    control_plane.push_change(&first, &next).await;
    control_plane.acked("v2").await;
    // It ends as well, when told to.
    gateway.signal("TERM");
    // Two that wait to be taken are one.
    until(DEADLINE, async || gateway.status("/readyz").await != 200).await;
    gateway.signal("TERM");
    let mut gateway = gateway;
    within("its end", async {
        while gateway.is_running() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_control_plane_whose_name_nobody_knows_leaves_what_is_on_disk_serving() {
    if !is_there("unshare", "a machine without a resolver") {
        return;
    }
    let backend = Backend::http1("b").await;
    let port = free_port();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last-good");
    let first: Snapshot = to("v1", port, &[backend.address()]);
    let keys = format!(
        "lastGoodCache: {{enabled: true, path: '{}'}}\n",
        path.display()
    );
    let (mut gateway, control_plane) = Binary::serving(&first, &[], &keys).await;
    until(DEADLINE, async || path.is_file()).await;
    gateway.kill();
    // A name that is never given to anybody (RFC 6761), and a resolver that is not there.
    let nobody = write(folder.path(), "resolv.conf", "nameserver 127.0.0.1\n");
    let mount = format!("mount --bind {nobody} /etc/resolv.conf; exec \"$@\"");
    let wrapper = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let keys = format!(
        "{keys}xdsTransport: {{initialReconnectBackoffMs: 50, maxReconnectBackoffMs: 100}}\n"
    );
    let gateway = Binary::dialling("http://control-plane.invalid:18080", &wrapper, &keys);
    drop(control_plane);
    gateway.becomes_ready().await;
    until(DEADLINE, async || {
        let report = gateway.text("/api/v1/xds/status").await;
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        report["connect_failures"].as_u64() >= Some(3)
    })
    .await;
    for _ in 0..100 {
        assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}
