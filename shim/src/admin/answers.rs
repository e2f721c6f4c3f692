//! What each path of the admin API answers.

use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use super::snapshot_view::view;
use super::{Admin, Answer};
use crate::nodes::{Node, rfc3339};
use crate::quarantine::Kept;

impl Admin {
    /// Answering is the proof.
    pub(super) fn liveness(&self) -> Answer {
        Answer::text(StatusCode::OK, "ok\n")
    }

    /// Ready once there is something to serve and, unless told otherwise, somebody to serve it to.
    pub(super) fn readiness(&self) -> Answer {
        let unavailable = |reason: &str| Answer::text(StatusCode::SERVICE_UNAVAILABLE, reason);
        if self.shutdown.is_cancelled() {
            unavailable("stopping\n")
        } else if self.store.current().is_none() {
            unavailable("no snapshot yet\n")
        } else if !self.permit_without_stream && !self.nodes.ever_connected() {
            unavailable("no data plane has connected yet (grpcRuntime.permitWithoutStream)\n")
        } else {
            Answer::text(StatusCode::OK, "ready\n")
        }
    }

    pub(super) fn metrics(&self) -> Answer {
        match self.metrics.encode_text() {
            Ok(body) => Answer {
                status: StatusCode::OK,
                content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
                body,
                link: None,
            },
            Err(_) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, "metrics failed"),
        }
    }

    pub(super) fn snapshot_version(&self) -> Answer {
        let (version, generated_at) = self.current_version();
        Answer::json(&json!({ "version": version, "generated_at": generated_at }))
    }

    pub(super) fn snapshot(&self) -> Answer {
        match self.store.current() {
            Some(current) => Answer::json(&view(&current.snapshot)),
            None => Answer::error(StatusCode::NOT_FOUND, "no snapshot yet"),
        }
    }

    pub(super) fn status(&self) -> Answer {
        let state = self.state.borrow().clone();
        let faults: Vec<String> = state.files.faults.iter().map(ToString::to_string).collect();
        let skipped: Vec<String> = state
            .files
            .skipped
            .iter()
            .map(ToString::to_string)
            .collect();
        let objects: Vec<_> = state.translation.statuses().map(AsRef::as_ref).collect();
        Answer::json(&json!({
            "objects": objects,
            "quarantine": state.quarantine,
            "faults": faults,
            "skipped": skipped,
        }))
    }

    pub(super) fn clients(&self) -> Answer {
        let state = self.state.borrow().clone();
        let nodes = self.nodes.list();
        let clients: Vec<_> = nodes
            .iter()
            .map(|node| Client {
                node,
                quarantine: refused_by(&node.node_id, &state.quarantine),
            })
            .collect();
        Answer::json(&clients)
    }

    pub(super) fn snapshot_sync(&self) -> Answer {
        let (version, generated_at) = self.current_version();
        let nodes: Vec<Value> = self
            .nodes
            .list()
            .iter()
            .map(|node| {
                json!({
                    "id": node.node_id,
                    "version": node.version,
                    "ready": node.ready,
                    "drift": node.version != version,
                })
            })
            .collect();
        Answer::json(&json!({ "version": version, "generatedAt": generated_at, "nodes": nodes }))
    }

    pub(super) fn summary(&self) -> Answer {
        let (version, generated_at) = self.current_version();
        let nodes = self.nodes.list();
        let count = |claim: &dyn Fn(&Node) -> bool| nodes.iter().filter(|node| claim(node)).count();
        let current = self.store.current();
        let snapshot = current.as_ref().map(|current| &current.snapshot);
        let http = snapshot.map_or(0, |snapshot| snapshot.http_routes.len());
        let grpc = snapshot.map_or(0, |snapshot| snapshot.grpc_routes.len());
        let stream = snapshot.map_or(0, |snapshot| snapshot.stream_routes.len());
        Answer::json(&json!({
            "snapshotVersion": version,
            "generatedAt": generated_at,
            "listenerCount": snapshot.map_or(0, |snapshot| snapshot.listeners.len()),
            "httpRouteCount": http,
            "grpcRouteCount": grpc,
            "streamRouteCount": stream,
            "routeCount": http + grpc + stream,
            "backendCount": snapshot.map_or(0, |snapshot| snapshot.clusters.len()),
            "secretCount": snapshot.map_or(0, |snapshot| snapshot.secrets.len()),
            "nodeCount": nodes.len(),
            "connectedNodeCount": count(&|node| node.connected),
            "readyNodeCount": count(&|node| node.ready),
            "currentVersionNodeCount": count(&|node| node.version == version),
            "currentVersionReadyCount": count(&|node| node.ready && node.version == version),
            "driftedNodeCount": count(&|node| node.version != version),
        }))
    }

    pub(super) fn node_list(&self) -> Answer {
        let nodes: Vec<Value> = self.nodes.list().iter().map(node_view).collect();
        Answer::json(&nodes)
    }

    pub(super) fn node(&self, node_id: &str) -> Answer {
        match self.nodes.node(node_id) {
            Some(node) => Answer::json(&node_view(&node)),
            None => Answer::error(StatusCode::NOT_FOUND, "no such node"),
        }
    }

    /// Version and time of the current snapshot, both empty before the first.
    fn current_version(&self) -> (String, String) {
        let current = self.store.current();
        current.map_or_else(Default::default, |current| {
            let time = current.snapshot.generated_at.map(rfc3339);
            (
                current.snapshot.version.to_string(),
                time.unwrap_or_default(),
            )
        })
    }
}

/// A node and the objects that are left out on its account.
#[derive(Serialize)]
struct Client<'a> {
    #[serde(flatten)]
    node: &'a Node,
    quarantine: Vec<&'a str>,
}

fn refused_by<'a>(node_id: &str, kept: &'a [Kept]) -> Vec<&'a str> {
    let refused = kept.iter().filter(|kept| kept.nodes.contains_key(node_id));
    refused.map(|kept| kept.object.as_str()).collect()
}

/// A node with the names of the Go control plane.
fn node_view(node: &Node) -> Value {
    json!({
        "id": node.node_id,
        "version": node.version,
        "connected": node.connected,
        "ready": node.ready,
        "connectedAt": rfc3339(node.connected_at),
        "lastSeenAt": rfc3339(node.last_seen_at),
    })
}
