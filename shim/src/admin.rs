//! The admin API of the shim: health, metrics, what is served and to whom. Read only.
//!
//! `control_plane.rs` starts [`run`] on a bound socket. Requests are small and have deadlines, the
//! number of connections is bounded, and everything but the health paths asks for the token when
//! one is set. What the answers say is in [`answers`].

mod answers;
mod snapshot_view;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use ir::SecretText;
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::history::Store;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::pipeline::State;

/// Connections at a time; further ones wait in the listen queue.
const CONNECTIONS_MAX: usize = 64;
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long running answers may take at shutdown.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// What the admin API shows.
pub struct Admin {
    /// Snapshots.
    pub store: Arc<Store>,
    /// Data planes.
    pub nodes: Arc<Nodes>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Objects and their conditions.
    pub state: watch::Receiver<Arc<State>>,
    /// Ready before the first data plane has connected.
    pub permit_without_stream: bool,
    /// What a request must carry.
    pub token: Option<SecretText>,
    /// A request must be complete within this.
    pub read_header_timeout: Duration,
    /// An answer must be out within this.
    pub write_timeout: Duration,
    /// Set once the shim stops.
    pub shutdown: CancellationToken,
}

/// Serves until the shutdown.
pub async fn run(admin: Admin, listener: TcpListener) {
    let admin = Arc::new(admin);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let tasks = TaskTracker::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        let (socket, peer) = tokio::select! {
            () = admin.shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
        };
        let admin = Arc::clone(&admin);
        tasks.spawn(async move {
            serve_connection(admin, socket, peer).await;
            drop(slot);
        });
    }
    tasks.close();
    if tokio::time::timeout(STOP_LIMIT, tasks.wait())
        .await
        .is_err()
    {
        debug!("admin requests were still running at the stop");
    }
}

async fn serve_connection(admin: Arc<Admin>, socket: TcpStream, peer: SocketAddr) {
    let service = service_fn(|request| {
        let answer = admin.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(admin.read_header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        // One request a connection: then one deadline covers reading, waiting and writing.
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service);
    let limit = admin.read_header_timeout + admin.write_timeout;
    match tokio::time::timeout(limit, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%peer, %error, "admin connection failed"),
        Err(_) => debug!(%peer, "admin client was too slow"),
    }
}

/// Out of file descriptors and the like: neither spin nor stop.
async fn pause_after(error: &io::Error) {
    warn!(%error, "an admin connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// An answer before it is one of HTTP.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    fn json(value: &impl serde::Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(body) => Self {
                status: StatusCode::OK,
                content_type: "application/json",
                body,
            },
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    fn error(status: StatusCode, message: &str) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: serde_json::json!({ "error": message }).to_string(),
        }
    }
}

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = if request.method() == Method::GET {
            self.route(request)
        } else {
            Answer::error(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed")
        };
        let mut response = Response::new(Full::new(Bytes::from(answer.body)));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        let value = header::HeaderValue::from_static;
        headers.insert(header::CONTENT_TYPE, value(answer.content_type));
        headers.insert(header::CACHE_CONTROL, value("no-store"));
        if answer.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, value("Bearer"));
        }
        response
    }

    fn route(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        match path {
            "/livez" => return Answer::text(StatusCode::OK, "ok\n"),
            "/readyz" => return self.readiness(),
            _ => {}
        }
        if !self.is_allowed(request) {
            let message = "send `Authorization: Bearer` with the token of adminAuth";
            return Answer::error(StatusCode::UNAUTHORIZED, message);
        }
        // The paths of document 001 and those of the Go control plane.
        match path {
            "/metrics" => self.metrics(),
            "/api/v1/config/snapshot/version" => self.snapshot_version(),
            "/api/v1/config/snapshot" | "/v1/snapshot" => self.snapshot(),
            "/api/v1/clients" => self.clients(),
            "/api/v1/status" => self.status(),
            "/v1/snapshot-sync" => self.snapshot_sync(),
            "/v1/summary" => self.summary(),
            "/v1/nodes" => self.node_list(),
            _ => match path.strip_prefix("/v1/nodes/") {
                Some(node_id) => self.node(node_id),
                None => Answer::error(StatusCode::NOT_FOUND, "no such path"),
            },
        }
    }

    fn is_allowed(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map_or("", |(_, given)| given.trim());
        bool::from(token.expose().as_bytes().ct_eq(given.as_bytes()))
    }
}
