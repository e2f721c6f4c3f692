//! 1,000 routes attached to one Gateway and taken away again: what its status says, and how often.
//!
//! A watch of the Gateway counts its changes, as any controller would see them.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;

use crate::objects;
use crate::report::{Report, ms};
use crate::stage::{Stage, as_figure};
use crate::watch::Watch;

const ROUTES: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn measure(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    // The one route of the stage is attached as well.
    stage
        .counted(&["listeners", "0", "attachedRoutes"], 1)
        .await?;
    let watch = counts(stage).await?;
    let routes = (0..ROUTES).map(|number| {
        let host = format!("attached-{number}.example.com");
        let rules = objects::plain_rules("/", "backend", 80);
        objects::route("attached", &format!("attached-{number}"), &host, rules)
    });
    stage
        .create_all(vec![objects::namespace("attached")])
        .await?;
    let begun = Instant::now();
    stage.create_all(routes.collect()).await?;
    let made = Instant::now();
    let counted = until(&watch, ROUTES + 1).await?;
    report.note("all made by the API server", ms(made - begun), "ms");
    let up = counted.saturating_duration_since(made);
    report.goal("counted after the last was made", ms(up), "ms", 1000.0);

    let begun = Instant::now();
    stage
        .delete_all(&["HTTPRoute"], vec!["attached".to_owned()])
        .await?;
    let gone = Instant::now();
    let counted = until(&watch, 1).await?;
    report.note("all deleted by the API server", ms(gone - begun), "ms");
    let down = counted.saturating_duration_since(gone);
    report.goal("counted after the last was deleted", ms(down), "ms", 1000.0);
    // A late write would be one too many.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = watch.seen();
    report.goal(
        "writes of the Gateway's status",
        as_figure(seen.len()),
        "",
        100.0,
    );
    let is_right = seen.last().is_some_and(|(_, count)| *count == 1);
    report.goal("last count wrong", f64::from(u8::from(!is_right)), "", 0.0);
    Ok(())
}

/// Counts of the Gateway's first listener, as they are written.
async fn counts(stage: &Stage) -> anyhow::Result<Watch<u64>> {
    let count =
        |event: &Value| event["object"]["status"]["listeners"][0]["attachedRoutes"].as_u64();
    Watch::start(stage, "gateways", count).await
}

/// When the count was as expected for the first time since this was asked.
async fn until(watch: &Watch<u64>, expected: usize) -> anyhow::Result<Instant> {
    let end = Instant::now() + LIMIT;
    loop {
        let last = watch.seen().last().copied();
        if let Some((at, count)) = last
            && usize::try_from(count).ok() == Some(expected)
        {
            return Ok(at);
        }
        ensure!(Instant::now() < end, "{last:?} are counted, not {expected}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
