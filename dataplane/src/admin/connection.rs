//! The admin socket: accept, end TLS, speak HTTP/1.1, all within limits.
//!
//! Every connection has a deadline for each of its steps and one for its whole life, so that slow
//! clients give their places back; there are enough places that a few of them hold up nobody.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use dataplane_tls::AdminTls;

use super::api::Api;

/// Connections at a time; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 64;
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most fields of a request.
const FIELDS_MAX: usize = 64;
/// For a handshake, and for a whole request head; also how long a connection may wait for its next
/// request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Age at which a connection is closed behind its running request.
const AGE_MAX: Duration = Duration::from_secs(60);
/// How long that request may go on.
const AGE_GRACE: Duration = Duration::from_secs(30);
/// How long running requests may go on once the process ends.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is cancelled, then lets running requests end.
pub(super) async fn run(
    listener: TcpListener,
    tls: Option<AdminTls>,
    api: Arc<Api>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accept = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = stop.cancelled() => break,
        };
        let (socket, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let (tls, api, stop) = (tls.clone(), api.clone(), stop.clone());
        connections.spawn(async move {
            serve(socket, client, tls, api, stop).await;
            drop(place);
        });
    }
    connections.close();
    if timeout(STOP_GRACE * 2, connections.wait()).await.is_err() {
        debug!("admin requests were still running at the end");
    }
}

async fn serve(
    socket: TcpStream,
    client: SocketAddr,
    tls: Option<AdminTls>,
    api: Arc<Api>,
    stop: CancellationToken,
) {
    let Some(tls) = tls else {
        return speak(socket, client, api, stop).await;
    };
    match timeout(HEAD_TIMEOUT, tls.accept(socket)).await {
        Ok(Ok(stream)) => speak(stream, client, api, stop).await,
        Ok(Err(error)) => debug!(%client, %error, "admin handshake failed"),
        Err(_) => debug!(%client, "admin handshake took too long"),
    }
}

async fn speak<S>(stream: S, client: SocketAddr, api: Arc<Api>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let grace = tokio::select! {
        ended = connection.as_mut() => return report(client, ended),
        () = sleep(AGE_MAX) => AGE_GRACE,
        () = stop.cancelled() => STOP_GRACE,
    };
    connection.as_mut().graceful_shutdown();
    match timeout(grace, connection).await {
        Ok(ended) => report(client, ended),
        Err(_) => debug!(%client, "admin client was too slow"),
    }
}

fn report(client: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        debug!(%client, %error, "admin connection failed");
    }
}

/// Out of descriptors and the like: neither spin nor stop.
async fn pause_after(error: &io::Error) {
    warn!(%error, "accepting admin connections pauses, check the file limit");
    sleep(ACCEPT_PAUSE).await;
}
