//! 1,000 edits of one route under traffic: its backend's port and its filters, back and forth.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use e2e::load::Load;
use serde_json::{Value, json};

use crate::objects;
use crate::report::Report;
use crate::stage::{Stage, as_figure};

const EDITS: usize = 1_000;
const PACE: Duration = Duration::from_millis(20);

pub(crate) async fn measure(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    let mut api = stage.proxy.connect().await?;
    api.create(&route(0)).await?;
    stage.served("route.example.com", "/").await?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, stage.port));
    let load = Load::start(address, "route.example.com", "/", 3, 1);
    let mut pace = tokio::time::interval(PACE);
    for number in 1..=EDITS {
        pace.tick().await;
        api.merge(&route(number)).await?;
        if number.is_multiple_of(200) {
            report.say(&format!("{number} edits, {} requests", load.answered()));
        }
    }
    // The last edit as well.
    load.advance(100).await;
    report.note("edits", as_figure(EDITS), "");
    report.note("requests meanwhile", as_figure(load.answered()), "");
    let failures = load.stop().await;
    for failure in &failures {
        report.say(failure);
    }
    report.goal("requests that failed", as_figure(failures.len()), "", 0.0);
    Ok(())
}

fn route(number: usize) -> Value {
    let is_odd = !number.is_multiple_of(2);
    let mut rules = objects::plain_rules("/", "backend", if is_odd { 80 } else { 8080 });
    if is_odd {
        rules[0]["backendRefs"][0]["filters"] = json!([{
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": { "add": [{ "name": "my-added-header", "value": "it" }] },
        }]);
    }
    objects::route("default", "edited", "route.example.com", rules)
}
