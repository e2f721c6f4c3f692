//! Live trace: whoever watches is shown matching requests as they end, step by step.
//!
//! The admin API makes a [`Watching`] by `Tracing::watch`; workers ask [`Watch::is_on`], one relaxed
//! load, before they look any further. What is shown waits in a short queue: a watcher that does not
//! take it misses requests, which is counted, and no request waits. Values of queries and of header
//! fields are never shown, because they may grant access.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Active, Attempt};
use crate::access_log::Record;
use crate::reason::Reason;
use crate::trace_context::trace_text;

/// Watchers at a time.
const WATCHERS_MAX: usize = 4;
/// Requests that wait for a watcher.
const WAITING_MAX: usize = 64;
/// Steps noted of a request, besides those that every request has.
const STEPS_MAX: usize = 32;
/// Longer texts are cut.
const TEXT_BYTES_MAX: usize = 512;

/// Who is watching; shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Watch {
    on: AtomicUsize,
    watchers: Mutex<Vec<Arc<Watcher>>>,
}

/// Which requests are wanted; what is not said is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The method.
    pub method: Option<String>,
    /// The host, without its port.
    pub host: Option<String>,
    /// How the path begins.
    pub path: Option<String>,
    /// Header fields and their values; an empty value stands for any.
    pub headers: Vec<(String, String)>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The route, as `namespace/name` or with its kind in front; `none` for no route.
    pub route: Option<String>,
    /// The first digits of the status, as `503`, or `5` for all from 500 to 599.
    pub status: Option<String>,
}

/// A request as it came, before anything is made of it.
pub struct Seen<'a> {
    /// Its method.
    pub method: &'a str,
    /// Host or authority.
    pub host: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Whose request it is.
    pub client: IpAddr,
    /// The values of a header field by its name in lower case.
    pub header: &'a dyn Fn(&str) -> Vec<&'a [u8]>,
}

/// Somebody who watches.
#[derive(Debug)]
pub struct Watcher {
    wanted: Wanted,
    sender: mpsc::Sender<Value>,
    missed: AtomicU64,
}

/// What a watcher sees; nothing is shown any more once this is dropped.
#[derive(Debug)]
pub struct Watching {
    watch: Arc<Watch>,
    watcher: Arc<Watcher>,
    shown: mpsc::Receiver<Value>,
}

/// A thing that happened to a request on its way.
#[derive(Clone, Debug)]
pub struct Step {
    /// Since the request's beginning.
    pub at: Duration,
    /// What happened, in a word or two.
    pub what: &'static str,
    /// To what or by what.
    pub detail: String,
}

impl Watch {
    /// Whether anybody watches.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed) > 0
    }

    /// Begins to watch; nothing when as many do as may.
    pub(super) fn begin(self: &Arc<Self>, wanted: Wanted) -> Option<Watching> {
        let (sender, shown) = mpsc::channel(WAITING_MAX);
        let watcher = Arc::new(Watcher {
            wanted,
            sender,
            missed: AtomicU64::new(0),
        });
        let mut watchers = self.watchers();
        if watchers.len() >= WATCHERS_MAX {
            return None;
        }
        watchers.push(watcher.clone());
        self.on.store(watchers.len(), Ordering::Relaxed);
        drop(watchers);
        Some(Watching {
            watch: Arc::clone(self),
            watcher,
            shown,
        })
    }

    /// Those who want to see a request, by what is known when it comes.
    pub(super) fn who_wants(&self, seen: &Seen<'_>) -> Vec<Arc<Watcher>> {
        let watchers = self.watchers();
        let wanting = watchers.iter().filter(|it| it.wanted.takes(seen));
        wanting.cloned().collect()
    }

    /// The list stays whole whatever happened while the lock was held.
    fn watchers(&self) -> MutexGuard<'_, Vec<Arc<Watcher>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn takes(&self, seen: &Seen<'_>) -> bool {
        let host = || {
            let name = seen.host.rsplit_once(':');
            let name = name.filter(|(_, port)| port.bytes().all(|it| it.is_ascii_digit()));
            name.map_or(seen.host, |(name, _)| name)
        };
        let is_there = |(name, value): &(String, String)| {
            let mut values = (seen.header)(name).into_iter();
            values.any(|it| value.is_empty() || it == value.as_bytes())
        };
        self.method.as_ref().is_none_or(|it| it == seen.method)
            && self.client.is_none_or(|it| it == seen.client)
            && self
                .path
                .as_ref()
                .is_none_or(|it| seen.target.starts_with(&**it))
            && self
                .host
                .as_ref()
                .is_none_or(|it| it.eq_ignore_ascii_case(host()))
            && self.headers.iter().all(is_there)
    }

    /// The same by how it ended.
    fn takes_ended(&self, record: &Record<'_>) -> bool {
        let is_route = |wanted: &String| match record.destination.route {
            None => wanted == "none",
            Some(route) => {
                let rest = route.strip_suffix(&**wanted);
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
            }
        };
        let status = || record.status.to_string();
        self.route.as_ref().is_none_or(is_route)
            && self
                .status
                .as_ref()
                .is_none_or(|it| status().starts_with(&**it))
    }
}

impl Watching {
    /// The next request; waits for it.
    pub async fn next(&mut self) -> Option<Value> {
        self.shown.recv().await
    }

    /// Requests that ended while too many waited to be taken.
    pub fn missed(&self) -> u64 {
        self.watcher.missed.load(Ordering::Relaxed)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watchers = self.watch.watchers();
        watchers.retain(|it| !Arc::ptr_eq(it, &self.watcher));
        self.watch.on.store(watchers.len(), Ordering::Relaxed);
    }
}

impl Active {
    /// Notes a step, where somebody watches.
    pub fn note(&mut self, at: Duration, what: &'static str, detail: impl FnOnce() -> String) {
        if !self.watchers.is_empty() && self.steps.len() < STEPS_MAX {
            let detail = detail();
            self.steps.push(Step { at, what, detail });
        }
    }

    /// Shows the request to those who want to see it; it has ended.
    pub(super) fn show(&self, record: &Record<'_>) {
        let mut told = None;
        for watcher in &self.watchers {
            if !watcher.wanted.takes_ended(record) {
                continue;
            }
            let told = told.get_or_insert_with(|| self.told(record));
            if watcher.sender.try_send(told.clone()).is_err() {
                watcher.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn told(&self, record: &Record<'_>) -> Value {
        let began = match record.timestamp {
            SystemTime::UNIX_EPOCH => SystemTime::now() - record.latency,
            known => known,
        };
        let began = Timestamp::try_from(began).map(|it| format!("{it:.3}"));
        let trace_id = record.trace.map(|(id, _)| trace_text(id));
        json!({
            "began": began.unwrap_or_default(),
            "method": cut(record.method),
            "host": bytes(record.host),
            "path": cut(&without_values(&String::from_utf8_lossy(record.path))),
            "protocol": record.protocol,
            "client": record.client_ip.to_string(),
            "listener": record.listener,
            "route": record.destination.route,
            "rule": record.destination.rule,
            "backend": record.destination.backend,
            "status": record.status,
            "reason": record.reason.as_str(),
            "bytes_received": record.bytes_received,
            "bytes_sent": record.bytes_sent,
            "latency_ms": ms(record.latency),
            "request_id": bytes(record.request_id),
            "trace_id": trace_id.map(|it| String::from_utf8_lossy(&it).into_owned()),
            "config_version": record.snapshot_version,
            "steps": self.steps(record),
        })
    }

    fn steps(&self, record: &Record<'_>) -> Value {
        let mut steps = vec![Step {
            at: Duration::ZERO,
            what: "accepted",
            detail: arrival(record),
        }];
        steps.extend(self.steps.iter().cloned());
        let attempts = self.attempts.iter().enumerate();
        steps.extend(attempts.map(|(at, attempt)| Step {
            at: attempt.began,
            what: if at == 0 { "sent" } else { "sent again" },
            detail: endpoint(attempt),
        }));
        let ended = self.attempts.iter().filter(|it| it.failure.is_some());
        steps.extend(ended.map(|attempt| Step {
            at: attempt.ended.unwrap_or(record.latency),
            what: "failed",
            detail: attempt.failure.map_or("", Reason::as_str).to_owned(),
        }));
        if let Some(at) = record.first_byte_time {
            let detail = match record.destination.upstream_connect_time {
                Some(time) => format!("{}, a new connection took {} ms", record.status, ms(time)),
                None if record.destination.attempts > 0 => {
                    format!("{}, over a kept connection", record.status)
                }
                None => record.status.to_string(),
            };
            steps.push(Step {
                at,
                what: "answered",
                detail,
            });
        }
        steps.sort_by_key(|it| it.at);
        let sent = record.bytes_sent;
        steps.push(Step {
            at: record.latency,
            what: "ended",
            detail: format!(
                "{} {}, {sent} bytes sent",
                record.status,
                record.reason.as_str()
            ),
        });
        let rows = steps.iter().map(
            |step| json!({ "at_ms": ms(step.at), "step": step.what, "detail": cut(&step.detail) }),
        );
        rows.collect()
    }
}

fn arrival(record: &Record<'_>) -> String {
    let mut text = format!(
        "from {}, at listener {}, {}",
        record.client_ip, record.listener, record.protocol
    );
    if let Some(version) = record.tls_version {
        text.push_str(&format!(" over {version}"));
    }
    if let Some(name) = record.sni {
        text.push_str(&format!(" for {name}"));
    }
    text
}

fn endpoint(attempt: &Attempt) -> String {
    let tls = if attempt.is_tls { " with TLS" } else { "" };
    let mut text = match attempt.endpoint {
        Some(endpoint) => format!("to {endpoint}{tls}"),
        None => format!("to the provider{tls}"),
    };
    if attempt.status > 0 {
        text.push_str(&format!(", which answered {}", attempt.status));
    }
    text
}

/// A path with the names of its query's parameters, but not their values.
fn without_values(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    let parameters = query.split('&').map(|it| match it.split_once('=') {
        Some((name, _)) => format!("{name}=***"),
        // What has no name may be a secret as a whole.
        None => "***".to_owned(),
    });
    format!("{path}?{}", parameters.collect::<Vec<_>>().join("&"))
}

fn bytes(text: &[u8]) -> String {
    cut(&String::from_utf8_lossy(text))
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

/// Milliseconds with three places.
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests;
