//! The admin API of the shim: health, metrics, what is served and to whom. Read only.
//!
//! `control_plane.rs` starts [`run`] on a bound socket, with TLS where it is on. Requests are small and have deadlines, the
//! number of connections is bounded, and everything but the health paths asks for the token when
//! one is set. What the answers say is in [`answers`], and for users in `docs/reference/admin.md`.

mod answers;
mod summary;
mod lists;
mod query;
mod snapshot_view;
mod words;

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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::lists::OBJECTS;
use crate::history::Store;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::pipeline::State;
use crate::settings::TlsFiles;
use crate::tls::{Purpose, ServerTls, TlsError, accept};

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
    /// Files of its TLS, when it is on.
    pub tls: Option<TlsFiles>,
    /// A request must be complete within this.
    pub read_header_timeout: Duration,
    /// An answer must be out within this.
    pub write_timeout: Duration,
    /// Set once the shim stops.
    pub shutdown: CancellationToken,
}

/// A path and what answers it.
type Path = (&'static str, fn(&Admin) -> Answer);

/// What anybody may see.
const OPEN: &[Path] = &[("/livez", Admin::liveness), ("/readyz", Admin::readiness)];

/// The paths of document 001 and those of the Go control plane.
const PATHS: &[Path] = &[
    ("/metrics", Admin::metrics),
    ("/api/v1/config/snapshot/version", Admin::snapshot_version),
    ("/api/v1/config/snapshot", Admin::snapshot),
    ("/v1/snapshot", Admin::snapshot),
    ("/api/v1/status", Admin::status),
    ("/v1/snapshot-sync", Admin::snapshot_sync),
    ("/v1/summary", Admin::summary),
    ("/v1/auth/verify", Admin::verify),
];

/// A list and what answers it, by the path that was asked for and its query.
type List = (&'static str, fn(&Admin, &str, &str) -> Answer);

/// Lists, in pages.
const LISTS: &[List] = &[
    ("/api/v1/clients", Admin::clients),
    ("/v1/nodes", Admin::node_list),
    ("/v1/listeners", Admin::listeners),
    ("/v1/routes", Admin::routes),
    ("/v1/backends", Admin::backends),
];

/// Connections are of HTTP/1.1.
const PURPOSE: Purpose = Purpose {
    section: "adminTLS",
    alpn: "http/1.1",
};

/// Serves until the shutdown; fails only at once, when the TLS files cannot be used.
pub async fn run(admin: Admin, listener: TcpListener) -> Result<(), TlsError> {
    let mut tls = ServerTls::new(PURPOSE, admin.tls.clone()).await?;
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
        let acceptor = tls.current().await;
        let admin = Arc::clone(&admin);
        tasks.spawn(async move {
            match acceptor {
                None => serve_connection(admin, socket, peer).await,
                Some(acceptor) => match accept(&acceptor, socket, &admin.shutdown).await {
                    Ok(stream) => serve_connection(admin, stream, peer).await,
                    Err(error) => debug!(%peer, %error, "TLS handshake failed"),
                },
            }
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
    Ok(())
}

async fn serve_connection<S>(admin: Arc<Admin>, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
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
        .serve_connection(TokioIo::new(stream), service);
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
    /// Where the next page is.
    link: Option<String>,
}

impl Answer {
    fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
            link: None,
        }
    }

    fn json(value: &impl serde::Serialize) -> Self {
        Self::of_json(serde_json::to_string(value))
    }

    fn of_json(written: serde_json::Result<String>) -> Self {
        match written {
            Ok(body) => Self {
                status: StatusCode::OK,
                content_type: "application/json",
                body,
                link: None,
            },
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    fn error(status: StatusCode, message: &str) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: serde_json::json!({ "error": message }).to_string(),
            link: None,
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
        let link = answer.link.and_then(|link| link.parse().ok());
        if let Some(link) = link {
            headers.insert(header::LINK, link);
        }
        if answer.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, value("Bearer"));
        }
        response
    }

    fn route(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if let Some((_, answer)) = OPEN.iter().find(|(known, _)| *known == path) {
            return answer(self);
        }
        if !self.is_allowed(request) {
            let message = "send `Authorization: Bearer` with the token of adminAuth";
            return Answer::error(StatusCode::UNAUTHORIZED, message);
        }
        // Both families of paths lead to the same.
        let other = match path.strip_prefix("/api") {
            Some(rest) => rest.to_owned(),
            None => format!("/api{path}"),
        };
        let is_meant = |known: &str| known == path || known == other;
        if let Some((_, answer)) = PATHS.iter().find(|(known, _)| is_meant(known)) {
            return answer(self);
        }
        if let Some((_, answer)) = LISTS.iter().find(|(known, _)| is_meant(known)) {
            return answer(self, path, request.uri().query().unwrap_or_default());
        }
        let object = OBJECTS.iter().find_map(|list| {
            let name = path
                .strip_prefix(list)
                .or_else(|| other.strip_prefix(list))?;
            Some((list, name))
        });
        match object {
            Some((list, name)) => self.object(list, name),
            None => Answer::error(StatusCode::NOT_FOUND, "no such path"),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_names_every_path_and_no_other() {
        let page = include_str!("../../docs/reference/admin.md");
        let mut parts = page.split("\n## ");
        let part = parts.find(|part| part.starts_with("The shim\n"));
        let rows = part
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("| `/"));
        let documented: BTreeSet<_> = rows
            .filter_map(|row| row.split('|').nth(1))
            .flat_map(|cell| cell.split('`').filter(|text| text.starts_with('/')))
            .map(|path| path.split('{').next().unwrap_or(path))
            .collect();
        let known = OPEN.iter().chain(PATHS).map(|(path, _)| *path);
        let lists = LISTS.iter().map(|(path, _)| *path);
        let objects = OBJECTS.iter().copied();
        assert_eq!(documented, known.chain(lists).chain(objects).collect());
    }
}
