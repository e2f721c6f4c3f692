//! What the tests with a Gateway of their own begin with: one listener, one route, one backend.

use std::net::SocketAddr;
use std::time::Duration;

use dataplane_testkit::client::http1;
use dataplane_testkit::until;
use e2e::{Scenario, manifest};

/// How long an edit may take to reach traffic, on a busy machine.
pub(crate) const EDIT_LIMIT: Duration = Duration::from_secs(20);

/// The controller whose classes `serve` takes by default.
pub(crate) const CONTROLLER: &str = "gateway.networking.k8s.io/nantian-gw";

/// A folder with a Gateway `default/web` at `port`, backends `default/one` and `default/two`, and a
/// route for everything to the first.
pub(crate) async fn small_gateway(port: u16) -> Scenario {
    let mut it = Scenario::new().unwrap();
    it.backend("default/one", 80).await.unwrap();
    it.backend("default/two", 80).await.unwrap();
    let class = manifest::gateway_class("nantian-gw", CONTROLLER);
    let gateway = manifest::http_gateway("default/web", &[("http", port)]);
    it.add("gateway.yaml", [class, gateway]).unwrap();
    send_to(&it, "one");
    it
}

/// Sends everything to the Service `default/<service>` from now on.
pub(crate) fn send_to(it: &Scenario, service: &str) {
    let backend = format!("{service}:80");
    let route = manifest::route_to("default/all", "default/web", &[], &backend);
    it.add("route.yaml", [route]).unwrap();
}

/// Waits until the backend `default/<service>` answers.
pub(crate) async fn answers(address: SocketAddr, service: &str) {
    let expected = format!("default/{service}");
    until(EDIT_LIMIT, || async {
        let answer = http1::get(address, "any.test", "/").await;
        answer.is_ok_and(|answer| answer.header("x-backend") == expected)
    })
    .await;
}
