//! Requests that a plugin makes itself: what is sent, what comes back, and who carries it.
//!
//! The proxy implements [`Callout`]; whether a plugin may call a cluster at all was decided before it is
//! asked.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

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

/// Carries calls of plugins.
pub trait Callout {
    /// True when there is such a cluster.
    fn knows(&self, cluster: &str) -> bool;

    /// Sends a request; it ends by its timeout at the latest.
    fn call(&self, call: HttpCall) -> Calling;
}
