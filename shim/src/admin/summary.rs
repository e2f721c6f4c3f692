//! `/v1/summary`: the state of everything in numbers, and what somebody should look at.

use std::collections::HashMap;

use serde_json::json;

use super::{Admin, Answer};
use crate::conditions::{Condition, ObjectStatus, Which};
use crate::nodes::Node;
use crate::pipeline::State;

/// Warnings of one answer.
const WARNINGS_MAX: usize = 100;

/// Listeners by how they are doing.
#[derive(Debug, Default)]
struct Listeners {
    /// Every connected data plane serves them, and nothing is wrong with them.
    ready: usize,
    /// Some data plane serves them.
    warning: usize,
    /// Nobody does, whether they are in the snapshot or were left out.
    failed: usize,
}

impl Admin {
    pub(super) fn summary(&self) -> Answer {
        let (version, generated_at) = self.current_version();
        let nodes = self.nodes.list();
        let state = self.state.borrow().clone();
        let current = self.store.current();
        let snapshot = current.as_ref().map(|current| &current.snapshot);
        let http = snapshot.map_or(0, |snapshot| snapshot.http_routes.len());
        let grpc = snapshot.map_or(0, |snapshot| snapshot.grpc_routes.len());
        let stream = snapshot.map_or(0, |snapshot| snapshot.stream_routes.len());
        // What those that left last said counts for nothing any more.
        let connected: Vec<&Node> = nodes.iter().filter(|node| node.connected).collect();
        let count =
            |claim: &dyn Fn(&Node) -> bool| connected.iter().filter(|node| claim(node)).count();
        let listeners = self.listeners_by_state(&state, connected.len());
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
            "connectedNodeCount": connected.len(),
            "readyNodeCount": count(&|node| node.ready),
            "currentVersionNodeCount": count(&|node| node.version == version),
            "currentVersionReadyCount": count(&|node| node.ready && node.version == version),
            "driftedNodeCount": count(&|node| node.version != version),
            "readyListenerCount": listeners.ready,
            "warningListenerCount": listeners.warning,
            "failedListenerCount": listeners.failed,
            "warnings": warnings(&connected, &state),
        }))
    }

    fn listeners_by_state(&self, state: &State, connected: usize) -> Listeners {
        let statuses = state.translation.statuses();
        let troubled: HashMap<&str, bool> = statuses
            .flat_map(|status| &status.listeners)
            .map(|listener| (&*listener.id, has_problem(&listener.conditions)))
            .collect();
        let served = self.served_listeners();
        let current = self.store.current();
        let snapshot = current.as_ref().map(|current| &current.snapshot);
        let mut listeners = Listeners::default();
        for listener in snapshot.into_iter().flat_map(|it| it.listeners.iter()) {
            let is_troubled = troubled.get(&*listener.name).copied().unwrap_or(false);
            match served.get(&*listener.name).copied().unwrap_or(0) {
                0 => listeners.failed += 1,
                everywhere if everywhere >= connected && !is_troubled => listeners.ready += 1,
                _ => listeners.warning += 1,
            }
        }
        let is_in = |name: &str| snapshot.is_some_and(|it| it.listeners.get(name).is_some());
        listeners.failed += troubled.keys().filter(|name| !is_in(name)).count();
        listeners
    }
}

fn has_problem(conditions: &[Condition]) -> bool {
    conditions.iter().any(Condition::is_problem)
}

/// Data planes first, then what they refuse, what cannot be read, and objects.
fn warnings(connected: &[&Node], state: &State) -> Vec<String> {
    let nodes = connected.iter().filter_map(|node| {
        let (id, pushed) = (&node.node_id, &node.pushed_version);
        if !node.error_detail.is_empty() {
            let why = &node.error_detail;
            Some(format!("data plane {id} refused version {pushed}: {why}"))
        } else {
            let text = format!("data plane {id} did not answer to version {pushed} in time");
            node.stale.then_some(text)
        }
    });
    let kept = state.quarantine.iter().filter(|kept| !kept.tried);
    let kept = kept.map(|kept| {
        let object = &kept.object;
        format!("{object} is left out, because data planes refused it; see /api/v1/status")
    });
    let faults = state.files.faults.iter().map(ToString::to_string);
    let objects = state.translation.statuses().flat_map(|it| told(it));
    let clusters = state.translation.cluster_violations();
    let clusters = clusters.map(ToString::to_string);
    let all = nodes.chain(kept).chain(faults).chain(clusters);
    let mut all = all.chain(objects);
    let mut warnings: Vec<String> = all.by_ref().take(WARNINGS_MAX).collect();
    if all.next().is_some() {
        warnings.push("there is more; see /api/v1/status".to_owned());
    }
    warnings
}

/// What is wrong with an object, and what of it has no effect.
fn told(status: &ObjectStatus) -> Vec<String> {
    let parents = status.parents.iter().map(|it| &it.conditions);
    let listeners = status.listeners.iter().map(|it| &it.conditions);
    let mut parts = parents.chain(listeners);
    // Most have nothing to tell, and then no text is made.
    let mut told = match has_problem(&status.conditions) || parts.any(|it| has_problem(it)) {
        true => status.lines(Which::Problems),
        false => Vec::new(),
    };
    let title = |text: &dyn std::fmt::Display| {
        format!("{} {} ({}): {text}", status.kind, status.key, status.origin)
    };
    told.extend(status.violations.iter().map(|it| title(it)));
    told.extend(status.warnings.iter().map(|it| title(it)));
    told
}
