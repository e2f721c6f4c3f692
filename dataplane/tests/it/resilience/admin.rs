//! What the admin API says about breakers, limits and endpoints.

use std::net::SocketAddr;
use std::time::Duration;

use dataplane_testkit::backend::{Kind, Script};
use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::rate_limit;
use dataplane_testkit::{Backend, wait};
use ir::backend_policy::BackendPolicy;
use ir::policy::{RoutePolicy, SecurityPolicy};
use serde_json::Value;

use super::{Case, breaking, ejecting};
use crate::support::{Gateway, at};

#[tokio::test]
async fn breakers_limits_and_endpoints_say_what_they_do_and_why() {
    let answer = "HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n";
    let bad = Backend::start("bad", Kind::Scripted(Script::answer(answer))).await;
    let good = Backend::http1("good").await;
    let policy = BackendPolicy {
        breaker: Some(breaking(9, 2, 60_000)),
        max_connections: Some(7),
        ..ejecting(2)
    };
    let mut case = Case::new(&[bad.address(), good.address()], policy);
    case.route.policy = Some(
        RoutePolicy {
            breaker: Some(breaking(1, 1, 60_000)),
            ..RoutePolicy::default()
        }
        .into(),
    );
    case.route.security_policy = Some(
        SecurityPolicy {
            rate_limits: vec![rate_limit("all", 10, Duration::from_secs(3600))],
            ..SecurityPolicy::default()
        }
        .into(),
    );
    let admin = dataplane_testkit::snapshot::free_port();
    let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
        bootstrap.admin.address = at(admin);
    })
    .await;
    let show = async |path: &str| -> Value {
        let answer = http1::get(at(admin), "x", path).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
        serde_json::from_slice(&answer.body).unwrap()
    };
    // The route's breaker opens with the first failure, wherever it comes.
    while case.get("/").await.status == 200 {}
    // The last answer may be here before its request is over there.
    let over = || async { show("/v1/circuit-breakers").await[0]["requests_active"] == 0 };
    wait::until(wait::DEADLINE, over).await;
    let breakers = show("/v1/circuit-breakers").await;
    let row = &breakers[0];
    assert_eq!(row["backend"], "shop/b:80");
    assert_eq!(row["max_connections"], 7);
    assert_eq!(row["breaker"]["state"], "closed");
    assert_eq!(row["breaker"]["failure_threshold"], 9);
    assert_eq!(row["routes"][0]["route"], "shop/r");
    assert_eq!(row["routes"][0]["state"], "open");
    assert!(row["routes"][0]["open_for_ms"].as_u64().unwrap() > 50_000);

    let limits = show("/v1/rate-limits?namespace=shop").await;
    assert_eq!(limits[0]["object"], "shop/r");
    assert_eq!(limits[0]["name"], "all");
    assert_eq!(limits[0]["burst"], 10);
    assert!(limits[0]["available_tokens"].as_u64().unwrap() < 10);
    assert_eq!(
        show("/v1/rate-limits?namespace=other").await,
        Value::Array(vec![])
    );

    let endpoints = show("/v1/endpoints").await;
    assert_eq!(of(&endpoints, good.address())["state"], "well");
    assert_eq!(of(&endpoints, bad.address())["failures_in_a_row"], 1);

    // Without the route's breaker the endpoint fails again, and is left out.
    case.route.policy = None;
    gateway.apply(&case.snapshot("v2")).await;
    case.statuses("/", 6).await;
    let endpoints = show("/v1/endpoints").await;
    let row = of(&endpoints, bad.address());
    assert_eq!(
        (&row["state"], &row["why"]),
        (&"ejected".into(), &"it keeps failing".into())
    );
    assert!(row["ejected_for_ms"].as_u64().unwrap() > 50_000);
    assert_eq!(
        show("/v1/circuit-breakers").await[0]["endpoints_ejected"],
        1
    );
}

fn of(endpoints: &Value, address: SocketAddr) -> &Value {
    let mut rows = endpoints.as_array().unwrap().iter();
    rows.find(|row| row["address"] == address.to_string())
        .unwrap()
}
