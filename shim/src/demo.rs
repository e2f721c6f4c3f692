//! Two echo backends for the quickstart, started by `standalone --demo`.
//!
//! One port speaks everything: HTTP/1.1 and HTTP/2 with prior knowledge answer with JSON that tells
//! what arrived, a WebSocket gets its messages back, and any gRPC call gets its message back. Bodies
//! are bounded. This is a toy to see the gateway work, not a load generator.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use anyhow::Context;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::translate::PortMap;

/// Names and ports of the backends; `examples/quickstart/backends.yaml` points at them.
pub const BACKENDS: [(&str, u16); 2] = [("echo-1", 3001), ("echo-2", 3002)];

/// Largest body that is taken, and largest WebSocket message.
const BODY_BYTES_MAX: usize = 1 << 20;

type Reply = Response<BoxBody<Bytes, Infallible>>;

/// Binds both backends, at their ports or where `ports` leads, and serves them in the background
/// until the shutdown.
pub async fn start(shutdown: &CancellationToken, ports: &PortMap) -> anyhow::Result<()> {
    for (name, port) in BACKENDS {
        let port = ports.bound(port).map_or(port, NonZeroU16::get);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!(
                "cannot start demo backend {name} on {address}; free the port, or leave out --demo and \
                 run backends of your own"
            )
        })?;
        start_one(name, listener, shutdown.clone());
    }
    Ok(())
}

/// Serves one backend in the background until the shutdown.
pub fn start_one(name: &'static str, listener: TcpListener, shutdown: CancellationToken) {
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    tokio::spawn(serve(name, socket, shutdown.clone()));
                }
                Err(error) => {
                    debug!(%error, name, "demo backend could not accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    });
}

async fn serve(name: &'static str, socket: TcpStream, shutdown: CancellationToken) {
    let service =
        service_fn(move |request| async move { Ok::<_, Infallible>(answer(name, request).await) });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(socket), service);
    tokio::select! {
        () = shutdown.cancelled() => {}
        outcome = connection => if let Err(error) = outcome {
            debug!(%error, name, "demo connection ended");
        },
    }
}

async fn answer<B>(name: &'static str, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if wants_websocket(&request) {
        return websocket(name, request);
    }
    if is_grpc(request.headers()) {
        return grpc(request).await;
    }
    echo(name, request).await
}

/// Tells what arrived.
async fn echo<B>(name: &str, request: Request<B>) -> Reply
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return plain(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large or broken\n",
        );
    };
    let body = body.to_bytes();
    let host = head
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| head.uri.authority().map(http::uri::Authority::as_str));
    let headers: serde_json::Map<String, serde_json::Value> = head
        .headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.to_string(), json!(value))
        })
        .collect();
    let told = json!({
        "backend": name,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "host": host,
        "protocol": protocol(head.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let mut reply = plain(StatusCode::OK, &format!("{told:#}\n"));
    let json = header::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    reply
}

/// Answers a unary call with its own message; a call of a stream with all of its messages.
async fn grpc<B>(request: Request<B>) -> Reply
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut trailers = HeaderMap::new();
    let frames = match Limited::new(request.into_body(), BODY_BYTES_MAX)
        .collect()
        .await
    {
        Ok(body) => {
            trailers.insert("grpc-status", header::HeaderValue::from_static("0"));
            vec![Frame::data(body.to_bytes()), Frame::trailers(trailers)]
        }
        Err(_) => {
            // RESOURCE_EXHAUSTED
            trailers.insert("grpc-status", header::HeaderValue::from_static("8"));
            vec![Frame::trailers(trailers)]
        }
    };
    let frames = frames.into_iter().map(Ok::<_, Infallible>);
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut reply = Response::new(BoxBody::new(body));
    let grpc = header::HeaderValue::from_static("application/grpc");
    reply.headers_mut().insert(header::CONTENT_TYPE, grpc);
    reply
}

/// Accepts the upgrade and sends every message back.
fn websocket<B: Send + 'static>(name: &'static str, mut request: Request<B>) -> Reply {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let accept = key.map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = accept.and_then(|accept| accept.parse().ok()) else {
        return plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing\n");
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else {
            return;
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(BODY_BYTES_MAX))
            .max_frame_size(Some(BODY_BYTES_MAX));
        let io = TokioIo::new(upgraded);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        while let Some(Ok(message)) = socket.next().await {
            // Pings and the closing handshake are answered by the library.
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                break;
            }
        }
        debug!(name, "WebSocket ended");
    });
    let mut reply = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = reply.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    let value = header::HeaderValue::from_static;
    headers.insert(header::CONNECTION, value("upgrade"));
    headers.insert(header::UPGRADE, value("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    reply
}

fn wants_websocket<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && request
            .headers()
            .get(header::UPGRADE)
            .is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

fn plain(status: StatusCode, text: &str) -> Reply {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    let mut reply = Response::new(BoxBody::new(body));
    *reply.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}
