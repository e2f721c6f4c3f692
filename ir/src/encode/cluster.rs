//! Clusters with what hangs on them, and secrets.

use super::ai;
use super::backend_policy;
use super::listener::tls_version;
use super::policy::{security_policy, session_persistence};
use super::wasm::wasm_plugin;
use super::{duration, namespace_and_name, texts};
use crate::cluster::{
    BackendTls, Balancing, EndpointAddress, HashKey, ProxyProtocol, SubjectAltName,
};
use crate::{Cluster, Endpoint, Secret, SecretText, wire};

/// One cluster.
pub fn cluster(cluster: &Cluster) -> wire::BackendCluster {
    let (namespace, name) = namespace_and_name(&cluster.key);
    let inflight_max = cluster.max_inflight_requests;
    wire::BackendCluster {
        name,
        namespace,
        protocol: cluster.protocol.as_str().to_owned(),
        endpoints: cluster.endpoints.iter().map(endpoint).collect(),
        connect_timeout: duration(Some(cluster.connect_timeout)),
        request_timeout: duration(cluster.request_timeout),
        metadata: cluster.metadata.to_map(),
        tls_validation: cluster.tls.as_deref().map(backend_tls),
        session_persistence: cluster
            .session_persistence
            .as_deref()
            .map(session_persistence),
        load_balancing: (cluster.balancing != Balancing::default())
            .then(|| balancing(&cluster.balancing)),
        ai_service: cluster.ai_service.as_deref().map(ai::service),
        token_policy: cluster.token_policy.as_deref().map(ai::token_policy),
        wasm_plugin: cluster.wasm_plugin.as_deref().map(wasm_plugin),
        circuit_breaker: inflight_max.map(|max_inflight_requests| wire::CircuitBreakerConfig {
            max_inflight_requests,
        }),
        security_policy: cluster.security_policy.as_deref().map(security_policy),
        policy: cluster.policy.as_deref().map(backend_policy::policy),
        wasm_plugins: texts(&cluster.plugins),
        proxy_protocol: match cluster.proxy_protocol {
            None => 0,
            Some(ProxyProtocol::V1) => 1,
            Some(ProxyProtocol::V2) => 2,
        },
    }
}

fn endpoint(endpoint: &Endpoint) -> wire::BackendEndpoint {
    wire::BackendEndpoint {
        address: match &endpoint.address {
            EndpointAddress::Ip(address) => address.to_string(),
            EndpointAddress::Name(name) => name.as_str().to_owned(),
        },
        port: u32::from(endpoint.port.get()),
        healthy: endpoint.is_ready,
        zone: endpoint.zone.clone(),
        ending: endpoint.is_ending,
        zone_hints: endpoint.zone_hints.clone(),
        // The usual share is left out, so that it costs nothing on the wire.
        weight: if endpoint.weight == 1 {
            0
        } else {
            endpoint.weight
        },
    }
}

fn backend_tls(tls: &BackendTls) -> wire::BackendTlsValidation {
    use wire::BackendTlsSubjectAltNameType as Kind;
    let names = tls.subject_alt_names.iter().map(|name| {
        let (kind, value) = match name {
            SubjectAltName::Hostname(name) => (Kind::BackendTlsSanHostname, name.as_str()),
            SubjectAltName::Uri(uri) => (Kind::BackendTlsSanUri, uri.as_str()),
        };
        wire::BackendTlsSubjectAltName {
            r#type: kind.into(),
            value: value.to_owned(),
        }
    });
    wire::BackendTlsValidation {
        hostname: tls.hostname.as_str().to_owned(),
        use_system_ca_certificates: tls.use_system_ca_certificates,
        ca_pems: tls.ca_pems.clone(),
        subject_alt_names: names.collect(),
        min_version: tls_version(tls.min_version),
        max_version: tls_version(tls.max_version),
    }
}

fn balancing(balancing: &Balancing) -> wire::LoadBalancingPolicy {
    use wire::ConsistentHashKeyType as Key;
    use wire::LoadBalancingPolicyType as Kind;
    let hash = |key: Key, header_name: &str| wire::ConsistentHashPolicy {
        key_type: key.into(),
        header_name: header_name.to_owned(),
        cookie_name: String::new(),
    };
    let (kind, consistent_hash) = match balancing {
        Balancing::RoundRobin => (Kind::LoadBalancingRoundRobin, None),
        Balancing::LeastRequest => (Kind::LoadBalancingLeastRequest, None),
        Balancing::Random => (Kind::LoadBalancingRandom, None),
        Balancing::ConsistentHash(key) => {
            let hash = match key {
                HashKey::SourceIp => hash(Key::ConsistentHashSourceIp, ""),
                HashKey::Header(name) => hash(Key::ConsistentHashHeader, name),
                HashKey::Cookie(name) => wire::ConsistentHashPolicy {
                    cookie_name: name.clone(),
                    ..hash(Key::ConsistentHashHeader, "cookie")
                },
                HashKey::Hostname => hash(Key::ConsistentHashHostname, ""),
            };
            (Kind::LoadBalancingConsistentHash, Some(hash))
        }
    };
    wire::LoadBalancingPolicy {
        r#type: kind.into(),
        consistent_hash,
    }
}

/// One secret. The message holds key material: it must not be printed or kept.
pub fn secret(secret: &Secret) -> wire::SecretMaterial {
    let (namespace, name) = namespace_and_name(&secret.key);
    let certificate = secret.certificate.as_ref();
    let exposed = |text: Option<&SecretText>| text.map_or("", SecretText::expose).to_owned();
    wire::SecretMaterial {
        namespace,
        name,
        cert_pem: certificate.map_or("", |pair| pair.chain_pem()).to_owned(),
        key_pem: exposed(certificate.map(|pair| pair.key_pem())),
        htpasswd: exposed(secret.htpasswd.as_ref()),
        oidc_client_secret: exposed(secret.oidc_client_secret.as_ref()),
        values: secret
            .values
            .iter()
            .map(|(key, text)| (key.clone(), text.expose().to_owned()))
            .collect(),
    }
}
