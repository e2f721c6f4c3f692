//! Where the time of new routes goes: API server, shim, stream and data plane, one after the other.
//!
//! A watch of our own says when the API server told of a route, and the logs of the processes when
//! it was published and when it was applied. Routes must be made in turn, with nothing beside them.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant, SystemTime};

use crate::report::{Report, ms};
use crate::stage::{Stage, as_figure};
use crate::watch::Watch;

const NAMES: [&str; 4] = [
    "API server: answer to event",
    "shim: event to snapshot",
    "stream, data plane: snapshot to applied",
    "data plane: applied to first 200",
];
const DAY: f64 = 86_400.0;
/// How many of the slowest are told one by one.
const SLOWEST: usize = 8;

/// One route.
pub(crate) struct Made {
    pub(crate) name: String,
    /// It is about to be sent to the API server.
    pub(crate) sent: Instant,
    /// The API server has it.
    pub(crate) answered: Instant,
    /// The gateway answers with 200.
    pub(crate) served: Instant,
    /// How long somebody on this machine waited for a CPU meanwhile.
    pub(crate) stalled: Duration,
}

/// For how long until now somebody on this machine had to wait for a CPU; nothing where the kernel
/// does not tell.
pub(crate) fn stalled() -> Duration {
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("some"));
    let total = line.and_then(|line| line.rsplit_once("total="));
    let micros = total.and_then(|(_, micros)| micros.parse().ok());
    Duration::from_micros(micros.unwrap_or_default())
}

/// The watch that says when the API server told of routes.
pub(crate) struct Stages(Watch<String>);

impl Stages {
    /// From now on.
    pub(crate) async fn start(stage: &Stage) -> anyhow::Result<Self> {
        let added = |event: &serde_json::Value| {
            let name = event["object"]["metadata"]["name"].as_str()?;
            (event["type"] == "ADDED").then(|| name.to_owned())
        };
        Ok(Self(Watch::start(stage, "httproutes", added).await?))
    }

    /// Adds how long each stage took, and shows the slowest routes.
    pub(crate) fn tell(&self, stage: &Stage, report: &mut Report, routes: &[Made]) {
        let told: HashMap<String, Instant> = self
            .0
            .seen()
            .into_iter()
            .map(|(at, name)| (name, at))
            .collect();
        let published = said(&stage.shim.process.said(), "snapshot published");
        let applied = said(&stage.data_plane.process.said(), "configuration applied");
        let mut rows: Vec<(f64, [f64; 4], &Made)> = Vec::new();
        for route in routes {
            let after = |times: &[Instant]| {
                let index = times.partition_point(|at| *at < route.sent);
                times.get(index).copied()
            };
            let ends = [
                told.get(&route.name).copied(),
                after(&published),
                after(&applied),
                Some(route.served),
            ];
            let mut since = route.answered;
            let stages = ends.map(|end| {
                // One stage may be seen later than the next one, and the last ends them all.
                let end = end.unwrap_or(since).min(route.served).max(since);
                let took = ms(end - since);
                since = end;
                took
            });
            rows.push((ms(route.served - route.answered), stages, route));
        }
        for (index, name) in NAMES.iter().enumerate() {
            let all = || rows.iter().map(|(_, stages, _)| stages[index]);
            let mean = all().sum::<f64>() / as_figure(rows.len());
            report.note(&format!("{name}, mean"), mean, "ms");
            report.note(&format!("{name}, longest"), all().fold(0.0, f64::max), "ms");
        }
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (total, stages, route) in rows.iter().take(SLOWEST) {
            let [server, shim, stream, plane] = stages;
            report.say(&format!(
                "{}: {total:.0} ms = {server:.1} + {shim:.1} + {stream:.1} + {plane:.1}; write \
                 {:.0} ms; CPU awaited by somebody {:.0} ms",
                route.name,
                ms(route.answered - route.sent),
                ms(route.stalled),
            ));
        }
    }
}

/// When a process wrote lines with that text.
fn said(log: &str, what: &str) -> Vec<Instant> {
    let (now, clock) = (Instant::now(), SystemTime::now());
    let today = clock
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let today = today.as_secs_f64() % DAY;
    let lines = log.lines().filter(|line| line.contains(what));
    let times = lines.filter_map(|line| {
        // 2026-01-31T10:20:30.123456Z
        let (_, rest) = line.split_once('T')?;
        let (time, _) = rest.split_once('Z')?;
        let mut fields = time.split(':').map(str::parse::<f64>);
        let mut next = || fields.next()?.ok();
        let seconds = next()? * 3600.0 + next()? * 60.0 + next()?;
        let ago = (today - seconds).rem_euclid(DAY);
        now.checked_sub(Duration::from_secs_f64(ago))
    });
    let mut times: Vec<Instant> = times.collect();
    times.sort_unstable();
    times
}
