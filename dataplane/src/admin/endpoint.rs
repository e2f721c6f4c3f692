//! THE table of endpoints: path, what it answers, who answers it.
//!
//! The only source of paths: `api.rs` routes by it, `openapi.rs` writes the document of it, and a
//! test holds `docs/reference/admin.md` to it. The paths of the documents (`/api/v1/…`) and those of
//! the contract (`/v1/…`) are the same ones. Nothing here looks at any state.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use super::answer::Answer;
use super::query::{Filter, Query, decode};
use super::{Context, answer};
use super::{
    ai, certificates, console, drain, explain, health, inventory, limits, log_level, metrics,
    plugins, resilience, sessions, xds,
};

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
    /// What is understood of a query.
    pub(super) parameters: &'static [Parameter],
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
    /// After some work elsewhere.
    Later(for<'a> fn(&'a Context) -> Later<'a>),
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

/// As [`LIST`], and a kind of route.
const ROUTES: &[Parameter] = &[
    LIST_NAMESPACE,
    parameter("name", "string", "Only names that begin so."),
    parameter(
        "kind",
        "string",
        "Only routes of this kind, as `HTTPRoute` or `http`.",
    ),
    parameter(
        "search",
        "string",
        "Only objects whose namespace and name contain this.",
    ),
    parameter(
        "limit",
        "integer",
        "At most so many in all lists together, from 1 to 10000; 1000 when nothing is said.",
    ),
    parameter(
        "continue",
        "string",
        "Where the page begins; from the `Link` field of the page before.",
    ),
    parameter("offset", "integer", "Leaves out that many at the front."),
];
const LIST_NAMESPACE: Parameter =
    parameter("namespace", "string", "Only objects of this namespace.");

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
            Read::Listed(_) => LIST,
            _ => &[],
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

    const fn parameters(mut self, parameters: &'static [Parameter]) -> Self {
        self.parameters = parameters;
        self
    }

    const fn change(mut self, change: Change) -> Self {
        self.change = Some(change);
        self
    }
}

/// Every endpoint.
pub(super) static ALL: &[Endpoint] = &[
    endpoint(
        "/livez",
        Content::Text(answer::TEXT),
        Read::Plain(health::live),
        "The phase; always 200 while the process answers.",
    )
    .open(),
    endpoint(
        "/readyz",
        Content::Text(answer::TEXT),
        Read::Plain(health::ready),
        "200 while traffic is wanted, else 503 and why.",
    )
    .open(),
    endpoint(
        "/openapi.json",
        Content::Json("OpenApi"),
        Read::Document,
        "This document.",
    )
    .open(),
    endpoint(
        "/console",
        Content::Text(console::HTML),
        Read::Plain(console::page),
        "The console: a page that shows all this.",
    )
    .also(&["/"])
    .open(),
    endpoint(
        "/console/console.css",
        Content::Text(console::CSS),
        Read::Plain(console::look),
        "Its look.",
    )
    .open(),
    endpoint(
        "/console/console.js",
        Content::Text(console::SCRIPT),
        Read::Plain(console::script),
        "What it does.",
    )
    .open(),
    endpoint(
        "/console/metrics.js",
        Content::Text(console::SCRIPT),
        Read::Plain(console::reader),
        "How it reads metrics.",
    )
    .open(),
    endpoint(
        "/metrics",
        Content::Text(dataplane_telemetry::metrics::CONTENT_TYPE),
        Read::Later(|context| Box::pin(metrics::scrape(context))),
        "All metrics in the Prometheus text format.",
    ),
    endpoint(
        "/v1/summary",
        Content::Json("Summary"),
        Read::Plain(inventory::summary),
        "Who this process is, the version it serves, how much of each kind.",
    )
    .also(&["/v1/node"]),
    endpoint(
        "/v1/config/version",
        Content::Json("ConfigVersion"),
        Read::Plain(xds::config_version),
        "The version that serves, and what was refused last.",
    ),
    endpoint(
        "/v1/config/history",
        Content::Json("ConfigHistory"),
        Read::Plain(xds::history),
        "The last updates and what became of them, the newest first.",
    ),
    endpoint(
        "/v1/snapshot",
        Content::Json("Snapshot"),
        Read::Plain(inventory::snapshot),
        "The whole configuration that serves, without secrets.",
    )
    .also(&["/v1/config/snapshot"]),
    endpoint(
        "/v1/xds/status",
        Content::Json("XdsStatus"),
        Read::Plain(xds::status),
        "The stream to the control plane.",
    ),
    endpoint(
        "/v1/explain",
        Content::Json("Explanation"),
        Read::Asked(explain::explained),
        "What would become of a request, and why others did not get it.",
    )
    .parameters(REQUEST),
    endpoint(
        "/v1/listeners",
        Content::List("Listener"),
        Read::Listed(inventory::listeners),
        "Every listener as configured, whether it is open, how many routes it has.",
    ),
    endpoint(
        "/v1/listeners/{name}",
        Content::Json("Listener"),
        Read::Named(inventory::listener),
        "One listener.",
    ),
    endpoint(
        "/v1/listener-statuses",
        Content::List("ListenerStatus"),
        Read::Listed(inventory::listener_statuses),
        "Of every listener: sockets, whether they are open and why not, what runs.",
    ),
    endpoint(
        "/v1/listener-statuses/{name}",
        Content::Json("ListenerStatus"),
        Read::Named(inventory::listener_status),
        "Of one listener.",
    ),
    endpoint(
        "/v1/routes",
        Content::Json("Routes"),
        Read::Listed(inventory::routes),
        "Every route, in the lists `http`, `grpc` and `stream`; a page goes through all three.",
    )
    .parameters(ROUTES),
    endpoint(
        "/v1/routes/{kind}/{namespace}/{name}",
        Content::Json("Route"),
        Read::Named(inventory::route),
        "One route; the kind is `HTTPRoute` or `http`, and so on.",
    ),
    endpoint(
        "/v1/backends",
        Content::List("Backend"),
        Read::Listed(inventory::backends),
        "Every backend with its endpoints and their health.",
    ),
    endpoint(
        "/v1/backends/{namespace}/{name}",
        Content::Json("Backend"),
        Read::Named(inventory::backend),
        "One backend; the name with its port, or without where there is one port.",
    ),
    endpoint(
        "/v1/endpoints",
        Content::List("Endpoint"),
        Read::Listed(resilience::endpoints),
        "Every endpoint of every backend: its state and why.",
    ),
    endpoint(
        "/v1/circuit-breakers",
        Content::List("CircuitBreaker"),
        Read::Listed(resilience::circuit_breakers),
        "What each backend carries, its limits and its breakers.",
    ),
    endpoint(
        "/v1/rate-limits",
        Content::List("RateLimit"),
        Read::Listed(resilience::rate_limits),
        "Every limit of rate, what is left of it, and its counts.",
    ),
    endpoint(
        "/v1/certificates",
        Content::List("Certificate"),
        Read::Listed(certificates::list),
        "Every certificate: its names, when it ends, which listeners use it; never its key.",
    ),
    endpoint(
        "/v1/certificates/{namespace}/{name}",
        Content::Json("Certificate"),
        Read::Named(certificates::one),
        "The certificate of one secret.",
    ),
    endpoint(
        "/v1/limits",
        Content::Json("Limits"),
        Read::Plain(limits::show),
        "What this process carries at most, and what it carries now.",
    ),
    endpoint(
        "/v1/sessions",
        Content::Json("Sessions"),
        Read::Listed(sessions::show),
        "What became of persistent sessions, and who asks for them.",
    ),
    endpoint(
        "/v1/ai/services",
        Content::List("AiService"),
        Read::Listed(ai::list),
        "Every AI service: its providers, budgets of tokens, and use.",
    ),
    endpoint(
        "/v1/ai/services/{namespace}/{name}",
        Content::Json("AiService"),
        Read::Named(ai::one),
        "One AI service.",
    ),
    endpoint(
        "/v1/plugins",
        Content::List("Plugin"),
        Read::Listed(plugins::list),
        "Every Wasm plugin as configured: its module, when it is called, who uses it.",
    ),
    endpoint(
        "/v1/plugins/{namespace}/{name}",
        Content::Json("Plugin"),
        Read::Named(plugins::one),
        "One plugin.",
    ),
    endpoint(
        "/v1/traffic",
        Content::Json("Traffic"),
        Read::Listed(inventory::traffic),
        "Requests and connections now, by listener and backend; totals are in /metrics.",
    ),
    endpoint(
        "/v1/overload",
        Content::Json("Overload"),
        Read::Plain(inventory::overload),
        "Requests now, of the process and by listener.",
    ),
    endpoint(
        "/v1/log/level",
        Content::Json("LogLevel"),
        Read::Plain(log_level::show),
        "The filter of the log.",
    )
    .change(Change {
        method: "PUT",
        about: "Changes it until the next start; as JSON, or the bare filter as text.",
        body: "LogLevel",
        takes: &["application/json", "text/plain"],
        status: 200,
        run: log_level::change,
    }),
    endpoint(
        "/v1/drain",
        Content::Json("Drain"),
        Read::Plain(drain::show),
        "Whether this process is on its way out, and what still runs.",
    )
    .change(Change {
        method: "POST",
        about: "Ends the process as SIGTERM does: readiness first, then what runs, then out.",
        body: "DrainRequest",
        takes: &["application/json"],
        status: 202,
        run: drain::begin,
    }),
];

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
