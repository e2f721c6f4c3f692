//! What each path of the admin API answers.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::{Admin, Answer, snapshot_view};
use crate::nodes::rfc3339;

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
            Some(current) => Answer::of_json(snapshot_view::text(&current.snapshot)),
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

    /// Whoever gets here was let in.
    pub(super) fn verify(&self) -> Answer {
        let is_asked = self.token.is_some();
        Answer::json(&json!({
            "authenticated": is_asked,
            "readOnly": true,
            "reason": if is_asked { "the token is right" } else { "no token is asked for" },
            "subject": if is_asked { "adminAuth" } else { "anonymous" },
        }))
    }

    /// Version and time of the current snapshot, both empty before the first.
    pub(super) fn current_version(&self) -> (String, String) {
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
