//! How long the choice of a cluster and of an endpoint takes, alone and beside another thread.
//!
//! Run with `cargo bench -p dataplane-upstream`. The request line does each of these once per
//! attempt.

use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use dataplane_upstream::{Ask, Cluster, WeightedChoice};
use ir::cluster::{Balancing, HashKey};

fn cluster(endpoints: u32, balancing: Balancing, weight: impl Fn(u32) -> u32) -> Arc<Cluster> {
    let endpoints = (0..endpoints).map(|at| ir::Endpoint {
        address: ir::cluster::EndpointAddress::Ip(IpAddr::V4((0x0a00_0000 + at).into())),
        port: NonZeroU16::MIN,
        is_ready: true,
        is_ending: false,
        zone: String::new(),
        zone_hints: Vec::new(),
        weight: weight(at),
    });
    let source = ir::Cluster {
        endpoints: endpoints.collect(),
        balancing,
        ..ir::Cluster::new("bench/cluster:80", ir::cluster::ClusterProtocol::Http)
    };
    Cluster::compile(&Arc::new(source), None)
}

fn pick(criterion: &mut Criterion) {
    let now = Instant::now();
    let hash = Cluster::hash(b"user-1");
    let ask = Ask {
        hash: Some(hash),
        ..Ask::default()
    };
    for (name, balancing) in [
        ("in_turn", Balancing::RoundRobin),
        ("less_loaded", Balancing::LeastRequest),
        ("random", Balancing::Random),
        ("by_hash", Balancing::ConsistentHash(HashKey::SourceIp)),
    ] {
        for endpoints in [100, 1000] {
            let cluster = cluster(endpoints, balancing.clone(), |_| 1);
            let name = format!("pick/{name}/{endpoints}");
            criterion.bench_function(&name, |b| b.iter(|| black_box(cluster.pick(&ask, now))));
        }
    }
    let plain = Plain {
        endpoints: (0..1000).map(|_| (1, 0)).collect(),
        turn: 0,
    };
    let plain = Mutex::new(plain);
    criterion.bench_function("pick/in_turn/1000 behind a mutex", |b| {
        b.iter(|| plain.lock().ok().and_then(|mut plain| plain.pick()));
    });
    let weighted = cluster(100, Balancing::RoundRobin, |at| 1 + at % 3);
    criterion.bench_function("pick/weighted", |b| {
        b.iter(|| black_box(weighted.pick(&ask, now)));
    });
    let choice = WeightedChoice::new([90, 9, 1]);
    criterion.bench_function("choice/three", |b| b.iter(|| black_box(choice.next())));

    let even = cluster(100, Balancing::RoundRobin, |_| 1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                black_box(even.pick(&ask, now));
            }
        });
        criterion.bench_function("pick/in_turn contended", |b| {
            b.iter(|| black_box(even.pick(&ask, now)));
        });
        stop.store(true, Ordering::Relaxed);
    });
}

/// The plain way to write the same: a list, a turn, a lock.
struct Plain {
    /// Health and picks of each.
    endpoints: Vec<(u32, u64)>,
    turn: usize,
}

impl Plain {
    fn pick(&mut self) -> Option<usize> {
        for _ in 0..self.endpoints.len() {
            self.turn = (self.turn + 1) % self.endpoints.len();
            let endpoint = &mut self.endpoints[self.turn];
            if endpoint.0 > 0 {
                endpoint.1 += 1;
                return Some(self.turn);
            }
        }
        None
    }
}

fn compile(criterion: &mut Criterion) {
    criterion.bench_function("compile/100_weighted", |b| {
        b.iter(|| cluster(100, Balancing::RoundRobin, |at| 1 + at % 7))
    });
}

criterion_group!(benches, pick, compile);
criterion_main!(benches);
