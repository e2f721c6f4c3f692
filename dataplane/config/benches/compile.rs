//! What an update costs behind the wire: decode and compile of 5,000 routes, and one route changed
//! among 1,000 and among 40,000, which must cost the same.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dataplane_config::{RuntimeConfig, compile};
use dataplane_telemetry::metrics::Metrics;
use dataplane_testkit::SnapshotBuilder;
use ir::Snapshot;

fn snapshot(routes: usize) -> Snapshot {
    let address = ([127, 0, 0, 1], 8080).into();
    let mut builder = SnapshotBuilder::new("v1").http_listener("infra/gw/http", 8080);
    for n in 0..routes {
        let host = format!("app{}.example.com", n / 5);
        builder = builder.route(
            &format!("ns/route{n}"),
            &host,
            &format!("/v{n}"),
            "ns/app:80",
        );
    }
    builder.cluster("ns/app:80", &[address]).build()
}

fn one_changed(old: &Snapshot) -> Snapshot {
    SnapshotBuilder::from(old, "v2")
        .with(|snapshot| {
            let mut route = (**snapshot
                .http_routes
                .get("ns/route500")
                .expect("it is there"))
            .clone();
            route.rules[0].backends[0].weight = 7;
            snapshot.http_routes.insert(route);
        })
        .build()
}

fn full(c: &mut Criterion) {
    let metrics = Metrics::new();
    let wire = ir::encode::snapshot(&snapshot(5000));
    c.bench_function("decode and compile 5,000 routes", |b| {
        b.iter_batched(
            || wire.clone(),
            |wire| {
                let snapshot = ir::decode::snapshot(wire).expect("it is valid");
                black_box(compile(snapshot, &RuntimeConfig::default(), &metrics))
            },
            BatchSize::LargeInput,
        );
    });
}

fn delta(c: &mut Criterion) {
    let metrics = Metrics::new();
    let mut group = c.benchmark_group("one route changed");
    for routes in [1_000, 40_000] {
        let old = snapshot(routes);
        let new = one_changed(&old);
        let wire = ir::encode::delta(&ir::delta::diff(&old, &new));
        let held = compile(old, &RuntimeConfig::default(), &metrics).expect("it is valid");
        group.bench_function(format!("among {routes}"), |b| {
            b.iter_batched(
                || wire.clone(),
                |wire| {
                    let delta = ir::decode::delta(wire).expect("it is valid");
                    let snapshot = ir::delta::apply(&held.snapshot, &delta).expect("it fits");
                    black_box(compile(snapshot, &held, &metrics))
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, full, delta);
criterion_main!(benches);
