//! `/v1/trace`: requests as they end, step by step, for a bounded time and number.
//!
//! The answer is one JSON document whose parts go out as requests end, so that a reader may show them
//! at once. What is shown of a request, and what never is, is decided where it is noted, in
//! `dataplane-telemetry`. `nantian-dataplane trace` asks with the same [`Watched`].

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use dataplane_telemetry::trace::{Wanted, Watching};

use super::Context;
use super::answer::{Answer, JSON};
use super::endpoint::Request;
use super::head::Head;
use super::query::{Query, encode};

/// Requests that are shown unless somebody says how many, and the most.
const COUNT: usize = 20;
const COUNT_MAX: usize = 1000;
/// Seconds that are watched unless somebody says how long, and the most.
const SECONDS: u64 = 10;
const SECONDS_MAX: u64 = 30;
/// Parts of the answer that may wait for the client.
const PARTS_WAITING: usize = 4;

/// Which requests somebody wants to see, and for how long.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Only requests with this method.
    #[arg(long)]
    pub method: Option<String>,
    /// Only requests whose path begins so.
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Only requests of this route, as namespace/name; `none` for those that no route takes.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub route: Option<String>,
    /// Only requests answered so, as in 503, or 5 for all from 500 to 599.
    #[arg(long, value_name = "DIGITS")]
    pub status: Option<String>,
    /// End after so many seconds, 1 to 30.
    #[arg(long, default_value_t = SECONDS)]
    pub seconds: u64,
    /// End after so many requests, 1 to 1000.
    #[arg(long, default_value_t = COUNT)]
    pub count: usize,
    /// Host, header fields and client.
    #[command(flatten)]
    pub head: Head,
}

impl Watched {
    fn of_query(query: &Query) -> Result<Self, String> {
        let mut watched = Self::default();
        for (name, value) in query.pairs() {
            if watched.head.take(name, value)? {
                continue;
            }
            let text = || Some(value.to_owned());
            let number = || {
                let number = value.parse::<u64>();
                number.map_err(|_| format!("{name} must be a whole number, not {value:?}"))
            };
            match name {
                "method" => watched.method = text(),
                "path" => watched.path = text(),
                "route" => watched.route = text(),
                "status" => watched.status = text(),
                "seconds" => watched.seconds = number()?,
                "count" => watched.count = usize::try_from(number()?).unwrap_or(usize::MAX),
                _ => {
                    return Err(format!(
                        "there is no parameter {name:?}; there are method, host, path, header, \
                         client, route, status, seconds and count"
                    ));
                }
            }
        }
        watched.checked()
    }

    fn checked(self) -> Result<Self, String> {
        let Self { seconds, count, .. } = self;
        if !(1..=SECONDS_MAX).contains(&seconds) {
            return Err(format!(
                "seconds must be from 1 to {SECONDS_MAX}, not {seconds}"
            ));
        }
        if !(1..=COUNT_MAX).contains(&count) {
            return Err(format!("count must be from 1 to {COUNT_MAX}, not {count}"));
        }
        Ok(self)
    }

    /// The query that says the same.
    pub(crate) fn to_query(&self) -> String {
        let mut query = format!("seconds={}&count={}", self.seconds, self.count);
        let texts = [
            ("method", &self.method),
            ("path", &self.path),
            ("route", &self.route),
            ("status", &self.status),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.as_ref()?)));
        for (name, value) in texts {
            // Writing to a text cannot fail.
            let _ = write!(query, "&{name}={}", encode(value));
        }
        self.head.add_to(&mut query);
        query
    }

    /// How long is watched.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn wanted(self) -> Wanted {
        let headers = self.head.headers.iter().map(|field| {
            let (name, value) = field.split_once([':', '=']).unwrap_or((field, ""));
            (name.trim().to_ascii_lowercase(), value.trim().to_owned())
        });
        Wanted {
            headers: headers.collect(),
            method: self.method,
            host: self.head.host,
            path: self.path,
            client: self.head.client,
            route: self.route,
            status: self.status,
        }
    }
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            method: None,
            path: None,
            route: None,
            status: None,
            seconds: SECONDS,
            count: COUNT,
            head: Head::default(),
        }
    }
}

/// Answers, as long as it is watched.
pub(super) fn watch(context: &Context, request: &Request<'_>) -> Answer {
    let watched = match Watched::of_query(&Query::of(request.query)) {
        Ok(watched) => watched,
        Err(message) => return Answer::error(StatusCode::BAD_REQUEST, &message),
    };
    let (until, count) = (Instant::now() + watched.time(), watched.count);
    let Some(watching) = context.state.tracing.watch(watched.wanted()) else {
        let message = "as many watch already as may at a time, try again later";
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, message);
    };
    let (parts, receiver) = mpsc::channel(PARTS_WAITING);
    tokio::spawn(show(watching, until, count, parts));
    Answer::streamed(JSON, receiver)
}

/// Writes the answer part by part; ends early when the client is gone.
async fn show(
    mut watching: Watching,
    until: Instant,
    count: usize,
    parts: mpsc::Sender<Bytes>,
) -> Option<()> {
    let say = async |text: String| parts.send(text.into()).await.ok();
    say("{\"requests\":[".to_owned()).await?;
    let mut shown = 0;
    while shown < count {
        let request = tokio::select! {
            request = watching.next() => request,
            () = sleep_until(until) => None,
            () = parts.closed() => return None,
        };
        let Some(request) = request else { break };
        let comma = if shown == 0 { "" } else { "," };
        say(format!("{comma}\n{request}")).await?;
        shown += 1;
    }
    let ended = if shown == count { "count" } else { "time" };
    let missed = watching.missed();
    say(format!(
        "],\n\"ended_by\":\"{ended}\",\"missed\":{missed}}}\n"
    ))
    .await
}

/// The answer for people.
pub fn as_text(told: &Value) -> String {
    let mut out = String::new();
    let empty = Vec::new();
    for request in told["requests"].as_array().unwrap_or(&empty) {
        let text = |name: &str| plain(&request[name]);
        let route = match &request["route"] {
            Value::Null => "no route".to_owned(),
            route => plain(route),
        };
        // Writing to a text cannot fail.
        let _ = writeln!(
            out,
            "{} {} {}{}  {} {}  {} ms  {route}",
            text("began"),
            text("method"),
            text("host"),
            text("path"),
            text("status"),
            text("reason"),
            text("latency_ms"),
        );
        for step in request["steps"].as_array().unwrap_or(&empty) {
            let at = step["at_ms"].as_f64().unwrap_or_default();
            let (what, detail) = (plain(&step["step"]), plain(&step["detail"]));
            let line = format!("{at:>12.3}  {what:<14} {detail}");
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    let count = told["requests"].as_array().map_or(0, Vec::len);
    let missed = told["missed"].as_u64().unwrap_or_default();
    let _ = match missed {
        0 => writeln!(out, "{count} requests"),
        _ => writeln!(
            out,
            "{count} requests, and {missed} more that came too fast to be shown"
        ),
    };
    out
}

/// A value as text that cannot steer a terminal.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace(char::is_control, "?"),
        Value::Null => String::new(),
        other => json!(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_all_that_a_command_line_says() {
        let watched = Watched {
            method: Some("POST".to_owned()),
            path: Some("/a b?c".to_owned()),
            route: Some("shop/cart".to_owned()),
            status: Some("5".to_owned()),
            seconds: 1,
            count: 2,
            head: Head {
                host: Some("shop.example".to_owned()),
                headers: vec!["x-team: blue+green".to_owned(), "b".to_owned()],
                client: Some("::1".parse().unwrap()),
            },
        };
        let query = watched.to_query();
        assert_eq!(
            Watched::of_query(&Query::of(Some(&query))),
            Ok(watched.clone())
        );
        let headers = [("x-team", "blue+green"), ("b", "")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(watched.wanted().headers, headers);
        assert_eq!(Watched::of_query(&Query::default()), Ok(Watched::default()));
        for query in [
            "seconds=0",
            "seconds=31",
            "count=0",
            "count=1001",
            "count=x",
            "hots=x",
        ] {
            assert!(
                Watched::of_query(&Query::of(Some(query))).is_err(),
                "{query}"
            );
        }
    }
}
