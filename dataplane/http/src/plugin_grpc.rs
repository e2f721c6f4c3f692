//! gRPC calls that plugins make: messages framed on the way out, taken apart on the way in.
//!
//! Called by `plugin_call`, which carries what plugins ask for. Whether a plugin may call a cluster was
//! decided before. Messages are not compressed, and an answer that is fails the call.

use std::pin::pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use dataplane_route::table::RouteKind;
use dataplane_wasm::callout::{Fields, GrpcCall, GrpcEnd, GrpcMessage, GrpcPart};

use crate::call::{self, CallError, Message, Part, Way};
use crate::h1::{Authority, strip_hop_by_hop};
use crate::worker::Worker;

/// Statuses of gRPC.
const UNKNOWN: u32 = 2;
const INVALID_ARGUMENT: u32 = 3;
const DEADLINE_EXCEEDED: u32 = 4;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
pub(crate) const UNAVAILABLE: u32 = 14;

/// The end of a call.
pub(crate) fn ended(status: u32, message: &str) -> GrpcEnd {
    GrpcEnd {
        status,
        message: message.to_owned(),
    }
}

/// Makes a call, within its time.
pub(crate) async fn run(
    worker: &Worker,
    call: GrpcCall,
    messages: mpsc::Receiver<GrpcMessage>,
    parts: mpsc::Sender<GrpcPart>,
) -> GrpcEnd {
    let limit = call.timeout;
    let running = converse(worker, call, messages, parts);
    match limit {
        None => running.await,
        Some(limit) => match timeout(limit, running).await {
            Ok(end) => end,
            Err(_) => ended(DEADLINE_EXCEEDED, "it took too long"),
        },
    }
}

async fn converse(
    worker: &Worker,
    call: GrpcCall,
    messages: mpsc::Receiver<GrpcMessage>,
    parts: mpsc::Sender<GrpcPart>,
) -> GrpcEnd {
    let Some(message) = message(&call) else {
        return ended(INVALID_ARGUMENT, "the call cannot be sent as it is");
    };
    let way = {
        let config = worker.config();
        let now = Instant::now().into_std();
        let cluster = config.clusters.get(&*call.cluster);
        cluster.and_then(|it| Way::choose(it, RouteKind::Grpc, None, worker, now).ok())
    };
    let Some(way) = way else {
        return ended(UNAVAILABLE, "there is no endpoint");
    };
    // One at a time: what waits is bounded where the plugin hands it over.
    let (out, pieces) = mpsc::channel(1);
    let (into, mut came) = mpsc::channel(1);
    let (way, message) = (&way, &message);
    let idle = worker.settings.plugin_call_idle;
    let mut calling = pin!(async move {
        // Dropped with the end, which `came` tells then.
        let into = into;
        call::converse(worker, way, message, pieces, idle, &into).await
    });
    let mut framing = pin!(frame_all(messages, out));
    let mut reader = Reader::new(parts, worker.settings.plugin_answer_bytes_max);
    let mut is_framing = true;
    let mut outcome = None;
    loop {
        tokio::select! {
            biased;
            part = came.recv() => match part {
                None => break,
                Some(part) => if let Err(end) = reader.take(part).await {
                    return end;
                },
            },
            result = &mut calling, if outcome.is_none() => outcome = Some(result),
            () = &mut framing, if is_framing => is_framing = false,
        }
    }
    match outcome {
        Some(Err(error)) => failed(error),
        _ => reader.end(),
    }
}

fn failed(error: CallError) -> GrpcEnd {
    match error {
        CallError::Timeout => ended(DEADLINE_EXCEEDED, "the endpoint does not answer"),
        CallError::Failed(reason) => ended(UNAVAILABLE, reason.as_str()),
        CallError::Lost(_) => ended(INTERNAL, "the messages broke off"),
    }
}

/// Header fields as guests read them.
pub(crate) fn fields(headers: &HeaderMap) -> Fields {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())
    };
    headers.iter().map(pair).collect()
}

/// Frames messages until there are no more of them.
async fn frame_all(mut messages: mpsc::Receiver<GrpcMessage>, out: mpsc::Sender<Bytes>) {
    while let Some(message) = messages.recv().await {
        let bytes = message.bytes();
        let Ok(length) = u32::try_from(bytes.len()) else {
            return;
        };
        let mut frame = BytesMut::with_capacity(5 + bytes.len());
        frame.put_u8(0);
        frame.put_u32(length);
        frame.put_slice(bytes);
        if out.send(frame.freeze()).await.is_err() {
            return;
        }
    }
}

/// Takes what comes apart.
struct Reader {
    parts: mpsc::Sender<GrpcPart>,
    /// The largest message.
    bytes_max: usize,
    /// The begin of a message.
    held: BytesMut,
    /// Where the status is: behind the messages, or in a head without any.
    last: Option<HeaderMap>,
}

impl Reader {
    fn new(parts: mpsc::Sender<GrpcPart>, bytes_max: usize) -> Self {
        Self {
            parts,
            bytes_max,
            held: BytesMut::new(),
            last: None,
        }
    }

    async fn take(&mut self, part: Part) -> Result<(), GrpcEnd> {
        match part {
            Part::Head(status, headers) => {
                if status != StatusCode::OK {
                    return Err(ended(of_http(status), &format!("HTTP status {status}")));
                }
                let told = fields(&headers);
                if headers.contains_key("grpc-status") {
                    self.last = Some(headers);
                }
                self.give(GrpcPart::Head(told)).await
            }
            Part::Data(data) => {
                self.held.extend_from_slice(&data);
                while let Some(message) = self.message()? {
                    self.give(GrpcPart::Message(message)).await?;
                }
                Ok(())
            }
            Part::Trailers(trailers) => {
                let told: Fields = fields(&trailers);
                self.last = Some(trailers);
                self.give(GrpcPart::Trailers(told)).await
            }
        }
    }

    async fn give(&self, part: GrpcPart) -> Result<(), GrpcEnd> {
        let given = self.parts.send(part).await;
        given.map_err(|_| ended(UNKNOWN, "nobody waits for it"))
    }

    /// The next whole message.
    fn message(&mut self) -> Result<Option<Bytes>, GrpcEnd> {
        let Some((prefix, _)) = self.held.split_at_checked(5) else {
            return Ok(None);
        };
        if prefix[0] != 0 {
            return Err(ended(UNIMPLEMENTED, "a message is compressed"));
        }
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.bytes_max {
            return Err(ended(RESOURCE_EXHAUSTED, "a message is too large"));
        }
        if self.held.len() < 5 + length {
            return Ok(None);
        }
        self.held.advance(5);
        Ok(Some(self.held.split_to(length).freeze()))
    }

    /// The status that was told.
    fn end(self) -> GrpcEnd {
        let Some(last) = self.last else {
            return ended(INTERNAL, "the call ended without a status");
        };
        let text = |name: &str| last.get(name).and_then(|it| it.to_str().ok());
        let status = text("grpc-status").and_then(|it| it.parse().ok());
        ended(
            status.unwrap_or(UNKNOWN),
            text("grpc-message").unwrap_or_default(),
        )
    }
}

/// What an answer that is none of gRPC stands for (gRPC, HTTP to gRPC status codes).
fn of_http(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => 16,
        403 => 7,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The head of the request; nothing when it cannot be sent as it is.
fn message(call: &GrpcCall) -> Option<Message> {
    let mut headers = HeaderMap::new();
    for (name, value) in &call.metadata {
        // What stands for the way of the call is not the plugin's to write.
        if name.first() == Some(&b':') || name.starts_with(b"grpc-") {
            continue;
        }
        let name = HeaderName::from_bytes(name).ok()?;
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    strip_hop_by_hop(&mut headers);
    for name in [header::HOST, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, grpc);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(limit) = call.timeout {
        let limit = HeaderValue::try_from(format!("{}m", limit.as_millis())).ok()?;
        headers.insert("grpc-timeout", limit);
    }
    let (_, authority) = call.cluster.split_once('/')?;
    Some(Message {
        method: Method::POST,
        authority: Authority::parse(Bytes::copy_from_slice(authority.as_bytes())).ok()?,
        target: PathAndQuery::try_from(call.path.as_str()).ok()?,
        headers,
        takes_trailers: true,
        is_repeatable: false,
    })
}
