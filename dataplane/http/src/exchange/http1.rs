//! An attempt over HTTP/1.1.

use std::borrow::Cow;
use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, header};

use dataplane_telemetry::trace_context::Unrecorded;

use super::{NotTaken, Outgoing, Receiver};
use crate::h1::{self, BodyDecoder, BodyEncoder, BodyLength, Frame};
use crate::held::Held;
use crate::io::Duplex;
use crate::message::decimal;
use crate::outbox::Outbox;
use crate::pool::Kept;
use crate::settings::Settings;

pub(super) struct Http1 {
    pub(super) io: Duplex,
    pub(super) buf: BytesMut,
    pub(super) held: Held,
    /// Requests before this one.
    pub(super) served: u32,
}

impl Http1 {
    pub(super) fn new(kept: Kept) -> Self {
        Self {
            io: kept.io,
            buf: BytesMut::new(),
            held: kept.held,
            served: kept.served,
        }
    }

    pub(super) fn send<'a>(
        &'a mut self,
        request: &Outgoing<'_>,
        settings: &'a Settings,
    ) -> (super::Sender<'a>, Receiver<'a>) {
        let mut out = Outbox::default();
        let headers = hop_by_hop_of(request);
        let length = match request.body {
            // Nothing but trailers can follow, and mostly nothing does: no reason for chunks.
            BodyLength::Chunked if says_zero(request.headers) => BodyLength::Length(0),
            length => length,
        };
        let line = request.unrecorded.map(Unrecorded::line);
        h1::encode_request_head(
            &mut out.gathered,
            request.method,
            request.target,
            &request.authority.to_header_value(),
            &headers,
            line.as_ref().map_or(&[], |line| line),
            length,
        );
        let sender = super::Sender::Http1(Sender {
            io: &self.io,
            out,
            encoder: BodyEncoder::new(length),
        });
        let receiver = Receiver::Http1 {
            io: &self.io,
            buf: &mut self.buf,
            decoder: BodyDecoder::new(BodyLength::None, &settings.response_head),
            method: request.method.clone(),
            limits: &settings.response_head,
            buffer_bytes: settings.buffer_bytes,
            scan: 0,
            keep_alive: false,
        };
        (sender, receiver)
    }
}

/// The body of a request on its way out.
pub(crate) struct Sender<'a> {
    io: &'a Duplex,
    out: Outbox,
    encoder: BodyEncoder,
}

impl Sender<'_> {
    pub(super) fn put(&mut self, frame: Frame) -> Result<(), NotTaken> {
        Ok(self.out.put(&mut self.encoder, frame)?)
    }

    pub(super) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_taken(self.io, cx)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_flush(self.io, cx)
    }
}

fn says_zero(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    length.is_some_and(|length| decimal(length.as_bytes()) == Some(0))
}

/// The header fields with those that concern this connection alone.
fn hop_by_hop_of<'a>(request: &'a Outgoing<'_>) -> Cow<'a, HeaderMap> {
    let mut headers = Cow::Borrowed(request.headers);
    if request.websocket {
        let headers = headers.to_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    } else if request.takes_trailers {
        let headers = headers.to_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers
}
