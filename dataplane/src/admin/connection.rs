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

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is cancelled, then lets running requests end.
pub(super) async fn run(
    listener: TcpListener,
    tls: Option<AdminTls>,
    api: Arc<Api>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(api.limits.connections_max));
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
    let ended = timeout(api.limits.drain * 2, connections.wait());
    if ended.await.is_err() {
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
    match timeout(api.limits.request_time, tls.accept(socket)).await {
        Ok(Ok(stream)) => speak(stream, client, api, stop).await,
        Ok(Err(error)) => debug!(%client, %error, "admin handshake failed"),
        Err(_) => debug!(%client, "admin handshake took too long"),
    }
}

async fn speak<S>(stream: S, client: SocketAddr, api: Arc<Api>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = api.limits;
    let service = service_fn(|request| {
        let api = api.clone();
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_time)
        .max_buf_size(limits.head_bytes_max)
        .max_headers(limits.fields_max)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let grace = tokio::select! {
        ended = connection.as_mut() => return report(client, ended),
        () = sleep(limits.age_max) => limits.age_grace,
        () = stop.cancelled() => limits.drain,
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
