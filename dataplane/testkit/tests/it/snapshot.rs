//! What the builder makes is valid and survives the wire.

use dataplane_testkit::SnapshotBuilder;
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::snapshot::free_port;

#[test]
fn a_built_snapshot_is_valid_and_survives_the_wire() {
    let endpoints = ["127.0.0.1:81".parse().unwrap(), "[::1]:82".parse().unwrap()];
    let identity = Authority::new("test").server(&["shop.test"]);
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("edge/gw/http", free_port())
        .https_listener("edge/gw/https", free_port(), &["*.test"], &["edge/shop"])
        .certificate("edge/shop", &identity)
        .route("shop/cart", "shop.test", "/cart", "shop/cart:80")
        .route("shop/all", "", "/", "shop/cart:80")
        .grpc("shop/pay", "shop.test", "shop.Pay", "shop/pay:90")
        .cluster("shop/cart:80", &endpoints)
        .h2c_cluster("shop/pay:90", &endpoints[..1])
        .build();
    assert_eq!(
        snapshot
            .http_routes
            .get("shop/cart")
            .unwrap()
            .listeners
            .len(),
        2
    );
    let decoded = ir::decode::snapshot(ir::encode::snapshot(&snapshot)).unwrap();
    assert_eq!(decoded, snapshot);
}
