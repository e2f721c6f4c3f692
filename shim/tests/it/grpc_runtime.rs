//! What the settings of `grpcRuntime` do to a connection, seen from a client that speaks its frames.
//!
//! Each test changes a setting and meets what its default would not do within the deadline.
//! `minPingInterval` is tested in `pings.rs`; what concerns streams alone in `serve.rs`.

use std::time::Duration;

use ir::wire::StatusReport;
use shim::settings::GrpcRuntime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::Code;

use crate::support::{DEADLINE, Server};

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

// Kinds, flags and codes of RFC 9113, sections 6 and 7.
const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const FLOW_CONTROL_ERROR: u32 = 0x3;
const REFUSED_STREAM: u32 = 0x7;

/// The window that both sides have before anything was said (RFC 9113, section 6.9.2).
const FIRST_WINDOW: u32 = 65_535;

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The number in the last four bytes, or in those from `at` on.
    fn number(&self, at: usize) -> u32 {
        let bytes = self.payload[at..at + 4].try_into().unwrap();
        u32::from_be_bytes(bytes)
    }

    /// The value of a setting, when the frame has it.
    fn setting(&self, wanted: u16) -> Option<u32> {
        let mut settings = self.payload.chunks(6);
        settings.find_map(|setting| {
            let (name, value) = setting.split_at(2);
            (name == wanted.to_be_bytes()).then(|| u32::from_be_bytes(value.try_into().unwrap()))
        })
    }
}

/// A client that answers nothing by itself.
struct Client(TcpStream);

impl Client {
    async fn connect(server: &Server) -> Self {
        let mut socket = TcpStream::connect(server.addr).await.unwrap();
        socket.write_all(HELLO).await.unwrap();
        Self(socket)
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// Begins a call whose message is still to come.
    async fn call(&mut self, stream: u32) {
        let path = "/gateway.control.v1.ConfigurationDiscoveryService/ReportStatus";
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "shim.test"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        let mut block = Vec::new();
        for (name, value) in fields {
            // Literal without indexing, new name (RFC 7541, section 6.2.2).
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, stream, &block).await;
    }

    /// The next frame; nothing once the server has closed the connection.
    async fn frame(&mut self) -> Option<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind,
                flags,
                stream: u32::from_be_bytes(stream),
                payload,
            })
        };
        let read = tokio::time::timeout(DEADLINE, read).await;
        read.expect("the server said nothing")
    }

    /// The next frame that is wanted; others are dropped.
    async fn wait_for(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.frame().await.expect("the server closed");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// Waits until the server has read all that was sent.
    async fn sync(&mut self) {
        self.send(PING, 0, 0, b"are-seen").await;
        self.wait_for(|it| it.kind == PING && it.payload == b"are-seen")
            .await;
    }

    /// Waits until the server has closed.
    async fn closed(&mut self) {
        while self.frame().await.is_some() {}
    }
}

#[tokio::test]
async fn a_client_is_asked_for_a_sign_of_life_every_keepalive_time() {
    let keepalive_time = Duration::from_millis(50);
    let server = Server::start(GrpcRuntime {
        keepalive_time,
        keepalive_timeout: DEADLINE,
        ..GrpcRuntime::default()
    })
    .await;
    let started = Instant::now();
    let mut client = Client::connect(&server).await;
    for n in 1..=4 {
        let ping = client
            .wait_for(|it| it.kind == PING && it.flags & ACK == 0)
            .await;
        assert!(started.elapsed() >= keepalive_time * n, "ping {n}");
        client.send(PING, ACK, 0, &ping.payload).await;
    }
    client.sync().await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_cut_off_after_keepalive_timeout() {
    let runtime = GrpcRuntime {
        keepalive_time: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(100),
        ..GrpcRuntime::default()
    };
    let quickest = runtime.keepalive_time + runtime.keepalive_timeout;
    let server = Server::start(runtime).await;
    let started = Instant::now();
    let mut client = Client::connect(&server).await;
    client.wait_for(|it| it.kind == PING).await;
    client.closed().await;
    assert!(started.elapsed() >= quickest);
    assert!(started.elapsed() < GrpcRuntime::default().keepalive_timeout);
}

#[tokio::test]
async fn an_old_connection_is_told_and_cut_after_the_grace() {
    let age = Duration::from_millis(100);
    let grace = Duration::from_millis(200);
    let server = Server::start(GrpcRuntime {
        max_connection_age: Some(age),
        max_connection_age_grace: grace,
        ..GrpcRuntime::default()
    })
    .await;
    // Ages differ by up to a tenth.
    let age = age - age / 10;
    let started = Instant::now();
    let mut client = Client::connect(&server).await;
    client.call(1).await;
    client.wait_for(|it| it.kind == GOAWAY).await;
    assert!(started.elapsed() >= age);
    client.closed().await;
    assert!(started.elapsed() >= age + grace);
}

#[tokio::test]
async fn a_call_may_end_within_the_grace_of_an_old_connection() {
    let server = Server::start(GrpcRuntime {
        max_connection_age: Some(Duration::from_millis(50)),
        max_connection_age_grace: DEADLINE * 2,
        ..GrpcRuntime::default()
    })
    .await;
    let mut client = Client::connect(&server).await;
    client.call(1).await;
    client.wait_for(|it| it.kind == GOAWAY).await;
    // The server asks whether the client has seen that, and ends the connection only then.
    let ping = client
        .wait_for(|it| it.kind == PING && it.flags & ACK == 0)
        .await;
    client.send(PING, ACK, 0, &ping.payload).await;
    // An empty message, and then the end.
    client.send(DATA, END_STREAM, 1, &[0; 5]).await;
    client
        .wait_for(|it| it.kind == HEADERS && it.stream == 1)
        .await;
    client.closed().await;
}

#[tokio::test]
async fn at_shutdown_a_call_has_graceful_stop_timeout_to_end() {
    // Longer than the default, which would cut it sooner.
    let graceful_stop_timeout = Duration::from_millis(3500);
    assert!(graceful_stop_timeout > GrpcRuntime::default().graceful_stop_timeout);
    let server = Server::start(GrpcRuntime {
        graceful_stop_timeout,
        ..GrpcRuntime::default()
    })
    .await;
    let mut client = Client::connect(&server).await;
    client.call(1).await;
    client.sync().await;
    let stopped = Instant::now();
    server.shutdown.cancel();
    client.closed().await;
    assert!(stopped.elapsed() >= graceful_stop_timeout);
}

#[tokio::test]
async fn windows_are_those_of_the_settings() {
    for (stream_window, connection_window) in [(70_000, 200_000), (1_000_000, 3_000_000)] {
        let server = Server::start(GrpcRuntime {
            initial_window_size: Some(stream_window),
            initial_conn_window_size: Some(connection_window),
            ..GrpcRuntime::default()
        })
        .await;
        let mut client = Client::connect(&server).await;
        let settings = client
            .wait_for(|it| it.kind == SETTINGS && it.flags & ACK == 0)
            .await;
        assert_eq!(settings.setting(INITIAL_WINDOW_SIZE), Some(stream_window));
        let update = client.wait_for(|it| it.kind == WINDOW_UPDATE).await;
        assert_eq!(update.stream, 0);
        assert_eq!(update.number(0), connection_window - FIRST_WINDOW);
    }
}

#[tokio::test]
async fn a_client_that_sends_more_than_the_window_of_a_stream_is_refused() {
    let server = Server::start(GrpcRuntime {
        initial_window_size: Some(1_000),
        ..GrpcRuntime::default()
    })
    .await;
    let mut client = Client::connect(&server).await;
    client
        .wait_for(|it| it.kind == SETTINGS && it.flags & ACK == 0)
        .await;
    client.send(SETTINGS, ACK, 0, &[]).await;
    client.call(1).await;
    client.send(DATA, 0, 1, &[0; 1_001]).await;
    let refusal = client
        .wait_for(|it| matches!(it.kind, RST_STREAM | GOAWAY))
        .await;
    let at = if refusal.kind == GOAWAY { 4 } else { 0 };
    assert_eq!(refusal.number(at), FLOW_CONTROL_ERROR);
}

#[tokio::test]
async fn a_connection_has_no_more_streams_than_max_concurrent_streams() {
    let server = Server::start(GrpcRuntime {
        max_concurrent_streams: 2,
        ..GrpcRuntime::default()
    })
    .await;
    let mut client = Client::connect(&server).await;
    let settings = client
        .wait_for(|it| it.kind == SETTINGS && it.flags & ACK == 0)
        .await;
    assert_eq!(settings.setting(MAX_CONCURRENT_STREAMS), Some(2));
    client.send(SETTINGS, ACK, 0, &[]).await;
    for stream in [1, 3, 5] {
        client.call(stream).await;
    }
    let refusal = client.wait_for(|it| it.kind == RST_STREAM).await;
    assert_eq!((refusal.stream, refusal.number(0)), (5, REFUSED_STREAM));
    client.sync().await;
}

#[tokio::test]
async fn a_message_above_max_recv_msg_size_is_refused() {
    for (max_recv_msg_size, expected) in [
        (1_000, Code::OutOfRange),
        // Taken, and then refused because no stream of that name is open.
        (
            GrpcRuntime::default().max_recv_msg_size,
            Code::FailedPrecondition,
        ),
    ] {
        let server = Server::start(GrpcRuntime {
            max_recv_msg_size,
            ..GrpcRuntime::default()
        })
        .await;
        let report = StatusReport {
            node_id: "dp".to_owned(),
            message: "m".repeat(1_000),
            ..StatusReport::default()
        };
        let answer = server.client().await.report_status(report).await;
        assert_eq!(answer.unwrap_err().code(), expected, "{max_recv_msg_size}");
    }
}
