//! A provider with an address of its own: the host of its base URL, and what that is known to be.
//!
//! An IP address is known at once. A name is resolved by somebody else, off the request path, who
//! tells [`Site::found`]; until the first answer calls may wait for [`Site::known`]. The last good
//! answer is kept, also over changes of the configuration.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use dataplane_ai::service::Target;
use dataplane_telemetry::metrics::BackendMetrics;
use dataplane_upstream::Cluster;
use http::uri::Authority;
use ir::cluster::{BackendTls, ClusterProtocol, EndpointAddress};
use ir::listener::TlsVersion;
use ir::{Endpoint, Hostname};
use tokio_util::sync::CancellationToken;

use super::Around;
use crate::backend_tls::ClusterTls;

/// Addresses of one name that are used; further ones are left out.
const ADDRESSES_MAX: usize = 32;

/// A provider with an address of its own.
#[derive(Debug)]
pub struct Site {
    authority: Box<str>,
    host: Box<str>,
    port: NonZeroU16,
    /// To be resolved; not so when it is an address or the cluster has endpoints.
    is_name: bool,
    /// The cluster without its endpoints.
    template: ir::Cluster,
    zone: Box<str>,
    tls: ClusterTls,
    metrics: Arc<BackendMetrics>,
    reached: ArcSwapOption<Reached>,
    answered: CancellationToken,
}

/// How a provider is reached.
#[derive(Debug)]
pub struct Reached {
    /// Its addresses.
    pub cluster: Arc<Cluster>,
    /// Whether and how TLS is spoken.
    pub tls: ClusterTls,
    /// Figures of connections to it.
    pub metrics: Arc<BackendMetrics>,
}

impl Site {
    /// The site of a provider of `source`. The first provider may have the cluster's own endpoints.
    pub(super) fn compile(
        source: &Arc<ir::Cluster>,
        target: &Target,
        is_first: bool,
        around: Around<'_>,
        known: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let (host, port) = host_and_port(target);
        let address: Option<IpAddr> = host.parse().ok();
        // What the cluster says of TLS is about its own provider, others say it themselves.
        let own_tls = match (is_first, &target.tls) {
            (true, _) => source.tls.clone(),
            (false, tls) => tls.as_ref().map(|tls| Arc::new(BackendTls::from(tls))),
        };
        let is_tls = target.is_tls() || own_tls.is_some();
        let mut template = ir::Cluster {
            ai_service: None,
            endpoints: Vec::new(),
            tls: own_tls,
            ..(**source).clone()
        };
        template.protocol = match (&source.protocol, is_tls) {
            (_, true) => ClusterProtocol::Https,
            (ClusterProtocol::H2c, false) => ClusterProtocol::H2c,
            _ => ClusterProtocol::Http,
        };
        // An address has no name that a certificate could be checked for: then nothing is sent.
        if is_tls && template.tls.is_none() {
            template.tls = Hostname::new(&host).ok().map(|name| Arc::new(public(name)));
        }
        let addressed = source.endpoints.iter().any(is_addressed);
        let has_own = is_first && addressed;
        let kept = known.and_then(|site| site.reached.load_full());
        let empty = Cluster::compile_in(
            around.kept.zone(),
            &Arc::new(template.clone()),
            kept.as_ref().map(|reached| &reached.cluster),
        );
        let tls = ClusterTls::compile(
            empty.tls(),
            around.identities,
            kept.as_ref().map(|reached| &reached.tls),
        );
        let site = Self {
            authority: target.authority().into(),
            host: host.into(),
            port,
            is_name: address.is_none() && !has_own,
            template,
            zone: around.kept.zone().into(),
            tls,
            metrics: around.metrics.backend(&source.key),
            reached: ArcSwapOption::empty(),
            answered: CancellationToken::new(),
        };
        if has_own {
            site.put(source.endpoints.clone(), kept.as_deref());
        } else if let Some(address) = address {
            site.put(vec![site.endpoint(address)], kept.as_deref());
        } else if let Some(kept) = kept {
            let known = kept.cluster.endpoints().iter();
            let endpoints = known.map(|it| site.endpoint(it.address().ip())).collect();
            site.put(endpoints, Some(&kept));
        }
        Arc::new(site)
    }

    /// Host and port as they stand in the base URL.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The name that has to be resolved, if it is one.
    pub fn name(&self) -> Option<&str> {
        self.is_name.then_some(&self.host)
    }

    /// Takes over what its name was resolved to; nothing changes when that is nothing.
    pub fn found(&self, addresses: &[IpAddr]) {
        if !addresses.is_empty() {
            let mut sorted: Vec<IpAddr> = addresses.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            sorted.truncate(ADDRESSES_MAX);
            let endpoints = sorted.into_iter().map(|it| self.endpoint(it)).collect();
            self.put(endpoints, self.reached.load_full().as_deref());
        }
        self.answered.cancel();
    }

    /// How it is reached; absent as long as its name was never resolved.
    pub fn reached(&self) -> Option<Arc<Reached>> {
        self.reached.load_full()
    }

    /// Ends when its name was looked up for the first time, found or not.
    pub fn known(&self) -> impl Future<Output = ()> + '_ {
        self.answered.cancelled()
    }

    /// False until its name was looked up for the first time.
    pub fn is_known(&self) -> bool {
        self.answered.is_cancelled() || self.reached.load().is_some()
    }

    fn put(&self, endpoints: Vec<Endpoint>, previous: Option<&Reached>) {
        let source = Arc::new(ir::Cluster {
            endpoints,
            ..self.template.clone()
        });
        let previous = previous.map(|reached| &reached.cluster);
        self.reached.store(Some(Arc::new(Reached {
            cluster: Cluster::compile_in(&self.zone, &source, previous),
            tls: self.tls.clone(),
            metrics: self.metrics.clone(),
        })));
    }

    fn endpoint(&self, address: IpAddr) -> Endpoint {
        Endpoint {
            address: EndpointAddress::Ip(address),
            port: self.port,
            is_ready: true,
            is_ending: false,
            zone: String::new(),
            zone_hints: Vec::new(),
            weight: 1,
        }
    }
}

fn is_addressed(endpoint: &Endpoint) -> bool {
    matches!(endpoint.address, EndpointAddress::Ip(_))
}

/// Host without brackets, and the port that is meant.
fn host_and_port(target: &Target) -> (String, NonZeroU16) {
    const HTTP: NonZeroU16 = NonZeroU16::new(80).unwrap();
    const HTTPS: NonZeroU16 = NonZeroU16::new(443).unwrap();
    let usual = if target.is_tls() { HTTPS } else { HTTP };
    match target.authority().parse::<Authority>() {
        Ok(authority) => {
            let host = authority
                .host()
                .trim_start_matches('[')
                .trim_end_matches(']');
            let port = authority.port_u16().and_then(NonZeroU16::new);
            (host.to_owned(), port.unwrap_or(usual))
        }
        Err(_) => (target.authority().to_owned(), usual),
    }
}

/// What is asked of a public provider: a certificate for its name from an authority of the system.
fn public(hostname: Hostname) -> BackendTls {
    BackendTls {
        hostname,
        use_system_ca_certificates: true,
        ca_pems: Vec::new(),
        subject_alt_names: Vec::new(),
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
    }
}
