//! The HTTP/2 backend, on the h2 crate's server connection.
//!
//! What it answers is decided in `answer.rs`; here it is only put on the wire. A cut stream is a
//! reset with INTERNAL_ERROR; the connection goes on.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response, request};
use tokio::task::JoinSet;

use super::answer::{Answer, Cut, Wanted, value};
use super::{Io, STREAMS_MAX, Seen};
use crate::h2_stream;

/// Serves one connection to its end.
pub(super) async fn serve(io: Io, seen: Arc<Seen>) {
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(STREAMS_MAX);
    let Ok(mut connection) = settings.handshake(io).await else {
        return;
    };
    // Streams end with the connection, because the set is dropped with it.
    let mut streams = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        while streams.try_join_next().is_some() {}
        streams.spawn(exchange(request, respond, seen.clone()));
    }
}

/// Reads one request and answers it; a failed stream needs no further word.
async fn exchange(request: Request<RecvStream>, respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    let (head, body) = request.into_parts();
    let number = seen.request(head.method.as_str(), head.uri.path());
    let wanted = Wanted::of(&head).at(number);
    let _ = if head.uri.path() == "/echo" {
        echo(&head, body, respond, &wanted, &seen.name).await
    } else {
        answer(&head, body, respond, &wanted, (&seen.name, number)).await
    };
}

async fn answer(
    head: &request::Parts,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    wanted: &Wanted,
    (backend, number): (&str, usize),
) -> Result<(), h2::Error> {
    let mut body_bytes = 0;
    if !wanted.is_early {
        while let Some(data) = h2_stream::receive(&mut body).await? {
            body_bytes += data.len() as u64;
        }
    }
    tokio::time::sleep(wanted.delay).await;
    if wanted.cut == Some(Cut::BeforeHead) {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let answer = Answer::new(backend, number, head, body_bytes, wanted);
    let mut response = Response::new(());
    *response.status_mut() = wanted.status;
    *response.headers_mut() = answer.headers;
    let mut stream = respond.send_response(response, false)?;
    for chunk in answer.chunks {
        h2_stream::send(&mut stream, chunk).await?;
    }
    match answer.trailers {
        _ if wanted.cut.is_some() => stream.send_reset(Reason::INTERNAL_ERROR),
        Some(trailers) => stream.send_trailers(trailers)?,
        None => stream.send_data(Bytes::new(), true)?,
    }
    Ok(())
}

async fn echo(
    head: &request::Parts,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    wanted: &Wanted,
    backend: &str,
) -> Result<(), h2::Error> {
    tokio::time::sleep(wanted.delay).await;
    let mut response = Response::new(());
    *response.status_mut() = wanted.status;
    response.headers_mut().insert("x-backend", value(backend));
    if let Some(kind) = head.headers.get("content-type") {
        response.headers_mut().insert("content-type", kind.clone());
    }
    let mut stream = respond.send_response(response, false)?;
    while let Some(data) = h2_stream::receive(&mut body).await? {
        h2_stream::send(&mut stream, data).await?;
    }
    match body.trailers().await? {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}
