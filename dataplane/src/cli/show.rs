//! The commands: what each asks for, and how its answer is shown.
//!
//! Tables show what fits a line; everything else is in the JSON, which is the admin API's own. Long
//! work tells how far it is, on standard error and only where that is a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};

use super::client::Client;
use super::table::{Column, Style, cell};
use super::{Command, Config, Output, Wanted, say};
use crate::admin::{explain, trace};

/// Exit code of `status` for a data plane that wants no traffic.
const NOT_READY: u8 = 3;
/// How often is looked whether a data plane that drains is gone.
const LOOK: Duration = Duration::from_millis(500);

const LISTENERS: &[Column] = &[
    ("NAME", "/name"),
    ("PROTOCOL", "/protocol"),
    ("ADDRESSES", "/addresses"),
    ("PORT", "/port"),
    ("HOSTS", "/hostnames"),
    ("OPEN", "/ready"),
    ("ROUTES", "/attached_routes"),
];
const ROUTES: &[Column] = &[
    ("KIND", "/kind"),
    ("NAMESPACE", "/namespace"),
    ("NAME", "/name"),
    ("HOSTS", "/hostnames"),
    ("LISTENERS", "/listeners"),
    ("RULES", "/rule_count"),
    ("BACKENDS", "/targets"),
];
const CLUSTERS: &[Column] = &[
    ("BACKEND", "/key"),
    ("PROTOCOL", "/protocol"),
    ("ENDPOINTS", "/endpoint_count"),
    ("AVAILABLE", "/endpoints_available"),
    ("EJECTED", "/endpoints_ejected"),
    ("BREAKER", "/breaker"),
    ("CONNECTIONS", "/connections_active"),
];
const ENDPOINTS: &[Column] = &[
    ("BACKEND", "/backend"),
    ("ADDRESS", "/address"),
    ("STATE", "/state"),
    ("REQUESTS", "/requests_active"),
    ("PICKS", "/picks"),
    ("ZONE", "/zone"),
    ("WHY", "/why"),
];
const CERTIFICATES: &[Column] = &[
    ("SECRET", "/secret"),
    ("STATE", "/state"),
    ("DAYS LEFT", "/days_left"),
    ("NAMES", "/names"),
    ("LISTENERS", "/listeners"),
];
const RATE_LIMITS: &[Column] = &[
    ("SCOPE", "/scope"),
    ("OBJECT", "/object"),
    ("NAME", "/name"),
    ("REQUESTS", "/requests"),
    ("PERIOD MS", "/period_ms"),
    ("LEFT", "/available_tokens"),
    ("REJECTED", "/rejected"),
];
const AI: &[Column] = &[
    ("SERVICE", "/key"),
    ("STATE", "/state"),
    ("MODEL", "/model"),
    ("PROVIDERS", "/provider_names"),
    ("CALLS", "/calls"),
    ("INPUT TOKENS", "/input_tokens"),
    ("OUTPUT TOKENS", "/output_tokens"),
    ("WHY", "/why"),
];
const SESSIONS: &[Column] = &[
    ("KIND", "/kind"),
    ("OBJECT", "/object"),
    ("RULE", "/rule"),
    ("CARRIER", "/carrier"),
    ("NAME", "/name"),
];
const UPDATES: &[Column] = &[
    ("VERSION", "/version"),
    ("RESULT", "/result"),
    ("AGO", "/ago"),
    ("WHY", "/error_detail"),
];

/// Who is asked, and what the answer shall look like.
pub(super) struct Asked<'a> {
    pub(super) client: &'a Client,
    pub(super) output: Output,
    pub(super) style: Style,
}

impl Asked<'_> {
    /// Does what a command says.
    pub(super) async fn command(&self, command: &Command) -> anyhow::Result<ExitCode> {
        match command {
            Command::Status => return self.status().await,
            Command::Drain { no_wait } => return self.drain(*no_wait).await,
            Command::Listeners(wanted) => {
                self.list("/v1/listeners", wanted, LISTENERS, |row| row)
                    .await?;
            }
            Command::Routes { wanted, kind } => self.routes(wanted, kind.as_deref()).await?,
            Command::Clusters(wanted) => {
                self.list("/v1/backends", wanted, CLUSTERS, |mut row| {
                    row["endpoint_count"] = count(&row["endpoints"]);
                    row
                })
                .await?;
            }
            Command::Endpoints(wanted) => {
                self.list("/v1/endpoints", wanted, ENDPOINTS, |row| row)
                    .await?;
            }
            Command::Certificates(wanted) => {
                self.list("/v1/certificates", wanted, CERTIFICATES, |row| row)
                    .await?;
            }
            Command::RateLimits(wanted) => {
                self.list("/v1/rate-limits", wanted, RATE_LIMITS, |row| row)
                    .await?;
            }
            Command::Ai(wanted) => {
                self.list("/v1/ai/services", wanted, AI, ai_row).await?;
            }
            Command::Limits => self.limits().await?,
            Command::Explain(asked) => self.explain(asked).await?,
            Command::Trace(watched) => self.trace(watched).await?,
            Command::Sessions(wanted) => self.sessions(wanted).await?,
            Command::Config(Config::Version) => self.version().await?,
            Command::Config(Config::History) => self.history().await?,
            Command::Config(Config::Snapshot) => self.raw("/v1/snapshot").await?,
            Command::Get { path } => self.raw(path).await?,
            Command::LogLevel { filter } => self.log_level(filter.as_deref()).await?,
            // Needs nobody to be asked.
            Command::Completion { .. } => {}
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn status(&self) -> anyhow::Result<ExitCode> {
        let summary = self.client.value("/v1/summary").await?;
        let code = match summary["ready"].as_bool() {
            Some(true) => ExitCode::SUCCESS,
            _ => ExitCode::from(NOT_READY),
        };
        let xds = self.client.value("/v1/xds/status").await?;
        if self.output == Output::Json {
            show_json(&json!({ "summary": summary, "xds": xds }));
            return Ok(code);
        }
        let uptime = Duration::from_secs(summary["uptime_seconds"].as_u64().unwrap_or(0));
        let refused = match &xds["last_nack"] {
            Value::Null => "none".to_owned(),
            nack => format!(
                "{}, {}: {}",
                cell(nack.get("version")),
                ago(&nack["at_unix_ms"]),
                cell(nack.get("error_detail"))
            ),
        };
        let said = |at: &str| cell(summary.pointer(at));
        let facts = [
            ("node", said("/node_id")),
            (
                "program",
                format!("{}, up for {}", said("/version"), spell(uptime)),
            ),
            ("phase", said("/phase")),
            (
                "configuration",
                format!(
                    "{}, applied {}",
                    said("/config_version"),
                    ago(&xds["last_applied_unix_ms"])
                ),
            ),
            ("control plane", cell(xds.get("control_plane"))),
            (
                "stream",
                format!(
                    "{}, {} reconnects",
                    cell(xds.get("state")),
                    cell(xds.get("stream_reconnects"))
                ),
            ),
            ("last refusal", refused),
            (
                "serves",
                format!(
                    "{} listeners, {} HTTP routes, {} gRPC routes, {} stream routes, {} backends",
                    said("/listeners"),
                    said("/http_routes"),
                    said("/grpc_routes"),
                    said("/stream_routes"),
                    said("/backends")
                ),
            ),
        ];
        say(&self.style.facts(&facts));
        Ok(code)
    }

    /// A list, page by page, as a table or as one list of JSON.
    async fn list(
        &self,
        path: &str,
        wanted: &Wanted,
        columns: &[Column],
        row: impl Fn(Value) -> Value,
    ) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        self.pages(path, wanted, None, |page| match page {
            Value::Array(page) => rows.extend(page),
            other => rows.push(other),
        })
        .await?;
        self.show(columns, rows, row);
        Ok(())
    }

    fn show(&self, columns: &[Column], rows: Vec<Value>, row: impl Fn(Value) -> Value) {
        if self.output == Output::Json {
            return show_json(&rows.into());
        }
        let rows: Vec<_> = rows.into_iter().map(row).collect();
        say(&self.style.table(columns, &rows));
    }

    async fn pages(
        &self,
        path: &str,
        wanted: &Wanted,
        kind: Option<&str>,
        mut take: impl FnMut(Value),
    ) -> anyhow::Result<()> {
        let mut next = Some(format!("{path}?{}", query(wanted, kind)));
        let mut progress = Progress::default();
        while let Some(path) = next {
            let reply = self.client.get(&path).await?;
            let page: Value = serde_json::from_str(&reply.text)
                .with_context(|| format!("{path} is answered with no JSON"))?;
            take(page);
            next = reply.next;
            if next.is_some() {
                progress.tell("more than a page, going on");
            }
        }
        Ok(())
    }

    async fn routes(&self, wanted: &Wanted, kind: Option<&str>) -> anyhow::Result<()> {
        let mut rows = Vec::new();
        self.pages("/v1/routes", wanted, kind, |mut page| {
            for (list, kind) in [("http", "HTTPRoute"), ("grpc", "GRPCRoute"), ("stream", "")] {
                if let Value::Array(routes) = page[list].take() {
                    rows.extend(routes.into_iter().map(|mut route| {
                        if route["kind"].is_null() {
                            route["kind"] = kind.into();
                        }
                        route
                    }));
                }
            }
        })
        .await?;
        self.show(ROUTES, rows, |mut route| {
            route["rule_count"] = count(&route["rules"]);
            let rules = route["rules"].as_array().into_iter().flatten();
            let backends = rules.flat_map(|rule| rule["backends"].as_array().into_iter().flatten());
            let mut targets: Vec<_> = backends.map(|it| it["target"].clone()).collect();
            targets.dedup();
            route["targets"] = targets.into();
            route
        });
        Ok(())
    }

    async fn explain(&self, asked: &explain::Asked) -> anyhow::Result<()> {
        let told = format!("/v1/explain?{}", asked.to_query());
        let told = self.client.value(&told).await?;
        match self.output {
            Output::Json => show_json(&told),
            Output::Table => say(&explain::as_text(&told)),
        }
        Ok(())
    }

    async fn trace(&self, watched: &trace::Watched) -> anyhow::Result<()> {
        let path = format!("/v1/trace?{}", watched.to_query());
        let told = self.client.value_after(&path, watched.time()).await?;
        match self.output {
            Output::Json => show_json(&told),
            Output::Table => say(&trace::as_text(&told)),
        }
        Ok(())
    }

    async fn limits(&self) -> anyhow::Result<()> {
        let limits = self.client.value("/v1/limits").await?;
        if self.output == Output::Json {
            show_json(&limits);
            return Ok(());
        }
        let of = |name: &str| {
            let gate = &limits[name];
            format!("{} of {}", cell(gate.get("current")), limit(&gate["limit"]))
        };
        let facts = [
            ("level", cell(limits.get("level"))),
            ("connections", of("connections")),
            ("connections to backends", of("upstream_connections")),
            ("large heads", of("large_heads")),
            ("mirrored requests", of("mirrors")),
            ("request body, bytes", limit(&limits["request_body_bytes"])),
            ("request head, bytes", limit(&limits["request_head_bytes"])),
            ("requests, process", limit(&limits["requests"]["process"])),
            ("requests, listener", limit(&limits["requests"]["listener"])),
            ("requests, route", limit(&limits["requests"]["route"])),
            ("requests, backend", limit(&limits["backend"]["requests"])),
        ];
        say(&self.style.facts(&facts));
        Ok(())
    }

    async fn sessions(&self, wanted: &Wanted) -> anyhow::Result<()> {
        let mut policies = Vec::new();
        let mut counts = Value::Null;
        self.pages("/v1/sessions", wanted, None, |mut page| {
            if let Value::Array(page) = page["policies"].take() {
                policies.extend(page);
            }
            counts = page["counts"].take();
        })
        .await?;
        if self.output == Output::Json {
            show_json(&json!({ "counts": counts, "policies": policies }));
            return Ok(());
        }
        let names = ["began", "kept", "moved", "refused"];
        let facts = names.map(|name| (name, cell(counts.get(name))));
        say(&self.style.facts(&facts));
        say("\n");
        say(&self.style.table(SESSIONS, &policies));
        Ok(())
    }

    async fn version(&self) -> anyhow::Result<()> {
        let version = self.client.value("/v1/config/version").await?;
        if self.output == Output::Json {
            show_json(&version);
            return Ok(());
        }
        let nack = &version["last_nack"];
        let facts = [
            ("version", cell(version.get("version"))),
            ("applied", ago(&version["applied_at_unix_ms"])),
            ("last refusal", cell(nack.get("version"))),
            ("refused", ago(&nack["at_unix_ms"])),
            ("why", cell(nack.get("error_detail"))),
        ];
        say(&self.style.facts(&facts));
        Ok(())
    }

    async fn history(&self) -> anyhow::Result<()> {
        let mut history = self.client.value("/v1/config/history").await?;
        let updates = match history["updates"].take() {
            Value::Array(updates) => updates,
            _ => Vec::new(),
        };
        self.show(UPDATES, updates, |mut update| {
            update["ago"] = ago(&update["at_unix_ms"]).into();
            update
        });
        Ok(())
    }

    async fn raw(&self, path: &str) -> anyhow::Result<()> {
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        let reply = self.client.get(&path).await?;
        match serde_json::from_str::<Value>(&reply.text) {
            Ok(value) => show_json(&value),
            Err(_) => say(&reply.text),
        }
        Ok(())
    }

    async fn log_level(&self, filter: Option<&str>) -> anyhow::Result<()> {
        let path = "/v1/log/level";
        let reply = match filter {
            None => self.client.get(path).await?,
            Some(filter) => {
                let body = json!({ "level": filter });
                self.client.send(Method::PUT, path, Some(&body)).await?
            }
        };
        let level: Value = serde_json::from_str(&reply.text).unwrap_or_default();
        match self.output {
            Output::Json => show_json(&level),
            Output::Table => say(&format!("{}\n", cell(level.get("level")))),
        }
        Ok(())
    }

    async fn drain(&self, no_wait: bool) -> anyhow::Result<ExitCode> {
        let path = "/v1/drain";
        let body = json!({});
        self.client.send(Method::POST, path, Some(&body)).await?;
        let mut progress = Progress::default();
        let mut is_there = !no_wait;
        while is_there {
            // Who does not answer any more is gone, which is what was asked for.
            match self.client.value(path).await {
                Err(_) => is_there = false,
                Ok(state) => {
                    let connections = cell(state.get("connections"));
                    progress.tell(&format!("draining, {connections} connections left"));
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        let authority = self.client.authority();
        let text = match no_wait {
            true => format!("{authority} drains\n"),
            false => format!("{authority} is gone\n"),
        };
        match self.output {
            Output::Json => show_json(&json!({ "draining": true, "gone": !no_wait })),
            Output::Table => say(&text),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Tells how far long work is, on one line of a terminal; wiped out at the end.
#[derive(Default)]
struct Progress {
    has_told: bool,
}

impl Progress {
    fn tell(&mut self, text: &str) {
        let mut err = io::stderr();
        if err.is_terminal() {
            self.has_told = true;
            drop(write!(err, "\r\u{1b}[K{text}"));
            drop(err.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.has_told {
            drop(write!(io::stderr(), "\r\u{1b}[K"));
        }
    }
}

fn show_json(value: &Value) {
    // A value can always be written.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    say(&format!("{text}\n"));
}

fn ai_row(mut service: Value) -> Value {
    let providers = service["providers"].as_array().into_iter().flatten();
    service["provider_names"] = providers.map(|it| it["provider"].clone()).collect();
    for (sum, field) in [
        ("calls", "calls"),
        ("input_tokens", "input_tokens"),
        ("output_tokens", "output_tokens"),
    ] {
        let usage = service["usage"].as_array().into_iter().flatten();
        service[sum] = usage
            .filter_map(|it| it[field].as_u64())
            .sum::<u64>()
            .into();
    }
    service
}

fn count(list: &Value) -> Value {
    list.as_array().map_or(0, Vec::len).into()
}

fn limit(value: &Value) -> String {
    match value {
        Value::Null => "no limit".to_owned(),
        value => value.to_string(),
    }
}

fn query(wanted: &Wanted, kind: Option<&str>) -> String {
    let parameters = [
        ("namespace", wanted.namespace.as_deref()),
        ("name", wanted.name.as_deref()),
        ("search", wanted.search.as_deref()),
        ("kind", kind),
    ];
    let given = parameters
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", crate::admin::encode((*value)?))));
    given.collect::<Vec<_>>().join("&")
}

/// How long ago that was.
fn ago(unix_ms: &Value) -> String {
    let Some(then) = unix_ms.as_u64() else {
        return "never".to_owned();
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let since = now.saturating_sub(Duration::from_millis(then));
    format!("{} ago", spell(since))
}

fn spell(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelt_in_the_unit_that_suits() {
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7200, "2 h"),
            (172_800, "2 days"),
        ] {
            assert_eq!(spell(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn what_is_wanted_becomes_a_query() {
        let wanted = Wanted {
            namespace: Some("shop".to_owned()),
            name: Some("cart/a b".to_owned()),
            search: None,
        };
        let text = query(&wanted, Some("HTTPRoute"));
        assert_eq!(text, "namespace=shop&name=cart%2Fa%20b&kind=HTTPRoute");
        assert_eq!(query(&Wanted::default(), None), "");
    }
}
