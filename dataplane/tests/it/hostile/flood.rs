//! Floods of HTTP/2 frames, each legal in itself: the connection ends with ENHANCE_YOUR_CALM, the
//! limit is counted, and nobody else notices.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dataplane_http::frame_guard::FrameLimits;
use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, request,
};
use super::{nowhere, to};
use crate::support::{Gateway, at};

const PRIORITY: u8 = 2;
pub(super) const CONTINUATION: u8 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The code of the GOAWAY frame; nothing when the connection ended without one.
async fn code_of_end(client: &mut Frames) -> Option<u32> {
    // Nothing is answered on the way: it might come in the middle of a header block.
    loop {
        let frame = client.next().await?;
        if frame.kind == GOAWAY {
            return Some(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
        }
    }
}

fn limited(gateway: &Gateway, limit: &str) -> bool {
    let label = format!("\"{limit}\"");
    gateway.metric("downstream_http2_limited_total", &[&label]) > 0
}

/// Sends `count` copies behind `before` and asserts that this is too many.
async fn is_too_many(
    address: SocketAddr,
    gateway: &Gateway,
    name: &str,
    before: &[u8],
    copies: &[u8],
    limit: &str,
) {
    let mut client = Frames::connect(address, &[]).await;
    client.tcp.write_all(before).await.unwrap();
    client.tcp.write_all(copies).await.unwrap();
    let code = code_of_end(&mut client).await;
    assert_eq!(code, Some(ENHANCE_YOUR_CALM), "{name}");
    // Counted behind the frame that says so.
    until(DEADLINE, async || limited(gateway, limit)).await;
}

#[tokio::test]
async fn each_flood_ends_its_connection_and_is_counted() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    // A stream whose answer waits for the rest of its body stays open.
    let open = frame(HEADERS, END_HEADERS, 1, &block(&request("POST", "/echo")));
    for (name, before, flood, count, limit) in [
        ("ping", vec![], frame(PING, 0, 0, &[0; 8]), 1001, "control"),
        ("pong", vec![], frame(PING, 1, 0, &[0; 8]), 1001, "control"),
        (
            "settings",
            vec![],
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
            1001,
            "control",
        ),
        ("unknown", vec![], frame(77, 0, 0, &[0; 8]), 1001, "control"),
        (
            "priority",
            vec![],
            frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]),
            101,
            "priority",
        ),
        (
            "window",
            vec![],
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            11,
            "window_update",
        ),
        ("empty", open.clone(), frame(DATA, 0, 1, &[]), 21, "empty"),
        (
            "only padding",
            open.clone(),
            frame(DATA, 8, 1, &[4, 0, 0, 0, 0]),
            21,
            "empty",
        ),
        (
            "empty parts of a head",
            frame(HEADERS, END_STREAM, 1, &block(&request("GET", "/"))),
            frame(CONTINUATION, 0, 1, &[]),
            21,
            "empty",
        ),
        (
            // Never in a row, and each with its byte: for as long as the connection lives.
            "empty now and then",
            open,
            [frame(DATA, 0, 1, &[]), frame(DATA, 0, 1, b"x")].concat(),
            101,
            "empty",
        ),
    ] {
        let gateway = Gateway::serving(&to(port, &[backend.address()])).await;
        let flood = flood.repeat(count);
        is_too_many(at(port), &gateway, name, &before, &flood, limit).await;
        assert_eq!(
            http1::get(at(port), "x", "/").await.unwrap().status,
            200,
            "{name}"
        );
        gateway.stopped().await;
    }
}

#[tokio::test]
async fn frames_are_counted_against_the_limits_that_are_set() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.h2_frames = FrameLimits {
            control_max: 10,
            priority_per_stream_max: 3,
            window_updates_per_data_max: 2,
            empty_in_row_max: 4,
            empty_data_max: 6,
        };
    })
    .await;
    let open = frame(HEADERS, END_HEADERS, 1, &block(&request("POST", "/echo")));
    for (before, flood, most, limit) in [
        // The client's own SETTINGS is one, and it does not answer ours here.
        (vec![], frame(PING, 0, 0, &[0; 8]), 7, "control"),
        (
            vec![],
            frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]),
            3,
            "priority",
        ),
        (
            vec![],
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            2,
            "window_update",
        ),
        (open.clone(), frame(DATA, 0, 1, &[]), 4, "empty"),
        (
            open,
            [frame(DATA, 0, 1, &[]), frame(DATA, 0, 1, b"x")].concat(),
            6,
            "empty",
        ),
    ] {
        let mut client = Frames::connect(at(port), &[]).await;
        client.tcp.write_all(&before).await.unwrap();
        client.tcp.write_all(&flood.repeat(most)).await.unwrap();
        assert!(lives(&mut client).await, "{limit}");
        let more = flood.repeat(10);
        is_too_many(at(port), &gateway, limit, &before, &more, limit).await;
    }
}

#[tokio::test]
async fn a_lively_client_is_no_flood() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let mut client = Frames::connect(at(port), &[]).await;
    // Far more of everything than any limit, but none without a request beside it.
    for stream in (1..6000).step_by(2) {
        client.get(stream, "/?bytes=10").await;
        for (kind, of, payload) in [
            (PRIORITY, stream, &[0, 0, 0, 0, 1][..]),
            (WINDOW_UPDATE, 0, &[0, 0, 0, 10]),
            (PING, 0, &[0; 8]),
        ] {
            client.send(kind, 0, of, payload).await.unwrap();
        }
        while client.until(DATA, stream).await.expect("an answer").flags & END_STREAM == 0 {}
    }
}

#[tokio::test]
async fn a_header_block_that_does_not_end_ends_the_connection() {
    let port = free_port();
    let gateway = Gateway::with(&nowhere(port), |bootstrap| {
        bootstrap.http.head_timeout = Duration::from_millis(300);
    })
    .await;
    let fields = block(&request("GET", "/"));
    let whole = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields);
    let begun = frame(HEADERS, END_STREAM, 1, &fields);
    let started = Instant::now();
    for (name, bytes) in [
        ("no CONTINUATION", begun.clone()),
        ("no end", [begun, frame(CONTINUATION, 0, 1, &[])].concat()),
        ("half a frame", whole[..20].to_vec()),
        ("half the head of a frame", whole[..5].to_vec()),
    ] {
        let mut client = Frames::connect(at(port), &[]).await;
        client.tcp.write_all(&bytes).await.unwrap();
        assert_eq!(
            code_of_end(&mut client).await,
            Some(ENHANCE_YOUR_CALM),
            "{name}"
        );
    }
    until(DEADLINE, async || limited(&gateway, "head")).await;
    // By default one head may take as long.
    assert!(started.elapsed() < Duration::from_secs(9));
}

#[tokio::test]
async fn a_head_that_only_drips_is_cut_by_its_deadline() {
    let port = free_port();
    let gateway = Gateway::with(&nowhere(port), |bootstrap| {
        bootstrap.http.head_timeout = Duration::from_millis(500);
    })
    .await;
    let fields = block(&request("GET", "/a-long-path-that-lasts-for-a-while"));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let begun = [preface, frame(SETTINGS, 0, 0, &[])].concat();
    for (name, before, dripped) in [
        (
            "HTTP/1.1",
            vec![],
            b"GET /a-long-path HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        ),
        ("HTTP/2", begun, frame(HEADERS, END_STREAM, 1, &fields)),
    ] {
        let mut tcp = TcpStream::connect(at(port)).await.unwrap();
        tcp.write_all(&before).await.unwrap();
        let (mut reading, mut writing) = tcp.split();
        // Each byte comes long before the deadline, the last one long behind it.
        let drip = async {
            for byte in dripped {
                let _ = writing.write_all(&[byte]).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("{name}: all of it was taken");
        };
        let end = within("the deadline", async {
            let mut rest = Vec::new();
            let _ = reading.read_to_end(&mut rest).await;
        });
        tokio::select! {
            () = drip => {}
            () = end => {}
        }
    }
    until(DEADLINE, async || limited(&gateway, "head")).await;
    assert_eq!(gateway.outcomes("head_timeout"), 1);
}

#[tokio::test]
async fn streams_beyond_those_at_once_are_refused_and_counted() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.h2_streams_max = 2;
    })
    .await;
    let mut client = Frames::connect(at(port), &[]).await;
    for stream in [1, 3, 5, 7] {
        let post = request("POST", "/echo");
        client.headers(stream, 0, &post).await;
    }
    for refused in [5, 7] {
        let reset = client.until(RST_STREAM, refused).await.expect("a refusal");
        assert_eq!(reset.payload, [0, 0, 0, 7], "REFUSED_STREAM");
    }
    let counted = || gateway.metric("downstream_http2_streams_refused_total", &[]);
    until(DEADLINE, async || counted() == 2).await;
    // The connection and its two streams go on.
    for stream in [1, 3] {
        client.send(DATA, END_STREAM, stream, b"x").await.unwrap();
        assert!(client.until(DATA, stream).await.is_some());
    }
    assert_eq!(counted(), 2);
}

#[tokio::test]
async fn a_block_of_too_many_parts_ends_the_connection() {
    let port = free_port();
    let gateway = Gateway::serving(&nowhere(port)).await;
    for part in [&[][..], b"\0\x01a\x01b"] {
        let mut client = Frames::connect(at(port), &[]).await;
        let begun = frame(HEADERS, END_STREAM, 1, &block(&request("GET", "/")));
        let parts = frame(CONTINUATION, 0, 1, part).repeat(100);
        client
            .tcp
            .write_all(&[begun, parts].concat())
            .await
            .unwrap();
        assert_eq!(code_of_end(&mut client).await, Some(ENHANCE_YOUR_CALM));
    }
    until(DEADLINE, async || limited(&gateway, "streams")).await;
}

#[tokio::test]
async fn heads_are_bounded_by_bytes_and_by_fields_whatever_their_size_on_the_wire() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let get = request("GET", "/");
    let with = |extra: Vec<(&'static str, String)>| {
        let mut all: Vec<(&str, String)> = get
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        all.extend(extra);
        let fields: Vec<(&str, &str)> = all.iter().map(|(n, v)| (*n, v.as_str())).collect();
        block(&fields)
    };
    let mut indexed = with(vec![]);
    // One literal that is kept, then a byte for each further time: the HTTP/2 bomb.
    indexed.extend_from_slice(b"\x40\x01a\x00");
    indexed.extend(std::iter::repeat_n(0xbe, 10_000));
    for (name, fields, is_answered) in [
        (
            "crumbs of a cookie",
            with(vec![("cookie", "a=1".to_owned()); 129]),
            true,
        ),
        (
            "almost empty fields",
            with(vec![("a", String::new()); 129]),
            true,
        ),
        (
            "one large field",
            with(vec![("a", "x".repeat(15_000)); 5]),
            true,
        ),
        ("indexed fields", indexed, false),
    ] {
        let mut client = Frames::connect(at(port), &[]).await;
        let (first, rest) = fields.split_at(fields.len().min(16_000));
        let ends = if rest.is_empty() { END_HEADERS } else { 0 };
        client
            .send(HEADERS, ends | END_STREAM, 1, first)
            .await
            .unwrap();
        let last = rest.chunks(16_000).count();
        for (at, part) in rest.chunks(16_000).enumerate() {
            let flags = if at + 1 == last { END_HEADERS } else { 0 };
            client.send(CONTINUATION, flags, 1, part).await.unwrap();
        }
        let answer = client.until(HEADERS, 1).await;
        if is_answered || answer.is_some() {
            let block = answer.expect("an answer").payload;
            assert!(is_431(&block), "{name}: {block:02x?}");
        }
        assert_eq!(backend.requests(), 0, "{name}");
    }
}

/// True when the block begins with a status of 431: a name of the static table, six bits for 4 and 3
/// and five for 1 (RFC 7541 appendix B).
fn is_431(block: &[u8]) -> bool {
    matches!(block, [0x48 | 0x08, 0x83, 0x69, 0x90, 0xff, ..])
}

#[tokio::test]
async fn resets_at_once_end_the_connection() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let fields = block(&request("GET", "/?delay_ms=60000"));
    let mut client = Frames::connect(at(port), &[]).await;
    let mut flood = Vec::new();
    for stream in (1..4000).step_by(2) {
        flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
        flood.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    // The connection may end before all of it is written.
    let _ = client.tcp.write_all(&flood).await;
    within("the end", async { while client.next().await.is_some() {} }).await;
    until(DEADLINE, async || limited(&gateway, "streams")).await;
    until(DEADLINE, async || backend.open_connections() == 0).await;
    assert!(backend.requests() < 1000, "{}", backend.requests());
}

/// Whether the connection lives on behind what was sent; it is asked for a sign of life, and for
/// another one, because the first may go out before the end.
async fn lives(client: &mut Frames) -> bool {
    let mut signs = 0;
    while signs < 2 {
        if client.send(PING, 0, 0, b"are you?").await.is_err() {
            return false;
        }
        loop {
            match client.next().await {
                Some(frame) if frame.kind == PING && frame.flags & ACK != 0 => break,
                Some(frame) if frame.kind == GOAWAY => return false,
                Some(_) => {}
                None => return false,
            }
        }
        signs += 1;
    }
    true
}

#[tokio::test]
async fn resets_are_counted_against_the_limits_that_are_set() {
    const STREAMS: usize = 12;
    let fields = block(&request("GET", "/?delay_ms=60000"));
    let open = |at: usize| frame(HEADERS, END_HEADERS | END_STREAM, id(at), &fields);
    let cancel = |at: usize| frame(RST_STREAM, 0, id(at), &[0, 0, 0, 8]);
    let overflow = |at: usize| frame(WINDOW_UPDATE, 0, id(at), &0x7fff_ffff_u32.to_be_bytes());
    let each = |make: &dyn Fn(usize) -> Vec<u8>| (0..STREAMS).flat_map(make).collect::<Vec<_>>();
    let cancelled = each(&|at| [open(at), cancel(at)].concat());
    let overflown = each(&|at| [open(at), overflow(at)].concat());
    type Set = fn(&mut dataplane_http::Settings);
    let cases: [(&str, Set, [Vec<u8>; 2], bool); 5] = [
        ("all as ever", |_| {}, [cancelled.clone(), vec![]], true),
        (
            "given up before anybody looked",
            |http| http.h2_pending_resets_max = 5,
            [cancelled, vec![]],
            false,
        ),
        (
            "given up early",
            |http| http.h2_early_resets_max = 5,
            // Noticed with the stream that follows.
            [each(&open), [each(&cancel), open(STREAMS)].concat()],
            false,
        ),
        ("ours as ever", |_| {}, [overflown.clone(), vec![]], true),
        (
            "ours",
            |http| http.h2_early_resets_max = 5,
            [overflown, vec![]],
            false,
        ),
    ];
    for (name, set, [first, then], survives) in cases {
        let backend = Backend::http1("b").await;
        let port = free_port();
        let snapshot = to(port, &[backend.address()]);
        let gateway = Gateway::with(&snapshot, |bootstrap| set(&mut bootstrap.http)).await;
        let mut client = Frames::connect(at(port), &[]).await;
        client.tcp.write_all(&first).await.unwrap();
        if !then.is_empty() {
            until(DEADLINE, async || backend.requests() == STREAMS).await;
            client.tcp.write_all(&then).await.unwrap();
            // Streams end by tasks of their own; the next one comes behind them.
            let running = || gateway.metric("backend_connections_active", &[]);
            until(DEADLINE, async || running() <= 1).await;
            let _ = client.tcp.write_all(&open(STREAMS + 1)).await;
        }
        assert_eq!(lives(&mut client).await, survives, "{name}");
        until(DEADLINE, async || limited(&gateway, "streams") != survives).await;
    }
}

/// The number of a client's stream.
fn id(at: usize) -> u32 {
    u32::try_from(2 * at + 1).unwrap()
}

#[tokio::test]
async fn resets_that_we_are_made_to_send_end_the_connection() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let fields = block(&request("GET", "/?delay_ms=60000"));
    let overflow = 0x7fff_ffff_u32.to_be_bytes();
    for (name, provocation) in [
        // A window over its maximum, or moved by nothing, is an error of the stream (RFC 9113 6.9).
        ("overflow", frame(WINDOW_UPDATE, 0, 0, &overflow)),
        ("nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("itself", frame(PRIORITY, 0, 0, &[0, 0, 0, 0, 1])),
    ] {
        let mut client = Frames::connect(at(port), &[]).await;
        let mut flood = Vec::new();
        for stream in (1_u32..4000).step_by(2) {
            flood.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
            let mut bad = provocation.clone();
            bad[5..9].copy_from_slice(&stream.to_be_bytes());
            if bad[3] == PRIORITY {
                bad[9..13].copy_from_slice(&stream.to_be_bytes());
            }
            flood.extend(bad);
        }
        let _ = client.tcp.write_all(&flood).await;
        within(name, async { while client.next().await.is_some() {} }).await;
        until(DEADLINE, async || backend.open_connections() == 0).await;
    }
    until(DEADLINE, async || limited(&gateway, "streams")).await;
    assert!(backend.requests() < 3000, "{}", backend.requests());
}

#[tokio::test]
async fn a_window_that_only_drips_does_not_hold_a_stream() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.write_idle = Duration::from_millis(500);
    })
    .await;
    let initial_window_size = 4;
    let mut client = Frames::connect(at(port), &[(initial_window_size, 1)]).await;
    client.get(1, "/?bytes=100000").await;
    // Each byte is answered with room for one more, for as long as the stream lives.
    loop {
        let frame = client.next().await.expect("the connection stays");
        match frame.kind {
            RST_STREAM => break,
            DATA => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                client
                    .send(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])
                    .await
                    .unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_preface_without_an_end_is_cut() {
    let port = free_port();
    let _gateway = Gateway::with(&nowhere(port), |bootstrap| {
        bootstrap.http.first_byte_timeout = Duration::from_millis(200);
    })
    .await;
    let began = Instant::now();
    let mut tcp = TcpStream::connect(at(port)).await.unwrap();
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n")
        .await
        .unwrap();
    let mut client = Frames { tcp };
    assert!(client.next().await.is_none());
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "it is 10 by default"
    );
}
