//! gRPC with opaque messages over an HTTP/2 client.
//!
//! [`unary`] for one message each way, [`GrpcCall`] for streams. No protobuf, no compression: the
//! bytes given are the bytes sent.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};

use super::http2::{Http2Client, Http2Exchange};
use super::{ClientError, text};
use crate::grpc_frame::{Deframer, frame};

/// How a call ended.
#[derive(Clone, Debug)]
pub struct GrpcReply {
    /// The HTTP status; 200 in all well-formed replies.
    pub http_status: StatusCode,
    /// `grpc-status`; absent when the peer sent none.
    pub status: Option<i32>,
    /// `grpc-message`, as sent.
    pub message: String,
    /// The messages, in order.
    pub messages: Vec<Bytes>,
    /// Metadata before the messages.
    pub headers: HeaderMap,
    /// Metadata after them.
    pub trailers: HeaderMap,
}

/// Calls `path` (`/package.Service/Method`) with one message and reads the whole reply.
pub async fn unary(
    client: &Http2Client,
    authority: &str,
    path: &str,
    metadata: &[(&str, &str)],
    message: &[u8],
) -> Result<GrpcReply, ClientError> {
    let mut call = GrpcCall::open(client, authority, path, metadata).await?;
    // A refusal may come before the message is through; the reply tells.
    if call.send(message).await.is_ok() {
        let _ = call.finish();
    }
    call.reply().await
}

/// A call in progress.
pub struct GrpcCall {
    exchange: Http2Exchange,
    frames: Deframer,
    head: Option<(StatusCode, HeaderMap)>,
}

impl GrpcCall {
    /// Starts a call of `path` (`/package.Service/Method`).
    pub async fn open(
        client: &Http2Client,
        authority: &str,
        path: &str,
        metadata: &[(&str, &str)],
    ) -> Result<Self, ClientError> {
        let mut request = Request::post(format!("http://{authority}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let request = request
            .body(())
            .map_err(|error| ClientError::Malformed(error.to_string()))?;
        Ok(Self {
            exchange: client.open(request).await?,
            frames: Deframer::default(),
            head: None,
        })
    }

    /// Sends one message.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), ClientError> {
        self.exchange.send(frame(message)).await
    }

    /// Says that no message follows.
    pub fn finish(&mut self) -> Result<(), ClientError> {
        self.exchange.finish()
    }

    /// The next message; nothing after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.head.is_none() {
            let head = self.exchange.head().await?;
            self.head = Some((head.status, head.headers));
        }
        loop {
            if let Some(message) = self.frames.next().map_err(ClientError::Malformed)? {
                return Ok(Some(message));
            }
            match self.exchange.next().await? {
                Some(data) => self.frames.push(&data),
                None if self.frames.is_empty() => return Ok(None),
                None => return Err(ClientError::Malformed("half a message".to_owned())),
            }
        }
    }

    /// Reads what is left and how it ended.
    pub async fn reply(mut self) -> Result<GrpcReply, ClientError> {
        let mut messages = Vec::new();
        while let Some(message) = self.next().await? {
            messages.push(message);
        }
        let trailers = self.exchange.trailers().await?;
        let (http_status, headers) = self.head.unwrap_or_default();
        // A reply without messages may carry its status in the only head it has.
        let ends = if trailers.contains_key("grpc-status") {
            &trailers
        } else {
            &headers
        };
        Ok(GrpcReply {
            http_status,
            status: text(ends, "grpc-status").parse().ok(),
            message: text(ends, "grpc-message").to_owned(),
            messages,
            headers,
            trailers,
        })
    }
}
