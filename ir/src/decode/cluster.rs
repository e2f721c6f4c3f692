//! Clusters and their endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use super::report::{At, Quoted, Report, list, optional};
use super::{ai, backend_policy, policy, security, tls, value, wasm};
use crate::cluster::{
    Balancing, ClusterProtocol, DEFAULT_CONNECT_TIMEOUT, EndpointAddress, HashKey, ProxyProtocol,
};
use crate::policy::RateLimitScope;
use crate::{Cluster, Endpoint, wire};

/// The largest share of one endpoint.
const WEIGHT_MAX: u32 = 1_000_000;

pub(super) fn cluster(cluster: wire::BackendCluster, report: &mut Report) -> Option<Cluster> {
    let key = value::object_key(&cluster.namespace, &cluster.name, "Cluster", report)?;
    let at = At::object("Cluster", &key);
    let endpoints = list(cluster.endpoints, &at, "endpoints", report, endpoint);
    let connect_timeout = value::duration(cluster.connect_timeout, &at, "connect_timeout", report);
    let request_timeout = value::duration(cluster.request_timeout, &at, "request_timeout", report);
    let tls = optional(
        cluster.tls_validation,
        &at,
        "tls_validation",
        report,
        tls::backend_tls,
    );
    let persistence = optional(
        cluster.session_persistence,
        &at,
        "session_persistence",
        report,
        policy::session_persistence,
    );
    let balancing = optional(
        cluster.load_balancing,
        &at,
        "load_balancing",
        report,
        balancing,
    );
    let ai_service = optional(cluster.ai_service, &at, "ai_service", report, ai::service);
    let token_policy = optional(
        cluster.token_policy,
        &at,
        "token_policy",
        report,
        ai::token_policy,
    );
    let wasm_plugin = optional(
        cluster.wasm_plugin,
        &at,
        "wasm_plugin",
        report,
        wasm::plugin,
    );
    let plugins = wasm::names(cluster.wasm_plugins, &at, report);
    let security = security::policy(
        cluster.security_policy,
        &cluster.namespace,
        RateLimitScope::Backend,
        &at,
        report,
    );
    let own = optional(
        cluster.policy,
        &at,
        "policy",
        report,
        backend_policy::policy,
    );
    let breaker = cluster.circuit_breaker.unwrap_or_default();
    Some(Cluster {
        protocol: protocol(&cluster.protocol, &at, report),
        endpoints: endpoints?,
        connect_timeout: connect_timeout?.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        request_timeout: request_timeout?,
        metadata: cluster.metadata.into(),
        tls: tls?.map(Arc::new),
        session_persistence: persistence?.map(Arc::new),
        balancing: balancing?.unwrap_or_default(),
        max_inflight_requests: (breaker.max_inflight_requests > 0)
            .then_some(breaker.max_inflight_requests),
        ai_service: ai_service?.map(Arc::new),
        token_policy: token_policy?.map(Arc::new),
        wasm_plugin: wasm_plugin?.map(Arc::new),
        plugins: plugins?,
        security_policy: security?,
        policy: own?.map(Arc::new),
        proxy_protocol: proxy_protocol(cluster.proxy_protocol, &at, report),
        key: key.clone(),
    })
}

fn proxy_protocol(version: u32, at: &At<'_>, report: &mut Report) -> Option<ProxyProtocol> {
    match version {
        0 => None,
        1 => Some(ProxyProtocol::V1),
        2 => Some(ProxyProtocol::V2),
        _ => {
            report.notice(
                &at.field("proxy_protocol"),
                format_args!("{version} is not a version this data plane knows, none is spoken"),
            );
            None
        }
    }
}

fn protocol(name: &str, at: &At<'_>, report: &mut Report) -> ClusterProtocol {
    let upper = name.to_ascii_uppercase();
    match upper.strip_prefix("KUBERNETES.IO/").unwrap_or(&upper) {
        "HTTP" | "WS" => ClusterProtocol::Http,
        "H2C" | "HTTP2" => ClusterProtocol::H2c,
        "HTTPS" | "WSS" => ClusterProtocol::Https,
        "GRPC" => ClusterProtocol::Grpc,
        "GRPCS" => ClusterProtocol::Grpcs,
        "TCP" | "" => ClusterProtocol::Tcp,
        "UDP" => ClusterProtocol::Udp,
        _ => {
            let shown = Quoted(name);
            report.notice(
                &at.field("protocol"),
                format_args!("{shown} is not known, the cluster is used as TCP"),
            );
            ClusterProtocol::Other(upper)
        }
    }
}

fn endpoint(item: wire::BackendEndpoint, at: &At<'_>, report: &mut Report) -> Option<Endpoint> {
    let address = match item.address.parse::<IpAddr>() {
        Ok(address) => Some(EndpointAddress::Ip(address)),
        Err(_) => value::exact_hostname(&item.address, &at.field("address"), report)
            .map(EndpointAddress::Name),
    };
    let port = value::port(item.port, &at.field("port"), report);
    let weight = match item.weight {
        0 => Some(1),
        weight if weight <= WEIGHT_MAX => Some(weight),
        weight => report.refuse(
            &at.field("weight"),
            format_args!("{weight} is more than {WEIGHT_MAX}"),
        ),
    };
    Some(Endpoint {
        address: address?,
        port: port?,
        is_ready: item.healthy,
        is_ending: item.ending,
        zone: item.zone,
        zone_hints: item.zone_hints,
        weight: weight?,
    })
}

/// What a newer generation calls by a number unknown here is read as round robin.
fn balancing(
    item: wire::LoadBalancingPolicy,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Balancing> {
    use wire::LoadBalancingPolicyType as Kind;
    match Kind::try_from(item.r#type) {
        Ok(Kind::LoadBalancingUnspecified | Kind::LoadBalancingRoundRobin) => {
            Some(Balancing::RoundRobin)
        }
        Ok(Kind::LoadBalancingLeastRequest) => Some(Balancing::LeastRequest),
        Ok(Kind::LoadBalancingRandom) => Some(Balancing::Random),
        Ok(Kind::LoadBalancingConsistentHash) => {
            let hash = item.consistent_hash.unwrap_or_default();
            hash_key(hash, &at.field("consistent_hash"), report).map(Balancing::ConsistentHash)
        }
        Err(_) => {
            let number = item.r#type;
            report.notice(
                &at.field("type"),
                format_args!("{number} is not known, round robin is used"),
            );
            Some(Balancing::RoundRobin)
        }
    }
}

fn hash_key(item: wire::ConsistentHashPolicy, at: &At<'_>, report: &mut Report) -> Option<HashKey> {
    use wire::ConsistentHashKeyType as Kind;
    match Kind::try_from(item.key_type) {
        Ok(Kind::ConsistentHashUnspecified | Kind::ConsistentHashSourceIp) => {
            Some(HashKey::SourceIp)
        }
        Ok(Kind::ConsistentHashHeader) if !item.cookie_name.is_empty() => {
            let at = at.field("cookie_name");
            if value::is_token(&item.cookie_name) {
                return Some(HashKey::Cookie(item.cookie_name));
            }
            let shown = Quoted(&item.cookie_name);
            report.refuse(&at, format_args!("{shown} is not the name of a cookie"))
        }
        Ok(Kind::ConsistentHashHeader) => {
            value::header_name(item.header_name, &at.field("header_name"), report)
                .map(HashKey::Header)
        }
        Ok(Kind::ConsistentHashHostname) => Some(HashKey::Hostname),
        Err(_) => {
            let number = item.key_type;
            report.notice(
                &at.field("key_type"),
                format_args!("{number} is not known, the client's address is used"),
            );
            Some(HashKey::SourceIp)
        }
    }
}
