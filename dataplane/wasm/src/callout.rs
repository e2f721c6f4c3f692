//! Requests and gRPC calls that a plugin makes itself: what is sent, what comes back, and who carries it.
//!
//! The proxy implements [`Callout`]; whether a plugin may call a cluster at all was decided before it is
//! asked.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Fields in their order; names such as `:path` are among them.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// One HTTP request to a cluster.
#[derive(Clone, Debug)]
pub struct HttpCall {
    /// The cluster's key.
    pub cluster: String,
    /// Its head: `:method`, `:path` and `:authority` are there.
    pub head: Fields,
    /// Its body.
    pub body: Bytes,
    /// How long the whole of it may take.
    pub timeout: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct HttpAnswer {
    /// The head; `:status` is there.
    pub head: Fields,
    /// The body.
    pub body: Bytes,
    /// The trailers.
    pub trailers: Fields,
}

/// The end of a call: an answer, or none in time.
pub type Calling = Pin<Box<dyn Future<Output = Option<HttpAnswer>>>>;

/// One gRPC call to a cluster; a unary one is a stream of one message.
#[derive(Clone, Debug)]
pub struct GrpcCall {
    /// The cluster's key.
    pub cluster: String,
    /// `/package.Service/Method`.
    pub path: String,
    /// Fields of its head.
    pub metadata: Fields,
    /// How long the whole of it may take; nothing for a stream without end.
    pub timeout: Option<Duration>,
}

/// A message on its way out; it takes room until it was sent.
#[derive(Debug)]
pub struct GrpcMessage {
    bytes: Bytes,
    /// Bytes that wait, of all calls of an instance.
    waiting: Rc<Cell<usize>>,
}

impl GrpcMessage {
    /// A message; nothing when more than `bytes_max` would wait.
    pub(crate) fn new(bytes: &[u8], waiting: &Rc<Cell<usize>>, bytes_max: usize) -> Option<Self> {
        let total = waiting.get().saturating_add(bytes.len());
        if total > bytes_max {
            return None;
        }
        waiting.set(total);
        Some(Self {
            bytes: Bytes::copy_from_slice(bytes),
            waiting: waiting.clone(),
        })
    }

    /// The message.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Drop for GrpcMessage {
    fn drop(&mut self) {
        let rest = self.waiting.get().saturating_sub(self.bytes.len());
        self.waiting.set(rest);
    }
}

/// A part of what comes back.
#[derive(Clone, Debug)]
pub enum GrpcPart {
    /// The fields of the head.
    Head(Fields),
    /// A message.
    Message(Bytes),
    /// The fields behind the last message.
    Trailers(Fields),
}

/// How a gRPC call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcEnd {
    /// The status of gRPC; 0 when all is well.
    pub status: u32,
    /// What is said of it.
    pub message: String,
}

/// A gRPC call that runs.
pub type GrpcRunning = Pin<Box<dyn Future<Output = GrpcEnd>>>;

/// Carries calls of plugins.
pub trait Callout {
    /// True when there is such a cluster.
    fn knows(&self, cluster: &str) -> bool;

    /// Sends a request; it ends by its timeout at the latest.
    fn call(&self, call: HttpCall) -> Calling;

    /// Makes a gRPC call: sends what comes out of `messages` until that ends, and hands what comes back to
    /// `parts`. It ends when nobody waits for it any more, too.
    fn grpc(
        &self,
        call: GrpcCall,
        messages: mpsc::Receiver<GrpcMessage>,
        parts: mpsc::Sender<GrpcPart>,
    ) -> GrpcRunning;
}
