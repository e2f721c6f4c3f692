//! THE table of endpoints: path, what it answers, who answers it.
//!
//! The only source of paths: `api.rs` routes by it, `openapi.rs` writes the document of it, and a
//! test holds `docs/reference/admin.md` to it. The paths of the documents (`/api/v1/…`) and those of
//! the contract (`/v1/…`) are the same ones. Nothing here looks at any state.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::HeaderMap;

use dataplane_telemetry::metrics::Format;

use super::answer::Answer;
use super::query::{Filter, Query, decode};
use super::{Context, answer};
use super::{
    ai, certificates, console, drain, explain, health, inventory, limits, log_level, metrics,
    plugins, resilience, sessions, trace, xds,
};

use Read::{Asked, Document, Listed, Named, Plain, Watched};

/// One path and all that can be done with it.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// As documented, with `{name}` for what stands in its place; also the label of the metric.
    pub(super) path: &'static str,
    /// Other spellings of the same.
    pub(super) also: &'static [&'static str],
    /// What it answers.
    pub(super) about: &'static str,
    /// Who may ask.
    pub(super) access: Access,
    /// What is understood of a query by all endpoints of its sort, and by this one alone.
    parameters: [&'static [Parameter]; 2],
    /// What an answer looks like.
    pub(super) content: Content,
    /// Who answers GET and HEAD.
    pub(super) read: Read,
    /// What else can be done.
    pub(super) change: Option<Change>,
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody: it tells nothing of the configuration.
    Open,
    /// Whoever has the token, where there is one.
    Token,
}

/// One parameter of a query.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// `string` or `integer`.
    pub(super) kind: &'static str,
}

/// What an answer looks like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content {
    /// For eyes, or for a scraper.
    Text(&'static str),
    /// JSON of that schema of `schemas.json`.
    Json(&'static str),
    /// A list of such, in pages.
    List(&'static str),
}

/// Who answers GET and HEAD.
#[derive(Clone, Copy, Debug)]
pub(super) enum Read {
    /// The document of this table.
    Document,
    /// At once.
    Plain(fn(&Context) -> Answer),
    /// At once, by names in the path.
    Named(fn(&Context, &[String]) -> Answer),
    /// At once, by the parameters of the query.
    Asked(fn(&Context, &Query) -> Answer),
    /// At once, a page of a list.
    Listed(fn(&Context, &Filter) -> Answer),
    /// As long as the request asks for, part by part.
    Watched(fn(&Context, &Request<'_>) -> Answer),
    /// After some work elsewhere.
    Later(for<'a> fn(&'a Context, Request<'a>) -> Later<'a>),
}

/// What of a request an answer may depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
}

/// An answer that takes a while.
pub(super) type Later<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// Something that changes this process; refused unless the settings allow it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) method: &'static str,
    pub(super) about: &'static str,
    /// Schema of the body.
    pub(super) body: &'static str,
    /// Content types that are taken.
    pub(super) takes: &'static [&'static str],
    /// Status of its success.
    pub(super) status: u16,
    pub(super) run: fn(&Context, &Bytes) -> Answer,
}

impl Endpoint {
    /// The value of `Allow`.
    pub(super) fn allow(&self) -> &'static str {
        match self.change.map(|change| change.method) {
            Some("PUT") => "GET, HEAD, OPTIONS, PUT",
            Some("POST") => "GET, HEAD, OPTIONS, POST",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// What is understood of a query.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        self.parameters.into_iter().flatten()
    }

    /// All its spellings without `/api`.
    pub(super) fn paths(&self) -> impl Iterator<Item = &'static str> {
        [self.path].into_iter().chain(self.also.iter().copied())
    }
}

const fn parameter(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind }
}

/// What every list understands.
const LIST: &[Parameter] = &[
    parameter("namespace", "string", "Only objects of this namespace."),
    parameter("name", "string", "Only names that begin so."),
    parameter(
        "search",
        "string",
        "Only objects whose namespace and name contain this.",
    ),
    parameter(
        "limit",
        "integer",
        "At most so many, from 1 to 10000; 1000 when nothing is said.",
    ),
    parameter(
        "continue",
        "string",
        "Where the page begins; from the `Link` field of the page before.",
    ),
    parameter("offset", "integer", "Leaves out that many at the front."),
];

/// A request that nobody sent.
const REQUEST: &[Parameter] = &[
    parameter("url", "string", "Host, port and path; https for TLS."),
    parameter("method", "string", "GET when not said."),
    parameter("host", "string", "The Host field."),
    parameter("path", "string", "Path and query."),
    parameter(
        "header",
        "string",
        "A header field, as in `x-team: blue`; may be given several times.",
    ),
    parameter("sni", "string", "The server name of the TLS handshake."),
    parameter(
        "tls",
        "string",
        "`true` for TLS without a server name, too.",
    ),
    parameter("port", "integer", "The listener's port."),
    parameter(
        "client",
        "string",
        "The client's address; 127.0.0.1 when not said.",
    ),
];

/// How a scrape may be answered.
const SCRAPE: &[Parameter] = &[parameter(
    "former_names",
    "string",
    "`true` repeats every family with the prefix `nantian_gw_dataplane_`.",
)];

/// Which requests are watched, and how long.
const WATCHED: &[Parameter] = &[
    parameter("method", "string", "Only this method."),
    parameter("host", "string", "Only this host."),
    parameter("path", "string", "Only paths that begin so."),
    parameter(
        "header",
        "string",
        "Only with this field, as in `x-team: blue`, or a bare name; may be given several times.",
    ),
    parameter("client", "string", "Only of this address."),
    parameter(
        "route",
        "string",
        "Only of this route; `none` for no route.",
    ),
    parameter(
        "status",
        "string",
        "Only this status, as `503`, or its first digits.",
    ),
    parameter(
        "seconds",
        "integer",
        "Ends after so many, 1 to 30; 10 when not said.",
    ),
    parameter(
        "count",
        "integer",
        "Ends after so many requests, 1 to 1000; 20 when not said.",
    ),
];

/// What the list of routes understands besides.
const KIND: &[Parameter] = &[parameter(
    "kind",
    "string",
    "Only routes of this kind, as `HTTPRoute` or `http`.",
)];

const fn endpoint(
    path: &'static str,
    content: Content,
    read: Read,
    about: &'static str,
) -> Endpoint {
    Endpoint {
        path,
        also: &[],
        about,
        access: Access::Token,
        parameters: match read {
            Listed(_) => [LIST, &[]],
            _ => [&[], &[]],
        },
        content,
        read,
        change: None,
    }
}

impl Endpoint {
    const fn open(mut self) -> Self {
        self.access = Access::Open;
        self
    }

    const fn also(mut self, also: &'static [&'static str]) -> Self {
        self.also = also;
        self
    }

    const fn takes(mut self, parameters: &'static [Parameter]) -> Self {
        self.parameters[1] = parameters;
        self
    }

    const fn change(mut self, change: Change) -> Self {
        self.change = Some(change);
        self
    }
}

/// One row an endpoint: path, what it answers, who answers, what that is, and what else is to say.
macro_rules! endpoints {
    ($( $path:literal = $content:ident($of:expr), $read:expr, $about:literal
        $( .$more:ident($($with:expr)?) )*; )+) => {
        /// Every endpoint.
        pub(super) static ALL: &[Endpoint] = &[
            $( endpoint($path, Content::$content($of), $read, $about) $( .$more($($with)?) )*, )+
        ];
    };
}

endpoints! {
    "/livez" = Text(answer::TEXT), Plain(health::live),
        "The phase; always 200 while the process answers." .open();
    "/readyz" = Text(answer::TEXT), Plain(health::ready),
        "200 while traffic is wanted, else 503 and why." .open();
    "/openapi.json" = Json("OpenApi"), Document,
        "This document." .open();
    "/console" = Text(console::HTML), Plain(console::page),
        "The console: a page that shows all this." .also(&["/"]) .open();
    "/console/console.css" = Text(console::CSS), Plain(console::look),
        "Its look." .open();
    "/console/console.js" = Text(console::SCRIPT), Plain(console::script),
        "What it does." .open();
    "/console/metrics.js" = Text(console::SCRIPT), Plain(console::reader),
        "How it reads metrics." .open();
    "/metrics" = Text(Format::Text.content_type()),
        Read::Later(|context, request| Box::pin(metrics::scrape(context, request))),
        "All metrics in the Prometheus text format, or in OpenMetrics where `Accept` prefers that."
        .takes(SCRAPE);
    "/v1/summary" = Json("Summary"), Plain(inventory::summary),
        "Who this process is, the version it serves, how much of each kind." .also(&["/v1/node"]);
    "/v1/config/version" = Json("ConfigVersion"), Plain(xds::config_version),
        "The version that serves, and what was refused last.";
    "/v1/config/history" = Json("ConfigHistory"), Plain(xds::history),
        "The last updates and what became of them, the newest first.";
    "/v1/snapshot" = Json("Snapshot"), Plain(inventory::snapshot),
        "The whole configuration that serves, without secrets." .also(&["/v1/config/snapshot"]);
    "/v1/xds/status" = Json("XdsStatus"), Plain(xds::status),
        "The stream to the control plane.";
    "/v1/explain" = Json("Explanation"), Asked(explain::explained),
        "What would become of a request, and why others did not get it." .takes(REQUEST);
    "/v1/trace" = Json("LiveTrace"), Watched(trace::watch),
        "Requests as they end, step by step, for a while; part by part as they come." .takes(WATCHED);
    "/v1/listeners" = List("Listener"), Listed(inventory::listeners),
        "Every listener as configured, whether it is open, how many routes it has.";
    "/v1/listeners/{name}" = Json("Listener"), Named(inventory::listener),
        "One listener.";
    "/v1/listener-statuses" = List("ListenerStatus"), Listed(inventory::listener_statuses),
        "Of every listener: sockets, whether they are open and why not, what runs.";
    "/v1/listener-statuses/{name}" = Json("ListenerStatus"), Named(inventory::listener_status),
        "Of one listener.";
    "/v1/routes" = Json("Routes"), Listed(inventory::routes),
        "Every route, in the lists `http`, `grpc` and `stream`; a page goes through all three."
        .takes(KIND);
    "/v1/routes/{kind}/{namespace}/{name}" = Json("Route"), Named(inventory::route),
        "One route; the kind is `HTTPRoute` or `http`, and so on.";
    "/v1/backends" = List("Backend"), Listed(inventory::backends),
        "Every backend with its endpoints and their health.";
    "/v1/backends/{namespace}/{name}" = Json("Backend"), Named(inventory::backend),
        "One backend; the name with its port, or without where there is one port.";
    "/v1/endpoints" = List("Endpoint"), Listed(resilience::endpoints),
        "Every endpoint of every backend: its state and why.";
    "/v1/circuit-breakers" = List("CircuitBreaker"), Listed(resilience::circuit_breakers),
        "What each backend carries, its limits and its breakers.";
    "/v1/rate-limits" = List("RateLimit"), Listed(resilience::rate_limits),
        "Every limit of rate, what is left of it, and its counts.";
    "/v1/certificates" = List("Certificate"), Listed(certificates::list),
        "Every certificate: its names, when it ends, which listeners use it; never its key.";
    "/v1/certificates/{namespace}/{name}" = Json("Certificate"), Named(certificates::one),
        "The certificate of one secret.";
    "/v1/limits" = Json("Limits"), Plain(limits::show),
        "What this process carries at most, and what it carries now.";
    "/v1/sessions" = Json("Sessions"), Listed(sessions::show),
        "What became of persistent sessions, and who asks for them.";
    "/v1/ai/services" = List("AiService"), Listed(ai::list),
        "Every AI service: its providers, budgets of tokens, and use.";
    "/v1/ai/services/{namespace}/{name}" = Json("AiService"), Named(ai::one),
        "One AI service.";
    "/v1/plugins" = List("Plugin"), Listed(plugins::list),
        "Every Wasm plugin as configured: its module, when it is called, who uses it.";
    "/v1/plugins/{namespace}/{name}" = Json("Plugin"), Named(plugins::one),
        "One plugin.";
    "/v1/traffic" = Json("Traffic"), Listed(inventory::traffic),
        "Requests and connections now, by listener and backend; totals are in /metrics.";
    "/v1/overload" = Json("Overload"), Plain(inventory::overload),
        "Requests now, of the process and by listener.";
    "/v1/log/level" = Json("LogLevel"), Plain(log_level::show),
        "The filter of the log."
        .change(Change {
            method: "PUT",
            about: "Changes it until the next start; as JSON, or the bare filter as text.",
            body: "LogLevel",
            takes: &["application/json", "text/plain"],
            status: 200,
            run: log_level::change,
        });
    "/v1/drain" = Json("Drain"), Plain(drain::show),
        "Whether this process is on its way out, and what still runs."
        .change(Change {
            method: "POST",
            about: "Ends the process as SIGTERM does: readiness first, then what runs, then out.",
            body: "DrainRequest",
            takes: &["application/json"],
            status: 202,
            run: drain::begin,
        });
}

/// An endpoint and the names that stand in a path.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) endpoint: &'static Endpoint,
    pub(super) names: Vec<String>,
}

impl Found {
    /// The endpoint of a path; nothing when there is no such path.
    pub(super) fn at(path: &str) -> Option<Self> {
        let is_versioned = |path: &&str| path.starts_with("/v1/");
        let path = path
            .strip_prefix("/api")
            .filter(is_versioned)
            .unwrap_or(path);
        let may_end_so = |path: &&str| is_versioned(path) || *path == "/console";
        let path = path.strip_suffix('/').filter(may_end_so).unwrap_or(path);
        // Fixed paths first: a name may look like the end of one.
        let fixed = ALL
            .iter()
            .find(|endpoint| endpoint.paths().any(|known| known == path));
        if let Some(endpoint) = fixed {
            let names = Vec::new();
            return Some(Self { endpoint, names });
        }
        ALL.iter().find_map(|endpoint| {
            let names = names(endpoint.path, path)?;
            Some(Self { endpoint, names })
        })
    }

    /// What is asked for of a list.
    pub(super) fn filter(query: Option<&str>) -> Result<Filter, String> {
        Filter::of(&Query::of(query))
    }
}

/// Reads names out of a path. The last one takes the rest with its slashes, which may be
/// percent-encoded.
fn names(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (prefix, parameters) = pattern.split_once('{')?;
    let rest = decode(path.strip_prefix(prefix)?);
    let count = parameters.matches('{').count() + 1;
    let names: Vec<_> = rest.splitn(count, '/').map(str::to_owned).collect();
    let is_whole = names.len() == count && names.iter().all(|name| !name.is_empty());
    is_whole.then_some(names)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The paths in the first column of the page's tables about the data plane.
    fn documented() -> BTreeSet<&'static str> {
        let page = include_str!("../../../docs/reference/admin.md");
        let mut parts = page.split("\n## ");
        let part = parts.find(|part| part.starts_with("The data plane\n"));
        let rows = part
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("| `/"));
        rows.filter_map(|row| row.split('|').nth(1))
            .flat_map(|cell| cell.split('`').filter(|text| text.starts_with('/')))
            .collect()
    }

    #[test]
    fn the_page_names_every_path_and_every_path_of_the_page_is_one() {
        let known = ALL.iter().flat_map(Endpoint::paths).collect();
        assert_eq!(documented(), known);
        let all: Vec<_> = ALL.iter().flat_map(Endpoint::paths).collect();
        assert_eq!(all.len(), known.len(), "a path stands in the table twice");
    }

    #[test]
    fn both_families_of_paths_lead_to_the_same() {
        for (path, found) in [
            ("/livez", Some(("/livez", ""))),
            ("/v1/livez", None),
            ("/api/livez", None),
            ("/api/v1/config/version", Some(("/v1/config/version", ""))),
            ("/v1/config/version", Some(("/v1/config/version", ""))),
            ("/api/v1/config/snapshot", Some(("/v1/snapshot", ""))),
            ("/v1/snapshot", Some(("/v1/snapshot", ""))),
            ("/v1/node", Some(("/v1/summary", ""))),
            ("/v1/node/", Some(("/v1/summary", ""))),
            ("/api/v1", None),
            ("/livez/", None),
            ("/v1/listeners", Some(("/v1/listeners", ""))),
            (
                "/v1/listeners/ns/gw/http",
                Some(("/v1/listeners/{name}", "ns/gw/http")),
            ),
            (
                "/v1/listeners/ns%2Fgw%2fhttp",
                Some(("/v1/listeners/{name}", "ns/gw/http")),
            ),
            (
                "/v1/routes/HTTPRoute/shop/cart",
                Some((
                    "/v1/routes/{kind}/{namespace}/{name}",
                    "HTTPRoute shop cart",
                )),
            ),
            ("/v1/routes/HTTPRoute", None),
            ("/v1/routes/HTTPRoute//cart", None),
            (
                "/v1/backends/shop/cart:80",
                Some(("/v1/backends/{namespace}/{name}", "shop cart:80")),
            ),
            (
                "/v1/backends/shop%2Fcart:80",
                Some(("/v1/backends/{namespace}/{name}", "shop cart:80")),
            ),
            ("/v1/unknown", None),
            ("/v2/summary", None),
            ("/", Some(("/console", ""))),
            ("/console/", Some(("/console", ""))),
            ("/console/x", None),
            ("", None),
        ] {
            let at = Found::at(path);
            let at = at.map(|it| (it.endpoint.path, it.names.join(" ")));
            let at = at.as_ref().map(|(path, names)| (*path, names.as_str()));
            assert_eq!(at, found, "{path}");
        }
    }
}
