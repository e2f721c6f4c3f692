//! How long the choice of a cluster and of an endpoint takes, alone and beside another thread.
//!
//! Run with `cargo bench -p dataplane-upstream`. The request line does each of these once per
//! attempt.

use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use dataplane_upstream::{Cluster, WeightedChoice};

fn cluster(endpoints: u32, weight: impl Fn(u32) -> u32) -> Arc<Cluster> {
    let endpoints = (0..endpoints).map(|at| ir::Endpoint {
        address: ir::cluster::EndpointAddress::Ip(IpAddr::V4((0x0a00_0000 + at).into())),
        port: NonZeroU16::MIN,
        is_ready: true,
        zone: String::new(),
        weight: weight(at),
    });
    let source = ir::Cluster {
        key: "bench/cluster:80".into(),
        protocol: ir::cluster::ClusterProtocol::Http,
        endpoints: endpoints.collect(),
        connect_timeout: Duration::from_secs(5),
        request_timeout: None,
        metadata: ir::resource::Metadata::default(),
        tls: None,
        session_persistence: None,
        balancing: ir::cluster::Balancing::RoundRobin,
        max_inflight_requests: None,
        ai_service: None,
        token_policy: None,
        wasm_plugin: None,
        security_policy: None,
        policy: None,
    };
    Cluster::compile(&Arc::new(source), None)
}

fn pick(criterion: &mut Criterion) {
    let even = cluster(100, |_| 1);
    criterion.bench_function("pick/even", |b| b.iter(|| black_box(even.pick())));
    let weighted = cluster(100, |at| 1 + at % 3);
    criterion.bench_function("pick/weighted", |b| b.iter(|| black_box(weighted.pick())));
    let choice = WeightedChoice::new([90, 9, 1]);
    criterion.bench_function("choice/three", |b| b.iter(|| black_box(choice.next())));

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                black_box(even.pick());
            }
        });
        criterion.bench_function("pick/even_contended", |b| b.iter(|| black_box(even.pick())));
        stop.store(true, Ordering::Relaxed);
    });
}

fn compile(criterion: &mut Criterion) {
    criterion.bench_function("compile/100_weighted", |b| {
        b.iter(|| cluster(100, |at| 1 + at % 7))
    });
}

criterion_group!(benches, pick, compile);
criterion_main!(benches);
