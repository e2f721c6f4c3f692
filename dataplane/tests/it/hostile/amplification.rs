//! Cheap bytes that could cost much: no byte a client sends costs 100 times what is fair for it.
//!
//! For memory that is the byte itself: what requests hold beyond what as many plain ones hold, which
//! the limits of connections and streams bound. For CPU time it is a byte of an ordinary request. Every
//! attack meets a fresh process whose backend answers nobody, so that what is held stays held.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::flood::{CONTINUATION, frame};
use super::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS};
use super::to;
use crate::binary::Binary;
use crate::support::{at, retry};

/// From here on it is a fault.
const TIMES_MAX: u64 = 100;
/// What two measurements of the same differ by.
const NOISE_KIB: u64 = 4096;
const NOISE_TICKS: u64 = 20;
/// Streams at once, as the limit has it.
const STREAMS: u32 = 100;
const HOUR: Duration = Duration::from_secs(3600);

/// `GET / HTTP/2` for `x`, of which a dynamic table notes nothing.
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 1, b'x'];
/// The same with POST.
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x01, 1, b'x'];
/// A reference to what a dynamic table noted last.
const NOTED: u8 = 0xbe;

/// What each of so many connections sends.
struct Attack {
    name: &'static str,
    bytes: Vec<u8>,
    connections: usize,
    keys: &'static str,
}

/// What it came to.
#[derive(Clone, Copy, Debug)]
struct Cost {
    sent: u64,
    held_kib: u64,
    ticks: u64,
}

const ROOM: &str =
    "runtimeTuning: {upstreamConnectionTimeoutMs: 3600000, downstreamReadTimeoutMs: 3600000}
runtimeProtection: {httpBackendMaxConnections: 4000, httpBackendCircuitBreakerMaxRequests: 4000}";
/// All requests but one wait for a connection, and nobody reads their bodies.
const NO_ROOM: &str =
    "runtimeTuning: {upstreamConnectionTimeoutMs: 3600000, downstreamReadTimeoutMs: 3600000}
runtimeProtection: {httpBackendMaxConnections: 1}";

fn attack(name: &'static str, connections: usize, bytes: Vec<u8>) -> Attack {
    Attack {
        name,
        bytes,
        connections,
        keys: ROOM,
    }
}

/// An HTTP/2 connection with these frames on each of its streams.
fn http2(stream: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend((0..STREAMS).flat_map(|at| stream(2 * at + 1)));
    bytes
}

/// The first stream notes a field, and each later one names it so many times.
fn referring(value: &str, times: usize) -> Vec<u8> {
    http2(|stream| {
        let mut block = GET.to_vec();
        if stream == 1 {
            block.extend([0x40, 1, b'a']);
            match value.len() {
                length @ 0..127 => block.push(u8::try_from(length).unwrap()),
                length => {
                    let rest = length - 127;
                    let low = u8::try_from(rest % 128).unwrap() | 0x80;
                    block.extend([127, low, u8::try_from(rest / 128).unwrap()]);
                }
            }
            block.extend(value.as_bytes());
        } else {
            block.resize(block.len() + times, NOTED);
        }
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    })
}

fn http1(line: &str, rest: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: x\r\n{rest}").into_bytes()
}

fn attacks() -> Vec<Attack> {
    let short = |count: usize| -> String { (0..count).map(|at| format!("a{at}:\r\n")).collect() };
    let chunks = |chunk: &str, count| {
        let head = "transfer-encoding: chunked\r\n\r\n";
        http1("POST /", &(head.to_owned() + &chunk.repeat(count)))
    };
    let tiny_data = http2(|stream| {
        let mut bytes = frame(HEADERS, END_HEADERS, stream, POST);
        bytes.extend(frame(DATA, 0, stream, b"x").repeat(300));
        bytes
    });
    let tiny_continuations = http2(|stream| {
        let mut bytes = frame(HEADERS, END_STREAM, stream, GET);
        bytes.extend(frame(CONTINUATION, 0, stream, &[0x82]).repeat(3));
        let last = [0x00, 1, b'a', 0];
        bytes.extend(frame(CONTINUATION, END_HEADERS, stream, &last));
        bytes
    });
    let path = |part: &str| {
        http1(
            &format!("GET /{}", part.repeat(15_000 / part.len())),
            "\r\n",
        )
    };
    vec![
        attack(
            "references to a large field",
            10,
            referring(&"v".repeat(3900), 15),
        ),
        attack("references to an empty field", 10, referring("", 120)),
        attack("more references than are taken", 10, referring("", 1900)),
        attack("continuations of a byte", 10, tiny_continuations),
        Attack {
            keys: NO_ROOM,
            ..attack("DATA of a byte", 4, tiny_data)
        },
        attack("chunks of a byte", 200, chunks("1\r\nx\r\n", 2000)),
        attack("extensions of chunks", 200, chunks("1;a\r\nx\r\n", 1300)),
        attack("short names", 1000, http1("GET /", &(short(120) + "\r\n"))),
        attack("segments of a path", 500, path("a/")),
        attack("dots in a path", 500, path("./a/../")),
        attack("escapes in a path", 500, path("%2e/%41")),
        attack(
            "ranges",
            500,
            http1(
                "GET /",
                &format!("range: bytes={}0-\r\n\r\n", "0-,".repeat(5000)),
            ),
        ),
    ]
}

/// Runs it against a process of its own.
async fn cost(attack: &Attack) -> Cost {
    let silent = Script::new([Step::ReadHead, Step::Pause(HOUR)]);
    let backend = Backend::start("b", Kind::Scripted(silent)).await;
    let port = free_port();
    let mut snapshot = to(port, &[backend.address()]);
    // So that bodies are kept.
    let mut route = (**snapshot.http_routes.get("shop/r").unwrap()).clone();
    route.rules[0].retry = retry(&[503], 1, 0);
    snapshot.http_routes.insert(route);
    let (binary, _control_plane) = Binary::serving(&snapshot, &[], attack.keys).await;
    let sent = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    let send = |clients: &mut JoinSet<()>, bytes: Vec<u8>| {
        let sent = sent.clone();
        clients.spawn(async move {
            let mut tcp = TcpStream::connect(at(port)).await.unwrap();
            let mut left = &bytes[..];
            // Where the gateway takes no more, so be it.
            while let Ok(written @ 1..) = tcp.write(left).await {
                sent.fetch_add(written as u64, Ordering::Relaxed);
                left = &left[written..];
            }
            std::future::pending::<()>().await;
        });
    };
    // What is made once is not counted.
    send(&mut clients, http1("GET /", "\r\n"));
    send(
        &mut clients,
        http2(|stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, GET)),
    );
    took(&binary, port, 2).await;
    sent.store(0, Ordering::Relaxed);
    let (held, ticks) = (binary.resident_kib(), binary.cpu_ticks());
    for _ in 0..attack.connections {
        send(&mut clients, attack.bytes.clone());
    }
    took(&binary, port, 2 + attack.connections).await;
    Cost {
        sent: sent.load(Ordering::Relaxed),
        held_kib: binary.resident_kib().saturating_sub(held),
        ticks: binary.cpu_ticks() - ticks,
    }
}

/// Until so many connections have come, nothing that they sent is left unread, and the process has nothing
/// to do.
async fn took(binary: &Binary, port: u16, connections: usize) {
    let quiet = Cell::new(0);
    until(2 * DEADLINE, async || {
        let before = binary.cpu_ticks();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let is_quiet = binary.cpu_ticks() - before <= 1 && unread(port) == 0;
        quiet.set(if is_quiet { quiet.get() + 1 } else { 0 });
        quiet.get() >= 3
            && binary
                .metric("downstream_connections_total{listener=\"infra/gw/http\"}")
                .await
                == Some(connections as f64)
    })
    .await;
}

/// Bytes that have come for connections to this port and were not taken yet (proc_pid_net(5)).
fn unread(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(str::split_whitespace);
    let ours = rows.filter_map(|mut row| {
        let is_ours = row.nth(1)?.ends_with(&local);
        // Of a socket that listens it is connections instead.
        let is_listening = row.nth(1)? == "0A";
        let (_, unread) = row.next()?.split_once(':')?;
        (is_ours && !is_listening).then(|| u64::from_str_radix(unread, 16).unwrap())
    });
    ours.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_costs_a_hundred_times_what_is_fair() {
    let plain_http1 = cost(&attack("plain", 1000, http1("GET /", "\r\n"))).await;
    let get = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
    let plain_http2 = cost(&attack("plain", 10, http2(get))).await;
    let usual = "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
                 accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
                 accept-language: en-US,en;q=0.5\r\naccept-encoding: gzip, deflate, br, zstd\r\n\
                 upgrade-insecure-requests: 1\r\nsec-fetch-dest: document\r\n\
                 sec-fetch-mode: navigate\r\nsec-fetch-site: none\r\n\r\n";
    let ordinary = cost(&attack("ordinary", 1000, http1("GET /", usual))).await;
    println!("plain {plain_http1:?} {plain_http2:?}, ordinary {ordinary:?}");
    for attack in attacks() {
        let cost = cost(&attack).await;
        let plain = match attack.bytes.starts_with(b"PRI") {
            true => plain_http2,
            false => plain_http1,
        };
        println!("{}: {cost:?}", attack.name);
        let fair = plain.held_kib + NOISE_KIB + TIMES_MAX * cost.sent / 1024;
        assert!(cost.held_kib < fair, "{}: {cost:?}, {plain:?}", attack.name);
        let fair = TIMES_MAX * ordinary.ticks * cost.sent / ordinary.sent;
        assert!(
            cost.ticks < fair + NOISE_TICKS,
            "{}: {cost:?}, {ordinary:?}",
            attack.name
        );
    }
}
