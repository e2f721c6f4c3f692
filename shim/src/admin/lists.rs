//! Lists of what the current snapshot holds and of data planes, in the words of the Go control
//! plane.
//!
//! Each list has a type for its rows; which of them are shown, and where the next page is, is said
//! by the query (`query.rs`).

use std::collections::HashMap;

use dataplane::admin::query::kind as short;
use hyper::StatusCode;
use ir::http_route::BackendRef;
use ir::stream_route::StreamKind;
use ir::{Cluster, GrpcRoute, Hostname, HttpRoute, Listener, Snapshot, StreamRoute};
use serde::Serialize;
use serde_json::{Value, json};

use super::query::{Key, Plus, Row, Wanted, decode};
use super::words;
use super::{Admin, Answer};
use crate::history::Published;
use crate::nodes::{Node, rfc3339};
use crate::quarantine::Kept;

/// Before the name of one object of a list.
pub(super) const OBJECTS: [&str; 4] = [
    "/v1/listeners/",
    "/v1/routes/",
    "/v1/backends/",
    "/v1/nodes/",
];

impl Admin {
    /// `/v1/listeners`.
    pub(super) fn listeners(&self, path: &str, query: &str) -> Answer {
        let current = self.store.current();
        list(path, query, self.listener_rows(snapshot(&current)))
    }

    /// `/v1/routes`.
    pub(super) fn routes(&self, path: &str, query: &str) -> Answer {
        let current = self.store.current();
        list(path, query, route_rows(snapshot(&current)))
    }

    /// `/v1/backends`.
    pub(super) fn backends(&self, path: &str, query: &str) -> Answer {
        let current = self.store.current();
        list(path, query, backend_rows(snapshot(&current)))
    }

    /// `/v1/nodes`.
    pub(super) fn node_list(&self, path: &str, query: &str) -> Answer {
        list(path, query, self.nodes.list().into_iter().map(NodeRow))
    }

    /// `/api/v1/clients`.
    pub(super) fn clients(&self, path: &str, query: &str) -> Answer {
        let state = self.state.borrow().clone();
        let rows = self.nodes.list().into_iter().map(|node| ClientRow {
            quarantine: refused_by(&node.node_id, &state.quarantine),
            node,
        });
        list(path, query, rows)
    }

    /// One object of a list: `name` is all of a path behind the list's.
    pub(super) fn object(&self, list: &str, name: &str) -> Answer {
        let Some(name) = decode(name, Plus::IsItself) else {
            let message = format!("the name must be UTF-8 in percent-encoding, not {name:?}");
            return Answer::error(StatusCode::BAD_REQUEST, &message);
        };
        let current = self.store.current();
        let snapshot = snapshot(&current);
        let by_key = |row: &BackendRow<'_>| name == *row.0.key;
        let by_kind = |row: &RouteRow<'_>| {
            let parts = name.split_once('/').and_then(|(kind, key)| {
                let (namespace, name) = key.split_once('/')?;
                Some((short(kind), namespace, name))
            });
            parts == Some((short(row.kind()), row.namespace(), row.name()))
        };
        let found = match list {
            "/v1/listeners/" => {
                let mut rows = self.listener_rows(snapshot);
                rows.find(|row| row.name() == name).map(|it| it.view())
            }
            "/v1/routes/" => route_rows(snapshot).find(by_kind).map(|it| it.view()),
            "/v1/backends/" => backend_rows(snapshot).find(by_key).map(|it| it.view()),
            _ => self.nodes.node(&name).map(|node| NodeRow(node).view()),
        };
        match found {
            Some(view) => Answer::json(&view),
            None => {
                let list = list.trim_end_matches('/');
                let message = format!("there is no {name}; {list} lists what there is");
                Answer::error(StatusCode::NOT_FOUND, &message)
            }
        }
    }

    fn listener_rows<'s>(
        &self,
        snapshot: Option<&'s Snapshot>,
    ) -> impl Iterator<Item = ListenerRow<'s>> {
        let mut attached: HashMap<&str, u64> = HashMap::new();
        if let Some(snapshot) = snapshot {
            let http = snapshot.http_routes.iter().flat_map(|it| &it.listeners);
            let grpc = snapshot.grpc_routes.iter().flat_map(|it| &it.listeners);
            let stream = snapshot.stream_routes.iter().flat_map(|it| &it.listeners);
            for name in http.chain(grpc).chain(stream) {
                *attached.entry(name).or_default() += 1;
            }
        }
        let served = self.served_listeners();
        let listeners = snapshot.into_iter().flat_map(|it| it.listeners.iter());
        listeners.map(move |listener| ListenerRow {
            listener,
            attached_routes: attached.get(&*listener.name).copied().unwrap_or(0),
            is_ready: served.contains_key(&*listener.name),
        })
    }

    /// How many connected data planes serve each listener, by name.
    pub(super) fn served_listeners(&self) -> HashMap<String, usize> {
        let mut served = HashMap::new();
        for node in self.nodes.list().into_iter().filter(|it| it.connected) {
            for name in node.serving.unwrap_or_default().active_listeners {
                *served.entry(name).or_default() += 1;
            }
        }
        served
    }
}

fn snapshot(current: &Option<std::sync::Arc<Published>>) -> Option<&Snapshot> {
    current.as_ref().map(|current| &current.snapshot)
}

fn list<R: Row>(path: &str, query: &str, rows: impl Iterator<Item = R>) -> Answer {
    let wanted = match Wanted::of::<R>(query) {
        Ok(wanted) => wanted,
        Err(message) => return Answer::error(StatusCode::BAD_REQUEST, &message),
    };
    let page = wanted.page(rows);
    let mut answer = Answer::json(&page.rows);
    let link = page
        .next
        .map(|next| format!("<{path}?{next}>; rel=\"next\""));
    answer.link = link;
    answer
}

/// A listener, how many routes it has, and whether any data plane serves it.
struct ListenerRow<'s> {
    listener: &'s Listener,
    attached_routes: u64,
    is_ready: bool,
}

impl Row for ListenerRow<'_> {
    const KINDS: &'static [&'static str] = &["Listener"];
    const SORTS: &'static [&'static str] = &[
        "name",
        "namespace",
        "hostname",
        "port",
        "protocol",
        "ready",
        "attachedRoutes",
    ];

    fn kind(&self) -> &'static str {
        "Listener"
    }

    fn namespace(&self) -> &str {
        let namespace = self.listener.metadata.get("namespace");
        namespace.unwrap_or_default()
    }

    fn name(&self) -> &str {
        &self.listener.name
    }

    fn key(&self, field: &str) -> Key<'_> {
        match field {
            "name" => self.name().into(),
            "namespace" => self.namespace().into(),
            "hostname" => match self.listener.hostnames.first() {
                Some(hostname) => hostname.as_str().into(),
                None => Key::None,
            },
            "port" => u64::from(self.listener.port.get()).into(),
            "protocol" => words::listener_protocol(self.listener.protocol).into(),
            "ready" => self.is_ready.into(),
            "attachedRoutes" => self.attached_routes.into(),
            _ => Key::None,
        }
    }

    fn view(&self) -> Value {
        let hostnames = texts(&self.listener.hostnames);
        json!({
            "name": &*self.listener.name,
            "namespace": self.namespace(),
            "hostname": hostnames.first(),
            "hostnames": hostnames,
            "port": self.listener.port.get(),
            "protocol": words::listener_protocol(self.listener.protocol),
            "ready": self.is_ready,
            "attachedRoutes": self.attached_routes,
        })
    }
}

/// A route of any kind.
enum RouteRow<'s> {
    Http(&'s HttpRoute),
    Grpc(&'s GrpcRoute),
    Stream(&'s StreamRoute),
}

impl<'s> RouteRow<'s> {
    fn hostnames(&self) -> &'s [Hostname] {
        match self {
            Self::Http(route) => &route.hostnames,
            Self::Grpc(route) => &route.hostnames,
            Self::Stream(_) => &[],
        }
    }

    fn listeners(&self) -> &'s [std::sync::Arc<str>] {
        match self {
            Self::Http(route) => &route.listeners,
            Self::Grpc(route) => &route.listeners,
            Self::Stream(route) => &route.listeners,
        }
    }

    fn backends(&self) -> Vec<&'s BackendRef> {
        match self {
            Self::Http(route) => route.rules.iter().flat_map(|it| &it.backends).collect(),
            Self::Grpc(route) => route.rules.iter().flat_map(|it| &it.backends).collect(),
            Self::Stream(route) => route.rules.iter().flat_map(|it| &it.backends).collect(),
        }
    }
}

impl Row for RouteRow<'_> {
    const KINDS: &'static [&'static str] = &[
        "HTTPRoute",
        "GRPCRoute",
        StreamKind::Tcp.object_kind(),
        StreamKind::Udp.object_kind(),
        StreamKind::Tls.object_kind(),
    ];
    const SORTS: &'static [&'static str] = &["name", "namespace", "kind"];

    fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "HTTPRoute",
            Self::Grpc(_) => "GRPCRoute",
            Self::Stream(route) => route.kind.object_kind(),
        }
    }

    fn namespace(&self) -> &str {
        match self {
            Self::Http(route) => route.namespace(),
            Self::Grpc(route) => route.namespace(),
            Self::Stream(route) => route.namespace(),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Http(route) => route.name(),
            Self::Grpc(route) => route.name(),
            Self::Stream(route) => route.name(),
        }
    }

    fn key(&self, field: &str) -> Key<'_> {
        match field {
            "name" => self.name().into(),
            "namespace" => self.namespace().into(),
            "kind" => self.kind().into(),
            _ => Key::None,
        }
    }

    fn view(&self) -> Value {
        let backends = self.backends().into_iter();
        let backends = backends.map(|it| {
            json!({
                "name": &*it.target.display,
                "weight": it.weight,
            })
        });
        json!({
            "kind": self.kind(),
            "namespace": self.namespace(),
            "name": self.name(),
            "hostnames": texts(self.hostnames()),
            "listeners": texts(self.listeners()),
            "backends": backends.collect::<Value>(),
        })
    }
}

fn route_rows(snapshot: Option<&Snapshot>) -> impl Iterator<Item = RouteRow<'_>> {
    snapshot.into_iter().flat_map(|snapshot| {
        let http = snapshot.http_routes.iter().map(|it| RouteRow::Http(it));
        let grpc = snapshot.grpc_routes.iter().map(|it| RouteRow::Grpc(it));
        let stream = snapshot.stream_routes.iter().map(|it| RouteRow::Stream(it));
        http.chain(grpc).chain(stream)
    })
}

/// A backend.
struct BackendRow<'s>(&'s Cluster);

impl BackendRow<'_> {
    /// What its endpoints weigh together.
    fn weight(&self) -> u64 {
        let weights = self.0.endpoints.iter().map(|it| u64::from(it.weight));
        weights.sum()
    }
}

impl Row for BackendRow<'_> {
    const KINDS: &'static [&'static str] = &["Backend"];
    const SORTS: &'static [&'static str] = &["name", "namespace", "protocol", "weight"];

    fn kind(&self) -> &'static str {
        "Backend"
    }

    fn namespace(&self) -> &str {
        let parts = self.0.key.split_once('/');
        parts.map_or("", |(namespace, _)| namespace)
    }

    fn name(&self) -> &str {
        let parts = self.0.key.split_once('/');
        parts.map_or(&self.0.key, |(_, name)| name)
    }

    fn key(&self, field: &str) -> Key<'_> {
        match field {
            "name" => self.name().into(),
            "namespace" => self.namespace().into(),
            "protocol" => self.0.protocol.as_str().into(),
            "weight" => self.weight().into(),
            _ => Key::None,
        }
    }

    fn view(&self) -> Value {
        let endpoints = self.0.endpoints.iter().map(|endpoint| {
            json!({
                "address": words::endpoint_address(&endpoint.address),
                "port": endpoint.port.get(),
                "ready": endpoint.is_ready,
                "weight": endpoint.weight,
            })
        });
        json!({
            "namespace": self.namespace(),
            "name": self.name(),
            "protocol": self.0.protocol.as_str(),
            "endpoints": endpoints.collect::<Value>(),
            "weight": self.weight(),
        })
    }
}

fn backend_rows(snapshot: Option<&Snapshot>) -> impl Iterator<Item = BackendRow<'_>> {
    let clusters = snapshot.into_iter().flat_map(|it| it.clusters.iter());
    clusters.map(|cluster| BackendRow(cluster))
}

/// A data plane with the names of the Go control plane.
struct NodeRow(Node);

impl Row for NodeRow {
    const KINDS: &'static [&'static str] = &["Node"];
    const SORTS: &'static [&'static str] = &[
        "id",
        "name",
        "version",
        "connected",
        "ready",
        "connectedAt",
        "lastSeenAt",
    ];

    fn kind(&self) -> &'static str {
        "Node"
    }

    fn namespace(&self) -> &str {
        ""
    }

    fn name(&self) -> &str {
        &self.0.node_id
    }

    fn key(&self, field: &str) -> Key<'_> {
        match field {
            "id" | "name" => self.0.node_id.as_str().into(),
            "version" => self.0.version.as_str().into(),
            "connected" => self.0.connected.into(),
            "ready" => self.0.ready.into(),
            "connectedAt" => time(self.0.connected_at),
            "lastSeenAt" => time(self.0.last_seen_at),
            _ => Key::None,
        }
    }

    fn view(&self) -> Value {
        let node = &self.0;
        json!({
            "id": node.node_id,
            "version": node.version,
            "connected": node.connected,
            "ready": node.ready,
            "connectedAt": rfc3339(node.connected_at),
            "lastSeenAt": rfc3339(node.last_seen_at),
        })
    }
}

/// A data plane and the objects that are left out on its account.
#[derive(Serialize)]
struct ClientRow {
    #[serde(flatten)]
    node: Node,
    quarantine: Vec<String>,
}

impl Row for ClientRow {
    const KINDS: &'static [&'static str] = &["Node"];
    const SORTS: &'static [&'static str] = &[
        "node_id",
        "name",
        "cluster",
        "version",
        "connected",
        "ready",
        "nacks",
        "connected_at",
        "last_seen_at",
    ];

    fn kind(&self) -> &'static str {
        "Node"
    }

    fn namespace(&self) -> &str {
        ""
    }

    fn name(&self) -> &str {
        &self.node.node_id
    }

    fn key(&self, field: &str) -> Key<'_> {
        match field {
            "node_id" | "name" => self.node.node_id.as_str().into(),
            "cluster" => self.node.cluster.as_str().into(),
            "version" => self.node.version.as_str().into(),
            "connected" => self.node.connected.into(),
            "ready" => self.node.ready.into(),
            "nacks" => self.node.nacks.into(),
            "connected_at" => time(self.node.connected_at),
            "last_seen_at" => time(self.node.last_seen_at),
            _ => Key::None,
        }
    }

    fn view(&self) -> Value {
        // It has texts and numbers alone, so nothing can go wrong.
        serde_json::to_value(self).unwrap_or_default()
    }
}

fn refused_by(node_id: &str, kept: &[Kept]) -> Vec<String> {
    let refused = kept.iter().filter(|kept| kept.nodes.contains_key(node_id));
    refused.map(|kept| kept.object.clone()).collect()
}

/// Times in the order in which they came.
fn time(time: std::time::SystemTime) -> Key<'static> {
    let since = time.duration_since(std::time::UNIX_EPOCH);
    let nanoseconds = since.unwrap_or_default().as_nanos();
    u64::try_from(nanoseconds).unwrap_or(u64::MAX).into()
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each field that a list can be sorted by says something of a row that has all of it.
    fn has_keys<R: Row>(row: &R) {
        for field in R::SORTS {
            assert_ne!(row.key(field), Key::None, "{field}");
        }
        assert!(R::KINDS.contains(&row.kind()));
        assert_eq!(row.key("nothing"), Key::None);
    }

    #[test]
    fn every_field_to_sort_by_is_known() {
        let nodes = crate::nodes::Nodes::default();
        drop(nodes.connect("dp").unwrap());
        let node = nodes.node("dp").unwrap();
        has_keys(&NodeRow(node.clone()));
        has_keys(&ClientRow {
            node,
            quarantine: Vec::new(),
        });
        let cluster = Cluster::new("a/b:80", ir::cluster::ClusterProtocol::Http);
        has_keys(&BackendRow(&cluster));
        let mut listener = dataplane_testkit::snapshot::listener(
            "a/gw/http",
            80,
            ir::listener::ListenerProtocol::Http,
        );
        listener.hostnames = vec![Hostname::new("a.test").unwrap()];
        has_keys(&ListenerRow {
            listener: &listener,
            attached_routes: 0,
            is_ready: false,
        });
        let route = dataplane_testkit::snapshot::http_route("a/b", "a.test", "/", &[]);
        has_keys(&RouteRow::Http(&route));
    }
}
