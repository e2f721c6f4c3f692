//! What an open connection to an endpoint counts for.
//!
//! Made in `exchange/owner.rs` where a connection is dialled, and dropped with the connection: for
//! the cluster, whose limit holds in the whole process, for the endpoint, for the figures, and
//! against the share of descriptors that backends have.

use dataplane_resilience::admission::Permit;
use dataplane_telemetry::metrics::BackendConnection;
use dataplane_upstream::admission::ConnectionPlace;
use dataplane_upstream::endpoint::ConnectionToEndpoint;

/// What an open connection holds.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) place: ConnectionPlace,
    pub(crate) _permit: Permit,
    pub(crate) _counted: (BackendConnection, ConnectionToEndpoint),
}

impl Held {
    /// Whether somebody waits for a connection of the same cluster.
    pub(crate) fn is_wanted(&self) -> bool {
        self.place.is_wanted()
    }
}
