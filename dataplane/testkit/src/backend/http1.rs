//! The HTTP/1.1 backend, on hyper's server connection.
//!
//! What it answers is decided in `answer.rs`; here it is only put on the wire. A cut connection is
//! an error given to hyper, which then drops the socket.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::answer::{Answer, Cut, Wanted, value};
use super::{Io, Seen};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Serves one connection to its end.
pub(super) async fn serve(io: Io, seen: Arc<Seen>) {
    let service = service_fn(move |request| answer(request, seen.clone()));
    // How a connection ended is the client's to judge.
    let _ = http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(io), service)
        .await;
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let number = seen.request(head.method.as_str(), &head.uri.to_string());
    let wanted = Wanted::of(&head).at(number);
    let mut response = Response::builder().status(wanted.status);
    if head.uri.path() == "/echo" {
        tokio::time::sleep(wanted.delay).await;
        response = response.header("x-backend", value(&seen.name));
        if let Some(kind) = head.headers.get("content-type") {
            response = response.header("content-type", kind);
        }
        let body = body.map_err(io::Error::other).boxed_unsync();
        return response.body(body).map_err(io::Error::other);
    }
    let body_bytes = if wanted.is_early {
        0
    } else {
        drain(body).await?
    };
    tokio::time::sleep(wanted.delay).await;
    if wanted.cut == Some(Cut::BeforeHead) {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    let answer = Answer::new(&seen.name, number, &head, body_bytes, &wanted);
    let mut response = response
        .body(body_of(answer.chunks, answer.trailers, wanted.cut))
        .map_err(io::Error::other)?;
    response.headers_mut().extend(answer.headers);
    Ok(response)
}

fn body_of(chunks: Vec<Bytes>, trailers: Option<http::HeaderMap>, cut: Option<Cut>) -> Body {
    let end = match cut {
        Some(_) => Some(Err(io::ErrorKind::ConnectionAborted.into())),
        None => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
    };
    let frames = chunks.into_iter().map(|chunk| Ok(Frame::data(chunk)));
    StreamBody::new(stream::iter(frames.chain(end))).boxed_unsync()
}

async fn drain(mut body: Incoming) -> io::Result<u64> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        length += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(length)
}
