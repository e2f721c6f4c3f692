//! Short ways to write routes and requests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dataplane_route::Request;
use dataplane_route::table::{CompiledRoute, RouteKind, Table};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ir::http_route::{
    GrpcMatch, GrpcMethodMatch, GrpcRule, HttpMatch, HttpRule, PathMatch, Route, TextMatch,
    Timeouts, ValueMatch,
};
use ir::{Hostname, Pattern};

/// A route of either kind.
#[derive(Clone, Debug)]
pub(crate) enum AnyRoute {
    Http(Route<HttpRule>),
    Grpc(Route<GrpcRule>),
}

impl AnyRoute {
    pub(crate) fn http(key: &str, hosts: &[&str], rules: Vec<Vec<HttpMatch>>) -> Self {
        Self::Http(route(
            key,
            hosts,
            rules.into_iter().map(http_rule).collect(),
        ))
    }

    pub(crate) fn grpc(key: &str, hosts: &[&str], rules: Vec<Vec<GrpcMatch>>) -> Self {
        Self::Grpc(route(
            key,
            hosts,
            rules.into_iter().map(grpc_rule).collect(),
        ))
    }

    /// The same, created at this many seconds.
    pub(crate) fn aged(mut self, seconds: Option<u64>) -> Self {
        let time = seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        match &mut self {
            Self::Http(route) => route.created_at = time,
            Self::Grpc(route) => route.created_at = time,
        }
        self
    }

    /// The route with one match alone, of those that it has.
    pub(crate) fn only(mut self, rule: usize, index: usize) -> Self {
        match &mut self {
            Self::Http(route) => {
                route.rules = vec![route.rules.swap_remove(rule)];
                route.rules[0].matches = vec![route.rules[0].matches.swap_remove(index)];
            }
            Self::Grpc(route) => {
                route.rules = vec![route.rules.swap_remove(rule)];
                route.rules[0].matches = vec![route.rules[0].matches.swap_remove(index)];
            }
        }
        self
    }

    pub(crate) fn kind(&self) -> RouteKind {
        match self {
            Self::Http(_) => RouteKind::Http,
            Self::Grpc(_) => RouteKind::Grpc,
        }
    }

    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Http(route) => &route.key,
            Self::Grpc(route) => &route.key,
        }
    }

    /// Each rule carries the route's key and its own index.
    pub(crate) fn compile(&self) -> CompiledRoute<String> {
        let name = |index| Arc::new(format!("{}#{index}", self.key()));
        match self {
            Self::Http(route) => CompiledRoute::http(route, &route.hostnames, name),
            Self::Grpc(route) => CompiledRoute::grpc(route, &route.hostnames, name),
        }
    }
}

pub(crate) fn table(routes: &[AnyRoute]) -> Table<String> {
    let mut table = Table::default();
    for route in routes {
        table.insert(route.compile());
    }
    table
}

fn route<R>(key: &str, hosts: &[&str], rules: Vec<R>) -> Route<R> {
    Route {
        key: key.into(),
        hostnames: hosts.iter().map(|h| Hostname::new(h).unwrap()).collect(),
        listeners: Vec::new(),
        parent_refs: Vec::new(),
        rules,
        labels: Default::default(),
        annotations: Default::default(),
        policy: None,
        security_policy: None,
        created_at: None,
    }
}

fn http_rule(matches: Vec<HttpMatch>) -> HttpRule {
    HttpRule {
        name: None,
        matches,
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        session_persistence: None,
        plugins: Vec::new(),
    }
}

fn grpc_rule(matches: Vec<GrpcMatch>) -> GrpcRule {
    GrpcRule {
        name: None,
        matches,
        filters: Vec::new(),
        backends: Vec::new(),
        session_persistence: None,
        plugins: Vec::new(),
    }
}

pub(crate) fn exact(path: &str) -> HttpMatch {
    on_path(PathMatch::Exact(path.into()))
}

pub(crate) fn prefix(path: &str) -> HttpMatch {
    on_path(PathMatch::Prefix(path.into()))
}

pub(crate) fn regex(source: &str) -> HttpMatch {
    on_path(PathMatch::Regex(Pattern::new(source).unwrap()))
}

pub(crate) fn on_path(path: PathMatch) -> HttpMatch {
    HttpMatch {
        path,
        method: None,
        headers: Vec::new(),
        query_params: Vec::new(),
    }
}

pub(crate) fn equals(name: &str, value: &str) -> ValueMatch {
    ValueMatch {
        name: name.into(),
        value: TextMatch::Exact(value.into()),
    }
}

/// Adds conditions to a match.
pub(crate) trait And: Sized {
    fn method(self, method: &str) -> Self;
    fn header(self, name: &str, value: &str) -> Self;
    fn query(self, name: &str, value: &str) -> Self;
}

impl And for HttpMatch {
    fn method(mut self, method: &str) -> Self {
        self.method = Some(method.into());
        self
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(equals(name, value));
        self
    }

    fn query(mut self, name: &str, value: &str) -> Self {
        self.query_params.push(equals(name, value));
        self
    }
}

pub(crate) fn call(service: Option<&str>, method: Option<&str>) -> GrpcMatch {
    let text = |text: Option<&str>| text.map(str::to_owned);
    grpc_match(match (service, method) {
        (None, None) => GrpcMethodMatch::Any,
        _ => GrpcMethodMatch::Exact {
            service: text(service),
            method: text(method),
        },
    })
}

pub(crate) fn call_regex(service: Option<&str>, method: Option<&str>) -> GrpcMatch {
    let pattern = |source: Option<&str>| source.map(|source| Pattern::new(source).unwrap());
    grpc_match(GrpcMethodMatch::Regex {
        service: pattern(service),
        method: pattern(method),
    })
}

fn grpc_match(method: GrpcMethodMatch) -> GrpcMatch {
    GrpcMatch {
        method,
        headers: Vec::new(),
    }
}

/// A request that owns its parts.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
}

impl Sent {
    pub(crate) fn get(host: &str, target: &str) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Self {
            host: host.into(),
            path: path.into(),
            query,
            method: Method::GET,
            headers: HeaderMap::new(),
        }
    }

    pub(crate) fn call(host: &str, path: &str) -> Self {
        Self {
            method: Method::POST,
            ..Self::get(host, path)
        }
        .with("content-type", "application/grpc")
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
        self
    }

    pub(crate) fn request(&self) -> Request<'_> {
        Request {
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
        }
    }
}
