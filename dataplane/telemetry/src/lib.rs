//! What the data plane tells about itself: outcomes, metrics, the access log and its own log.
//!
//! Everything on the request path here is a few atomic additions or bytes appended to a buffer of
//! the calling thread; nothing waits on a reader, a disk or a lock that another request holds for
//! long. The crate knows nothing of configuration: names of listeners and routes are handed in.

pub mod trace;
pub mod access_log;
pub mod otlp;
pub mod log;
pub mod metrics;
pub mod trace_context;
mod queue;
mod grpc_status;
pub mod reason;

pub use grpc_status::GrpcStatus;
pub use reason::{Reason, Side};
