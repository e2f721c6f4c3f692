//! Faults that a second reader looked for: each test is a way in which a proxy loses, doubles, mixes
//! up or holds on to something.
//!
//! [`client`] has the rude clients, [`origin`] the rude origins, [`duration`] what must not last,
//! [`control`] configuration and drain under traffic, [`upstream_http2`] HTTP/2 towards origins,
//! [`versions`] what the versions of HTTP say differently, [`endings`] how connections end. HTTP/2 that
//! no library would send is written by hand with [`frames`].

use std::net::SocketAddr;

use dataplane_testkit::SnapshotBuilder;

mod amplification;
mod client;
mod origin;
mod versions;
mod endings;
mod duration;
mod control;
mod flood;
mod upstream_http2;
pub(crate) mod frames;

/// One plain listener whose every request goes to an HTTP/1.1 cluster of these endpoints.
fn to(port: u16, endpoints: &[SocketAddr]) -> ir::Snapshot {
    SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", endpoints)
        .build()
}

/// As [`to`], with endpoints that speak HTTP/2.
fn to_http2(port: u16, endpoints: &[SocketAddr]) -> ir::Snapshot {
    SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/", "shop/b:80")
        .h2c_cluster("shop/b:80", endpoints)
        .build()
}

/// One plain listener without a route: every answer is the gateway's own.
fn nowhere(port: u16) -> ir::Snapshot {
    SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .build()
}
