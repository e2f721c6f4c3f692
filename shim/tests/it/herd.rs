//! Two hundred data planes, all of which lose their control plane at once and come back.

use std::sync::Arc;
use std::time::Duration;

use dataplane_telemetry::metrics::Metrics;
use dataplane_xds::{Apply, Rejection, Settings, Status, Update, run};
use ir::Version;
use shim::nodes::Node;
use shim::settings::GrpcRuntime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{DEADLINE, Server};

const DATA_PLANES: usize = 200;
const ROUTES: usize = 500;

/// Takes everything.
#[derive(Default)]
struct Taker(Option<Version>);

impl Apply for Taker {
    async fn apply(&mut self, update: Update) -> Result<Version, Rejection> {
        let version = match update {
            Update::Full(snapshot) => snapshot.id,
            Update::Delta(delta) => delta.version,
        };
        self.0 = Some(Version::new(&version));
        Ok(Version::new(&version))
    }

    fn held(&self) -> Option<Version> {
        self.0.clone()
    }
}

fn publish(server: &Server, label: &str) -> String {
    let names: Vec<String> = (0..ROUTES).map(|n| format!("r{n}")).collect();
    let routes: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), label)).collect();
    server.publish(&routes)
}

async fn all_hold(statuses: &[Arc<Status>], version: &str) {
    let look = async {
        while !statuses.iter().all(|status| {
            let report = status.report();
            report.connected && report.version.as_deref() == Some(version)
        }) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let held = tokio::time::timeout(DEADLINE * 2, look).await;
    let connected = statuses.iter().filter(|it| it.report().connected).count();
    assert!(held.is_ok(), "{connected} of {DATA_PLANES} are connected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_data_planes_come_back_to_a_restarted_shim_one_push_each() {
    let server = Server::start(GrpcRuntime::default()).await;
    let address = server.addr;
    let first = publish(&server, "one");
    let (_stop, stop) = watch::channel(false);
    let mut clients = JoinSet::new();
    let statuses: Vec<_> = (0..DATA_PLANES)
        .map(|number| {
            let mut settings = Settings::new(format!("http://{address}"), format!("dp-{number}"));
            settings.timing.backoff_initial = Duration::from_millis(200);
            settings.timing.backoff_max = Duration::from_secs(1);
            let status = Arc::new(Status::default());
            let (metrics, stop) = (Metrics::new(), stop.clone());
            clients.spawn(run(
                settings,
                Taker::default(),
                status.clone(),
                metrics,
                stop,
            ));
            status
        })
        .collect();
    all_hold(&statuses, &first).await;

    drop(server);
    let began = Instant::now();
    while statuses.iter().any(|status| status.report().connected) {
        assert!(began.elapsed() < DEADLINE, "they notice");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let server = Server::start_at(address, GrpcRuntime::default()).await;
    // It remembers nothing of what they hold, so each gets the whole, once.
    let second = publish(&server, "two");
    let began = Instant::now();
    all_hold(&statuses, &second).await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    // A push is counted once it is sent, which may be after it has arrived.
    for number in 0..DATA_PLANES {
        let is_pushed = |node: &Node| node.full_pushes + node.delta_pushes > 0;
        server
            .wait_for_node(&format!("dp-{number}"), is_pushed)
            .await;
    }
    let pushes = (0..DATA_PLANES).map(|number| {
        let node = server.node(&format!("dp-{number}"));
        node.full_pushes + node.delta_pushes
    });
    assert_eq!(pushes.sum::<u64>(), DATA_PLANES as u64);
    // And they do not all knock at the same moment.
    let dials: u64 = statuses.iter().map(|it| it.report().connect_failures).sum();
    assert!(
        dials < DATA_PLANES as u64 * 60,
        "{dials} attempts that failed"
    );
    clients.shutdown().await;
}
