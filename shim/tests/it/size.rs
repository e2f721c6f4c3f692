//! A snapshot that data planes would refuse for its size is not published, and whoever runs the
//! control plane reads what makes it so large.

use std::sync::Arc;
use std::time::Duration;

use dataplane_testkit::certificate::Authority;
use shim::files::Files;
use shim::history::Store;
use shim::metrics::Metrics;
use shim::pipeline::{Applied, Pipeline, State};
use shim::quarantine::Quarantine;
use shim::settings::TranslatorLimits;
use shim::translate::Settings;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::folder::{GATEWAY, read};
use crate::support::DEADLINE;

/// `count` Services, each of which is reached by a policy with that bundle.
fn manifests(count: usize, bundle: &str) -> Files {
    read(&text(count, bundle))
}

fn text(count: usize, bundle: &str) -> String {
    let mut text = format!(
        "{GATEWAY}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: shop}}\n\
         data:\n  ca.crt: |\n    {}\n---\n",
        bundle.trim().replace('\n', "\n    ")
    );
    let mut backends = Vec::new();
    for index in 0..count {
        text += &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s{index}, namespace: shop}}\n\
             spec: {{ports: [{{port: 443}}]}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
             metadata: {{name: p{index}, namespace: shop}}\nspec:\n  \
             targetRefs: [{{group: '', kind: Service, name: s{index}}}]\n  \
             validation: {{hostname: s.example, caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}\n---\n"
        );
        backends.push(format!("{{name: s{index}, port: 443}}"));
    }
    text += &format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: all, namespace: shop}}\nspec:\n  \
         parentRefs: [{{name: gw, namespace: infra}}]\n  rules: [{{backendRefs: [{}]}}]\n",
        backends.join(", ")
    );
    text
}

async fn until(what: &str, mut claim: impl FnMut() -> bool) {
    let wait = async {
        while !claim() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let within = tokio::time::timeout(DEADLINE, wait).await;
    within.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A pipeline that runs until it is ended.
struct Running {
    files: watch::Sender<Files>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    states: watch::Receiver<Arc<State>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(first: Files, limits: TranslatorLimits) -> Self {
        let (files, seen) = watch::channel(first);
        let metrics = Arc::new(Metrics::default());
        let store = Arc::new(Store::new(8, metrics.clone()));
        let (state, states) = watch::channel(Arc::new(State::default()));
        let shutdown = CancellationToken::new();
        let pipeline = Pipeline {
            settings: Settings::default(),
            store: store.clone(),
            quarantine: Arc::new(Quarantine::new(DEADLINE)),
            metrics: metrics.clone(),
            state,
            applied: watch::channel(Applied::default()).0,
            limits,
        };
        let task = tokio::spawn(pipeline.run(seen, shutdown.clone()));
        Self {
            files,
            store,
            metrics,
            states,
            shutdown,
            task,
        }
    }

    /// Clusters of the current snapshot.
    fn clusters(&self) -> Option<usize> {
        let current = self.store.current()?;
        Some(current.snapshot.clusters.len())
    }

    /// The last snapshot was held back, and metrics say so.
    fn has_failed(&self) -> bool {
        let text = self.metrics.encode_text().unwrap();
        text.contains("last_build_success 0")
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn what_is_too_large_for_a_message_is_held_back_until_it_fits_again() {
    let bundle = Authority::new("ca").pem().repeat(100);
    let limits = TranslatorLimits {
        max_snapshot_bytes: Some(5 * bundle.len()),
        ..TranslatorLimits::default()
    };
    let running = Running::start(manifests(1, &bundle), limits);
    let clusters = || running.clusters();
    until("the first is published", || clusters() == Some(1)).await;
    running.files.send_replace(manifests(4, &bundle));
    until("four fit", || clusters() == Some(4)).await;
    // Authorities are copied to every cluster, so five are too many.
    running.files.send_replace(manifests(5, &bundle));
    until("it is told", || running.has_failed()).await;
    assert_eq!(clusters(), Some(4), "what was there stays");
    let bytes = running.states.borrow().bytes;
    assert!(bytes > 5 * bundle.len() as u64, "{bytes}");
    running.files.send_replace(manifests(3, &bundle));
    until("three fit again", || clusters() == Some(3)).await;
    assert!(running.states.borrow().bytes < bytes);
    assert!(!running.has_failed());
    running.end().await;
}

/// Services with two endpoints each, and one route to all of them.
fn endpoints(count: usize) -> Files {
    let bundle = Authority::new("ca").pem().to_owned();
    let slices = (0..count).map(|index| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: s{index}-1, namespace: shop, labels: {{kubernetes.io/service-name: \
             s{index}}}}}\nports: [{{port: 443}}]\n\
             endpoints: [{{addresses: [192.0.2.1]}}, {{addresses: [192.0.2.2]}}]\n"
        )
    });
    read(&format!(
        "{}{}",
        text(count, &bundle),
        slices.collect::<String>()
    ))
}

#[tokio::test]
async fn attached_routes_are_counted_as_long_as_their_listener_is_there() {
    let bundle = Authority::new("ca").pem().to_owned();
    let running = Running::start(manifests(1, &bundle), TranslatorLimits::default());
    let shows = |count: &str| {
        let series = "listener_attached_routes{listener=\"infra/gw/http\"}";
        let text = running.metrics.encode_text().unwrap();
        let mut counts = text.lines().filter_map(|line| line.split_once(series));
        counts.next().map_or("", |(_, count)| count.trim()) == count
    };
    until("one is attached", || shows("1")).await;
    running.files.send_replace(read(GATEWAY));
    until("none is attached", || shows("0")).await;
    running.files.send_replace(read(""));
    until("the listener is gone", || shows("")).await;
    running.end().await;
}

#[tokio::test]
async fn more_than_translator_limits_allow_is_held_back_until_it_fits_again() {
    let none = TranslatorLimits::default();
    // One listener, one route and the clusters; two endpoints each.
    let objects = TranslatorLimits {
        max_snapshot_objects: Some(4),
        ..none.clone()
    };
    let of_endpoints = TranslatorLimits {
        max_snapshot_endpoints: Some(4),
        ..none
    };
    for (key, limits) in [
        ("maxSnapshotObjects", objects),
        ("maxSnapshotEndpoints", of_endpoints),
    ] {
        let running = Running::start(endpoints(2), limits);
        until(key, || running.clusters() == Some(2)).await;
        running.files.send_replace(endpoints(3));
        until(key, || running.has_failed()).await;
        assert_eq!(running.clusters(), Some(2), "{key}: what was there stays");
        running.files.send_replace(endpoints(1));
        until(key, || running.clusters() == Some(1)).await;
        assert!(!running.has_failed(), "{key}");
        running.end().await;
    }
}
