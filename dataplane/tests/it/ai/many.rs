//! Many answers in pieces at once: what each of them holds.

use std::time::Duration;

use dataplane_testkit::{DEADLINE, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::binary::Binary;

use super::*;

const STREAMS: usize = 2000;
const TURN: usize = 50;
const BYTES_PER_STREAM_MAX: u64 = 64 * 1024;

/// Memory of a process that is held in RAM.
pub(super) fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() * 1024
}

/// Begins a stream and reads until its first piece is there.
pub(super) async fn begin(port: u16, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(at(port)).await.unwrap();
    let length = body.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(5).any(|five| five == b"first") {
        assert!(socket.read_buf(&mut seen).await.unwrap() > 0);
        let text = String::from_utf8_lossy(&seen);
        assert!(
            text.starts_with("HTTP/1.1 200") || seen.len() < 12,
            "{text}"
        );
    }
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_streams_hold_at_most_64_kib_each() {
    let piece = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"claude\",\"content\":[],\"usage\":{\"input_tokens\":8,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"first\"}}\n\n";
    let answer = Answer::stream("text/event-stream", piece, 4096).then_waits();
    let provider = Provider::start([answer]).await;
    let case = Case::new(service(AiProvider::Anthropic, &provider));
    let keys = "runtimeProtection: {httpBackendCircuitBreakerMaxRequests: 4000, httpBackendMaxConnections: 4000}";
    let (binary, _control_plane) = Binary::serving(&case.snapshot("v1"), &[], keys).await;
    let text = "a question of some length. ".repeat(150);
    let body = format!(
        r#"{{"model":"m","stream":true,"messages":[{{"role":"user","content":"{text}"}}]}}"#
    );
    // One, so that what is made once is not counted for the others.
    let mut open = vec![begin(case.port, &body).await];
    let before = resident(binary.id());
    // In turns, because a backend has a limit of connections that are not up yet.
    for _ in 0..STREAMS / TURN {
        let mut starting = JoinSet::new();
        for _ in 0..TURN {
            let body = body.clone();
            let port = case.port;
            starting.spawn(async move { begin(port, &body).await });
        }
        while let Some(socket) = starting.join_next().await {
            open.push(socket.unwrap());
        }
    }
    until(DEADLINE, async || provider.open() > STREAMS).await;
    let grown = resident(binary.id()).saturating_sub(before);
    let each = grown / STREAMS as u64;
    assert!(each <= BYTES_PER_STREAM_MAX, "{each} bytes a stream");
    drop(open);
    tokio::time::timeout(
        Duration::from_secs(30),
        until(DEADLINE, async || provider.open() == 0),
    )
    .await
    .unwrap();
}
