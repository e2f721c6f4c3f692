//! Families that dashboards and alerts for the earlier data plane are built on.
//!
//! Their names and units are those that were published, also where they are not what we would choose.
//! Nearly all of it is derived from what is counted anyway, at the moment of a scrape; figures of
//! routes and listeners that are gone are kept in [`Gone`], so that the totals never fall.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::exposition::Exposition;
use super::family::{self, Family};
use super::live::Live;
use super::request::{CLASSES, RequestTotals, TrafficTotals};
use super::stream::StreamMetrics;
use super::traffic::ListenerMetrics;
use super::{Metrics, overload::OverloadScope};
use crate::reason::Reason;

const MS: f64 = 1e6;

/// The bounds of the buckets that are told of a listener, of those that are kept.
const LISTENER_BOUNDS_NS: [u64; 8] = [
    1_000_000,
    5_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

/// What was counted by handles that are no longer there.
#[derive(Clone, Debug)]
pub(super) struct Gone {
    traffic: TrafficTotals,
    outcomes: [u64; Reason::COUNT],
    sessions: u64,
}

impl Default for Gone {
    fn default() -> Self {
        Self {
            traffic: TrafficTotals::default(),
            outcomes: [0; Reason::COUNT],
            sessions: 0,
        }
    }
}

impl Gone {
    /// Keeps the figures of a route.
    pub(super) fn route(&mut self, totals: Option<RequestTotals>) {
        if let Some(totals) = totals {
            self.traffic.add(&totals);
        }
    }

    /// Keeps those of a listener, but for its routes.
    pub(super) fn listener(&mut self, listener: &ListenerMetrics) {
        self.route(listener.unrouted_totals());
        for reason in Reason::ALL {
            self.outcomes[reason.index()] += listener.outcome_count(reason);
        }
    }

    /// Keeps those of a stream route.
    pub(super) fn stream(&mut self, stream: &StreamMetrics) {
        self.sessions += stream.sessions_ended();
    }
}

/// What of the handles is needed here.
pub(super) struct Counted<'a> {
    pub(super) gone: Gone,
    pub(super) totals: &'a [RequestTotals],
    pub(super) listeners: &'a [Arc<ListenerMetrics>],
    pub(super) streams: &'a [Arc<StreamMetrics>],
}

/// Writes all of it.
pub(super) fn encode(out: &mut Exposition<'_>, metrics: &Metrics, live: &Live, all: Counted<'_>) {
    let inventory = &metrics.inventory;
    for (family, value) in [
        (&family::STREAM_ROUTES, inventory.stream_routes.value()),
        (&family::HTTP_STATES, inventory.http_workers.value()),
        (
            &family::HTTP3_CONFIGURED,
            inventory.http3_configured.value(),
        ),
        (&family::HTTP3_AVAILABLE, 0),
        (&family::HTTP3_ENABLED, 0),
    ] {
        out.family(family).sample(&[], value);
    }
    traffic(out, metrics, &all);
    latency(out, all.listeners);
    upstream(out, metrics, &all);
    limits(out, metrics, live);
    access_log(out, metrics);
    metrics.xds.encode_ms(out);
}

fn whole(out: &mut Exposition<'_>, family: &'static Family, value: u64) {
    out.family(family).sample(&[], value);
}

fn real(out: &mut Exposition<'_>, family: &'static Family, value: f64) {
    out.family(family).sample(&[], value);
}

/// A share, 0 where there is nothing to have a share of.
fn share(part: u64, of: u64) -> f64 {
    match of {
        0 => 0.0,
        of => part as f64 / of as f64,
    }
}

fn traffic(out: &mut Exposition<'_>, metrics: &Metrics, all: &Counted<'_>) {
    let mut traffic = all.gone.traffic.clone();
    for totals in all.totals {
        traffic.add(totals);
    }
    let sessions: u64 = all.streams.iter().map(|it| it.sessions_ended()).sum();
    let sessions = sessions + all.gone.sessions;
    let requests = traffic.requests();
    let (retried, saved) = metrics.upstream.retried();
    whole(out, &family::TRAFFIC_EVENTS, requests + sessions);
    whole(out, &family::TRAFFIC_REQUESTS, requests);
    whole(out, &family::TRAFFIC_RECEIVED, traffic.received);
    whole(out, &family::TRAFFIC_SENT, traffic.sent);
    real(
        out,
        &family::TRAFFIC_LATENCY,
        traffic.duration_ns as f64 / MS,
    );
    real(
        out,
        &family::TRAFFIC_LONGEST,
        traffic.longest_ns as f64 / MS,
    );
    whole(out, &family::TRAFFIC_RETRIED, retried);
    whole(
        out,
        &family::TRAFFIC_RETRIES,
        metrics.all_backends.allowed.value(),
    );
    whole(out, &family::TRAFFIC_SAVED, saved);
    real(out, &family::TRAFFIC_RETRY_RATE, share(retried, requests));
    real(out, &family::TRAFFIC_SAVED_RATE, share(saved, retried));
    let families = [
        &family::TRAFFIC_1XX,
        &family::TRAFFIC_2XX,
        &family::TRAFFIC_3XX,
        &family::TRAFFIC_4XX,
        &family::TRAFFIC_5XX,
        &family::TRAFFIC_OTHER,
    ];
    for (family, count) in families.into_iter().zip(traffic.classes) {
        whole(out, family, count);
    }
    let mut flags: BTreeMap<&str, u64> = BTreeMap::new();
    for reason in Reason::ALL {
        let of_listeners = all.listeners.iter().map(|it| it.outcome_count(reason));
        let count = of_listeners.sum::<u64>() + all.gone.outcomes[reason.index()];
        *flags.entry(reason.flag()).or_default() += count;
    }
    let mut samples = out.family(&family::TRAFFIC_FLAGS);
    for (flag, count) in flags {
        samples.sample(&[flag], count);
    }
}

fn latency(out: &mut Exposition<'_>, listeners: &[Arc<ListenerMetrics>]) {
    let mut samples = out.family(&family::TRAFFIC_LATENCY_MS);
    for listener in listeners {
        for ((kind, class, flag), content) in listener.latencies() {
            let protocol = if kind == "Grpc" { "grpc" } else { "http" };
            let labels = [listener.name(), protocol, kind, CLASSES[class], flag];
            samples.coarse(&labels, &content, (&LISTENER_BOUNDS_NS, MS), &[]);
        }
    }
}

fn upstream(out: &mut Exposition<'_>, metrics: &Metrics, all: &Counted<'_>) {
    let upstream = &metrics.upstream;
    let (made, longest_ns) = upstream.made();
    let (hits, misses) = (upstream.kept(), made.count());
    whole(out, &family::POOL_HITS, hits);
    whole(out, &family::POOL_MISSES, misses);
    real(out, &family::POOL_RATIO, share(hits, hits + misses));
    let of_listeners = all.listeners.iter();
    let unpicked = of_listeners.map(|it| it.outcome_count(Reason::NoEndpoint));
    let unpicked = unpicked.sum::<u64>() + all.gone.outcomes[Reason::NoEndpoint.index()];
    whole(out, &family::PEER_FAILURES, unpicked);
    let failed = upstream.handshakes_failed();
    whole(out, &family::TLS_FAILURES, failed.count());
    out.family(&family::CONNECT_MS).scaled(&[], &made, MS);
    let total = made.sum_ns as f64 / MS;
    real(out, &family::CONNECT_TOTAL, total);
    real(out, &family::CONNECT_MAX, longest_ns as f64 / MS);
    let average = if misses == 0 {
        0.0
    } else {
        total / misses as f64
    };
    real(out, &family::CONNECT_AVERAGE, average);
    out.family(&family::TLS_FAILURE_MS).scaled(&[], &failed, MS);
}

fn limits(out: &mut Exposition<'_>, metrics: &Metrics, live: &Live) {
    let mut samples = out.family(&family::ROUTE_INFLIGHT);
    for (route, inflight) in &live.routes_inflight {
        samples.sample(&[route], *inflight as u64);
    }
    for (family, scope) in [
        (&family::OVERLOAD_LISTENER, OverloadScope::Listener),
        (&family::OVERLOAD_ROUTE, OverloadScope::Route),
    ] {
        whole(out, family, metrics.overload.rejected_count(scope));
    }
    let refused = metrics.all_backends.circuit_refused.value();
    out.family(&family::CIRCUIT_REFUSED_ALL)
        .sample(&["backend"], refused);
    type Figure = fn(&super::LiveRateLimit) -> Option<u64>;
    let figures: [Figure; 3] = [|it| Some(it.per_second), |it| Some(it.burst), |it| it.left];
    let scopes = [
        ("global", &family::RATE_GLOBAL),
        ("listener", &family::RATE_LISTENER),
        ("route", &family::RATE_ROUTE),
    ];
    for (scope, families) in scopes {
        for (family, figure) in families.iter().zip(figures) {
            let mut samples = out.family(family);
            for it in live.rate_limits.iter().filter(|it| it.scope == scope) {
                let labels = [&*it.object, &*it.limit];
                let labels = if scope == "global" {
                    &labels[1..]
                } else {
                    &labels[..]
                };
                if let Some(value) = figure(it) {
                    samples.sample(labels, value);
                }
            }
        }
    }
    let mut samples = out.family(&family::BUDGET_MILLI);
    for backend in &live.backends {
        if let Some(left) = backend.retries_left {
            samples.sample(&[&backend.name], left.saturating_mul(1000));
        }
    }
}

fn access_log(out: &mut Exposition<'_>, metrics: &Metrics) {
    let counts = &metrics.access_log;
    out.family(&family::ACCESS_WRITERS)
        .sample(&[], counts.writers.value());
    out.family(&family::ACCESS_DEPTH)
        .sample(&[], counts.queue_lines.value());
    let mut flushes = super::instrument::Distribution::default();
    counts.flushes.add_to(&mut flushes);
    whole(out, &family::ACCESS_FLUSHES, flushes.count());
    real(out, &family::ACCESS_FLUSH_MS, flushes.sum_ns as f64 / MS);
    let longest = counts.longest_flush_us.value();
    real(out, &family::ACCESS_FLUSH_MAX, longest as f64 / 1e3);
}

#[cfg(test)]
mod tests;
