//! A request of the gateway's own to a cluster: for mirrors and authorization, later for others.
//!
//! [`Way`] is chosen while the configuration is at hand; [`send`] then needs nothing of it. What is
//! sent goes the same way as a client's request, with the same pool; the response is read up to a
//! limit, and every wait has one. Who calls decides what an answer means.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use dataplane_config::{ClusterConfig, ListenerConfig};
use dataplane_route::table::RouteKind;
use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::BackendMetrics;
use dataplane_upstream::{Ask, Cluster, Endpoint};

use crate::exchange::{Again, Channel, Failure, Head, Outgoing, Owner, Peer, Receiver, Sender};
use crate::h1::{Authority, BodyLength, Frame};
use crate::message::Response;
use crate::pipe::{Lost, Reader};
use crate::worker::Worker;

/// Further tries on another connection when the first cannot have reached anyone.
const AGAIN_MAX: usize = 2;

/// An endpoint and how to reach it.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    peer: Peer,
    endpoint: Arc<Endpoint>,
    metrics: Arc<BackendMetrics>,
    cluster: Arc<Cluster>,
}

impl Way {
    /// The endpoint of `cluster` whose turn it is.
    ///
    /// The error is the outcome of a request that cannot be sent.
    pub(crate) fn choose(
        cluster: &ClusterConfig,
        kind: RouteKind,
        listener: Option<&ListenerConfig>,
        worker: &Worker,
        now: std::time::Instant,
    ) -> Result<Self, Reason> {
        let endpoint = cluster
            .cluster
            .pick(&Ask::default(), now)
            .ok_or(Reason::NoEndpoint)?;
        let peer = Peer::new(&endpoint, cluster, kind, listener, None, &worker.settings)?;
        Ok(Self {
            peer,
            endpoint,
            metrics: Arc::clone(&cluster.metrics),
            cluster: Arc::clone(&cluster.cluster),
        })
    }
}

/// What is sent.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) method: Method,
    pub(crate) authority: Authority,
    pub(crate) target: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) takes_trailers: bool,
    /// Nothing is lost when it arrives twice.
    pub(crate) is_repeatable: bool,
}

/// Its body.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it.
    Whole(Bytes),
    /// A copy of one that is still coming in, framed like it.
    Copied(Reader, BodyLength),
    /// Pieces as they come, until there are no more.
    Pieces(mpsc::Receiver<Bytes>),
}

/// What is wanted of the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Longest wait for the other side to take or give anything.
    pub(crate) idle: Duration,
    /// What is read of the answer's body.
    pub(crate) body_bytes_max: usize,
    /// The body is kept, not only read.
    pub(crate) keeps_body: bool,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// False when the body is longer than what was read.
    pub(crate) is_whole: bool,
    pub(crate) trailers: Option<HeaderMap>,
}

/// A part of what comes back.
#[derive(Debug)]
pub(crate) enum Part {
    Head(StatusCode, HeaderMap),
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Why nothing came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The endpoint could not be reached, or answered nonsense.
    Failed(Reason),
    /// It took too long.
    Timeout,
    /// The body that was to be copied has no end.
    Lost(Lost),
}

/// Sends one request and reads its answer.
pub(crate) async fn send(
    worker: &Worker,
    way: &Way,
    message: &Message,
    mut body: Body,
    wanted: Wanted,
) -> Result<Answer, CallError> {
    let mut tries = 0;
    loop {
        let mut is_reused = false;
        let interims_max = worker.settings.interim_responses_max;
        let reading = async |receiver: &mut Receiver<'_>, waiting: &Waiting<'_>| {
            read(receiver, wanted, interims_max, waiting).await
        };
        let sending = (&mut body, wanted.idle);
        let outcome = once(worker, way, message, sending, reading, &mut is_reused).await;
        let failure = match outcome {
            Ok(answer) => return Ok(answer),
            Err(Fault::Call(error)) => return Err(error),
            Err(Fault::Upstream(failure)) => failure,
        };
        let may_again = match (failure.again, &body) {
            // What was read from a pipe cannot be read again.
            (_, Body::Copied(_, length)) if !length.is_empty() => false,
            (_, Body::Pieces(_)) => false,
            (Again::Safe | Again::Closing, _) => true,
            // The endpoint may have closed a kept connection just as it was used.
            (Again::Closed, _) => is_reused && message.is_repeatable,
            (Again::IfIdempotent | Again::Never, _) => false,
        };
        if !may_again || tries == AGAIN_MAX {
            return Err(CallError::Failed(failure.reason));
        }
        tries += 1;
    }
}

enum Fault {
    Call(CallError),
    Upstream(Failure),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Upstream(failure)
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// Sends a request whose body comes in pieces, and hands on what comes back as it does, too; neither is
/// ever tried again. The error is what became of a call that nobody answered.
pub(crate) async fn converse(
    worker: &Worker,
    way: &Way,
    message: &Message,
    pieces: mpsc::Receiver<Bytes>,
    idle: Duration,
    parts: &mpsc::Sender<Part>,
) -> Result<(), CallError> {
    let mut body = Body::Pieces(pieces);
    let interims_max = worker.settings.interim_responses_max;
    let reading = async |receiver: &mut Receiver<'_>, waiting: &Waiting<'_>| {
        hand_on(receiver, interims_max, waiting, parts).await
    };
    let outcome = once(worker, way, message, (&mut body, idle), reading, &mut false).await;
    match outcome {
        Ok(_) => Ok(()),
        Err(Fault::Call(error)) => Err(error),
        Err(Fault::Upstream(failure)) => Err(CallError::Failed(failure.reason)),
    }
}

async fn once(
    worker: &Worker,
    way: &Way,
    message: &Message,
    (body, idle): (&mut Body, Duration),
    reading: impl AsyncFnOnce(&mut Receiver<'_>, &Waiting<'_>) -> Result<Answer, Fault>,
    is_reused: &mut bool,
) -> Result<Answer, Fault> {
    let settings = &worker.settings;
    let owner = Owner {
        cluster: &way.cluster,
        metrics: &way.metrics,
        load: way.endpoint.load(),
    };
    let opening = Channel::open(&worker.pool, &way.peer, owner, settings);
    let mut channel = opening
        .await
        .inspect_err(|failure| way.metrics.connection_failed(failure.reason))?;
    *is_reused = channel.is_reused;
    let _active = way.endpoint.load().request_started();
    let outgoing = Outgoing {
        method: &message.method,
        authority: &message.authority,
        target: &message.target,
        headers: &message.headers,
        unrecorded: None,
        body: match body {
            Body::Whole(bytes) => BodyLength::Length(bytes.len() as u64),
            Body::Copied(_, length) => *length,
            Body::Pieces(_) => BodyLength::Chunked,
        },
        websocket: false,
        takes_trailers: message.takes_trailers,
    };
    let (sender, mut receiver) = channel.send(&outgoing, settings)?;
    let mut uploaded = None;
    let waiting = Waiting {
        metrics: &way.metrics,
        since: Cell::new(Instant::now()),
        has_head: Cell::new(false),
    };
    let answer = {
        let mut sending = pin!(upload(sender, body, idle));
        let mut reading = pin!(reading(&mut receiver, &waiting));
        // The answer is waited for from the end of the request on.
        let mut due = pin!(sleep(idle));
        poll_fn(|cx| {
            if uploaded.is_none()
                && let Poll::Ready(ended) = sending.as_mut().poll(cx)
            {
                uploaded = Some(ended?);
                waiting.since.set(Instant::now());
                due.as_mut().reset(waiting.since.get() + idle);
            }
            if let Poll::Ready(answer) = reading.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            let is_waiting = uploaded.is_some() && !waiting.has_head.get();
            match is_waiting && due.as_mut().poll(cx).is_ready() {
                true => Poll::Ready(Err(CallError::Timeout.into())),
                false => Poll::Pending,
            }
        })
        .await?
    };
    if uploaded == Some(Uploaded::Whole) && answer.is_whole && receiver.is_reusable() {
        let now = Instant::now().into_std();
        channel.keep(&worker.pool, &way.peer, owner, settings, now);
    }
    Ok(answer)
}

/// The wait for the head of an answer.
struct Waiting<'a> {
    metrics: &'a BackendMetrics,
    since: Cell<Instant>,
    has_head: Cell<bool>,
}

impl Waiting<'_> {
    fn ended(&self, status: StatusCode) {
        let waited = self.since.get().elapsed();
        self.metrics.answered(status.as_u16(), waited);
        self.has_head.set(true);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Uploaded {
    Whole,
    /// The endpoint took no more; its answer may still come.
    Refused,
}

async fn upload(
    mut sender: Sender<'_>,
    body: &mut Body,
    idle: Duration,
) -> Result<Uploaded, CallError> {
    let copied = match body {
        Body::Whole(bytes) => {
            let data = Frame::Data(bytes.clone());
            let sending = async {
                if !bytes.is_empty() {
                    sender.frame(data).await?;
                }
                sender.frame(Frame::End).await
            };
            return match timeout(idle, sending).await {
                Ok(Ok(())) => Ok(Uploaded::Whole),
                Ok(Err(_)) => Ok(Uploaded::Refused),
                Err(_) => Err(CallError::Timeout),
            };
        }
        Body::Copied(reader, _) => reader,
        Body::Pieces(pieces) => return upload_pieces(sender, pieces, idle).await,
    };
    loop {
        let frame = next(copied, &mut sender, idle).await?;
        let Some(frame) = frame else {
            return Ok(Uploaded::Refused);
        };
        let ends = matches!(frame, Frame::End);
        match timeout(idle, sender.frame(frame)).await {
            Ok(Ok(())) if ends => return Ok(Uploaded::Whole),
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(Uploaded::Refused),
            Err(_) => return Err(CallError::Timeout),
        }
    }
}

async fn upload_pieces(
    mut sender: Sender<'_>,
    pieces: &mut mpsc::Receiver<Bytes>,
    idle: Duration,
) -> Result<Uploaded, CallError> {
    loop {
        let piece = match pieces.try_recv() {
            Ok(piece) => Some(piece),
            Err(_) => {
                match timeout(idle, sender.flush()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(Uploaded::Refused),
                    Err(_) => return Err(CallError::Timeout),
                }
                pieces.recv().await
            }
        };
        let ends = piece.is_none();
        let frame = piece.map_or(Frame::End, Frame::Data);
        match timeout(idle, sender.frame(frame)).await {
            Ok(Ok(())) if ends => return Ok(Uploaded::Whole),
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ok(Uploaded::Refused),
            Err(_) => return Err(CallError::Timeout),
        }
    }
}

/// The next frame of the copy; what was gathered goes out before it is waited for. Nothing when
/// the endpoint takes no more.
async fn next(
    reader: &mut Reader,
    sender: &mut Sender<'_>,
    idle: Duration,
) -> Result<Option<Frame>, CallError> {
    let mut frame = pin!(reader.frame());
    if let Poll::Ready(frame) = futures_util::poll!(frame.as_mut()) {
        return frame.map(Some).map_err(CallError::Lost);
    }
    match timeout(idle, sender.flush()).await {
        Ok(Ok(())) => frame.await.map(Some).map_err(CallError::Lost),
        Ok(Err(_)) => Ok(None),
        Err(_) => Err(CallError::Timeout),
    }
}

/// The head that ends interim ones.
async fn head(
    receiver: &mut Receiver<'_>,
    interims_max: usize,
    waiting: &Waiting<'_>,
) -> Result<Response, Fault> {
    let mut interims = 0;
    loop {
        match receiver.head().await? {
            Head::Interim(..) if interims < interims_max => interims += 1,
            Head::Interim(..) | Head::Switched(_) => {
                return Err(CallError::Failed(Reason::UpstreamProtocol).into());
            }
            Head::Final(response) => {
                waiting.ended(response.status);
                return Ok(response);
            }
        }
    }
}

/// Hands on what comes, and waits for whoever takes it; the answer itself is empty.
async fn hand_on(
    receiver: &mut Receiver<'_>,
    interims_max: usize,
    waiting: &Waiting<'_>,
    parts: &mpsc::Sender<Part>,
) -> Result<Answer, Fault> {
    let response = head(receiver, interims_max, waiting).await?;
    let status = response.status;
    let mut next = Part::Head(status, response.headers);
    let is_whole = loop {
        if parts.send(next).await.is_err() {
            break false;
        }
        next = match receiver.frame().await? {
            Frame::Data(data) => Part::Data(data),
            Frame::Trailers(fields) => Part::Trailers(fields),
            Frame::End => break true,
        };
    };
    Ok(Answer {
        status,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        is_whole,
        trailers: None,
    })
}

async fn read(
    receiver: &mut Receiver<'_>,
    wanted: Wanted,
    interims_max: usize,
    waiting: &Waiting<'_>,
) -> Result<Answer, Fault> {
    let response = head(receiver, interims_max, waiting).await?;
    let mut body = BytesMut::new();
    let mut bytes = 0;
    let mut trailers = None;
    let is_whole = loop {
        let frame = timeout(wanted.idle, receiver.frame()).await;
        match frame.map_err(|_| CallError::Timeout)?? {
            Frame::Data(data) => {
                let room = wanted.body_bytes_max - bytes;
                let fits = data.len() <= room;
                let part = &data[..data.len().min(room)];
                bytes += part.len();
                if wanted.keeps_body {
                    body.extend_from_slice(part);
                }
                if !fits {
                    break false;
                }
            }
            Frame::Trailers(fields) => trailers = Some(fields),
            Frame::End => break true,
        }
    };
    Ok(Answer {
        status: response.status,
        headers: response.headers,
        body: body.freeze(),
        is_whole,
        trailers,
    })
}
