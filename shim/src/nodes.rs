//! What is known about every data plane: who is connected, what it was sent, what it answered.
//!
//! `serve/` writes here, the admin API reads. A node outlives its streams, so that an operator sees
//! why one left; the registry is bounded and forgets the node that has been gone longest. It
//! decides nothing about pushes except one thing: a node whose last stream ended in refusals gets a
//! whole snapshot on the next.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Nodes remembered, connected or not.
pub const NODES_MAX: usize = 4096;
/// Violations kept of one refusal.
pub const VIOLATIONS_MAX: usize = 256;
/// Length of a text that is kept.
const TEXT_BYTES_MAX: usize = 4096;

/// Every data plane that has connected, by node id.
#[derive(Debug, Default)]
pub struct Nodes {
    inner: Mutex<Inner>,
    /// Counts what [`Nodes::subscribe`] gives word of.
    progress: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<String, Entry>,
    streams: u64,
    ever_connected: bool,
}

#[derive(Debug)]
struct Entry {
    node: Node,
    stream: Option<(u64, CancellationToken)>,
    distrusted: bool,
}

/// One data plane, as the admin API shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub node_id: String,
    /// Group of data planes it says it belongs to.
    pub cluster: String,
    /// It has a stream.
    pub connected: bool,
    /// It left a push unanswered for too long.
    pub stale: bool,
    /// By its own report it serves traffic.
    pub ready: bool,
    /// Version it serves, as far as it told.
    pub version: String,
    /// Version it acknowledged last.
    pub acked_version: String,
    /// Version it was sent last.
    pub pushed_version: String,
    /// Reason of its last refusal; empty once it acknowledged something.
    pub error_detail: String,
    /// Faults of its last refusal, one by one.
    pub violations: Vec<NodeViolation>,
    /// Its last refusal, also once it has acknowledged something since.
    pub last_nack: Option<LastNack>,
    /// What it said last in a status report.
    pub message: String,
    /// Numbers of its last status report.
    pub serving: Option<Serving>,
    /// Features it advertises.
    pub supported_features: Vec<String>,
    /// Type URLs it asked for; shown only, they filter nothing.
    pub subscriptions: Vec<String>,
    /// The projection it gets.
    pub compatibility_profile: String,
    /// Whole snapshots sent to it.
    pub full_pushes: u64,
    /// Deltas sent to it.
    pub delta_pushes: u64,
    /// Pushes it acknowledged.
    pub acks: u64,
    /// Pushes it refused.
    pub nacks: u64,
    /// Streams it has opened.
    pub streams: u64,
    /// Why its last stream ended.
    pub last_termination: Option<&'static str>,
    /// When its stream began.
    #[serde(serialize_with = "as_rfc3339")]
    pub connected_at: SystemTime,
    /// When it was heard of last.
    #[serde(serialize_with = "as_rfc3339")]
    pub last_seen_at: SystemTime,
}

/// A refusal, as it came.
#[derive(Clone, Debug, Serialize)]
pub struct LastNack {
    /// The version that was refused.
    pub version: String,
    /// The reason.
    pub error_detail: String,
    /// Faults, one by one.
    pub violations: Vec<NodeViolation>,
    /// When it came.
    #[serde(serialize_with = "as_rfc3339")]
    pub at: SystemTime,
}

/// One fault of a refused snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeViolation {
    /// The object.
    pub object: String,
    /// Where in the object.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

/// What a data plane says it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Serving {
    /// Names of its open listeners.
    pub active_listeners: Vec<String>,
    /// HTTP routes.
    pub http_routes: u32,
    /// gRPC routes.
    pub grpc_routes: u32,
    /// TCP, UDP and TLS routes.
    pub stream_routes: u32,
    /// Clusters.
    pub clusters: u32,
    /// Endpoints that may get traffic.
    pub endpoints_ready: u32,
    /// All endpoints.
    pub endpoints_total: u32,
    /// How plugins are doing there.
    pub plugins: Vec<NodePlugin>,
}

/// How a plugin is doing on a data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodePlugin {
    /// `namespace/name`.
    pub key: String,
    /// SHA-256 of the module that it runs, in hexadecimal; empty when it has none.
    pub sha256: String,
    /// Why it has not the module that is wanted; empty when it has.
    pub module_error: String,
    /// It failed so often in a row that it is left alone for a while.
    pub disabled: bool,
    /// Its last failure; empty before the first.
    pub last_failure: String,
}

/// A stream's hold on its node; dropping it says that the stream is over.
#[derive(Debug)]
pub struct Lease<'a> {
    nodes: &'a Nodes,
    node_id: String,
    stream: u64,
    superseded: CancellationToken,
}

/// The registry is full of connected nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{NODES_MAX} data planes are connected already, start another control plane")]
pub struct TooManyNodes;

impl Nodes {
    /// A stream of this node begins; an older one is told to end. The flag is true when the node
    /// must be sent a whole snapshot.
    pub fn connect(&self, node_id: &str) -> Result<(Lease<'_>, bool), TooManyNodes> {
        let mut inner = self.lock();
        if !inner.nodes.contains_key(node_id) {
            inner.make_room()?;
        }
        inner.ever_connected = true;
        inner.streams += 1;
        let stream = inner.streams;
        let superseded = CancellationToken::new();
        let now = SystemTime::now();
        let entry = inner
            .nodes
            .entry(node_id.to_owned())
            .or_insert_with(|| Entry {
                node: Node::new(node_id, now),
                stream: None,
                distrusted: false,
            });
        if let Some((_, older)) = entry.stream.replace((stream, superseded.clone())) {
            older.cancel();
        }
        entry.node.connected = true;
        entry.node.stale = false;
        entry.node.streams += 1;
        entry.node.connected_at = now;
        entry.node.last_seen_at = now;
        let distrusted = entry.distrusted;
        drop(inner);
        self.tell();
        let lease = Lease {
            nodes: self,
            node_id: node_id.to_owned(),
            stream,
            superseded,
        };
        Ok((lease, distrusted))
    }

    /// Takes a status report in; false when no stream of this node was ever seen.
    pub fn report(
        &self,
        node_id: &str,
        version: &str,
        ready: bool,
        message: &str,
        serving: Option<Serving>,
    ) -> bool {
        let mut inner = self.lock();
        let Some(entry) = inner.nodes.get_mut(node_id) else {
            return false;
        };
        let node = &mut entry.node;
        node.ready = ready;
        node.message = bounded(message);
        if !version.is_empty() {
            node.version = bounded(version);
        }
        let plugins = |serving: &Option<Serving>| serving.as_ref().map(|it| it.plugins.clone());
        let is_news = serving.is_some() && plugins(&serving) != plugins(&node.serving);
        if serving.is_some() {
            node.serving = serving;
        }
        node.last_seen_at = SystemTime::now();
        drop(inner);
        if is_news {
            self.tell();
        }
        true
    }

    /// Word of every answer, arrival and departure, and of plugins that are doing differently.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    fn tell(&self) {
        self.progress
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// All nodes in the order of their names.
    pub fn list(&self) -> Vec<Node> {
        self.lock()
            .nodes
            .values()
            .map(|entry| entry.node.clone())
            .collect()
    }

    /// One node.
    pub fn node(&self, node_id: &str) -> Option<Node> {
        Some(self.lock().nodes.get(node_id)?.node.clone())
    }

    /// How many have a stream.
    pub fn connected(&self) -> usize {
        self.lock()
            .nodes
            .values()
            .filter(|entry| entry.node.connected)
            .count()
    }

    /// True once any data plane has connected.
    pub fn ever_connected(&self) -> bool {
        self.lock().ever_connected
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn make_room(&mut self) -> Result<(), TooManyNodes> {
        if self.nodes.len() < NODES_MAX {
            return Ok(());
        }
        let gone_longest = self
            .nodes
            .values()
            .filter(|entry| !entry.node.connected)
            .min_by_key(|entry| entry.node.last_seen_at)
            .map(|entry| entry.node.node_id.clone());
        self.nodes.remove(&gone_longest.ok_or(TooManyNodes)?);
        Ok(())
    }
}

impl Lease<'_> {
    /// Completes when a newer stream of the same node has begun.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }

    /// Notes facts about the node, unless a newer stream does so by now.
    pub fn update(&self, change: impl FnOnce(&mut Node)) {
        self.with_entry(|entry| {
            change(&mut entry.node);
            entry.node.last_seen_at = SystemTime::now();
        });
    }

    /// The pushed version serves.
    pub fn acked(&self, version: &str) {
        self.with_entry(|entry| {
            entry.distrusted = false;
            let node = &mut entry.node;
            node.acks += 1;
            node.version = version.to_owned();
            node.acked_version = version.to_owned();
            node.error_detail.clear();
            node.violations.clear();
            node.last_seen_at = SystemTime::now();
        });
        self.nodes.tell();
    }

    /// The pushed version was refused.
    pub fn refused(&self, error_detail: &str, violations: &[NodeViolation]) {
        self.update(|node| {
            node.nacks += 1;
            node.error_detail = bounded(error_detail);
            node.violations = violations
                .iter()
                .take(VIOLATIONS_MAX)
                .map(|violation| NodeViolation {
                    object: bounded(&violation.object),
                    path: bounded(&violation.path),
                    message: bounded(&violation.message),
                })
                .collect();
            node.last_nack = Some(LastNack {
                version: node.pushed_version.clone(),
                error_detail: node.error_detail.clone(),
                violations: node.violations.clone(),
                at: SystemTime::now(),
            });
        });
        self.nodes.tell();
    }

    /// The next stream of this node begins with a whole snapshot.
    pub fn distrust(&self) {
        self.with_entry(|entry| entry.distrusted = true);
    }

    fn with_entry(&self, change: impl FnOnce(&mut Entry)) {
        let mut inner = self.nodes.lock();
        let Some(entry) = inner.nodes.get_mut(&self.node_id) else {
            return;
        };
        if entry
            .stream
            .as_ref()
            .is_some_and(|(id, _)| *id == self.stream)
        {
            change(entry);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.with_entry(|entry| {
            entry.stream = None;
            entry.node.connected = false;
        });
        self.nodes.tell();
    }
}

impl Node {
    fn new(node_id: &str, now: SystemTime) -> Self {
        Self {
            node_id: node_id.to_owned(),
            cluster: String::new(),
            connected: true,
            stale: false,
            ready: false,
            version: String::new(),
            acked_version: String::new(),
            pushed_version: String::new(),
            error_detail: String::new(),
            violations: Vec::new(),
            message: String::new(),
            serving: None,
            supported_features: Vec::new(),
            subscriptions: Vec::new(),
            compatibility_profile: String::new(),
            last_nack: None,
            full_pushes: 0,
            delta_pushes: 0,
            acks: 0,
            nacks: 0,
            streams: 0,
            last_termination: None,
            connected_at: now,
            last_seen_at: now,
        }
    }
}

/// The text, cut at [`TEXT_BYTES_MAX`].
pub fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// A time as RFC 3339, in UTC.
pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| time.to_string())
}

fn as_rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_stream_supersedes_the_first_and_keeps_the_node() {
        let nodes = Nodes::default();
        let (first, _) = nodes.connect("dp").unwrap();
        let (second, _) = nodes.connect("dp").unwrap();
        first.superseded().await;
        first.update(|node| node.full_pushes = 99);
        drop(first);
        let node = nodes.node("dp").unwrap();
        assert!(node.connected);
        assert_eq!((node.full_pushes, node.streams), (0, 2));
        drop(second);
        assert!(!nodes.node("dp").unwrap().connected);
    }

    #[test]
    fn distrust_lasts_until_an_acknowledgement() {
        let nodes = Nodes::default();
        let (lease, distrusted) = nodes.connect("dp").unwrap();
        assert!(!distrusted);
        lease.distrust();
        drop(lease);
        let (lease, distrusted) = nodes.connect("dp").unwrap();
        assert!(distrusted);
        lease.acked("v");
        drop(lease);
        assert!(!nodes.connect("dp").unwrap().1);
    }

    #[test]
    fn the_registry_is_bounded_and_forgets_those_who_left() {
        let nodes = Nodes::default();
        drop(nodes.connect("gone").unwrap());
        let held: Vec<_> = (1..NODES_MAX)
            .map(|n| nodes.connect(&format!("dp-{n}")).unwrap())
            .collect();
        let (last, _) = nodes.connect("one-more").unwrap();
        assert!(nodes.node("gone").is_none());
        assert_eq!(nodes.connect("too-many").unwrap_err(), TooManyNodes);
        assert_eq!(nodes.connected(), NODES_MAX);
        drop((held, last));
    }

    #[test]
    fn a_refusal_is_kept_in_bounds_until_the_next_acknowledgement() {
        let nodes = Nodes::default();
        let (lease, _) = nodes.connect("dp").unwrap();
        let fault = NodeViolation {
            object: "HTTPRoute a/b".to_owned(),
            path: String::new(),
            message: "é".repeat(TEXT_BYTES_MAX),
        };
        lease.refused(&"x".repeat(1 << 20), &vec![fault; 1000]);
        let node = nodes.node("dp").unwrap();
        assert_eq!(node.error_detail.len(), TEXT_BYTES_MAX);
        assert_eq!(node.violations.len(), VIOLATIONS_MAX);
        assert!(node.violations[0].message.len() <= TEXT_BYTES_MAX);
        lease.acked("v");
        let node = nodes.node("dp").unwrap();
        assert!(node.error_detail.is_empty() && node.violations.is_empty());
    }
}
