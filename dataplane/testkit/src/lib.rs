//! Fakes for tests of the data plane: backends, clients, certificates, a control plane.
//!
//! Only ever a dev-dependency. Everything runs on loopback at ports the kernel chose, is bounded in
//! time and size, and stops when it is dropped. A fake that cannot start panics, because the test
//! that wanted it has failed; what a test judges comes back as a value.

pub mod control_plane;
pub mod collector;
pub mod backend;
pub mod stream_backend;
pub mod snapshot;
pub mod client;
pub mod certificate;
pub mod wait;
mod grpc_frame;
mod h2_stream;

pub use backend::Backend;
pub use collector::Collector;
pub use control_plane::ControlPlane;
pub use snapshot::SnapshotBuilder;
pub use stream_backend::StreamBackend;
pub use wait::{DEADLINE, eventually, until, within};
