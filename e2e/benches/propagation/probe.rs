//! New routes, one after the other: how long until the first 200.
//!
//! As in gateway-api-bench the clock starts when the API server has taken the route, 404 means "not
//! yet", and any other answer is an error. It is asked again after a millisecond. Each route is asked
//! three more times afterwards, and must answer 200 each time.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::objects;
use crate::report::{Report, ms};
use crate::stage::{Stage, as_figure};
use crate::stages::{self, Made};

const PAUSE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);
const MORE: usize = 3;

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A status.
    Status(u16),
    /// No answer, or none that can be read.
    Nothing,
}

/// A client that keeps its connection, and costs next to nothing.
pub(crate) struct Client {
    port: u16,
    stream: Option<TcpStream>,
}

impl Client {
    /// A client of 127.0.0.1.
    pub(crate) fn new(port: u16) -> Self {
        Self { port, stream: None }
    }

    /// Asks once.
    pub(crate) async fn ask(&mut self, host: &str, path: &str) -> Answer {
        let asked = tokio::time::timeout(Duration::from_secs(5), self.try_ask(host, path)).await;
        match asked {
            Ok(Ok(status)) => Answer::Status(status),
            _ => {
                self.stream = None;
                Answer::Nothing
            }
        }
    }

    async fn try_ask(&mut self, host: &str, path: &str) -> io::Result<u16> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(512);
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = answer.windows(4).position(|it| it == b"\r\n\r\n");
            let Some(end) = end else { continue };
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let field = |name: &str| {
                let mut lines = head.lines();
                lines.find_map(|line| line.strip_prefix(name).map(str::trim).map(str::to_owned))
            };
            let length = field("content-length:").and_then(|length| length.parse().ok());
            let length: usize = length.ok_or_else(invalid)?;
            while answer.len() < end + 4 + length {
                if stream.read_buf(&mut answer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
            if field("connection:").as_deref() != Some("close") {
                self.stream = Some(stream);
            }
            return status.ok_or_else(invalid);
        }
    }
}

/// How long each new route took.
pub(crate) struct Propagation {
    /// From the API server's answer to the first 200.
    times: Vec<Duration>,
    /// What the API server itself took.
    writes: Vec<Duration>,
    /// The same, route by route.
    pub(crate) routes: Vec<Made>,
    errors: usize,
}

impl Propagation {
    /// Makes so many routes in turn.
    pub(crate) async fn measure(
        stage: &Stage,
        report: &Report,
        prefix: &str,
        count: usize,
    ) -> anyhow::Result<Self> {
        let mut api = stage.proxy.connect().await?;
        let mut client = Client::new(stage.port);
        let mut all = Self {
            times: Vec::with_capacity(count),
            writes: Vec::with_capacity(count),
            routes: Vec::with_capacity(count),
            errors: 0,
        };
        for number in 0..count {
            let host = format!("{prefix}-{number}.example.com");
            let name = format!("{prefix}-{number}");
            let rules = objects::measured_rules(number);
            let route = objects::route("default", &name, &host, rules);
            let path = format!("/{number}");
            let (before, stalled) = (Instant::now(), stages::stalled());
            api.create(&route).await?;
            let since = Instant::now();
            loop {
                match client.ask(&host, &path).await {
                    Answer::Status(200) => break,
                    Answer::Status(404) => {}
                    _ => all.errors += 1,
                }
                if since.elapsed() > PATIENCE {
                    bail!("route {number} is not served after {PATIENCE:?}");
                }
                tokio::time::sleep(PAUSE).await;
            }
            let served = Instant::now();
            all.times.push(served - since);
            all.writes.push(since - before);
            all.routes.push(Made {
                name,
                sent: before,
                answered: since,
                served,
                stalled: stages::stalled().saturating_sub(stalled),
            });
            for _ in 0..MORE {
                if client.ask(&host, &path).await != Answer::Status(200) {
                    all.errors += 1;
                }
            }
            if (number + 1).is_multiple_of(500) {
                let last = mean(&all.times[all.times.len().saturating_sub(100)..]);
                report.say(&format!(
                    "{} routes, the last 100 in {last:.1} ms",
                    number + 1
                ));
            }
        }
        ensure!(!all.times.is_empty(), "no route was made");
        Ok(all)
    }

    /// Adds its figures.
    pub(crate) fn tell(&self, report: &mut Report, mean_goal: f64) {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        let at = |share: usize| ms(sorted[(sorted.len() - 1) * share / 100]);
        report.goal(
            "new route to first 200, mean",
            mean(&self.times),
            "ms",
            mean_goal,
        );
        report.note("median", at(50), "ms");
        report.note("99 of 100", at(99), "ms");
        report.goal("longest", at(100), "ms", 75.0);
        report.goal("errors", as_figure(self.errors), "", 0.0);
        report.note(
            "write to the API server before that, mean",
            mean(&self.writes),
            "ms",
        );
        let hundred = 100.min(self.times.len());
        let first = mean(&self.times[..hundred]);
        let last = mean(&self.times[self.times.len() - hundred..]);
        report.note("mean of the first 100", first, "ms");
        report.note("mean of the last 100", last, "ms");
        report.goal("last 100 against first 100", last / first, "times", 1.5);
    }
}

fn mean(times: &[Duration]) -> f64 {
    ms(times.iter().sum::<Duration>()) / as_figure(times.len())
}
