//! What is promised when something fails that is not the gateway's own: the configuration comes too
//! fast or broken, the process stands still, the clock jumps, the network swallows packets, nobody
//! reads the log, memory is short. `docs/testing.md` says which test holds which promise.

use std::net::SocketAddr;

use dataplane_testkit::SnapshotBuilder;
use ir::Snapshot;

mod updates;
mod process;
mod network;
mod memory;

/// One plain listener whose every request goes to a cluster of these endpoints.
fn to(version: &str, port: u16, endpoints: &[SocketAddr]) -> Snapshot {
    SnapshotBuilder::new(version)
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", endpoints)
        .build()
}
