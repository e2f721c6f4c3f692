//! Tests of a cluster: who is chosen, and what is carried over from one configuration to the next.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ir::Hostname;
use ir::backend_policy::{BackendPolicy, OutlierDetection};
use ir::cluster::{Balancing, HashKey, SubjectAltName};
use ir::listener::TlsVersion;

use super::*;
use ir::cluster::BackendTls;

fn endpoint(address: &str) -> ir::Endpoint {
    let address: SocketAddr = address.parse().unwrap();
    ir::Endpoint {
        address: EndpointAddress::Ip(address.ip()),
        port: NonZeroU16::new(address.port()).unwrap(),
        is_ready: true,
        is_ending: false,
        zone: String::new(),
        zone_hints: Vec::new(),
        weight: 1,
    }
}

fn cluster(endpoints: Vec<ir::Endpoint>) -> ir::Cluster {
    ir::Cluster {
        endpoints,
        ..ir::Cluster::new("shop/cart:80", ClusterProtocol::Http)
    }
}

fn compile(source: ir::Cluster) -> Arc<Cluster> {
    Cluster::compile(&Arc::new(source), None)
}

fn policy() -> BackendTls {
    BackendTls {
        hostname: Hostname::new("cart.example").unwrap(),
        use_system_ca_certificates: true,
        ca_pems: Vec::new(),
        subject_alt_names: Vec::new(),
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
    }
}

fn pick(cluster: &Cluster, tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
    let ask = Ask {
        tried,
        ..Ask::default()
    };
    cluster.pick(&ask, Instant::now())
}

/// How often each address is chosen in `rounds`.
fn counts(cluster: &Cluster, rounds: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..rounds {
        let address = pick(cluster, &[]).unwrap().address();
        *counts.entry(address.to_string()).or_default() += 1;
    }
    counts
}

fn three() -> Vec<ir::Endpoint> {
    ["10.0.0.1:80", "10.0.0.2:80", "[::3]:80"]
        .map(endpoint)
        .into()
}

#[test]
fn endpoints_take_turns() {
    let cluster = compile(cluster(three()));
    let counts = counts(&cluster, 300);
    assert_eq!(counts.values().collect::<Vec<_>>(), [&100; 3], "{counts:?}");
    assert!(
        cluster
            .endpoints()
            .iter()
            .all(|endpoint| endpoint.load().picks() == 100)
    );
}

#[test]
fn weights_decide_the_shares() {
    let mut endpoints = three();
    endpoints[0].weight = 3;
    endpoints[2].weight = 0;
    let counts = counts(&compile(cluster(endpoints)), 400);
    assert_eq!(
        counts,
        BTreeMap::from([("10.0.0.1:80".into(), 300), ("10.0.0.2:80".into(), 100)])
    );
}

#[test]
fn only_ready_addresses_are_chosen() {
    let mut endpoints = three();
    endpoints[0].is_ready = false;
    endpoints[1].address = EndpointAddress::Name(Hostname::new("api.example").unwrap());
    let cluster = compile(cluster(endpoints));
    assert_eq!(
        counts(&cluster, 4),
        BTreeMap::from([("[::3]:80".into(), 4)])
    );
    assert_eq!(
        (
            cluster.available(),
            cluster.endpoints().len(),
            cluster.unresolved()
        ),
        (1, 2, 1)
    );
}

#[test]
fn nothing_to_choose_is_none_at_once() {
    let mut not_ready = endpoint("10.0.0.1:80");
    not_ready.is_ready = false;
    let mut weightless = endpoint("10.0.0.1:80");
    weightless.weight = 0;
    for endpoints in [vec![], vec![not_ready], vec![weightless]] {
        let cluster = compile(cluster(endpoints));
        assert!(pick(&cluster, &[]).is_none());
        assert!(pick(&cluster, &["10.0.0.1:80".parse().unwrap()]).is_none());
    }
}

#[test]
fn a_retry_goes_elsewhere_while_it_can() {
    let mut endpoints = three();
    endpoints[0].weight = 50;
    let cluster = compile(cluster(endpoints));
    let addresses: Vec<_> = cluster.endpoints().iter().map(|e| e.address()).collect();
    for _ in 0..200 {
        let chosen = pick(&cluster, &addresses[..1]).unwrap().address();
        assert_ne!(chosen, addresses[0]);
        assert_eq!(
            pick(&cluster, &addresses[..2]).unwrap().address(),
            addresses[2]
        );
        assert!(pick(&cluster, &addresses).is_some());
    }
}

#[test]
fn an_address_given_twice_has_one_turn_and_is_ready_if_one_says_so() {
    let mut stale = endpoint("10.0.0.1:80");
    stale.is_ready = false;
    let endpoints = vec![
        stale,
        endpoint("10.0.0.1:80"),
        endpoint("10.0.0.2:80"),
        endpoint("10.0.0.1:80"),
    ];
    let counts = counts(&compile(cluster(endpoints)), 10);
    assert_eq!(counts.values().collect::<Vec<_>>(), [&5, &5], "{counts:?}");
}

#[test]
fn the_same_source_gives_the_same_cluster() {
    let source = Arc::new(cluster(three()));
    let first = Cluster::compile(&source, None);
    assert!(Arc::ptr_eq(
        &first,
        &Cluster::compile(&source, Some(&first))
    ));
    let equal = Arc::new(cluster(three()));
    assert!(Arc::ptr_eq(&first, &Cluster::compile(&equal, Some(&first))));
}

#[test]
fn load_and_turn_outlive_a_configuration() {
    let first = compile(cluster(three()));
    let held = pick(&first, &[]).unwrap();
    let request = held.load().request_started();
    let _connection = held.load().connection_opened();

    let mut endpoints = three();
    endpoints.push(endpoint("10.0.0.4:80"));
    endpoints
        .iter_mut()
        .for_each(|endpoint| endpoint.weight = 7);
    endpoints[0].zone = "a".to_owned();
    let mut source = cluster(endpoints);
    source.connect_timeout = Duration::from_secs(1);
    let second = Cluster::compile(&Arc::new(source), Some(&first));

    let of = |cluster: &Cluster, address: SocketAddr| {
        cluster
            .endpoints()
            .iter()
            .find(|e| e.address() == address)
            .cloned()
            .unwrap()
    };
    let kept = of(&second, held.address());
    assert_eq!(kept.load().requests_active(), 1);
    assert_eq!(kept.load().connections_active(), 1);
    assert_eq!(kept.load().picks(), 1);
    assert_eq!((kept.weight(), kept.id()), (7, held.id()));
    assert_eq!(
        of(&second, "10.0.0.4:80".parse().unwrap()).load().picks(),
        0
    );
    assert!(Arc::ptr_eq(&first.turn, &second.turn));
    drop(request);
    assert_eq!(kept.load().requests_active(), 0);
}

#[test]
fn endpoints_that_did_not_change_are_the_same_objects() {
    let first = compile(cluster(three()));
    let mut endpoints = three();
    endpoints[1].is_ready = false;
    let second = Cluster::compile(&Arc::new(cluster(endpoints)), Some(&first));
    let same: Vec<_> = first
        .endpoints()
        .iter()
        .zip(second.endpoints())
        .map(|(a, b)| Arc::ptr_eq(a, b))
        .collect();
    assert_eq!(same, [true, false, true]);
}

#[test]
fn a_cluster_of_another_key_gives_nothing_over() {
    let other = compile(ir::Cluster {
        key: "shop/other:80".into(),
        ..cluster(three())
    });
    pick(&other, &[]).unwrap();
    let own = Cluster::compile(&Arc::new(cluster(three())), Some(&other));
    assert!(
        own.endpoints()
            .iter()
            .all(|endpoint| endpoint.load().picks() == 0)
    );
    assert_eq!(&**own.key(), "shop/cart:80");
}

#[test]
fn protocol_and_tls_follow_the_cluster() {
    use ClusterProtocol as P;
    use Protocol::{Http1, Http2};
    let cases = [
        (P::Http, Http1, Tls::Plain),
        (P::H2c, Http2, Tls::Plain),
        (P::Https, Http1, Tls::Unspecified),
        (P::Grpc, Http2, Tls::Plain),
        (P::Grpcs, Http2, Tls::Unspecified),
        (P::Tcp, Http1, Tls::Plain),
        (P::Udp, Http1, Tls::Plain),
        (P::Other("x".into()), Http1, Tls::Plain),
    ];
    for (name, protocol, tls) in cases {
        let plain = compile(ir::Cluster {
            protocol: name.clone(),
            ..cluster(three())
        });
        assert_eq!(
            (plain.protocol(), plain.tls()),
            (protocol, &tls),
            "{name:?}"
        );
        let policy = Some(Arc::new(policy()));
        let secured = compile(ir::Cluster {
            protocol: name.clone(),
            tls: policy,
            ..cluster(three())
        });
        let under_tls = match name {
            P::Https | P::Tcp | P::Other(_) => Protocol::Negotiated,
            _ => protocol,
        };
        assert_eq!(secured.protocol(), under_tls, "{name:?}");
        if under_tls == Protocol::Negotiated {
            assert_eq!(secured.grpc_protocol(), Http2, "{name:?}");
        }
        // A port that names no protocol leaves it to the kind of route.
        let for_grpc = match name {
            ClusterProtocol::Tcp => Http2,
            _ => protocol,
        };
        assert_eq!(plain.grpc_protocol(), for_grpc, "{name:?}");
        assert!(
            matches!(secured.tls(), Tls::Policy(_)) && secured.tls().is_used(),
            "{name:?}"
        );
    }
}

/// Two connections may be shared exactly when address, protocol and every TLS setting agree.
#[test]
fn ids_tell_apart_all_that_must_not_share_connections() {
    let name = |text: &str| SubjectAltName::Hostname(Hostname::new(text).unwrap());
    let policies = [
        policy(),
        BackendTls {
            hostname: Hostname::new("other.example").unwrap(),
            ..policy()
        },
        BackendTls {
            use_system_ca_certificates: false,
            ..policy()
        },
        BackendTls {
            ca_pems: vec!["a".into(), "b".into()],
            ..policy()
        },
        BackendTls {
            ca_pems: vec!["ab".into()],
            ..policy()
        },
        BackendTls {
            subject_alt_names: vec![name("a.example")],
            ..policy()
        },
        BackendTls {
            subject_alt_names: vec![SubjectAltName::Uri("a.example".into())],
            ..policy()
        },
        BackendTls {
            min_version: TlsVersion::V1_3,
            ..policy()
        },
    ];
    let tls: Vec<Tls> = [Tls::Plain, Tls::Unspecified]
        .into_iter()
        .chain(
            policies
                .into_iter()
                .map(|policy| Tls::Policy(Arc::new(policy))),
        )
        .collect();
    let addresses = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "[::1]:80"];
    let all = || {
        let mut ids = Vec::new();
        for address in addresses {
            for protocol in [Protocol::Http1, Protocol::Http2] {
                ids.extend(
                    tls.iter()
                        .map(|t| identity(address.parse().unwrap(), protocol, t)),
                );
            }
        }
        ids
    };
    let mut ids = all();
    assert_eq!(ids, all(), "the same in, the same out");
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

/// Whatever configurations follow each other: the chosen one is always a ready one of the newest.
#[test]
fn any_sequence_of_configurations_keeps_the_promises() {
    let mut state = 7_u32;
    let mut random = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    let mut previous: Option<Arc<Cluster>> = None;
    for _ in 0..500 {
        let endpoints: Vec<_> = (0..random(6))
            .map(|_| {
                let ip = IpAddr::from([10, 0, 0, u8::try_from(random(5)).unwrap()]);
                let is_ready = random(3) > 0;
                ir::Endpoint {
                    address: EndpointAddress::Ip(ip),
                    is_ready,
                    weight: random(4),
                    ..endpoint("0.0.0.0:80")
                }
            })
            .collect();
        let compiled = Cluster::compile(&Arc::new(cluster(endpoints.clone())), previous.as_ref());
        for _ in 0..5 {
            match pick(&compiled, &[]) {
                Some(chosen) => assert!(endpoints.iter().any(|e| {
                    e.address == EndpointAddress::Ip(chosen.address().ip())
                        && e.is_ready
                        && e.weight > 0
                })),
                None => assert_eq!(compiled.available(), 0),
            }
        }
        previous = Some(compiled);
    }
}

fn many(count: u8) -> Vec<ir::Endpoint> {
    (1..=count)
        .map(|at| endpoint(&format!("10.0.0.{at}:80")))
        .collect()
}

fn with(balancing: Balancing, policy: BackendPolicy, count: u8) -> Arc<Cluster> {
    compile(ir::Cluster {
        balancing,
        policy: Some(Arc::new(policy)),
        ..cluster(many(count))
    })
}

fn detects() -> BackendPolicy {
    BackendPolicy {
        outlier_detection: Some(OutlierDetection {
            consecutive_gateway_failures: Some(3),
            base_ejection: Some(Duration::from_secs(10)),
            ..OutlierDetection::default()
        }),
        ..BackendPolicy::default()
    }
}

fn ways() -> [Balancing; 4] {
    [
        Balancing::RoundRobin,
        Balancing::LeastRequest,
        Balancing::Random,
        Balancing::ConsistentHash(HashKey::SourceIp),
    ]
}

/// Makes an endpoint fail until it is left out.
fn eject(cluster: &Cluster, endpoint: &Endpoint, now: Instant) {
    let ejected = (0..3)
        .filter_map(|_| cluster.report(endpoint, Outcome::GatewayFailure, now))
        .count();
    assert_eq!(ejected, 1, "{}", endpoint.address());
}

#[test]
fn whatever_the_way_an_ejected_endpoint_gets_nothing_until_its_time_is_over() {
    for balancing in ways() {
        let cluster = with(balancing.clone(), detects(), 4);
        let now = Instant::now();
        let ejected = &cluster.endpoints()[2];
        eject(&cluster, ejected, now);
        let gets = |now: Instant| {
            (0..2000_u32)
                .filter(|key| {
                    let hash = Some(Cluster::hash(&key.to_le_bytes()));
                    let ask = Ask {
                        hash,
                        ..Ask::default()
                    };
                    cluster.pick(&ask, now).unwrap().address() == ejected.address()
                })
                .count()
        };
        assert_eq!(gets(now + Duration::from_secs(9)), 0, "{balancing:?}");
        assert!(gets(now + Duration::from_secs(10)) > 100, "{balancing:?}");
    }
}

#[test]
fn no_more_than_the_allowed_share_is_ejected_and_nobody_is_left_without() {
    for balancing in ways() {
        let cluster = with(balancing, detects(), 4);
        let now = Instant::now();
        for endpoint in cluster.endpoints() {
            for _ in 0..10 {
                cluster.report(endpoint, Outcome::GatewayFailure, now);
            }
        }
        let ejected =
            |endpoint: &&Arc<Endpoint>| !endpoint.load().ejected_for(since_start(now)).is_zero();
        assert_eq!(cluster.endpoints().iter().filter(ejected).count(), 2);
        assert!(cluster.pick(&Ask::default(), now).is_some());
    }
}

#[test]
fn an_ejection_outlives_a_configuration() {
    let old = with(Balancing::RoundRobin, detects(), 4);
    let now = Instant::now();
    let ejected = Arc::clone(&old.endpoints()[0]);
    eject(&old, &ejected, now);
    let source = ir::Cluster {
        endpoints: many(5),
        ..(**old.source()).clone()
    };
    let new = Cluster::compile(&Arc::new(source), Some(&old));
    for _ in 0..100 {
        let picked = new.pick(&Ask::default(), now).unwrap();
        assert_ne!(picked.address(), ejected.address());
    }
}

#[test]
fn a_key_stays_with_its_endpoint_and_moves_only_when_that_is_gone() {
    let key = HashKey::Header("x-user".to_owned());
    let cluster = with(Balancing::ConsistentHash(key), detects(), 10);
    let now = Instant::now();
    let at = |user: u32| {
        let hash = Some(Cluster::hash(&user.to_le_bytes()));
        let ask = Ask {
            hash,
            ..Ask::default()
        };
        cluster.pick(&ask, now).unwrap().address()
    };
    let before: Vec<_> = (0..500).map(at).collect();
    assert_eq!(before, (0..500).map(at).collect::<Vec<_>>());
    let gone = &cluster.endpoints()[3];
    eject(&cluster, gone, now);
    for (user, address) in (0..500).zip(before) {
        let is_moved = at(user) != address;
        assert_eq!(is_moved, address == gone.address(), "{user}");
    }
}

#[test]
fn with_a_bound_one_key_cannot_overload_its_endpoint() {
    let policy = BackendPolicy {
        hash_load_percent: Some(125),
        ..BackendPolicy::default()
    };
    let key = Balancing::ConsistentHash(HashKey::Hostname);
    let cluster = with(key, policy, 10);
    let ask = Ask {
        hash: Some(Cluster::hash(b"hot")),
        ..Ask::default()
    };
    let now = Instant::now();
    let held: Vec<_> = (0..200)
        .map(|_| {
            let endpoint = cluster.pick(&ask, now).unwrap();
            let guard = endpoint.load().request_started();
            (endpoint, guard)
        })
        .collect();
    let most = cluster
        .endpoints()
        .iter()
        .map(|e| e.load().requests_active());
    assert!(most.max().unwrap() <= 26, "20 each is the mean");
    drop(held);
}

#[test]
fn the_less_loaded_is_preferred() {
    let cluster = with(Balancing::LeastRequest, BackendPolicy::default(), 10);
    let busy = &cluster.endpoints()[0];
    let _held: Vec<_> = (0..50).map(|_| busy.load().request_started()).collect();
    let now = Instant::now();
    let to_busy = (0..10_000)
        .filter(|_| {
            let picked = cluster.pick(&Ask::default(), now).unwrap();
            picked.address() == busy.address()
        })
        .count();
    // Only when both draws fall on it: one in a hundred.
    assert!(to_busy < 300, "{to_busy}");
}

#[test]
fn an_endpoint_that_joins_a_cluster_starts_slowly_and_gets_its_whole_share() {
    let policy = BackendPolicy {
        slow_start_window: Some(Duration::from_secs(100)),
        ..BackendPolicy::default()
    };
    for balancing in [Balancing::RoundRobin, Balancing::Random] {
        let old = with(balancing, policy.clone(), 3);
        let source = ir::Cluster {
            endpoints: many(4),
            ..(**old.source()).clone()
        };
        let new = Cluster::compile(&Arc::new(source), Some(&old));
        let late = new.endpoints()[3].address();
        let share = |now: Instant| {
            let to_late = (0..8_000)
                .filter(|_| new.pick(&Ask::default(), now).unwrap().address() == late)
                .count();
            to_late as f64 / 8_000.0
        };
        let now = Instant::now();
        let shares = [0, 50, 100].map(|seconds| share(now + Duration::from_secs(seconds)));
        assert!(shares[0] > 0.005 && shares[0] < 0.08, "{shares:?}");
        assert!(shares[1] > shares[0] && shares[1] < 0.22, "{shares:?}");
        assert!((shares[2] - 0.25).abs() < 0.03, "{shares:?}");
    }
}
