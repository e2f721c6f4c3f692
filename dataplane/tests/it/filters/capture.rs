//! An HTTP/1.1 server that keeps every request as it came and answers what it is told to.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use dataplane_testkit::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

pub(crate) struct Capture {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Capture {
    /// Answers every request with these bytes.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (answer, kept) = (Arc::new(answer.into()), seen.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer.clone(), kept.clone()));
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    /// The requests so far, head and body.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for that many requests and gives them.
    pub(crate) async fn requests(&self, count: usize) -> Vec<String> {
        let reached = async {
            while self.seen().len() < count {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        within("the requests arrive", reached).await;
        self.seen()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, answer: Arc<Vec<u8>>, seen: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    loop {
        while let Some(end) = end_of_request(&buffer) {
            let request: Vec<u8> = buffer.drain(..end).collect();
            let text = String::from_utf8_lossy(&request).into_owned();
            seen.lock().unwrap().push(text);
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut buffer).await {
            Ok(1..) => {}
            _ => return,
        }
    }
}

/// Where the first request ends, once all of it is there.
fn end_of_request(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
    if text.contains("transfer-encoding: chunked") {
        let body = &buffer[head..];
        let end = body.windows(5).position(|five| five == b"0\r\n\r\n")? + 5;
        return Some(head + end);
    }
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |digits| digits.trim().parse().unwrap());
    (buffer.len() >= head + length).then_some(head + length)
}
