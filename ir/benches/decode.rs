//! How long a configuration takes: whole snapshots, and one route into a large one.
//!
//! The delta figures must not depend on how many routes there are: that is what the persistent
//! maps are for. The allocator is the data plane's.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ir::{Resource as _, Snapshot, TypeVersions, Version, decode, delta, encode, wire};
use prost::Message as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn message(routes: usize) -> wire::ConfigSnapshot {
    let listener = wire::Listener {
        name: "infra/gw/http".to_owned(),
        port: 80,
        protocol: wire::ListenerProtocol::ListenerHttp.into(),
        ..wire::Listener::default()
    };
    wire::ConfigSnapshot {
        id: "v1".to_owned(),
        listeners: vec![listener],
        http_routes: (0..routes).map(route).collect(),
        backends: (0..routes / 5).map(cluster).collect(),
        ..wire::ConfigSnapshot::default()
    }
}

fn route(index: usize) -> wire::HttpRoute {
    let rule = |path: &str| wire::HttpRule {
        matches: vec![wire::HttpMatch {
            path: format!("/{path}/{index}"),
            path_type: "PathPrefix".to_owned(),
            headers: vec![wire::HeaderMatch {
                name: "X-Version".to_owned(),
                value: "2".to_owned(),
                ..wire::HeaderMatch::default()
            }],
            ..wire::HttpMatch::default()
        }],
        backend_refs: vec![wire::BackendRef {
            name: format!("service-{}", index / 5),
            port: 8080,
            weight: 1,
            ..wire::BackendRef::default()
        }],
        ..wire::HttpRule::default()
    };
    wire::HttpRoute {
        name: format!("route-{index}"),
        namespace: "shop".to_owned(),
        hostnames: vec![format!("host-{index}.example.com")],
        attached_listeners: vec!["infra/gw/http".to_owned()],
        rules: vec![rule("items"), rule("orders")],
        ..wire::HttpRoute::default()
    }
}

fn cluster(index: usize) -> wire::BackendCluster {
    wire::BackendCluster {
        name: format!("service-{index}:8080"),
        namespace: "shop".to_owned(),
        protocol: "HTTP".to_owned(),
        endpoints: (0..3)
            .map(|host| wire::BackendEndpoint {
                address: format!("10.0.{}.{host}", index % 256),
                port: 8080,
                healthy: true,
                ..wire::BackendEndpoint::default()
            })
            .collect(),
        ..wire::BackendCluster::default()
    }
}

/// The same snapshot with one route changed and another version.
fn with_one_changed(old: &Snapshot) -> Snapshot {
    let mut next = old.clone();
    next.version = Version::new("v2");
    let first = old.http_routes.iter().next().map(|route| (**route).clone());
    if let Some(mut route) = first {
        route.labels.insert("changed".to_owned(), "yes".to_owned());
        let replaced = next.http_routes.insert(route);
        assert!(replaced.is_some_and(|old| !old.key().is_empty()));
    }
    next
}

fn whole(criterion: &mut Criterion) {
    let message = message(5000);
    let bytes = message.encode_to_vec();
    let typed = decode::snapshot(message.clone()).ok();
    criterion.bench_function("decode 5,000 routes (typed)", |bencher| {
        bencher.iter_batched(|| message.clone(), decode::snapshot, BatchSize::LargeInput);
    });
    criterion.bench_function("decode 5,000 routes (bytes and typed)", |bencher| {
        bencher.iter_with_large_drop(|| {
            wire::ConfigSnapshot::decode(bytes.as_slice()).map(decode::snapshot)
        });
    });
    if let Some(typed) = typed {
        criterion.bench_function("encode 5,000 routes", |bencher| {
            bencher.iter(|| encode::snapshot(black_box(&typed)).encode_to_vec().len());
        });
    }
}

fn one_route(criterion: &mut Criterion) {
    for routes in [1_000, 40_000] {
        let Ok(old) = decode::snapshot(message(routes)) else {
            continue;
        };
        let new = with_one_changed(&old);
        let versions = TypeVersions::of(&old);
        criterion.bench_function(&format!("delta of one route into {routes}"), |bencher| {
            bencher.iter(|| {
                let mut delta = delta::diff(&old, &new);
                delta.type_versions = versions.after(&old, &delta).to_map();
                let bytes = encode::delta(&delta).encode_to_vec();
                let message = wire::SnapshotDelta::decode(bytes.as_slice()).unwrap_or_default();
                let delta = decode::delta(message).unwrap_or_default();
                delta::apply(&old, &delta).is_ok()
            });
        });
    }
}

criterion_group!(benches, whole, one_route);
criterion_main!(benches);
