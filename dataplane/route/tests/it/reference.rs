//! The specification read plainly: go through all rules, keep those that match, sort them.
//!
//! Written without a look at how the table does it and with nothing shared but the `ir` types, so
//! that the two can check each other.

use std::cmp::Reverse;

use dataplane_route::Request;
use http::HeaderMap;
use ir::Hostname;
use ir::http_route::{
    GrpcMatch, GrpcMethodMatch, HttpMatch, PathMatch, Route, TextMatch, ValueMatch,
};

use crate::routes::AnyRoute;

/// The rule and prefix length the specification gives for a request.
pub(crate) fn lookup(
    routes: &[AnyRoute],
    request: &Request<'_>,
) -> Option<(String, Option<usize>)> {
    let mut met = Vec::new();
    for route in routes {
        match route {
            AnyRoute::Http(route) => {
                for_each_match(
                    route,
                    |r| &r.matches,
                    request.host,
                    |place, m| {
                        if is_http_met(m, request) {
                            let prefix = match &m.path {
                                PathMatch::Prefix(prefix) => {
                                    Some(prefix.trim_end_matches('/').len())
                                }
                                _ => None,
                            };
                            let rank = [http_path_rank(&m.path), http_rank(m)].concat();
                            met.push((place.order(1, rank), place.name(), prefix));
                        }
                    },
                );
            }
            AnyRoute::Grpc(route) if is_grpc(request) => {
                for_each_match(
                    route,
                    |r| &r.matches,
                    request.host,
                    |place, m| {
                        if is_grpc_met(m, request) {
                            met.push((place.order(0, grpc_rank(m)), place.name(), None));
                        }
                    },
                );
            }
            AnyRoute::Grpc(_) => {}
        }
    }
    met.sort();
    met.into_iter()
        .next()
        .map(|(_, name, prefix)| (name, prefix))
}

/// Sorts by host, kind of route, what the matches count, age, name, rule and match.
type Order = (
    Reverse<(usize, usize)>,
    u8,
    Reverse<Vec<usize>>,
    (bool, Option<std::time::SystemTime>),
    String,
    usize,
    usize,
);

struct Place<'a> {
    host: (usize, usize),
    created_at: Option<std::time::SystemTime>,
    key: &'a str,
    rule: usize,
    route_match: usize,
}

impl Place<'_> {
    fn order(&self, kind: u8, rank: Vec<usize>) -> Order {
        (
            Reverse(self.host),
            kind,
            Reverse(rank),
            (self.created_at.is_none(), self.created_at),
            self.key.to_owned(),
            self.rule,
            self.route_match,
        )
    }

    fn name(&self) -> String {
        format!("{}#{}", self.key, self.rule)
    }
}

fn for_each_match<R, M>(
    route: &Route<R>,
    matches: impl Fn(&R) -> &Vec<M>,
    host: &str,
    mut visit: impl FnMut(&Place<'_>, &M),
) {
    let hosts: Vec<(usize, usize)> = if route.hostnames.is_empty() {
        vec![(0, 0)]
    } else {
        let names = route.hostnames.iter();
        names.filter_map(|name| host_rank(name, host)).collect()
    };
    for host in hosts {
        for (rule_index, rule) in route.rules.iter().enumerate() {
            for (match_index, route_match) in matches(rule).iter().enumerate() {
                let place = Place {
                    host,
                    created_at: route.created_at,
                    key: &route.key,
                    rule: rule_index,
                    route_match: match_index,
                };
                visit(&place, route_match);
            }
        }
    }
}

/// Characters in a matching non-wildcard host name, then characters in a matching one.
fn host_rank(name: &Hostname, host: &str) -> Option<(usize, usize)> {
    let text = name.as_str();
    match text.strip_prefix('*') {
        None => (text == host).then_some((text.len(), text.len())),
        Some(dotted) => {
            (host.len() > dotted.len() && host.ends_with(dotted)).then_some((0, text.len()))
        }
    }
}

fn http_path_rank(path: &PathMatch) -> Vec<usize> {
    match path {
        PathMatch::Exact(_) => vec![2, 0],
        PathMatch::Regex(pattern) => vec![1, pattern.as_str().chars().count()],
        PathMatch::Prefix(prefix) => vec![0, prefix.chars().count()],
    }
}

fn http_rank(m: &HttpMatch) -> Vec<usize> {
    vec![
        usize::from(m.method.is_some()),
        names(&m.headers),
        names(&m.query_params),
    ]
}

fn grpc_rank(m: &GrpcMatch) -> Vec<usize> {
    let (mut exact, mut regex) = ((0, 0), (0, 0));
    match &m.method {
        GrpcMethodMatch::Any => {}
        GrpcMethodMatch::Exact { service, method } => {
            let chars = |t: &Option<String>| t.as_ref().map_or(0, |t| t.chars().count());
            exact = (chars(service), chars(method));
        }
        GrpcMethodMatch::Regex { service, method } => {
            let chars = |t: &Option<ir::Pattern>| t.as_ref().map_or(0, |t| t.as_str().len());
            regex = (chars(service), chars(method));
        }
    }
    vec![exact.0, exact.1, regex.0, regex.1, names(&m.headers)]
}

fn names(conditions: &[ValueMatch]) -> usize {
    let mut names: Vec<&str> = conditions.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.len()
}

fn is_http_met(m: &HttpMatch, request: &Request<'_>) -> bool {
    let path = match &m.path {
        PathMatch::Exact(path) => request.path == path,
        PathMatch::Regex(pattern) => pattern.is_match(request.path),
        PathMatch::Prefix(prefix) => {
            let wanted: Vec<&str> = prefix.split('/').filter(|s| !s.is_empty()).collect();
            let mut segments = request.path.strip_prefix('/').unwrap_or("").split('/');
            wanted.into_iter().all(|w| segments.next() == Some(w))
        }
    };
    path && m
        .method
        .as_ref()
        .is_none_or(|m| m == request.method.as_str())
        && are_headers_met(&m.headers, request.headers)
        && first_by_name(&m.query_params).all(|param| {
            let pairs = request.query.unwrap_or("").split('&');
            let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs
                .find(|(name, _)| *name == param.name)
                .is_some_and(|(_, value)| is_text_met(&param.value, value))
        })
}

fn is_grpc(request: &Request<'_>) -> bool {
    request.method == "POST"
        && request
            .headers
            .get("content-type")
            .is_some_and(|v| v == "application/grpc")
}

fn is_grpc_met(m: &GrpcMatch, request: &Request<'_>) -> bool {
    let parts: Vec<&str> = request.path.split('/').collect();
    let call = match parts[..] {
        ["", service, method] if !service.is_empty() && !method.is_empty() => {
            Some((service, method))
        }
        _ => None,
    };
    let path = match (&m.method, call) {
        (GrpcMethodMatch::Any, _) => true,
        (_, None) => false,
        (GrpcMethodMatch::Exact { service, method }, Some(call)) => {
            service.as_ref().is_none_or(|s| s == call.0)
                && method.as_ref().is_none_or(|m| m == call.1)
        }
        (GrpcMethodMatch::Regex { service, method }, Some(call)) => {
            service.as_ref().is_none_or(|s| s.is_match(call.0))
                && method.as_ref().is_none_or(|m| m.is_match(call.1))
        }
    };
    path && are_headers_met(&m.headers, request.headers)
}

fn are_headers_met(conditions: &[ValueMatch], headers: &HeaderMap) -> bool {
    first_by_name(conditions).all(|condition| {
        let lines: Vec<&str> = headers
            .get_all(&condition.name)
            .iter()
            .map(|v| v.to_str().unwrap())
            .collect();
        !lines.is_empty() && is_text_met(&condition.value, &lines.join(","))
    })
}

fn first_by_name(conditions: &[ValueMatch]) -> impl Iterator<Item = &ValueMatch> {
    let mut seen = Vec::new();
    conditions.iter().filter(move |condition| {
        let is_new = !seen.contains(&&condition.name);
        seen.push(&condition.name);
        is_new
    })
}

fn is_text_met(expected: &TextMatch, value: &str) -> bool {
    match expected {
        TextMatch::Exact(text) => value == text,
        TextMatch::Prefix(text) => value.starts_with(text),
        TextMatch::Suffix(text) => value.ends_with(text),
        TextMatch::Regex(pattern) => pattern.is_match(value),
        TextMatch::Present => true,
    }
}
