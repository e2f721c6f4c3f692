//! Failing backends and too many requests: endpoints left out, breakers, rates, limits.

use std::net::SocketAddr;
use std::time::Duration;

use dataplane_testkit::SnapshotBuilder;
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::{cluster, free_port};
use ir::backend_policy::{BackendPolicy, BreakerThresholds, OutlierDetection};
use ir::cluster::ClusterProtocol;

use crate::support::{Gateway, at, http_route};

mod admin;
mod breaker;
mod connections;
mod flapping;
mod health;
mod outlier;
mod rate;
mod session;

/// One route to one cluster, `shop/r` to `shop/b:80`, on one listener.
struct Case {
    port: u16,
    cluster: ir::Cluster,
    route: ir::HttpRoute,
}

impl Case {
    fn new(endpoints: &[SocketAddr], policy: BackendPolicy) -> Self {
        let mut cluster = cluster("shop/b:80", ClusterProtocol::Http, endpoints);
        cluster.policy = Some(policy.into());
        Self {
            port: free_port(),
            cluster,
            route: http_route("shop/r", "", "/", &[("shop/b:80", 1)]),
        }
    }

    fn snapshot(&self, version: &str) -> ir::Snapshot {
        SnapshotBuilder::new(version)
            .http_listener("infra/gw/http", self.port)
            .http_route(self.route.clone())
            .add_cluster(self.cluster.clone())
            .build()
    }

    async fn serve(&self) -> Gateway {
        Gateway::serving(&self.snapshot("v1")).await
    }

    async fn get(&self, path: &str) -> Response {
        http1::get(at(self.port), "x", path).await.unwrap()
    }

    /// The statuses of so many requests, one after the other.
    async fn statuses(&self, path: &str, requests: usize) -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..requests {
            statuses.push(self.get(path).await.status.as_u16());
        }
        statuses
    }
}

/// Endpoints are left out for a minute after so many failures in a row of either kind.
pub(crate) fn ejecting(failures: u32) -> BackendPolicy {
    BackendPolicy {
        outlier_detection: Some(OutlierDetection {
            consecutive_failures: Some(failures),
            consecutive_gateway_failures: Some(failures),
            base_ejection: Some(Duration::from_secs(60)),
            ..OutlierDetection::default()
        }),
        ..BackendPolicy::default()
    }
}

fn breaking(failures: u32, successes: u32, open_ms: u64) -> BreakerThresholds {
    BreakerThresholds {
        failure_threshold: Some(failures),
        success_threshold: Some(successes),
        open_time: Some(Duration::from_millis(open_ms)),
    }
}
