//! HTTP/2 frame by frame, on either side of a connection: what is written here is what is sent.
//!
//! Only literal header fields without indexing are made, so that no state is shared with the peer;
//! what the peer's header blocks say is not looked into.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dataplane_testkit::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(super) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
/// Of DATA and HEADERS.
pub(crate) const END_STREAM: u8 = 1;
/// Of HEADERS.
pub(crate) const END_HEADERS: u8 = 4;
/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 1;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it came.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// One connection.
pub(crate) struct Frames {
    pub(super) tcp: TcpStream,
}

impl Frames {
    /// Connects as a client; `settings` are pairs of identifier and value.
    pub(crate) async fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::start(TcpStream::connect(address).await.unwrap(), settings).await
    }

    /// As [`Self::connect`], over a socket that stands.
    pub(super) async fn start(tcp: TcpStream, settings: &[(u16, u32)]) -> Self {
        tcp.set_nodelay(true).unwrap();
        let mut frames = Self { tcp };
        frames.tcp.write_all(PREFACE).await.unwrap();
        frames.send_settings(settings).await;
        frames
    }

    async fn send_settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        self.send(SETTINGS, 0, 0, &payload).await.unwrap();
    }

    pub(super) async fn send(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.tcp.write_all(&frame).await
    }

    /// Sends HEADERS in one frame.
    pub(super) async fn headers(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        let block = block(fields);
        let sent = self
            .send(HEADERS, flags | END_HEADERS, stream, &block)
            .await;
        sent.unwrap();
    }

    /// Sends a whole GET.
    pub(super) async fn get(&mut self, stream: u32, path: &str) {
        self.headers(stream, END_STREAM, &request("GET", path))
            .await;
    }

    /// The next frame; nothing at the end of the connection.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        within("a frame", async {
            let mut head = [0; 9];
            self.tcp.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            self.tcp.read_exact(&mut payload).await.ok()?;
            Some(Frame {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                payload,
            })
        })
        .await
    }

    /// The next frame of that kind on that stream; settings and pings are answered on the way.
    pub(crate) async fn until(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind && frame.stream == stream {
                return Some(frame);
            }
            if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
                let answer = if frame.kind == PING {
                    frame.payload
                } else {
                    Vec::new()
                };
                self.send(frame.kind, ACK, 0, &answer).await.ok()?;
            }
        }
    }
}

/// The fields of a request without a body.
pub(crate) fn request<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "x.example.com"),
        (":path", path),
    ]
}

/// Literal fields, never indexed, not compressed.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            match text.len() {
                length @ 0..127 => block.push(u8::try_from(length).unwrap()),
                length => {
                    block.push(127);
                    let mut rest = length - 127;
                    while rest >= 128 {
                        block.push(u8::try_from(rest % 128 + 128).unwrap());
                        rest /= 128;
                    }
                    block.push(u8::try_from(rest).unwrap());
                }
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An origin that answers each request's HEADERS by what the test does with the connection.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Starts one; `answer` is called for each HEADERS frame.
    pub(super) async fn start<A>(answer: A) -> Self
    where
        A: AsyncFn(&mut Frames, Frame) + Clone + 'static,
    {
        Self::with(&[], answer).await
    }

    /// As [`Self::start`], with settings of its own.
    pub(super) async fn with<A>(settings: &'static [(u16, u32)], answer: A) -> Self
    where
        A: AsyncFn(&mut Frames, Frame) + Clone + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, accepted) = (requests.clone(), connections.clone());
        let task = tokio::task::spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                tokio::task::spawn_local(serve(tcp, settings, answer, count.clone()));
            }
        });
        Self {
            address,
            requests,
            connections,
            task,
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<A: AsyncFn(&mut Frames, Frame)>(
    tcp: TcpStream,
    settings: &[(u16, u32)],
    answer: A,
    count: Arc<AtomicUsize>,
) {
    let mut frames = Frames { tcp };
    let mut preface = [0; PREFACE.len()];
    if frames.tcp.read_exact(&mut preface).await.is_err() {
        return;
    }
    frames.send_settings(settings).await;
    loop {
        let mut head = [0; 9];
        if frames.tcp.read_exact(&mut head).await.is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if frames.tcp.read_exact(&mut payload).await.is_err() {
            return;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        };
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                let _ = frames.send(SETTINGS, ACK, 0, &[]).await;
            }
            HEADERS => {
                count.fetch_add(1, Ordering::SeqCst);
                answer(&mut frames, frame).await;
            }
            _ => {}
        }
    }
}
