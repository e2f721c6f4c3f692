//! The two bodies of an attempt: the question out, and the answer in, as far as it is gathered.
//!
//! Called by `exchange`. Nothing here knows what the bytes say.

use bytes::{Bytes, BytesMut};

use dataplane_telemetry::Reason;

use crate::downstream::{ClientError, Responder};
use crate::exchange::{self, Head, Receiver, Sender};
use crate::h1::Frame;
use crate::message::Response;

use super::super::super::attempt::{Fault, Uploaded, unless_gone};

/// The body of the request.
pub(super) async fn upload(
    mut sender: Sender<'_>,
    body: Vec<Bytes>,
) -> Result<Uploaded, ClientError> {
    for piece in body {
        if sender.frame(Frame::Data(piece)).await.is_err() {
            return Ok(Uploaded::Refused);
        }
    }
    match sender.frame(Frame::End).await {
        Ok(()) => Ok(Uploaded::Whole),
        Err(_) => Ok(Uploaded::Refused),
    }
}

/// The head of the answer.
pub(super) async fn head(
    receiver: &mut Receiver<'_>,
    responder: &mut Responder<'_>,
    interims_max: usize,
) -> Result<Response, Fault> {
    let protocol = exchange::Failure {
        reason: Reason::UpstreamProtocol,
        again: exchange::Again::Never,
    };
    let mut interims = 0;
    loop {
        match unless_gone(responder, |cx| receiver.poll_head(cx)).await? {
            Head::Interim(..) if interims < interims_max => interims += 1,
            Head::Interim(..) | Head::Switched(_) => return Err(protocol.into()),
            Head::Final(response) => return Ok(response),
        }
    }
}

/// All of a body; absent when it is too large.
pub(super) async fn whole(
    receiver: &mut Receiver<'_>,
    responder: &mut Responder<'_>,
    bytes_max: usize,
) -> Result<Option<Bytes>, Fault> {
    let mut first = Bytes::new();
    let mut body = BytesMut::new();
    loop {
        match unless_gone(responder, |cx| receiver.poll_frame(cx)).await? {
            Frame::Data(data) if first.len() + body.len() + data.len() > bytes_max => {
                return Ok(None);
            }
            Frame::Data(data) if first.is_empty() && body.is_empty() => first = data,
            Frame::Data(data) => {
                body.extend_from_slice(&std::mem::take(&mut first));
                body.extend_from_slice(&data);
            }
            Frame::Trailers(_) => {}
            Frame::End if body.is_empty() => return Ok(Some(first)),
            Frame::End => return Ok(Some(body.freeze())),
        }
    }
}
