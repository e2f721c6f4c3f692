//! Lists of what the current snapshot holds, in the words of the Go control plane.
//!
//! Filters and pages are those of its lists: `namespace`, `name`, `kind`, `search`, `limit` and
//! `offset`, and a `Link` field that names the next page. Parameters that are not known are ignored.

use std::collections::HashMap;

use hyper::StatusCode;
use ir::http_route::BackendRef;
use ir::{Cluster, Listener, Snapshot};
use serde_json::{Value, json};

use super::{Admin, Answer};

/// Rows of a page when nobody says how many.
const PAGE: usize = 1000;
/// The most rows of a page.
const PAGE_MAX: usize = 10_000;

/// One object of a list: what it is found by, and what is shown of it.
struct Row {
    kind: &'static str,
    namespace: String,
    name: String,
    view: Value,
}

impl Admin {
    /// `/v1/auth/verify`: whoever gets here was let in.
    pub(super) fn verify(&self, _: &str) -> Answer {
        let is_asked = self.token.is_some();
        Answer::json(&json!({
            "authenticated": is_asked,
            "readOnly": true,
            "reason": if is_asked { "the token is right" } else { "no token is asked for" },
            "subject": if is_asked { "adminAuth" } else { "anonymous" },
        }))
    }

    /// `/v1/listeners`.
    pub(super) fn listeners(&self, query: &str) -> Answer {
        self.rows("/v1/listeners", query, Self::listener_rows)
    }

    /// `/v1/routes`.
    pub(super) fn routes(&self, query: &str) -> Answer {
        self.rows("/v1/routes", query, |_, snapshot| route_rows(snapshot))
    }

    /// `/v1/backends`.
    pub(super) fn backends(&self, query: &str) -> Answer {
        self.rows("/v1/backends", query, |_, snapshot| {
            let clusters = snapshot.clusters.iter();
            clusters.map(|cluster| backend_row(cluster)).collect()
        })
    }

    /// One object of a list: `name` is all of a path behind the list's.
    pub(super) fn object(&self, list: &str, name: &str) -> Answer {
        let current = self.store.current();
        let rows = match (&current, list) {
            (None, _) => Vec::new(),
            (Some(current), "/v1/listeners/") => self.listener_rows(&current.snapshot),
            (Some(current), "/v1/routes/") => route_rows(&current.snapshot),
            (Some(current), _) => {
                let clusters = current.snapshot.clusters.iter();
                clusters.map(|cluster| backend_row(cluster)).collect()
            }
        };
        let name = name.replace("%2F", "/").replace("%2f", "/");
        let is_it = |row: &Row| match list {
            "/v1/listeners/" => row.name == name,
            "/v1/routes/" => name == format!("{}/{}/{}", row.kind, row.namespace, row.name),
            _ => name == format!("{}/{}", row.namespace, row.name),
        };
        match rows.into_iter().find(is_it) {
            Some(row) => Answer::json(&row.view),
            None => {
                let list = list.trim_end_matches('/');
                let message = format!("there is no {name}; {list} lists what there is");
                Answer::error(StatusCode::NOT_FOUND, &message)
            }
        }
    }

    fn rows(
        &self,
        path: &str,
        query: &str,
        rows: impl FnOnce(&Self, &Snapshot) -> Vec<Row>,
    ) -> Answer {
        let (limit, offset) = match (number(query, "limit"), number(query, "offset")) {
            (Ok(limit), Ok(offset)) => (limit.unwrap_or(PAGE), offset.unwrap_or(0)),
            (Err(message), _) | (_, Err(message)) => {
                return Answer::error(StatusCode::BAD_REQUEST, &message);
            }
        };
        if !(1..=PAGE_MAX).contains(&limit) {
            let message = format!("limit must be from 1 to {PAGE_MAX}, not {limit}");
            return Answer::error(StatusCode::BAD_REQUEST, &message);
        }
        let current = self.store.current();
        let rows = current.map_or_else(Vec::new, |current| rows(self, &current.snapshot));
        let wanted = rows.into_iter().filter(|row| is_wanted(row, query));
        let mut rest = wanted.skip(offset);
        let page: Vec<Value> = rest.by_ref().take(limit).map(|row| row.view).collect();
        let mut answer = Answer::json(&page);
        if rest.next().is_some() {
            let others = pairs(query).filter(|(name, _)| !["limit", "offset"].contains(name));
            let others: String = others
                .map(|(name, value)| format!("{name}={value}&"))
                .collect();
            let offset = offset + limit;
            let link = format!("<{path}?{others}limit={limit}&offset={offset}>; rel=\"next\"");
            answer.link = Some(link);
        }
        answer
    }

    fn listener_rows(&self, snapshot: &Snapshot) -> Vec<Row> {
        let mut attached: HashMap<&str, usize> = HashMap::new();
        let http = snapshot.http_routes.iter().flat_map(|it| &it.listeners);
        let grpc = snapshot.grpc_routes.iter().flat_map(|it| &it.listeners);
        let stream = snapshot.stream_routes.iter().flat_map(|it| &it.listeners);
        for name in http.chain(grpc).chain(stream) {
            *attached.entry(name).or_default() += 1;
        }
        let nodes = self.nodes.list();
        let is_served = |name: &str| {
            nodes.iter().any(|node| {
                let serving = node.serving.as_ref();
                node.connected
                    && serving.is_some_and(|it| it.active_listeners.iter().any(|it| it == name))
            })
        };
        let listeners = snapshot.listeners.iter();
        listeners
            .map(|listener| Row {
                kind: "Listener",
                namespace: namespace_of(listener),
                name: listener.name.to_string(),
                view: json!({
                    "name": &*listener.name,
                    "hostname": listener.hostnames.first().map(ToString::to_string),
                    "hostnames": listener.hostnames.iter().map(ToString::to_string).collect::<Vec<_>>(),
                    "port": listener.port.get(),
                    "protocol": format!("{:?}", listener.protocol).to_uppercase(),
                    "ready": is_served(&listener.name),
                    "attachedRoutes": attached.get(&*listener.name).copied().unwrap_or(0),
                }),
            })
            .collect()
    }
}

fn namespace_of(listener: &Listener) -> String {
    let namespace = listener.metadata.get("namespace");
    namespace.unwrap_or_default().to_owned()
}

fn route_rows(snapshot: &Snapshot) -> Vec<Row> {
    let http = snapshot.http_routes.iter().map(|route| {
        let backends = route.rules.iter().flat_map(|rule| &rule.backends);
        let hosts = texts(&route.hostnames);
        let key = (route.namespace(), route.name());
        route_row("HTTPRoute", key, hosts, texts(&route.listeners), backends)
    });
    let grpc = snapshot.grpc_routes.iter().map(|route| {
        let backends = route.rules.iter().flat_map(|rule| &rule.backends);
        let hosts = texts(&route.hostnames);
        let key = (route.namespace(), route.name());
        route_row("GRPCRoute", key, hosts, texts(&route.listeners), backends)
    });
    let stream = snapshot.stream_routes.iter().map(|route| {
        let backends = route.rules.iter().flat_map(|rule| &rule.backends);
        let kind = route.kind.object_kind();
        let key = (route.namespace(), route.name());
        route_row(kind, key, Vec::new(), texts(&route.listeners), backends)
    });
    http.chain(grpc).chain(stream).collect()
}

fn route_row<'b>(
    kind: &'static str,
    (namespace, name): (&str, &str),
    hostnames: Vec<String>,
    listeners: Vec<String>,
    backends: impl Iterator<Item = &'b BackendRef>,
) -> Row {
    let backends = backends.map(|it| json!({ "name": &*it.target.display, "weight": it.weight }));
    Row {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        view: json!({
            "kind": kind,
            "namespace": namespace,
            "name": name,
            "hostnames": hostnames,
            "listeners": listeners,
            "backends": backends.collect::<Value>(),
        }),
    }
}

fn backend_row(cluster: &Cluster) -> Row {
    let (namespace, name) = cluster.key.split_once('/').unwrap_or(("", &cluster.key));
    let endpoints = cluster.endpoints.iter().map(|endpoint| {
        let address = match &endpoint.address {
            ir::cluster::EndpointAddress::Ip(ip) => ip.to_string(),
            ir::cluster::EndpointAddress::Name(name) => name.to_string(),
        };
        json!({
            "address": address,
            "port": endpoint.port.get(),
            "ready": endpoint.is_ready,
            "weight": endpoint.weight,
        })
    });
    Row {
        kind: "Backend",
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        view: json!({
            "namespace": namespace,
            "name": name,
            "protocol": format!("{:?}", cluster.protocol),
            "endpoints": endpoints.collect::<Value>(),
        }),
    }
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn is_wanted(row: &Row, query: &str) -> bool {
    pairs(query).all(|(parameter, value)| match parameter {
        _ if value.is_empty() => true,
        "namespace" => row.namespace == value,
        "name" => row.name.starts_with(value),
        "kind" => row.kind.eq_ignore_ascii_case(value),
        "search" => {
            let value = value.replace("%2F", "/");
            format!("{}/{}", row.namespace, row.name).contains(&*value)
        }
        _ => true,
    })
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn number(query: &str, wanted: &str) -> Result<Option<usize>, String> {
    let Some((_, value)) = pairs(query).find(|(name, _)| *name == wanted) else {
        return Ok(None);
    };
    let number = value.parse();
    let number = number.map_err(|_| format!("{wanted} must be a whole number, not {value:?}"))?;
    Ok(Some(number))
}
