//! Every metric of the shim, defined once; names follow the Go control plane where it has one.
//!
//! `history.rs`, `pipeline.rs` and `serve/` count, the admin API renders. Labels are fixed words or
//! names of listeners, never text that a data plane sent.

use std::fmt;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// All families, and the registry that renders them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Snapshots that a slow stream never saw because a newer one came.
    pub fanout_coalesced: Counter,
    /// Streams that ended, by reason.
    pub stream_terminations: Family<ReasonLabel, Counter>,
    /// Status reports that were refused, by reason.
    pub status_report_rejections: Family<ReasonLabel, Counter>,
    /// Time to hand a push over to the connection.
    pub snapshot_send_seconds: Histogram,
    /// Pushes that could not be handed over in time.
    pub snapshot_send_timeouts: Counter,
    /// Pushes that were not answered in time.
    pub snapshot_ack_timeouts: Counter,
    /// From push to ACK.
    pub publish_ack_lag_seconds: Histogram,
    /// From push to NACK.
    pub publish_nack_lag_seconds: Histogram,
    /// Pushes, by kind.
    pub pushes: Family<KindLabel, Counter>,
    /// Streams that are open.
    pub streams_active: Gauge,
    /// Connections closed because the client pinged too often.
    pub pings_exceeded: Counter,
    /// Translations made.
    pub builds: Counter,
    /// Readings of the folder that failed.
    pub build_failures: Counter,
    /// Snapshots that differed from the one before.
    pub published: Counter,
    /// 1 when the last reading worked.
    pub last_build_success: Gauge,
    /// Time of one translation.
    pub build_seconds: Histogram,
    /// Objects left out because a data plane refuses them.
    pub quarantined: Gauge,
    /// How large the snapshot that was made last is as a message.
    pub snapshot_bytes: Gauge,
    /// Resources in the current snapshot, by type.
    pub resource_count: Family<ResourceLabel, Gauge>,
    /// Routes attached to each listener; of listeners that are there.
    pub attached_routes: Family<ListenerLabel, Gauge>,
    /// Objects watched.
    pub watched_objects: Gauge,
    /// Kinds that are not installed.
    pub kinds_missing: Gauge,
    /// Statuses written.
    pub status_writes: Counter,
    /// Statuses that could not be written, by reason.
    pub status_write_failures: Family<ReasonLabel, Counter>,
    /// 1 while this replica holds the Lease.
    pub is_leader: Gauge,
}

/// Why something ended or was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// A fixed word.
    pub reason: &'static str,
}

/// What kind of push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// `full` or `delta`.
    pub kind: &'static str,
}

/// What type of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResourceLabel {
    /// `listener`, `http_route` and so on.
    pub resource: &'static str,
}

/// Which listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ListenerLabel {
    /// Its name in the snapshot, `namespace/gateway/listener`.
    pub listener: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        let mut metrics = Self {
            registry: Registry::default(),
            fanout_coalesced: Counter::default(),
            stream_terminations: Family::default(),
            status_report_rejections: Family::default(),
            snapshot_send_seconds: seconds(),
            snapshot_send_timeouts: Counter::default(),
            snapshot_ack_timeouts: Counter::default(),
            publish_ack_lag_seconds: seconds(),
            publish_nack_lag_seconds: seconds(),
            pushes: Family::default(),
            streams_active: Gauge::default(),
            pings_exceeded: Counter::default(),
            builds: Counter::default(),
            build_failures: Counter::default(),
            published: Counter::default(),
            last_build_success: Gauge::default(),
            build_seconds: seconds(),
            quarantined: Gauge::default(),
            snapshot_bytes: Gauge::default(),
            resource_count: Family::default(),
            attached_routes: Family::default(),
            watched_objects: Gauge::default(),
            kinds_missing: Gauge::default(),
            status_writes: Counter::default(),
            status_write_failures: Family::default(),
            is_leader: Gauge::default(),
        };
        metrics.register_streams();
        metrics.register_snapshots();
        metrics.register_cluster();
        metrics
    }
}

impl Metrics {
    /// All metrics in the Prometheus text format.
    pub fn encode_text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn register_streams(&mut self) {
        let registry = self
            .registry
            .sub_registry_with_prefix("nantian_gateway_controlplane");
        registry.register(
            "xds_snapshot_fanout_coalesced",
            "Snapshots a slow stream never saw because a newer one came",
            self.fanout_coalesced.clone(),
        );
        registry.register(
            "xds_stream_terminations",
            "Streams that ended",
            self.stream_terminations.clone(),
        );
        registry.register(
            "xds_status_report_rejections",
            "Status reports that were refused",
            self.status_report_rejections.clone(),
        );
        registry.register(
            "xds_snapshot_send_duration_seconds",
            "Time to hand a push over to the connection",
            self.snapshot_send_seconds.clone(),
        );
        registry.register(
            "xds_snapshot_send_timeouts",
            "Pushes that could not be handed over in time",
            self.snapshot_send_timeouts.clone(),
        );
        registry.register(
            "xds_snapshot_ack_timeouts",
            "Pushes that were not answered in time",
            self.snapshot_ack_timeouts.clone(),
        );
        registry.register(
            "xds_publish_ack_lag_seconds",
            "From push to ACK",
            self.publish_ack_lag_seconds.clone(),
        );
        registry.register(
            "xds_publish_nack_lag_seconds",
            "From push to NACK",
            self.publish_nack_lag_seconds.clone(),
        );
        registry.register("xds_pushes", "Pushes sent", self.pushes.clone());
        registry.register(
            "xds_streams_active",
            "Streams that are open",
            self.streams_active.clone(),
        );
        registry.register(
            "xds_ping_limit_exceeded",
            "Connections closed because the client pinged more often than minPingInterval",
            self.pings_exceeded.clone(),
        );
    }

    fn register_cluster(&mut self) {
        let registry = self
            .registry
            .sub_registry_with_prefix("nantian_gateway_controlplane");
        registry.register(
            "watched_objects",
            "Objects of the API server that are kept",
            self.watched_objects.clone(),
        );
        registry.register(
            "kinds_missing",
            "Kinds that the API server does not have",
            self.kinds_missing.clone(),
        );
        registry.register(
            "status_writes",
            "Statuses written to the API server",
            self.status_writes.clone(),
        );
        registry.register(
            "status_write_failures",
            "Statuses that could not be written",
            self.status_write_failures.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica holds the Lease",
            self.is_leader.clone(),
        );
    }

    fn register_snapshots(&mut self) {
        let registry = self
            .registry
            .sub_registry_with_prefix("nantian_gateway_snapshot");
        registry.register("builds", "Translations made", self.builds.clone());
        registry.register(
            "build_failures",
            "Readings of the source that failed",
            self.build_failures.clone(),
        );
        registry.register(
            "published",
            "Snapshots that differed from the one before",
            self.published.clone(),
        );
        registry.register(
            "last_build_success",
            "1 when the last reading of the source worked",
            self.last_build_success.clone(),
        );
        registry.register(
            "build_duration_seconds",
            "Time of one translation",
            self.build_seconds.clone(),
        );
        registry.register(
            "quarantined_objects",
            "Objects left out of the snapshot because a data plane refuses them",
            self.quarantined.clone(),
        );
        registry.register(
            "snapshot_bytes",
            "Size of the snapshot that was made last, as a message; see translatorLimits.maxSnapshotBytes",
            self.snapshot_bytes.clone(),
        );
        registry.register(
            "resource_count",
            "Resources in the current snapshot",
            self.resource_count.clone(),
        );
        registry.register(
            "listener_attached_routes",
            "Routes attached to a listener, as in its status",
            self.attached_routes.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_types_and_labels_are_those_of_the_contract() {
        let metrics = Metrics::default();
        for reason in [
            &metrics.stream_terminations,
            &metrics.status_report_rejections,
        ] {
            reason.get_or_create(&ReasonLabel { reason: "other" }).inc();
        }
        let resource = ResourceLabel {
            resource: "listener",
        };
        metrics.resource_count.get_or_create(&resource).set(1);
        let listener = ListenerLabel {
            listener: "infra/gw/http".to_owned(),
        };
        metrics.attached_routes.get_or_create(&listener).set(1);
        let text = metrics.encode_text().unwrap();
        let streams = "nantian_gateway_controlplane";
        let snapshots = "nantian_gateway_snapshot";
        for (area, name, kind, labels) in [
            (
                streams,
                "xds_snapshot_fanout_coalesced_total",
                "counter",
                "",
            ),
            (
                streams,
                "xds_stream_terminations_total",
                "counter",
                "{reason=\"other\"}",
            ),
            (
                streams,
                "xds_status_report_rejections_total",
                "counter",
                "{reason=\"other\"}",
            ),
            (
                streams,
                "xds_snapshot_send_duration_seconds",
                "histogram",
                "",
            ),
            (streams, "xds_snapshot_send_timeouts_total", "counter", ""),
            (streams, "xds_snapshot_ack_timeouts_total", "counter", ""),
            (streams, "xds_publish_ack_lag_seconds", "histogram", ""),
            (streams, "xds_publish_nack_lag_seconds", "histogram", ""),
            (snapshots, "builds_total", "counter", ""),
            (snapshots, "build_failures_total", "counter", ""),
            (snapshots, "published_total", "counter", ""),
            (snapshots, "last_build_success", "gauge", ""),
            (snapshots, "build_duration_seconds", "histogram", ""),
            (
                snapshots,
                "resource_count",
                "gauge",
                "{resource=\"listener\"}",
            ),
            (
                snapshots,
                "listener_attached_routes",
                "gauge",
                "{listener=\"infra/gw/http\"}",
            ),
        ] {
            let family = name.strip_suffix("_total").unwrap_or(name);
            let declared = format!("# TYPE {area}_{family} {kind}\n");
            assert!(text.contains(&declared), "{declared} is missing in {text}");
            let sample = match kind {
                "histogram" => format!("\n{area}_{name}_bucket{{le=\""),
                _ => format!("\n{area}_{name}{labels} "),
            };
            assert!(text.contains(&sample), "{sample} is missing in {text}");
        }
    }
}
