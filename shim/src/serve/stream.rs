//! One open stream: the shell around [`Session`] that waits, sends and keeps time.
//!
//! `serve.rs` spawns [`run`] for every `StreamConfiguration` call. It watches the store for a newer
//! snapshot, pushes what the session plans, and ends the stream with the status and the reason that
//! fit. It holds no configuration of its own; only the newest snapshot is ever sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ir::Version;
use ir::wire::DiscoveryRequest;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use super::Shared;
use super::connection::OpenStream;
use super::outbox::{Outbox, SendError};
use super::session::{Plan, Reaction, Session};
use crate::history::Published;
use crate::metrics::{KindLabel, ReasonLabel};
use crate::nodes::{Lease, Node, NodeViolation, VIOLATIONS_MAX, bounded};
use crate::quarantine::Nack;

/// How long a client may take to fetch the status that ends its stream.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Features and subscriptions remembered of one client.
const LIST_MAX: usize = 32;

/// Why a stream ends: the status for the client, and a word for logs and metrics.
struct Ending {
    reason: &'static str,
    status: Option<Status>,
}

/// Serves one stream until it ends.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut requests: Streaming<DiscoveryRequest>,
    outbox: Outbox,
    open: OpenStream,
) {
    let connection = Arc::clone(open.connection());
    shared.metrics.streams_active.inc();
    let mut stream = Stream {
        shared: &shared,
        outbox,
        pushed: None,
        withheld: None,
    };
    let (node_id, ending) = stream.serve(&mut requests, &open).await;
    debug!(node_id, reason = ending.reason, "stream ended");
    shared.metrics.streams_active.dec();
    let label = ReasonLabel {
        reason: ending.reason,
    };
    shared
        .metrics
        .stream_terminations
        .get_or_create(&label)
        .inc();
    if let Some(status) = ending.status
        && !stream.outbox.end(status, LAST_WORD).await
    {
        // It does not even read the end of its stream; nothing else frees what it holds.
        connection.cut();
    }
}

struct Stream<'a> {
    shared: &'a Shared,
    outbox: Outbox,
    /// What was pushed last.
    pushed: Option<Arc<Published>>,
    /// What was refused and must not be pushed again, because one without the objects at fault
    /// follows. The same content published later is another attempt, hence not a version.
    withheld: Option<Arc<Published>>,
}

impl Stream<'_> {
    /// Begins the session and runs it; gives the node id, when one was told, and the ending.
    async fn serve(
        &mut self,
        requests: &mut Streaming<DiscoveryRequest>,
        open: &OpenStream,
    ) -> (String, Ending) {
        let first = tokio::select! {
            () = self.shared.shutdown.cancelled() => return (String::new(), Ending::shutdown()),
            first = tokio::time::timeout(
                self.shared.runtime.snapshot_ack_timeout,
                requests.message(),
            ) => first,
        };
        let first = match first {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None)) => return (String::new(), Ending::client_gone()),
            Ok(Err(status)) => return (String::new(), Ending::broken(&status)),
            Err(_) => return (String::new(), Ending::silent()),
        };
        let mut session = match Session::open(&first) {
            Ok(session) => session,
            Err(refusal) => return (String::new(), Ending::invalid(&refusal)),
        };
        let node_id = session.node_id().to_owned();
        let lease = match self.shared.nodes.connect(&node_id) {
            Ok((lease, distrusted)) => {
                if distrusted {
                    session.require_full();
                }
                lease
            }
            Err(full) => {
                let status = Status::resource_exhausted(full.to_string());
                return (node_id, Ending::new("other", Some(status)));
            }
        };
        lease.update(|node| note_facts(node, &session, &first));
        info!(
            node_id,
            version = first.version,
            delta = first.accepts_delta,
            peer = %open.connection().peer,
            "data plane connected"
        );
        let ending = self.converse(requests, &mut session, &lease, open).await;
        lease.update(|node| node.last_termination = Some(ending.reason));
        info!(node_id, reason = ending.reason, "data plane disconnected");
        (node_id, ending)
    }

    async fn converse(
        &mut self,
        requests: &mut Streaming<DiscoveryRequest>,
        session: &mut Session,
        lease: &Lease<'_>,
        open: &OpenStream,
    ) -> Ending {
        let mut snapshots = self.shared.store.subscribe();
        let mut heartbeat = tokio::time::interval(self.shared.runtime.heartbeat_interval());
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leading = self.shared.leading.clone();
        let mut unseen = false;
        loop {
            if let Err(ending) = self.push(session, lease, &mut snapshots).await {
                return ending;
            }
            let overdue = session.deadline();
            tokio::select! {
                () = self.shared.shutdown.cancelled() => return Ending::shutdown(),
                () = super::stays(&mut leading, true) => return Ending::stepped_down(),
                () = lease.superseded() => return Ending::superseded(session.node_id()),
                () = self.outbox.closed() => return Ending::client_gone(),
                () = open.connection().draining(), if overdue.is_none() => return Ending::aged(),
                request = requests.message() => {
                    let request = match request {
                        Ok(Some(request)) => request,
                        Ok(None) => return Ending::client_gone(),
                        Err(status) => return Ending::broken(&status),
                    };
                    unseen = false;
                    if let Err(ending) = self.take_in(session, lease, &request) {
                        return ending;
                    }
                }
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        return Ending::shutdown();
                    }
                    // A second change while an answer is awaited means that one is never sent.
                    if unseen && overdue.is_some() {
                        self.shared.metrics.fanout_coalesced.inc();
                    }
                    unseen = true;
                }
                () = until(overdue) => return self.overdue(session, lease),
                _ = heartbeat.tick() => {
                    let sent = self.outbox.heartbeat(self.live_replicas(), self.send_limit()).await;
                    if let Err(ending) = self.judge(sent) {
                        return ending;
                    }
                }
            }
        }
    }

    /// Pushes what the session plans, if anything.
    async fn push(
        &mut self,
        session: &mut Session,
        lease: &Lease<'_>,
        snapshots: &mut watch::Receiver<Option<Arc<Published>>>,
    ) -> Result<(), Ending> {
        let Some(current) = snapshots.borrow_and_update().clone() else {
            return Ok(());
        };
        if let Some(withheld) = &self.withheld {
            if Arc::ptr_eq(withheld, &current) {
                return Ok(());
            }
            self.withheld = None;
        }
        let version = current.snapshot.version.clone();
        let store = &self.shared.store;
        let plan = session.plan(&version, |held| store.find(held).is_some());
        let (kind, base) = match plan {
            Plan::Nothing => return Ok(()),
            Plan::Full => ("full", None),
            // Gone from the history since the plan was made: the whole will do.
            Plan::Delta(held) => match store.find(&held) {
                Some(base) => ("delta", Some(base)),
                None => ("full", None),
            },
        };
        let started = Instant::now();
        let profile = session.profile().clone();
        self.pushed = Some(Arc::clone(&current));
        // Encoding 40,000 routes takes a while; other streams go on meanwhile.
        let encode = move || super::push::response(&current, base.as_deref(), &profile);
        let mut response = tokio::task::spawn_blocking(encode)
            .await
            .map_err(|_| Ending::new("other", Some(Status::internal("encoding failed"))))?;
        let patience = self.shared.runtime.snapshot_ack_timeout;
        response.live_replicas = self.live_replicas();
        response.nonce = session.pushed(&version, Instant::now(), patience);
        let sent = self.outbox.push(response, self.send_limit()).await;
        self.judge(sent)?;
        let metrics = &self.shared.metrics;
        metrics
            .snapshot_send_seconds
            .observe(started.elapsed().as_secs_f64());
        metrics.pushes.get_or_create(&KindLabel { kind }).inc();
        lease.update(|node| {
            node.pushed_version = version.to_string();
            match kind {
                "full" => node.full_pushes += 1,
                _ => node.delta_pushes += 1,
            }
        });
        debug!(node_id = session.node_id(), %version, kind, "snapshot pushed");
        Ok(())
    }

    fn take_in(
        &mut self,
        session: &mut Session,
        lease: &Lease<'_>,
        request: &DiscoveryRequest,
    ) -> Result<(), Ending> {
        let reaction = session
            .on_request(request, Instant::now())
            .map_err(|refusal| Ending::invalid(&refusal))?;
        let metrics = &self.shared.metrics;
        match reaction {
            Reaction::Acked(version, lag) => {
                metrics.publish_ack_lag_seconds.observe(lag.as_secs_f64());
                lease.acked(version.as_str());
                self.note_served(session.node_id(), &version);
            }
            Reaction::Refused(version, lag) => {
                metrics.publish_nack_lag_seconds.observe(lag.as_secs_f64());
                let violations = note_refusal(lease, request);
                if self.quarantines(session, &violations, Nack::First) {
                    debug!(node_id = session.node_id(), %version, "refused for the same objects");
                    return Ok(());
                }
                warn!(
                    node_id = session.node_id(), %version,
                    error_detail = bounded(&request.error_detail),
                    "snapshot refused, pushing it once more"
                );
            }
            Reaction::RefusedAgain(version, lag) => {
                metrics.publish_nack_lag_seconds.observe(lag.as_secs_f64());
                let violations = note_refusal(lease, request);
                if self.quarantines(session, &violations, Nack::Again) {
                    return Ok(());
                }
                lease.distrust();
                warn!(
                    node_id = session.node_id(), %version,
                    error_detail = bounded(&request.error_detail),
                    "snapshot refused twice, closing the stream; see /api/v1/clients for the violations"
                );
                return Err(Ending::refused(session.node_id()));
            }
            Reaction::Refreshed => lease.update(|node| note_facts(node, session, request)),
            Reaction::Ignored => lease.update(|_| {}),
        }
        Ok(())
    }

    /// True when the objects at fault are left out from now on; the push that was refused for them
    /// is not repeated.
    fn quarantines(
        &mut self,
        session: &mut Session,
        violations: &[NodeViolation],
        nack: Nack,
    ) -> bool {
        let Some(pushed) = &self.pushed else {
            return false;
        };
        let quarantine = &self.shared.quarantine;
        let is_believed = quarantine.refused(session.node_id(), &pushed.snapshot, violations, nack);
        if is_believed {
            session.excuse();
            self.withheld = self.pushed.take();
        }
        is_believed
    }

    fn note_served(&self, node_id: &str, version: &Version) {
        let quarantine = &self.shared.quarantine;
        if quarantine.is_trying()
            && let Some(published) = self.shared.store.find(version)
        {
            quarantine.served(node_id, &published.snapshot);
        }
    }

    /// How many data planes share the limits that are meant for all of them.
    fn live_replicas(&self) -> u32 {
        u32::try_from(self.shared.nodes.connected()).unwrap_or(u32::MAX)
    }

    fn send_limit(&self) -> Duration {
        self.shared.runtime.snapshot_send_timeout
    }

    /// What it means for the stream that a message did not go out.
    fn judge(&self, sent: Result<(), SendError>) -> Result<(), Ending> {
        match sent {
            Ok(()) => Ok(()),
            Err(SendError::Closed) => Err(Ending::client_gone()),
            Err(SendError::Timeout) => {
                self.shared.metrics.snapshot_send_timeouts.inc();
                let status = Status::deadline_exceeded("the data plane does not read its stream");
                Err(Ending::new("send_timeout", Some(status)))
            }
        }
    }

    fn overdue(&self, session: &Session, lease: &Lease<'_>) -> Ending {
        self.shared.metrics.snapshot_ack_timeouts.inc();
        lease.update(|node| node.stale = true);
        warn!(
            node_id = session.node_id(),
            "push left unanswered, closing the stream; look at the data plane's log"
        );
        let status = Status::deadline_exceeded("the push was not answered in time");
        Ending::new("ack_timeout", Some(status))
    }
}

impl Ending {
    fn new(reason: &'static str, status: Option<Status>) -> Self {
        Self { reason, status }
    }

    fn shutdown() -> Self {
        let status = Status::unavailable("the control plane is shutting down");
        Self::new("shutdown", Some(status))
    }

    fn stepped_down() -> Self {
        let status = Status::unavailable("another replica serves from now on, please reconnect");
        Self::new("stepped_down", Some(status))
    }

    fn aged() -> Self {
        let status = Status::unavailable("the connection is old enough, please reconnect");
        Self::new("connection_age", Some(status))
    }

    fn superseded(node_id: &str) -> Self {
        let text = format!("a newer stream of node `{node_id}` took over; node ids must be unique");
        Self::new("superseded", Some(Status::aborted(text)))
    }

    fn refused(node_id: &str) -> Self {
        let text = format!("node `{node_id}` refused the same snapshot twice");
        Self::new("refused", Some(Status::failed_precondition(text)))
    }

    fn invalid(refusal: &dyn std::error::Error) -> Self {
        let status = Status::invalid_argument(refusal.to_string());
        Self::new("invalid_request", Some(status))
    }

    fn client_gone() -> Self {
        Self::new("client_disconnect", None)
    }

    fn broken(status: &Status) -> Self {
        debug!(code = ?status.code(), "stream broke");
        Self::new("stream_error", None)
    }

    fn silent() -> Self {
        let status = Status::deadline_exceeded("no request came on the stream");
        Self::new("invalid_request", Some(status))
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn note_facts(node: &mut Node, session: &Session, request: &DiscoveryRequest) {
    let list = |given: &[String]| {
        given
            .iter()
            .take(LIST_MAX)
            .map(|text| bounded(text))
            .collect()
    };
    node.cluster = bounded(&request.cluster);
    node.version = session
        .held()
        .map(ToString::to_string)
        .map_or_else(|| bounded(&request.version), |version| bounded(&version));
    node.subscriptions = list(&request.subscriptions);
    if !request.supported_features.is_empty() {
        node.supported_features = list(&request.supported_features);
    }
    node.compatibility_profile = session.profile().name().to_owned();
}

fn note_refusal(lease: &Lease<'_>, request: &DiscoveryRequest) -> Vec<NodeViolation> {
    let violations: Vec<_> = request
        .violations
        .iter()
        .take(VIOLATIONS_MAX)
        .map(|violation| NodeViolation {
            object: violation.object.clone(),
            path: violation.path.clone(),
            message: violation.message.clone(),
        })
        .collect();
    lease.refused(&request.error_detail, &violations);
    violations
}
