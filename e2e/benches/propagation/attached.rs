//! 1,000 routes attached to one Gateway and taken away again: what its status says, and how often.
//!
//! A watch of the Gateway counts its changes, as any controller would see them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::objects;
use crate::report::{Report, ms};
use crate::stage::{Stage, as_figure};

const ROUTES: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn measure(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    // The one route of the stage is attached as well.
    stage
        .counted(&["listeners", "0", "attachedRoutes"], 1)
        .await?;
    let watch = Watch::start(stage).await?;
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
    let counted = watch.until(ROUTES + 1).await?;
    report.note("all made by the API server", ms(made - begun), "ms");
    let up = counted.saturating_duration_since(made);
    report.goal("counted after the last was made", ms(up), "ms", 1000.0);

    let begun = Instant::now();
    stage
        .delete_all(&["HTTPRoute"], vec!["attached".to_owned()])
        .await?;
    let gone = Instant::now();
    let counted = watch.until(1).await?;
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

/// When which count was seen.
type Seen = Vec<(Instant, u64)>;

struct Watch {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Watch {
    async fn start(stage: &Stage) -> anyhow::Result<Self> {
        let mut api = stage.proxy.connect().await?;
        let gateway = stage.gateway(&mut api).await?;
        let version = gateway["metadata"]["resourceVersion"].as_str();
        let version = version.context("the Gateway has no version")?;
        let mut stream = TcpStream::connect(stage.proxy.address()).await?;
        // HTTP/1.0, so that events come as lines and nothing else.
        let request = format!(
            "GET /apis/gateway.networking.k8s.io/v1/namespaces/default/gateways?watch=1\
             &resourceVersion={version} HTTP/1.0\r\nhost: localhost\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let now = Instant::now();
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                let count = &event["object"]["status"]["listeners"][0]["attachedRoutes"];
                if let Some(count) = count.as_u64() {
                    let mut seen = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.push((now, count));
                }
            }
        });
        Ok(Self { seen, task })
    }

    fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// When the count was as expected for the first time since this was asked.
    async fn until(&self, expected: usize) -> anyhow::Result<Instant> {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some((at, count)) = self.seen().last().copied()
                && usize::try_from(count).ok() == Some(expected)
            {
                return Ok(at);
            }
            let last = self.seen().last().map(|(_, count)| *count);
            ensure!(Instant::now() < end, "{last:?} are counted, not {expected}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
