//! An attempt over HTTP/2: one stream of a connection that other requests share.
//!
//! On the `h2` crate's client (decision 0015). Dropping an [`Http2`] before both directions have
//! ended resets the stream, so that the endpoint never takes a part of a request for the whole.

use std::future::Future;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use dataplane_telemetry::Reason;

use super::{Again, Failure, Head, Outgoing, Receiver, Sender};
use crate::downstream::end_of_http2;
use crate::h1::{self, BodyLength, Frame, HeadLimits};
use crate::message::{Response, decimal};
use crate::pool::http2::Stream;

/// A stream, before and after its request.
pub(crate) struct Http2 {
    stream: Stream,
    scheme: Scheme,
    is_head_request: bool,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
}

impl Http2 {
    pub(super) fn new(stream: Stream, is_secured: bool) -> Self {
        Self {
            stream,
            scheme: if is_secured {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            },
            is_head_request: false,
            response: None,
            body: None,
        }
    }

    pub(super) fn send<'a>(
        &'a mut self,
        request: &Outgoing<'_>,
        limits: &'a HeadLimits,
    ) -> Result<(Sender<'a>, Receiver<'a>), Failure> {
        let unsendable = Failure::new(Reason::Internal, Again::Never);
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = request.authority.as_str().parse().ok();
        uri.path_and_query = Some(request.target.clone());
        let uri = Uri::from_parts(uri).map_err(|_| unsendable)?;
        let mut head = http::Request::new(());
        *head.method_mut() = request.method.clone();
        *head.uri_mut() = uri;
        *head.version_mut() = http::Version::HTTP_2;
        *head.headers_mut() = request.headers.clone();
        if let Some(unrecorded) = request.unrecorded
            && let Ok(value) = HeaderValue::from_bytes(&unrecorded.value())
        {
            let name = HeaderName::from_static("traceparent");
            head.headers_mut().insert(name, value);
        }
        // RFC 9113 8.2.2: te may say trailers and nothing else; gRPC asks for it.
        head.headers_mut()
            .insert(header::TE, HeaderValue::from_static("trailers"));
        let ends = request.body.is_empty();
        let (response, body) = self.stream.send.send_request(head, ends).map_err(|_| {
            // A connection that is going away, or has used up its numbers; nothing was sent.
            self.stream.give_up_connection();
            Failure::new(Reason::UpstreamReset, Again::Closing)
        })?;
        self.is_head_request = request.method == Method::HEAD;
        self.response = Some(response);
        let sender = Sender::Http2 {
            stream: (!ends).then_some(body),
            data: Bytes::new(),
        };
        let receiver = Receiver::Http2 {
            http2: self,
            limits,
        };
        Ok((sender, receiver))
    }

    pub(super) fn poll_head(
        &mut self,
        limits: &HeadLimits,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Result<Head, Failure>> {
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(Failure::new(Reason::Internal, Again::Never)));
        };
        let next = ready!(poll_head(response, cx));
        Poll::Ready(self.begin(next, limits))
    }

    /// What follows from a head.
    fn begin(
        &mut self,
        next: Result<HeadAndBody, h2::Error>,
        limits: &HeadLimits,
    ) -> Result<Head, Failure> {
        let (head, body) = next.map_err(|error| failure(&error))?;
        let invalid = Failure::new(Reason::UpstreamProtocol, Again::Never);
        if is_too_large(&head.headers, limits) {
            return Err(invalid);
        }
        let mut headers = head.headers;
        h1::strip_hop_by_hop(&mut headers);
        let Some(body) = body else {
            // RFC 9113 8.6: there is no switching of protocols.
            return match head.status {
                StatusCode::SWITCHING_PROTOCOLS => Err(invalid),
                status => Ok(Head::Interim(status, headers)),
            };
        };
        let ended = body.is_end_stream();
        self.body = Some(body);
        let is_bodyless = self.is_head_request || matches!(head.status.as_u16(), 204 | 304);
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
            // Trailers may follow a body of no bytes; an end with the head would lose them.
            let body = match declared {
                BodyLength::Length(0) => BodyLength::Chunked,
                declared => declared,
            };
            (body, declared)
        };
        Ok(Head::Final(Response {
            status: head.status,
            headers,
            body,
            declared,
        }))
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Result<Frame, Failure>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Err(Failure::new(Reason::Internal, Again::Never)));
        };
        let cut = |_| Failure::new(Reason::UpstreamReset, Again::Never);
        while let Some(data) = ready!(body.poll_data(cx)) {
            let data = data.map_err(cut)?;
            // What is taken goes to the client before more is; the window is that of one stream.
            body.flow_control()
                .release_capacity(data.len())
                .map_err(cut)?;
            if !data.is_empty() {
                return Poll::Ready(Ok(Frame::Data(data)));
            }
        }
        let trailers = ready!(body.poll_trailers(cx)).map_err(cut)?;
        Poll::Ready(Ok(end_of_http2(trailers)))
    }
}

type HeadAndBody = (http::response::Parts, Option<RecvStream>);

/// The next head; the final one comes with its body.
fn poll_head(
    response: &mut ResponseFuture,
    cx: &mut std::task::Context<'_>,
) -> Poll<Result<HeadAndBody, h2::Error>> {
    if let Some(interim) = ready!(response.poll_informational(cx)) {
        return Poll::Ready(interim.map(|head| (head.into_parts().0, None)));
    }
    let head = ready!(Pin::new(response).poll(cx))?;
    let (head, body) = head.into_parts();
    Poll::Ready(Ok((head, Some(body))))
}

/// What an error in place of a head means.
fn failure(error: &h2::Error) -> Failure {
    if error.is_library() && error.is_reset() {
        // It is this very response that broke the rules.
        return Failure::new(Reason::UpstreamProtocol, Again::Never);
    }
    let again = match error.is_remote() {
        // RFC 9113 6.8, 8.7: a stream beyond the last that GOAWAY names and a refused one were not
        // processed.
        true if error.is_go_away() => Again::Closing,
        true if error.reason() == Some(h2::Reason::REFUSED_STREAM) => Again::Safe,
        // The end of the connection says nothing about what was processed.
        false if error.is_io() => Again::Closed,
        _ => Again::IfIdempotent,
    };
    Failure::new(Reason::UpstreamReset, again)
}

/// The limits that the codec of HTTP/1.1 holds heads to by itself.
fn is_too_large(headers: &HeaderMap, limits: &HeadLimits) -> bool {
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    headers.len() > limits.fields_max
        || headers.iter().map(line).sum::<usize>() > limits.head_bytes_max
}

/// Hands over what ends a request's body.
pub(super) fn last_frame(stream: &mut SendStream<Bytes>, frame: Frame) -> Result<(), h2::Error> {
    match frame {
        Frame::Trailers(trailers) => stream.send_trailers(trailers),
        Frame::Data(_) | Frame::End => stream.send_data(Bytes::new(), true),
    }
}
