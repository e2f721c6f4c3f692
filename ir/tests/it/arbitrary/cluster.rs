//! Clusters, and the settings that hang on them.

use std::net::IpAddr;
use std::sync::Arc;

use ir::cluster::{
    BackendTls, Balancing, ClusterProtocol, EndpointAddress, HashKey, ProxyProtocol, SubjectAltName,
};
use ir::{Cluster, Endpoint};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use super::ai;
use super::backend_policy;
use super::policy::{security_policy, session_persistence};
use super::wasm;
use super::{
    any_text, ca_pems, duration, exact_hostname, hostname, metadata, port, shared, versions,
};

pub(super) fn cluster() -> impl Strategy<Value = Cluster> {
    use ClusterProtocol::{Grpc, Grpcs, H2c, Http, Https, Other, Tcp, Udp};
    let protocols = vec![
        Grpc,
        Grpcs,
        H2c,
        Http,
        Https,
        Tcp,
        Udp,
        Other("SMOKE".to_owned()),
    ];
    let head = ("(a|b)/[r-u]:80", select(protocols), vec(endpoint(), 0..4));
    let times = (duration(), of(duration()), metadata(), of(1..=u32::MAX));
    let policies = (
        shared(backend_tls()),
        of(session_persistence()),
        balancing(),
        of(select(vec![ProxyProtocol::V1, ProxyProtocol::V2])),
    );
    let engines = (
        shared(ai::service()),
        shared(ai::token_policy()),
        shared(wasm::plugin().boxed()),
        wasm::names(),
    );
    let rest = (shared(security_policy()), shared(backend_policy::policy()));
    (head, times, policies, engines, rest).prop_map(
        |((key, protocol, endpoints), times, policies, engines, rest)| Cluster {
            key: key.into(),
            protocol,
            endpoints,
            connect_timeout: times.0,
            request_timeout: times.1,
            metadata: times.2,
            tls: policies.0,
            session_persistence: policies.1.map(Arc::new),
            balancing: policies.2,
            max_inflight_requests: times.3,
            ai_service: engines.0,
            token_policy: engines.1,
            wasm_plugin: engines.2,
            plugins: engines.3,
            security_policy: rest.0,
            policy: rest.1,
            proxy_protocol: policies.3,
        },
    )
}

pub(super) fn endpoint() -> impl Strategy<Value = Endpoint> {
    let address = prop_oneof![
        any::<IpAddr>().prop_map(EndpointAddress::Ip),
        exact_hostname().prop_map(EndpointAddress::Name),
    ];
    let zones = (any_text(), vec(any_text(), 0..3));
    let states = (any::<bool>(), any::<bool>());
    (address, port(), states, zones, 1..=1_000_000u32).prop_map(
        |(address, port, (is_ready, is_ending), (zone, zone_hints), weight)| Endpoint {
            address,
            port,
            is_ready,
            is_ending,
            zone,
            zone_hints,
            weight,
        },
    )
}

pub(super) fn backend_tls() -> impl Strategy<Value = BackendTls> {
    let name = prop_oneof![
        hostname().prop_map(SubjectAltName::Hostname),
        "spiffe://[a-z]{1,3}".prop_map(SubjectAltName::Uri),
    ];
    (
        exact_hostname(),
        any::<bool>(),
        ca_pems(),
        vec(name, 0..3),
        versions(),
    )
        .prop_map(
            |(hostname, use_system_ca_certificates, ca_pems, subject_alt_names, versions)| {
                BackendTls {
                    hostname,
                    use_system_ca_certificates,
                    ca_pems,
                    subject_alt_names,
                    min_version: versions.0,
                    max_version: versions.1,
                }
            },
        )
}

pub(super) fn balancing() -> impl Strategy<Value = Balancing> {
    prop_oneof![
        Just(Balancing::RoundRobin),
        Just(Balancing::LeastRequest),
        Just(Balancing::Random),
        Just(Balancing::ConsistentHash(HashKey::SourceIp)),
        Just(Balancing::ConsistentHash(HashKey::Hostname)),
        "x-[a-z]{1,3}".prop_map(|name| Balancing::ConsistentHash(HashKey::Header(name))),
        "[A-Za-z]{1,3}".prop_map(|name| Balancing::ConsistentHash(HashKey::Cookie(name))),
    ]
}
