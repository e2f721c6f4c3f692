//! Clients that ask without a pause, and remember everything that went wrong.
//!
//! HTTP/1.1 clients keep their connection as long as the gateway does; HTTP/2 clients open a new one
//! after a GOAWAY. A request that was sent and not answered with 200 is a failure. A connection that
//! is refused is one too, unless the load [`Load::ends_when_refused`].

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dataplane_testkit::client::ClientError;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use tokio::task::JoinSet;

/// Failures that are kept.
const FAILURES_MAX: usize = 20;

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

struct Shared {
    address: SocketAddr,
    host: String,
    path: String,
    is_over: AtomicBool,
    ends_when_refused: AtomicBool,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Starts so many clients of each protocol.
    pub fn start(
        address: SocketAddr,
        host: &str,
        path: &str,
        http1_clients: usize,
        http2_clients: usize,
    ) -> Self {
        let shared = Arc::new(Shared {
            address,
            host: host.to_owned(),
            path: path.to_owned(),
            is_over: AtomicBool::new(false),
            ends_when_refused: AtomicBool::new(false),
            answered: AtomicUsize::new(0),
            failures: Mutex::default(),
        });
        let mut clients = JoinSet::new();
        for _ in 0..http1_clients {
            clients.spawn(http1(shared.clone()));
        }
        for _ in 0..http2_clients {
            clients.spawn(http2(shared.clone()));
        }
        Self { shared, clients }
    }

    /// From now on a refused connection is the end of the gateway, and of the client.
    pub fn ends_when_refused(&self) {
        self.shared.ends_when_refused.store(true, Ordering::SeqCst);
    }

    /// How many requests were answered.
    pub fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Waits until so many more requests were answered.
    pub async fn advance(&self, by: usize) {
        let goal = self.answered() + by;
        dataplane_testkit::until(dataplane_testkit::DEADLINE, || async {
            self.answered() >= goal || !self.failures().is_empty()
        })
        .await;
    }

    /// What went wrong until now.
    pub fn failures(&self) -> Vec<String> {
        self.shared.failures().clone()
    }

    /// Lets every client finish its request, and tells what went wrong.
    pub async fn stop(mut self) -> Vec<String> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        while self.clients.join_next().await.is_some() {}
        self.failures()
    }
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::SeqCst)
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, what: String) {
        let mut failures = self.failures();
        if failures.len() < FAILURES_MAX {
            failures.push(what);
        }
    }

    /// Counts an answer.
    fn take(&self, protocol: &str, status: http::StatusCode) {
        if status == 200 {
            self.answered.fetch_add(1, Ordering::SeqCst);
        } else {
            self.fail(format!("{protocol}: {status}"));
        }
    }

    /// True when a failed connection ends the client.
    fn is_the_end(&self, protocol: &str, error: &ClientError) -> bool {
        let is_refused = matches!(error, ClientError::Io(error)
            if error.kind() == std::io::ErrorKind::ConnectionRefused);
        if is_refused && self.ends_when_refused.load(Ordering::SeqCst) {
            return true;
        }
        self.fail(format!("{protocol}: cannot connect: {error}"));
        false
    }
}

async fn http1(shared: Arc<Shared>) {
    while shared.goes_on() {
        let mut client = match Http1Client::connect(shared.address).await {
            Ok(client) => client,
            Err(error) if shared.is_the_end("HTTP/1.1", &error) => return,
            Err(_) => continue,
        };
        while shared.goes_on() {
            match client.get(&shared.host, &shared.path).await {
                Ok(response) => {
                    shared.take("HTTP/1.1", response.status);
                    if response.header("connection") == "close" {
                        break;
                    }
                }
                Err(error) => {
                    shared.fail(format!("HTTP/1.1: {error}"));
                    break;
                }
            }
        }
    }
}

async fn http2(shared: Arc<Shared>) {
    while shared.goes_on() {
        let client = match Http2Client::connect(shared.address).await {
            Ok(client) => client,
            Err(error) if shared.is_the_end("HTTP/2", &error) => return,
            Err(_) => continue,
        };
        while shared.goes_on() && client.is_open().await {
            match client.get(&shared.host, &shared.path).await {
                Ok(response) => shared.take("HTTP/2", response.status),
                // A stream beyond the last one of a GOAWAY was never looked at: asked again.
                Err(error) if error.is_sent_away() => break,
                Err(error) => {
                    shared.fail(format!("HTTP/2: {error}"));
                    break;
                }
            }
        }
    }
}
