//! A provider that remembers what it was asked and answers what the test wrote, in order.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) head: String,
    pub(super) body: String,
}

impl Asked {
    /// The value of a header field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What it answers.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: u16,
    fields: String,
    /// Written one by one; before each `None` it waits to be told to go on.
    pieces: Vec<Option<Vec<u8>>>,
    is_chunked: bool,
    /// The connection is cut behind the last piece.
    is_cut: bool,
}

impl Answer {
    pub(super) fn json(status: u16, body: &str) -> Self {
        Self {
            status,
            fields: "content-type: application/json\r\n".to_owned(),
            pieces: vec![Some(body.as_bytes().to_vec())],
            is_chunked: false,
            is_cut: false,
        }
    }

    /// An answer in pieces of that many bytes.
    pub(super) fn stream(kind: &str, body: &str, bytes: usize) -> Self {
        let pieces = body.as_bytes().chunks(bytes);
        Self {
            status: 200,
            fields: format!("content-type: {kind}\r\n"),
            pieces: pieces.map(|piece| Some(piece.to_vec())).collect(),
            is_chunked: true,
            is_cut: false,
        }
    }

    pub(super) fn sse(body: &str) -> Self {
        Self::stream("text/event-stream", body, 7)
    }

    pub(super) fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(super) fn cut(mut self) -> Self {
        self.is_cut = true;
        self
    }

    /// Waits here until it is told to go on.
    pub(super) fn then_waits(mut self) -> Self {
        self.pieces.push(None);
        self
    }

    pub(super) fn then(self, more: &str) -> Self {
        self.then_bytes(more.as_bytes())
    }

    pub(super) fn then_bytes(mut self, more: &[u8]) -> Self {
        self.pieces.push(Some(more.to_vec()));
        self
    }
}

#[derive(Default)]
struct Shared {
    asked: Mutex<Vec<Asked>>,
    answers: Mutex<VecDeque<Answer>>,
    go_on: Notify,
    open: std::sync::atomic::AtomicUsize,
}

pub(super) struct Provider {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Provider {
    /// One that gives these answers in turn, the last one for ever.
    pub(super) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        shared.answers.lock().unwrap().extend(answers);
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((socket, _)) = listener.accept().await {
                    connections.spawn(serve(socket, shared.clone()));
                }
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// Its base URL; by name, so that names are resolved.
    pub(super) fn url(&self) -> String {
        format!("http://localhost:{}", self.address.port())
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The only request so far.
    pub(super) fn only(&self) -> Asked {
        let asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }

    pub(super) fn go_on(&self) {
        self.shared.go_on.notify_one();
    }

    /// Connections that are open now.
    pub(super) fn open(&self) -> usize {
        self.shared.open.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0
            .open
            .fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }
}

async fn serve(mut socket: TcpStream, shared: Arc<Shared>) {
    socket.set_nodelay(true).unwrap();
    shared
        .open
        .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let _open = Open(shared.clone());
    let mut buffer = Vec::new();
    while let Some(asked) = read(&mut socket, &mut buffer).await {
        shared.asked.lock().unwrap().push(asked);
        let answer = {
            let mut answers = shared.answers.lock().unwrap();
            match answers.len() {
                0 => Answer::json(500, "{}"),
                1 => answers[0].clone(),
                _ => answers.pop_front().unwrap(),
            }
        };
        let is_cut = answer.is_cut;
        if write(&mut socket, answer, &shared).await.is_err() || is_cut {
            return;
        }
    }
}

async fn read(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Asked> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let mut asked = Asked {
                head,
                body: String::new(),
            };
            let length: usize = asked
                .field("content-length")
                .unwrap_or("0")
                .parse()
                .unwrap();
            if buffer.len() >= end + 4 + length {
                asked.body = String::from_utf8(buffer[end + 4..end + 4 + length].to_vec()).unwrap();
                buffer.drain(..end + 4 + length);
                return Some(asked);
            }
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

async fn write(socket: &mut TcpStream, answer: Answer, shared: &Shared) -> std::io::Result<()> {
    let framing = if answer.is_chunked {
        "transfer-encoding: chunked\r\n".to_owned()
    } else {
        let length: usize = answer.pieces.iter().flatten().map(Vec::len).sum();
        format!("content-length: {length}\r\n")
    };
    let Answer { status, fields, .. } = &answer;
    let head = format!("HTTP/1.1 {status} Status\r\n{fields}{framing}\r\n");
    socket.write_all(head.as_bytes()).await?;
    for piece in &answer.pieces {
        let Some(piece) = piece else {
            wait(socket, shared).await?;
            continue;
        };
        if answer.is_chunked {
            let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            socket.write_all(&chunk).await?;
        } else {
            socket.write_all(piece).await?;
        }
    }
    if answer.is_chunked && !answer.is_cut {
        socket.write_all(b"0\r\n\r\n").await?;
    }
    Ok(())
}

/// Until it is told to go on; an error when the other side closes meanwhile.
async fn wait(socket: &mut TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut byte = [0];
    tokio::select! {
        () = shared.go_on.notified() => Ok(()),
        _ = socket.read(&mut byte) => Err(std::io::ErrorKind::ConnectionReset.into()),
    }
}
