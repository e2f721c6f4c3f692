//! What the client is doing, for `/api/v1/xds/status` and for the reports it sends.
//!
//! The client writes, the admin API reads; a lock guards a small value and is never held over an
//! `.await`. Nothing here decides anything.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// Answers that are remembered.
const HISTORY: usize = 50;

/// Where the connection to the control plane stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum State {
    /// Nothing was tried yet.
    #[default]
    Idle,
    /// A connection is being opened.
    Connecting,
    /// Connected; the health of the control plane is asked for and the stream is being opened.
    Handshake,
    /// The stream stands.
    Active,
    /// No connection; the next dial waits for its time.
    Disconnected,
}

/// The state of the client at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// The stream to the control plane stands.
    pub connected: bool,
    /// Where the connection stands.
    pub state: State,
    /// Identity of this data plane.
    pub node_id: String,
    /// Where the control plane is dialled.
    pub control_plane: String,
    /// Dials after the first.
    pub stream_reconnects: u64,
    /// Connections that failed before a stream stood.
    pub connect_failures: u64,
    /// Streams that stood and ended.
    pub stream_failures: u64,
    /// Status reports the control plane did not take.
    pub report_failures: u64,
    /// What last went wrong with the connection, or why the last update was refused.
    pub last_error: Option<String>,
    /// When that was, in milliseconds since 1970.
    pub last_error_unix_ms: Option<u64>,
    /// The version that serves.
    pub version: Option<String>,
    /// When it was applied, in milliseconds since 1970.
    pub last_applied_unix_ms: Option<u64>,
    /// The last update that was acknowledged.
    pub last_ack: Option<Answer>,
    /// The last update that was refused.
    pub last_nack: Option<Answer>,
    /// Updates that were applied.
    pub snapshots_applied: u64,
    /// Updates that were refused.
    pub snapshots_nacked: u64,
    /// Updates with the version that was held already.
    pub snapshots_skipped: u64,
    /// The control plane has been silent for so long that what is held may be out of date.
    pub stale: bool,
    /// The held version by resource type, when the control plane tells.
    pub type_versions: BTreeMap<String, String>,
}

/// The answer to one update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The version that was answered; empty when the update carried none.
    pub version: String,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Why it was refused; empty for an acknowledgement.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error_detail: String,
}

/// What the data plane serves, in numbers; goes out with each status report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Names of the listeners whose sockets are open.
    pub active_listeners: Vec<String>,
    /// HTTP routes being served.
    pub http_routes: u32,
    /// gRPC routes being served.
    pub grpc_routes: u32,
    /// TCP, UDP and TLS routes being served.
    pub stream_routes: u32,
    /// Clusters known.
    pub clusters: u32,
    /// Endpoints that may get traffic.
    pub endpoints_ready: u32,
    /// All endpoints known.
    pub endpoints_total: u32,
    /// How plugins are doing; asked for with each report.
    pub plugins: Vec<PluginDetail>,
}

/// How one plugin is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginDetail {
    /// `namespace/name`.
    pub key: String,
    /// SHA-256 of the module that it runs, in hexadecimal; empty when it has none.
    pub sha256: String,
    /// Why it has not the module that is wanted; empty when it has.
    pub module_error: String,
    /// It failed so often in a row that it is left alone for a while.
    pub is_disabled: bool,
    /// Its last failure; empty before the first.
    pub last_failure: String,
}

/// Tells how plugins are doing.
struct PluginSource(Box<dyn Fn() -> Vec<PluginDetail> + Send + Sync>);

impl fmt::Debug for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PluginSource")
    }
}

/// Shared between the client, which writes it, and whoever wants to see it.
#[derive(Debug, Default)]
pub struct Status {
    report: Mutex<Report>,
    detail: Mutex<Option<Detail>>,
    plugins: OnceLock<PluginSource>,
    /// The last answers, the newest first.
    history: Mutex<VecDeque<Answer>>,
}

impl Status {
    /// The state at this moment.
    pub fn report(&self) -> Report {
        lock(&self.report).clone()
    }

    /// True while the stream to the control plane stands.
    pub fn is_connected(&self) -> bool {
        lock(&self.report).connected
    }

    /// Tells what is served now; the next status report carries it.
    pub fn set_detail(&self, detail: Detail) {
        *lock(&self.detail) = Some(detail);
    }

    /// Has `source` asked, with each status report, how plugins are doing; the first one counts.
    pub fn ask_plugins(&self, source: impl Fn() -> Vec<PluginDetail> + Send + Sync + 'static) {
        self.plugins.get_or_init(|| PluginSource(Box::new(source)));
    }

    /// The last answers to updates, the newest first; a refusal has its reason.
    pub fn history(&self) -> Vec<Answer> {
        lock(&self.history).iter().cloned().collect()
    }

    /// An update was answered.
    pub(crate) fn answered(&self, answer: Answer) {
        let mut history = lock(&self.history);
        history.truncate(HISTORY - 1);
        history.push_front(answer.clone());
        drop(history);
        self.update(|report| match answer.error_detail.is_empty() {
            true => report.last_ack = Some(answer),
            false => report.last_nack = Some(answer),
        });
    }

    pub(crate) fn detail(&self) -> Option<Detail> {
        let mut detail = lock(&self.detail).clone()?;
        if let Some(PluginSource(ask)) = self.plugins.get() {
            detail.plugins = ask();
        }
        Some(detail)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Report)) {
        change(&mut lock(&self.report));
    }
}

/// Milliseconds since 1970 by the wall clock.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A panic elsewhere cannot leave these values half written, so a poisoned lock is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_update_is_seen_by_the_next_report() {
        let status = Status::default();
        assert!(!status.is_connected());
        status.update(|report| report.connected = true);
        assert!(status.is_connected() && status.report().connected);
    }

    #[test]
    fn only_the_newest_answers_are_remembered() {
        let status = Status::default();
        let answer = |version: usize| Answer {
            version: version.to_string(),
            error_detail: (version % 2).to_string().replace('0', ""),
            ..Answer::default()
        };
        (0..=HISTORY).for_each(|version| status.answered(answer(version)));
        let history = status.history();
        assert_eq!((history.len(), &*history[0].version), (HISTORY, "50"));
        let report = status.report();
        assert_eq!(report.last_ack, Some(answer(50)));
        assert_eq!(report.last_nack, Some(answer(49)));
    }

    #[test]
    fn wall_time_before_1970_counts_as_1970() {
        assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(unix_ms(UNIX_EPOCH + Duration::from_millis(1500)), 1500);
    }
}
