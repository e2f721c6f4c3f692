//! What holds at every moment, by hundreds of seeds: limits, shares, checks, zones, sessions.
//!
//! As in `simulation`, a run is made from a seed and the clock is a number that the run moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dataplane_resilience::health_check::{self, Fault};
use dataplane_upstream::admission::{Admission, Limits};
use dataplane_upstream::{Ask, Cluster};
use ir::backend_policy::BackendPolicy;
use ir::cluster::Balancing;

use crate::simulation::{SEEDS, balancings, cluster, endpoints};

#[test]
fn in_flight_is_never_above_the_limit_and_nobody_is_refused_below_it() {
    for seed in 1..=SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let admission = Arc::new(Admission::default());
        let (mut requests, mut connections, mut pending) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..500 {
            // Limits change with the configuration while requests run.
            let limits = Limits {
                requests: Some(random.usize(1..20)),
                connections: Some(random.usize(1..20)),
                pending: Some(random.usize(1..20)),
            };
            for _ in 0..random.usize(0..10) {
                let before = requests.len();
                requests.extend(admission.request(&limits));
                let may = before < limits.requests.unwrap();
                assert_eq!(requests.len() > before, may, "seed {seed}");
                let before = connections.len();
                connections.extend(admission.connection(&limits));
                let may = before < limits.connections.unwrap();
                assert_eq!(connections.len() > before, may, "seed {seed}");
                let before = pending.len();
                pending.extend(admission.pending(&limits));
                let may = before < limits.pending.unwrap();
                assert_eq!(pending.len() > before, may, "seed {seed}");
            }
            requests.truncate(random.usize(..=requests.len()));
            connections.truncate(random.usize(..=connections.len()));
            pending.truncate(random.usize(..=pending.len()));
            let seen = (
                admission.requests_active(),
                admission.connections_active(),
                admission.requests_pending(),
            );
            assert_eq!(seen, (requests.len(), connections.len(), pending.len()));
        }
    }
}

#[test]
fn threads_together_never_exceed_a_limit() {
    for seed in 1..=SEEDS / 10 {
        let limit = 1 + usize::try_from(seed % 7).unwrap();
        let limits = Limits {
            requests: Some(limit),
            ..Limits::default()
        };
        let admission = Admission::default();
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Some(place) = admission.request(&limits) {
                            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(now, Ordering::SeqCst);
                            running.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        }
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!((1..=limit).contains(&most), "{most} of {limit}");
        assert_eq!(admission.requests_active(), 0);
    }
}

#[test]
fn shares_follow_the_weights_within_bounds() {
    const PICKS: u32 = 4_000;
    for seed in 1..=SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        fastrand::seed(seed);
        let count = random.u8(1..=8);
        let weights: Vec<u32> = (0..count).map(|_| random.u32(1..=4)).collect();
        let balancing = balancings()[random.usize(..3)].clone();
        let made = endpoints(count, |at| weights[usize::from(at)]);
        let source = cluster(made, balancing.clone(), BackendPolicy::default());
        let cluster = Cluster::compile(&Arc::new(source), None);
        let now = Instant::now();
        for _ in 0..PICKS {
            cluster.pick(&Ask::default(), now).unwrap();
        }
        let total: u32 = weights.iter().sum();
        for (endpoint, weight) in cluster.endpoints().iter().zip(&weights) {
            let ideal = f64::from(PICKS) * f64::from(*weight) / f64::from(total);
            let share = ideal / f64::from(PICKS);
            // In turn it is even to a few; drawn at random it is within five deviations.
            let bound = match balancing {
                Balancing::RoundRobin => 8.0,
                _ => 5.0 * (ideal * (1.0 - share)).sqrt() + 1.0,
            };
            let off = (endpoint.load().picks() as f64 - ideal).abs();
            // With nothing in flight the less loaded of two is the heavier one.
            let is_drawn_by_load =
                balancing == Balancing::LeastRequest && total != u32::from(count);
            assert!(
                off <= bound || is_drawn_by_load,
                "seed {seed} {balancing:?} {weights:?}: off by {off}, bound {bound}"
            );
        }
    }
}

#[test]
fn checks_zones_and_sessions_hold_together() {
    let (mut kept, mut near_picks, mut avoided) = (0, 0, 0);
    for seed in 1..=SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        fastrand::seed(seed);
        let count = random.u8(2..=12);
        let threshold = [0, 30, 50][random.usize(..3)];
        let policy = BackendPolicy {
            panic_threshold_percent: Some(threshold),
            prefers_own_zone: true,
            ..BackendPolicy::default()
        };
        let settings = health_check::Settings {
            unhealthy_threshold: random.u32(1..4),
            healthy_threshold: random.u32(1..4),
            ..health_check::Settings::default()
        };
        let mut made = endpoints(count, |at| 1 + u32::from(at) % 3);
        for endpoint in &mut made {
            endpoint.zone = ["z1", "z2"][random.usize(..2)].to_owned();
        }
        let balancing = balancings()[random.usize(..4)].clone();
        let source = Arc::new(cluster(made, balancing, policy));
        let mut cluster = Cluster::compile_in("z1", &source, None);
        let mut now = Instant::now();
        for step in 0..300_u32 {
            now += Duration::from_millis(random.u64(0..50));
            let at = random.usize(..cluster.endpoints().len());
            let endpoint = cluster.endpoints()[at].clone();
            let result = match random.u8(..) < 100 {
                true => Err(Fault::Timeout),
                false => Ok(()),
            };
            cluster.checked(&endpoint, result, &settings, now);
            if random.u8(..) < 3 {
                let mut changed = (*source).clone();
                changed.connect_timeout += Duration::from_millis(u64::from(step) + 1);
                cluster = Cluster::compile_in("z1", &Arc::new(changed), Some(&cluster));
            }
            let all = cluster.endpoints().len();
            let is_well = |it: &dataplane_upstream::Endpoint| !it.load().checks().is_unwell();
            let well = cluster.endpoints().iter().filter(|it| is_well(it)).count();
            let is_panic = (well < all) && well * 100 < usize::from(threshold) * all;
            assert_eq!(cluster.is_in_panic(), is_panic, "seed {seed}");
            let wanted = &cluster.endpoints()[random.usize(..all)];
            let ask = Ask {
                hash: Some(random.u64(..)),
                session: random.bool().then(|| wanted.address()),
                ..Ask::default()
            };
            let Some(chosen) = cluster.pick(&ask, now) else {
                assert_eq!((well, threshold), (0, 0), "seed {seed}");
                continue;
            };
            if !is_panic {
                assert!(is_well(&chosen), "seed {seed}, step {step}");
                avoided += all - well;
            }
            if ask.session.is_some() && (is_well(wanted) || is_panic) {
                assert_eq!(chosen.address(), wanted.address(), "seed {seed}");
                kept += 1;
                continue;
            }
            let near = |it: &&Arc<dataplane_upstream::Endpoint>| it.zone() == "z1";
            let all_near_are_well = cluster
                .endpoints()
                .iter()
                .filter(near)
                .all(|it| is_well(it));
            let is_any_near = cluster.endpoints().iter().any(|it| it.zone() == "z1");
            if all_near_are_well && is_any_near {
                assert_eq!(chosen.zone(), "z1", "seed {seed}, step {step}");
                near_picks += 1;
            }
        }
    }
    assert!(
        kept > 10_000 && near_picks > 1_000 && avoided > 10_000,
        "the runs were dull: {kept} {near_picks} {avoided}"
    );
}
