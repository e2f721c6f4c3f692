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
use tokio_util::sync::CancellationToken;

use crate::folder::{GATEWAY, read};
use crate::support::DEADLINE;

/// `count` Services, each of which is reached by a policy with that bundle.
fn manifests(count: usize, bundle: &str) -> Files {
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
    read(&text)
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

#[tokio::test]
async fn what_is_too_large_for_a_message_is_held_back_until_it_fits_again() {
    let bundle = Authority::new("ca").pem().repeat(100);
    let (files, seen) = watch::channel(manifests(1, &bundle));
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
        limits: TranslatorLimits {
            max_snapshot_bytes: Some(5 * bundle.len()),
            ..TranslatorLimits::default()
        },
    };
    let running = tokio::spawn(pipeline.run(seen, shutdown.clone()));
    let clusters = || store.current().map(|it| it.snapshot.clusters.len());
    until("the first is published", || clusters() == Some(1)).await;
    files.send_replace(manifests(4, &bundle));
    until("four fit", || clusters() == Some(4)).await;
    // Authorities are copied to every cluster, so five are too many.
    files.send_replace(manifests(5, &bundle));
    let failed = "last_build_success 0";
    until("it is told", || {
        metrics.encode_text().unwrap().contains(failed)
    })
    .await;
    assert_eq!(clusters(), Some(4), "what was there stays");
    let bytes = states.borrow().bytes;
    assert!(bytes > 5 * bundle.len() as u64, "{bytes}");
    files.send_replace(manifests(3, &bundle));
    until("three fit again", || clusters() == Some(3)).await;
    assert!(states.borrow().bytes < bytes);
    assert!(!metrics.encode_text().unwrap().contains(failed));
    shutdown.cancel();
    running.await.unwrap();
}
