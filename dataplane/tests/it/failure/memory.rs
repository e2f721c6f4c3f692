//! 256 MiB for the whole process, and clients that take what they can get: it is never killed, and
//! serves as soon as they let go.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::binary::Binary;
use crate::hostile::frames::{END_HEADERS, END_STREAM, HEADERS, block, request};
use crate::support::at;

const LIMIT: u64 = 256 << 20;
const CONTINUATION: u8 = 9;

/// A control group with a limit of memory; it goes away with the value.
struct Group {
    folder: PathBuf,
    killed: &'static str,
}

impl Group {
    /// Of version 2 where the memory controller is there, else of version 1.
    fn new() -> Option<Self> {
        let name = format!("nantian-test-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let has_memory = fs::read_to_string(root.join("cgroup.controllers"))
            .is_ok_and(|text| text.split_whitespace().any(|word| word == "memory"));
        let (root, limit, killed) = if has_memory {
            // Fails where it is on already, or where the limit cannot be written either.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.to_owned(), "memory.max", "memory.events")
        } else {
            let files = ("memory.limit_in_bytes", "memory.oom_control");
            (root.join("memory"), files.0, files.1)
        };
        let folder = root.join(name);
        fs::create_dir(&folder).ok()?;
        let group = Self { folder, killed };
        fs::write(group.folder.join(limit), LIMIT.to_string()).ok()?;
        Some(group)
    }

    /// How many of its processes the kernel has killed.
    fn killed(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.killed)).unwrap();
        let mut lines = text.lines();
        let count = lines.find_map(|line| line.strip_prefix("oom_kill "));
        count.map_or(0, |count| count.parse().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The process was killed a moment ago and may still be in it.
        for _ in 0..200 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// So many connections.
fn connect(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let connections = (0..count).map(|_| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    });
    connections.collect()
}

/// Sends on each what the gateway and the kernel take of it; nothing is ever read.
fn send(connections: &mut [TcpStream], bytes: &[u8]) {
    for stream in connections {
        // Where the gateway reads no further or has closed, so be it.
        let mut left = bytes;
        while let Ok(written @ 1..) = stream.write(left) {
            left = &left[written..];
        }
    }
}

/// An HTTP/2 connection with as many streams as it may have, each with a head of some 60 KB.
fn large_http2_heads() -> Vec<u8> {
    let value = "v".repeat(1000);
    let names: Vec<String> = (0..55).map(|name| format!("x-{name}")).collect();
    let mut fields = request("GET", "/").to_vec();
    fields.extend(names.iter().map(|name| (name.as_str(), value.as_str())));
    let block = block(&fields);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1_u32..200).step_by(2) {
        let mut pieces = block.chunks(16_000).peekable();
        let mut kind = HEADERS;
        while let Some(piece) = pieces.next() {
            let end = if pieces.peek().is_none() {
                END_HEADERS
            } else {
                0
            };
            let first = if kind == HEADERS { END_STREAM } else { 0 };
            let length = u32::try_from(piece.len()).unwrap().to_be_bytes();
            bytes.extend([length[1], length[2], length[3], kind, end | first]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(piece);
            kind = CONTINUATION;
        }
    }
    bytes
}

/// A backend that takes connections and not a byte from them.
async fn deaf() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_256_mib_greedy_clients_kill_nothing_and_others_are_served_again() {
    let Some(group) = Group::new() else {
        eprintln!("SKIPPED: 256 MiB: control groups cannot be made here, run as root");
        return;
    };
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/", "shop/b:80")
        .route("shop/deaf", "deaf.test", "/", "shop/deaf:80")
        .cluster("shop/b:80", &[backend.address()])
        .cluster("shop/deaf:80", &[deaf().await])
        .build();
    let join = format!(
        "echo $$ > {}/cgroup.procs && exec \"$@\"",
        group.folder.display()
    );
    let wrapper = ["sh", "-c", &join, "sh"];
    let keys = "runtimeTuning: {httpCapacity: {workerThreads: 2}}\n\
                runtimeProtection: {httpBackendCircuitBreakerMaxRequests: 100000}\n";
    let (mut gateway, _control_plane) = Binary::serving(&snapshot, &wrapper, keys).await;
    let limit = gateway.metric("overload_memory_limit_bytes").await;
    assert_eq!(limit, Some(256.0 * 1024.0 * 1024.0), "the limit is seen");

    let address = at(port);
    let mut heads = connect(address, 3500);
    let mut greedy = connect(address, 220);
    let head = [
        b"GET / HTTP/1.1\r\nhost: x\r\nx: ".to_vec(),
        vec![b'a'; 60_000],
    ];
    let body = b"POST / HTTP/1.1\r\nhost: deaf.test\r\ncontent-length: 9000000\r\n\r\n";
    let body = [&body[..], &[b'b'; 1_000_000]].concat();
    send(&mut greedy[..100], &body);
    send(
        &mut greedy[100..200],
        b"GET /?bytes=100000000 HTTP/1.1\r\nhost: x\r\n\r\n",
    );
    send(&mut greedy[200..], &large_http2_heads());
    // All at once, and within less time than a level is looked at twice.
    send(&mut heads, &head.concat());

    // All the while the admin API answers, and who asks nicely gets an answer, a 503, or waits.
    let began = Instant::now();
    let mut highest = 0;
    while began.elapsed() < Duration::from_secs(3) {
        until(DEADLINE, async || gateway.status("/livez").await == 200).await;
        highest = highest.max(gateway.resident_kib());
        let asked = http1::get(address, "x", "/");
        if let Ok(Ok(response)) = tokio::time::timeout(Duration::from_millis(200), asked).await {
            let status = response.status.as_u16();
            assert!([200, 503].contains(&status), "{status}");
        }
    }
    let refused = gateway
        .metric("http_overload_rejected_total{scope=\"memory\"}")
        .await;
    assert!(
        refused > Some(1000.0),
        "{refused:?} of 3500 heads that cannot all be kept"
    );
    assert!(highest * 1024 < LIMIT, "{highest} KiB");

    drop((heads, greedy));
    until(DEADLINE * 2, async || {
        let asked = http1::get(address, "x", "/");
        let asked = tokio::time::timeout(Duration::from_secs(1), asked).await;
        matches!(asked, Ok(Ok(response)) if response.status == 200)
    })
    .await;
    assert!(gateway.is_running());
    assert_eq!(group.killed(), 0);
    gateway.kill();
}
