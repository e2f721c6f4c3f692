//! The gRPC backend: an echo of opaque messages over HTTP/2.
//!
//! The method name picks the pattern, see [`Kind::Grpc`](super::Kind::Grpc). Metadata of the call
//! whose name starts with `x-` comes back as metadata of the reply.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, request};
use tokio::task::JoinSet;

use super::answer::{Cut, Wanted, value};
use super::{Io, STREAMS_MAX, Seen};
use crate::grpc_frame::{Deframer, frame};
use crate::h2_stream;

/// `grpc-status` for a call whose frames make no sense.
const INTERNAL: u32 = 13;

/// Serves one connection to its end.
pub(super) async fn serve(io: Io, seen: Arc<Seen>) {
    let mut settings = h2::server::Builder::new();
    settings.max_concurrent_streams(STREAMS_MAX);
    let Ok(mut connection) = settings.handshake(io).await else {
        return;
    };
    // Calls end with the connection, because the set is dropped with it.
    let mut calls = JoinSet::new();
    while let Some(Ok((request, respond))) = connection.accept().await {
        while calls.try_join_next().is_some() {}
        calls.spawn(call(request, respond, seen.clone()));
    }
}

async fn call(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    let (head, body) = request.into_parts();
    seen.request(head.method.as_str(), head.uri.path());
    let wanted = Wanted::of(&head);
    tokio::time::sleep(wanted.delay).await;
    if wanted.cut == Some(Cut::BeforeHead) {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return;
    }
    let mut response = Response::new(());
    *response.headers_mut() = metadata(&head, &seen.name);
    if wanted.grpc_status != 0 {
        response.headers_mut().extend(status(wanted.grpc_status));
        // Trailers only: one head that is also the end.
        let _ = respond.send_response(response, true);
        return;
    }
    // A call whose stream broke needs no further word.
    if let Ok(mut stream) = respond.send_response(response, false)
        && let Ok(code) = reply(&head, body, &mut stream, &wanted).await
    {
        let _ = stream.send_trailers(status(code));
    }
}

/// Sends the messages of the reply and tells the status to end with.
async fn reply(
    head: &request::Parts,
    mut body: RecvStream,
    stream: &mut SendStream<Bytes>,
    wanted: &Wanted,
) -> Result<u32, h2::Error> {
    let times = if head.uri.path().ends_with("/ServerStream") {
        wanted.count
    } else {
        1
    };
    let mut frames = Deframer::default();
    while let Some(data) = h2_stream::receive(&mut body).await? {
        frames.push(&data);
        loop {
            match frames.next() {
                Ok(Some(message)) => {
                    for _ in 0..times {
                        h2_stream::send(stream, frame(&message)).await?;
                    }
                }
                Ok(None) => break,
                Err(_) => return Ok(INTERNAL),
            }
        }
    }
    Ok(if frames.is_empty() { 0 } else { INTERNAL })
}

fn metadata(head: &request::Parts, backend: &str) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    metadata.insert("content-type", HeaderValue::from_static("application/grpc"));
    for (name, value) in &head.headers {
        if name.as_str().starts_with("x-") {
            metadata.append(name, value.clone());
        }
    }
    metadata.insert("x-backend", value(backend));
    metadata
}

fn status(code: u32) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    if code != 0 {
        trailers.insert("grpc-message", HeaderValue::from_static("as asked for"));
    }
    trailers
}
