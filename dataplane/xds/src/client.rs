//! The thin shell around [`Session`]: it feeds in what happens and carries out what comes back.
//!
//! The binary runs [`run`] once, on the runtime for administration. Updates are applied in a task of
//! their own, so that a long compilation does not keep the stream from being read; the session
//! hands out one update at a time. Log lines, metrics and [`Status`] are all written in `note`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dataplane_telemetry::metrics::{Metrics, XdsMetrics};
use futures_util::FutureExt as _;
use ir::Version;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::apply::{Apply, Rejection, Update};
use crate::connection::Connection;
use crate::message::Node;
use crate::session::{Action, Event, Note, Session};
use crate::settings::Settings;
use crate::status::{Answer, Report, State, Status, unix_ms};

/// How long an update may go on after the client was told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Keeps the data plane configured until `shutdown` becomes true or its sender is gone.
///
/// Never fails: whatever the control plane does, the held configuration serves on and the client
/// dials again.
pub async fn run(
    settings: Settings,
    apply: impl Apply,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut client = Client::new(settings, apply, status, metrics);
    tokio::select! {
        () = client.serve() => {}
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
    client.stop().await;
}

struct Client {
    node: Node,
    session: Session<Update>,
    connection: Connection,
    worker: Worker,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    has_dialled: bool,
    /// The moment from which the session counts time.
    origin: Instant,
}

impl Client {
    fn new(
        settings: Settings,
        apply: impl Apply,
        status: Arc<Status>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let session = Session::new(settings.timing.clone(), apply.held());
        status.update(|report| {
            report.node_id.clone_from(&settings.node_id);
            report.control_plane.clone_from(&settings.address);
            report.version = session.held().map(Version::to_string);
        });
        Self {
            node: Node {
                id: settings.node_id.clone(),
                cluster: settings.cluster.clone(),
            },
            session,
            connection: Connection::new(Arc::new(settings)),
            worker: Worker::start(apply),
            status,
            metrics,
            has_dialled: false,
            origin: Instant::now(),
        }
    }

    async fn serve(&mut self) {
        self.handle(Event::Start);
        loop {
            let deadline = self.session.deadline().map(|after| self.origin + after);
            // Every arm may be dropped without losing anything: a channel, a connection that says
            // so, and a timer.
            let event = tokio::select! {
                result = self.worker.finished() => Event::Applied(result),
                event = self.connection.next(self.session.wants_read()) => event,
                () = sleep_until(deadline) => Event::Tick,
            };
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event<Update>) {
        let now = self.origin.elapsed();
        for action in self.session.handle(now, rand::random(), event) {
            self.perform(action);
        }
        let state = self.session.state();
        self.xds_metrics()
            .connected
            .set_claim(state == State::Active);
        self.status.update(|report| {
            report.state = state;
            report.connected = state == State::Active;
        });
    }

    fn perform(&mut self, action: Action<Update>) {
        match action {
            Action::Dial => self.dial(),
            Action::CheckHealth => self.connection.check_health(),
            Action::Open { version } => {
                let first = self
                    .node
                    .hello(version.as_ref(), self.session.type_versions());
                self.connection.open(first);
            }
            Action::Apply(update) => self.worker.apply(update),
            Action::Ack { version, nonce } => {
                self.connection.send(self.node.ack(&version, nonce));
                self.answered(&version.to_string(), None);
            }
            Action::Nack {
                version,
                nonce,
                rejection,
            } => {
                let nack = self.node.nack(version.as_ref(), nonce, &rejection);
                self.answered(&nack.version, Some(&nack.error_detail));
                self.connection.send(nack);
            }
            Action::RequestFull => {
                let request = self.node.hello(None, self.session.type_versions());
                self.connection.send(request);
            }
            Action::Report(standing) => {
                let detail = self.status.detail();
                let report = self
                    .node
                    .status_report(&standing, detail, SystemTime::now());
                self.connection.report(report);
            }
            Action::Hangup => self.connection.hang_up(),
            Action::Note(note) => self.note(note),
        }
    }

    fn dial(&mut self) {
        if self.has_dialled {
            self.xds_metrics().stream_reconnects.increment();
            self.status.update(|report| report.stream_reconnects += 1);
        }
        self.has_dialled = true;
        self.connection.dial();
    }

    fn answered(&self, version: &str, refusal: Option<&str>) {
        let answer = Answer {
            version: version.to_owned(),
            at_unix_ms: unix_ms(SystemTime::now()),
            error_detail: match refusal {
                None => String::new(),
                Some("") => "refused without a reason".to_owned(),
                Some(reason) => reason.to_owned(),
            },
        };
        self.status.answered(answer);
    }

    fn note(&self, note: Note) {
        match note {
            Note::Connected => info!("control plane connected"),
            Note::Disconnected {
                reason,
                was_active,
                is_first,
            } => self.note_disconnected(reason, was_active, is_first),
            Note::Applied { version, is_delta } => self.note_applied(&version, is_delta),
            Note::Rejected { version, reason } => {
                let version = version.as_ref().map_or("", Version::as_str);
                warn!(
                    version,
                    reason, "configuration refused; the previous one serves on"
                );
                self.xds_metrics().snapshots_nacked.increment();
                self.status.update(|report| {
                    report.snapshots_nacked += 1;
                    note_error(report, format!("snapshot rejected: {reason}"));
                });
            }
            Note::Skipped(version) => {
                debug!(%version, "configuration is held already");
                self.xds_metrics().snapshots_skipped.increment();
                self.status.update(|report| report.snapshots_skipped += 1);
            }
            Note::Resync { base } => {
                let base = base.as_ref().map_or("", Version::as_str);
                let held = self.session.held().map_or("", Version::as_str);
                info!(
                    base,
                    held, "a delta does not fit; asking for a whole snapshot"
                );
            }
            Note::Stale => {
                warn!("the control plane is silent; the held configuration may be out of date");
                self.xds_metrics().snapshot_stale.set_claim(true);
                self.status.update(|report| report.stale = true);
            }
            Note::Fresh => {
                info!("the control plane is heard again; the held configuration is current");
                self.xds_metrics().snapshot_stale.set_claim(false);
                self.status.update(|report| report.stale = false);
            }
            Note::HealthCheckFailed(reason) => {
                debug!(reason, "health check of the control plane failed");
                self.xds_metrics().health_check_failures.increment();
            }
            Note::ReportFailed(reason) => {
                debug!(reason, "status report not taken");
                self.status.update(|report| report.report_failures += 1);
            }
        }
    }

    fn note_disconnected(&self, reason: String, was_active: bool, is_first: bool) {
        // Said aloud once, however often the dial fails after that. A stream that ended is no news
        // for an operator as long as the next dial succeeds.
        match (is_first, was_active, self.session.held()) {
            (false, ..) => debug!(reason, "control plane still out of reach"),
            (true, _, None) => warn!(
                reason,
                "control plane out of reach; nothing serves before its first configuration, \
                 dialling again"
            ),
            (true, false, Some(_)) => warn!(
                reason,
                "control plane out of reach; the held configuration serves, dialling again"
            ),
            (true, true, Some(_)) => info!(
                reason,
                "the stream ended; the held configuration serves on, dialling again"
            ),
        }
        if was_active {
            self.xds_metrics().stream_failures.increment();
        } else {
            self.xds_metrics().connect_failures.increment();
        }
        self.status.update(|report| {
            if was_active {
                report.stream_failures += 1;
            } else {
                report.connect_failures += 1;
            }
            note_error(report, reason);
        });
    }

    fn note_applied(&self, version: &Version, is_delta: bool) {
        // Told to people, with its figures, by the one who applied it.
        debug!(%version, is_delta, "configuration taken over");
        let now = SystemTime::now();
        let metrics = self.xds_metrics();
        if is_delta {
            metrics.deltas_applied.increment();
        } else {
            metrics.snapshots_applied.increment();
        }
        self.status.update(|report| {
            report.snapshots_applied += 1;
            report.version = Some(version.to_string());
            report.last_applied_unix_ms = Some(unix_ms(now));
            report
                .type_versions
                .clone_from(self.session.type_versions());
        });
    }

    fn xds_metrics(&self) -> &XdsMetrics {
        &self.metrics.xds
    }

    async fn stop(mut self) {
        self.connection.hang_up();
        self.xds_metrics().connected.set_claim(false);
        self.status.update(|report| {
            report.state = State::Disconnected;
            report.connected = false;
        });
        self.worker.stop().await;
    }
}

fn note_error(report: &mut Report, reason: String) {
    report.last_error = Some(reason);
    report.last_error_unix_ms = Some(unix_ms(SystemTime::now()));
}

/// Sleeps until the moment, or for ever.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The task that applies updates, one after the other. The channels hold one entry each, and the
/// session never hands out an update before the last one's result.
struct Worker {
    updates: mpsc::Sender<Update>,
    results: mpsc::Receiver<Result<Version, Rejection>>,
    task: JoinHandle<()>,
}

impl Worker {
    fn start(mut apply: impl Apply) -> Self {
        let (updates, mut inbox) = mpsc::channel(1);
        let (outbox, results) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            while let Some(update) = inbox.recv().await {
                let result = apply_guarded(&mut apply, update).await;
                if outbox.send(result).await.is_err() {
                    return;
                }
            }
        });
        Self {
            updates,
            results,
            task,
        }
    }

    fn apply(&self, update: Update) {
        let sent = self.updates.try_send(update);
        debug_assert!(sent.is_ok(), "one update at a time");
    }

    async fn finished(&mut self) -> Result<Version, Rejection> {
        match self.results.recv().await {
            Some(result) => result,
            // Only when the task was aborted, which ends the client.
            None => std::future::pending().await,
        }
    }

    /// Lets a running update finish, within a limit.
    async fn stop(mut self) {
        drop(self.updates);
        self.results.close();
        if tokio::time::timeout(STOP_LIMIT, &mut self.task)
            .await
            .is_err()
        {
            warn!("an update did not finish in time and was abandoned");
            self.task.abort();
        }
    }
}

/// A panic in the data plane's own code must not take the configuration stream with it: the update
/// counts as refused. What it left behind is consistent, because an update changes what serves in
/// one swap at its end.
async fn apply_guarded(apply: &mut impl Apply, update: Update) -> Result<Version, Rejection> {
    match AssertUnwindSafe(apply.apply(update)).catch_unwind().await {
        Ok(result) => result,
        Err(_) => {
            error!("applying a configuration panicked; this is a bug in the data plane");
            Err(Rejection::new("internal error while applying the update"))
        }
    }
}
