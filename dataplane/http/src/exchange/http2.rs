//! An attempt over HTTP/2.

use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use pingora_core::connectors::http::v2::{ConnectionRef, H2HandshakeSettings, handshake};
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::l4;
use pingora_http::RequestHeader;
use tokio::net::TcpStream;

use dataplane_telemetry::Reason;

use super::{Again, Failure, Head, Outgoing, Receiver, Sender};
use crate::h1::{self, BodyLength, Frame, HeadLimits};
use crate::message::{Response, decimal};
use crate::pool::Pool;

/// Streams we open at once on one HTTP/2 connection to an endpoint.
const STREAMS_MAX: u16 = 100;
/// Receive window of a stream towards an endpoint: what one slow client can make us hold.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Of a connection. Clients share it, so it must hold what all of them leave unread: were it
/// smaller, those who read nothing would stop the responses of all others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
pub(super) async fn reuse_http2(pool: &Pool, key: u64) -> Option<Box<Http2Session>> {
    let connection = pool.http2(key)?;
    connection.spawn_stream().await.ok().flatten().map(Box::new)
}

pub(super) async fn start_http2(
    pool: &Pool,
    key: u64,
    tcp: TcpStream,
) -> Result<Box<Http2Session>, Failure> {
    let failed = |_| Failure::new(Reason::ConnectFailed, Again::Safe);
    let mut settings = H2HandshakeSettings::new();
    settings.max_streams = usize::from(STREAMS_MAX);
    settings.stream_window_size = Some(STREAM_WINDOW);
    settings.connection_window_size = Some(CONNECTION_WINDOW);
    let stream = Box::new(l4::stream::Stream::from(tcp));
    let connection: ConnectionRef = handshake(stream, settings).await.map_err(failed)?;
    let session = connection.spawn_stream().await.map_err(failed)?;
    let session = session.ok_or_else(|| Failure::new(Reason::ConnectFailed, Again::Safe))?;
    pool.keep_http2(key, connection);
    Ok(Box::new(session))
}

pub(super) fn send_http2<'a>(
    session: &'a mut Http2Session,
    request: &Outgoing<'_>,
    limits: &'a HeadLimits,
) -> Result<(Sender<'a>, Receiver<'a>), Failure> {
    let unsendable = Failure::new(Reason::Internal, Again::Never);
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = request.authority.as_str().parse().ok();
    uri.path_and_query = Some(request.target.clone());
    let uri = Uri::from_parts(uri).map_err(|_| unsendable)?;
    let mut head = http::Request::new(());
    *head.method_mut() = request.method.clone();
    *head.uri_mut() = uri;
    *head.version_mut() = http::Version::HTTP_2;
    *head.headers_mut() = request.headers.clone();
    // RFC 9113 8.2.2: te may say trailers and nothing else; gRPC asks for it.
    head.headers_mut()
        .insert(header::TE, HeaderValue::from_static("trailers"));
    let ends = request.body.is_empty();
    let head = Box::new(RequestHeader::from(head.into_parts().0));
    session
        .write_request_header(head, ends)
        .map_err(|_| Failure::new(Reason::UpstreamReset, Again::Safe))?;
    let body = if ends {
        None
    } else {
        session.take_request_body_writer()
    };
    Ok((Sender::Http2(body), Receiver::Http2 { session, limits }))
}

pub(super) async fn head_http2(
    session: &mut Http2Session,
    limits: &HeadLimits,
) -> Result<Head, Failure> {
    if let Err(error) = session.read_response_header().await {
        let again = match error.root_cause().downcast_ref::<h2::Error>() {
            // RFC 9113 8.7: a refused stream was not processed.
            Some(cause) if cause.reason() == Some(h2::Reason::REFUSED_STREAM) => Again::Safe,
            // RFC 9113 6.8: neither was one beyond the last that GOAWAY names. An error that we
            // found ourselves says nothing about what was processed.
            Some(cause) if cause.is_go_away() && cause.is_remote() => Again::Safe,
            _ => Again::IfIdempotent,
        };
        return Err(Failure::new(Reason::UpstreamReset, again));
    }
    let ended = session.response_finished();
    let Some(head) = session.response_header() else {
        return Err(Failure::new(Reason::Internal, Again::Never));
    };
    if is_too_large(&head.headers, limits) {
        return Err(Failure::new(Reason::UpstreamProtocol, Again::Never));
    }
    let asked_head = session
        .request_header()
        .is_some_and(|request| request.method == Method::HEAD);
    let is_bodyless = asked_head || matches!(head.status.as_u16(), 204 | 304);
    let mut headers = head.headers.clone();
    h1::strip_hop_by_hop(&mut headers);
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| decimal(value.as_bytes()))
        .map(BodyLength::Length);
    let (body, declared) = if is_bodyless {
        (BodyLength::None, length.unwrap_or(BodyLength::None))
    } else if ended {
        // HTTP/1.1 must be told that nothing follows.
        (BodyLength::Length(0), BodyLength::Length(0))
    } else {
        let declared = length.unwrap_or(BodyLength::Chunked);
        (declared, declared)
    };
    Ok(Head::Final(Response {
        status: head.status,
        headers,
        body,
        declared,
    }))
}

/// The limits that the codec of HTTP/1.1 holds heads to by itself.
fn is_too_large(headers: &HeaderMap, limits: &HeadLimits) -> bool {
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    headers.len() > limits.fields_max
        || headers.iter().map(line).sum::<usize>() > limits.head_bytes_max
}

pub(super) async fn frame_http2(session: &mut Http2Session) -> Result<Frame, Failure> {
    let cut = |_| Failure::new(Reason::UpstreamReset, Again::Never);
    if let Some(data) = session.read_response_body().await.map_err(cut)? {
        return Ok(Frame::Data(data));
    }
    session.check_response_end_or_error().map_err(cut)?;
    Ok(session
        .read_trailers()
        .await
        .map_err(cut)?
        .map_or(Frame::End, Frame::Trailers))
}
