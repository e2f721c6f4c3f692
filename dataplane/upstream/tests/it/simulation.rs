//! A cluster whose endpoints fail and recover among requests that are in flight.
//!
//! Every run is made from a seed, which a failure prints; the clock is a number that the run moves.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane_upstream::endpoint::RequestToEndpoint;
use dataplane_upstream::{Ask, Cluster, Endpoint, Outcome, since_start};
use ir::backend_policy::{BackendPolicy, OutlierDetection};
use ir::cluster::{Balancing, ClusterProtocol, EndpointAddress, HashKey};

pub(crate) const SEEDS: u64 = 300;

pub(crate) fn endpoints(count: u8, weight: impl Fn(u8) -> u32) -> Vec<ir::Endpoint> {
    let endpoint = |at: u8| ir::Endpoint {
        address: EndpointAddress::Ip([10, 0, 0, at + 1].into()),
        port: NonZeroU16::new(80).unwrap(),
        is_ready: true,
        is_ending: false,
        zone: String::new(),
        zone_hints: Vec::new(),
        weight: weight(at),
    };
    (0..count).map(endpoint).collect()
}

pub(crate) fn cluster(
    endpoints: Vec<ir::Endpoint>,
    balancing: Balancing,
    policy: BackendPolicy,
) -> ir::Cluster {
    ir::Cluster {
        endpoints,
        balancing,
        policy: Some(policy.into()),
        ..ir::Cluster::new("shop/b:80", ClusterProtocol::Http)
    }
}

pub(crate) fn balancings() -> [Balancing; 4] {
    [
        Balancing::RoundRobin,
        Balancing::LeastRequest,
        Balancing::Random,
        Balancing::ConsistentHash(HashKey::SourceIp),
    ]
}

fn pick(cluster: &Cluster, random: &mut fastrand::Rng, now: Instant) -> Option<Arc<Endpoint>> {
    let ask = Ask {
        hash: Some(random.u64(..)),
        ..Ask::default()
    };
    cluster.pick(&ask, now)
}

/// A request in flight.
struct Running {
    endpoint: Arc<Endpoint>,
    _active: RequestToEndpoint,
}

#[test]
fn an_ejected_endpoint_is_never_picked_while_enough_are_well() {
    let mut avoided = 0;
    for seed in 1..=SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        fastrand::seed(seed);
        let count = random.u8(1..=12);
        let threshold = [0, 30, 50, 100][random.usize(..4)];
        let policy = BackendPolicy {
            outlier_detection: Some(OutlierDetection {
                consecutive_failures: Some(random.u32(1..=4)),
                consecutive_gateway_failures: Some(random.u32(1..=4)),
                base_ejection: Some(Duration::from_millis(random.u64(50..=500))),
                max_ejection: Some(Duration::from_millis(random.u64(50..=2_000))),
                max_ejection_percent: Some(random.u8(0..=100)),
            }),
            panic_threshold_percent: Some(threshold),
            ..BackendPolicy::default()
        };
        let balancing = balancings()[random.usize(..4)].clone();
        let endpoints = endpoints(count, |at| 1 + u32::from(at) % 3);
        let source = cluster(endpoints, balancing, policy);
        let mut cluster = Cluster::compile(&Arc::new(source.clone()), None);
        let mut is_up = vec![true; usize::from(count)];
        let mut running: Vec<Running> = Vec::new();
        let mut now = Instant::now();
        for step in 0..800_u32 {
            now += Duration::from_millis(random.u64(0..10));
            if random.u8(..) < 4 {
                let at = random.usize(..is_up.len());
                is_up[at] = !is_up[at];
            }
            if random.u8(..) == 0 {
                // Another configuration: what is known of endpoints goes on.
                let mut changed = source.clone();
                changed.connect_timeout += Duration::from_millis(u64::from(step));
                cluster = Cluster::compile(&Arc::new(changed), Some(&cluster));
            }
            let chosen = pick(&cluster, &mut random, now);
            let ejected = |it: &Endpoint| !it.load().ejected_for(since_start(now)).is_zero();
            let absent = cluster.endpoints().iter().filter(|it| ejected(it)).count();
            let all = usize::from(count);
            let is_panic = (all - absent) * 100 < usize::from(threshold) * all;
            assert_eq!(cluster.is_in_panic(), is_panic, "seed {seed}");
            let Some(chosen) = chosen else {
                assert_eq!((absent, threshold), (all, 0), "seed {seed}, step {step}");
                continue;
            };
            if !is_panic {
                assert!(!ejected(&chosen), "seed {seed}, step {step}");
                avoided += absent;
            }
            running.push(Running {
                _active: chosen.load().request_started(),
                endpoint: chosen,
            });
            while running.len() > random.usize(..20) {
                let ended = running.swap_remove(random.usize(..running.len()));
                let at = cluster
                    .endpoints()
                    .iter()
                    .position(|it| it.address() == ended.endpoint.address());
                let outcome = match (is_up[at.unwrap()], random.u8(..)) {
                    (true, 0..250) => Outcome::Success,
                    (false, 0..200) => Outcome::GatewayFailure,
                    _ => Outcome::ServerError,
                };
                cluster.report(&ended.endpoint, outcome, now);
            }
        }
        drop(running);
        let left: usize = cluster
            .endpoints()
            .iter()
            .map(|it| it.load().requests_active())
            .sum();
        assert_eq!(left, 0, "seed {seed}");
    }
    assert!(
        avoided > 10_000,
        "the runs hardly ejected anything: {avoided}"
    );
}

#[test]
fn no_more_are_ejected_than_the_share_allows() {
    for seed in 1..=SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.u8(1..=20);
        let share = random.u8(0..=100);
        let policy = BackendPolicy {
            outlier_detection: Some(OutlierDetection {
                consecutive_failures: Some(1),
                max_ejection_percent: Some(share),
                base_ejection: Some(Duration::from_secs(5)),
                max_ejection: Some(Duration::from_secs(5)),
                ..OutlierDetection::default()
            }),
            ..BackendPolicy::default()
        };
        let source = cluster(endpoints(count, |_| 1), Balancing::Random, policy);
        let cluster = Cluster::compile(&Arc::new(source), None);
        let all = usize::from(count);
        let most = (all * usize::from(share) / 100).max(usize::from(share > 0));
        let mut now = Instant::now();
        for _ in 0..200 {
            now += Duration::from_millis(random.u64(0..200));
            let chosen = pick(&cluster, &mut random, now).unwrap();
            cluster.report(&chosen, Outcome::GatewayFailure, now);
            let is_ejected =
                |it: &&Arc<Endpoint>| it.load().ejected_for(since_start(now)) > Duration::ZERO;
            let ejected = cluster.endpoints().iter().filter(is_ejected).count();
            assert!(
                ejected <= most,
                "seed {seed}: {ejected} of {all}, {share} %"
            );
        }
    }
}

/// One of four endpoints is cut for 22 s and back for 22 s, five times, at 200 requests a second
/// that are never repeated.
#[test]
fn a_flapping_endpoint_costs_few_requests_and_serves_its_share_while_it_is_up() {
    for seed in 1..=24 {
        for balancing in balancings() {
            let mut random = fastrand::Rng::with_seed(seed);
            fastrand::seed(seed);
            let policy = BackendPolicy {
                outlier_detection: Some(OutlierDetection::default()),
                ..BackendPolicy::default()
            };
            let name = format!("seed {seed} {balancing:?}");
            let source = cluster(endpoints(4, |_| 1), balancing, policy);
            let cluster = Cluster::compile(&Arc::new(source), None);
            let flapping: SocketAddr = "10.0.0.2:80".parse().unwrap();
            let start = Instant::now();
            let (mut failed, mut served) = (0, 0);
            for step in 0..(10 * 22 * 200_u64) {
                let elapsed = Duration::from_millis(step * 5);
                let is_cut = (elapsed.as_secs() / 22).is_multiple_of(2);
                let now = start + elapsed;
                let chosen = pick(&cluster, &mut random, now).unwrap();
                let is_flapping = chosen.address() == flapping;
                let outcome = match is_cut && is_flapping {
                    true => Outcome::GatewayFailure,
                    false => Outcome::Success,
                };
                failed += usize::from(is_cut && is_flapping);
                served += usize::from(!is_cut && is_flapping);
                cluster.report(&chosen, outcome, now);
            }
            assert!(failed < 162, "{name}: {failed} failed");
            assert!(served >= 4_500, "{name}: {served} served");
        }
    }
}
