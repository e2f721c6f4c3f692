//! Where each Gateway listens: an address of its own from a pool, or ports of its own for a Service.
//!
//! A function of the view and the settings alone, so that every replica says the same and a restart
//! changes nothing. Where the EndpointSlices of a Gateway's Service lead already is kept; else a place
//! is derived from the Gateway's name, and the older Gateway gets it when two want the same. What the
//! Service itself says counts for nothing: whoever may edit it could name the port of another Gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use gateway_api::experimental::gateways::Gateway;
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};

use super::{Addressing, GATEWAY_NAME_LABEL, Settings};
use crate::cluster_view::{ClusterView, Object};

/// Longest name of a Service.
const NAME_BYTES_MAX: usize = 63;

/// Where one Gateway listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Allotment {
    /// Addresses to bind where it asks for none; absent means those of the settings.
    pub(super) address: Option<IpAddr>,
    /// Ports to bind by ports as written; absent means as the settings map them.
    pub(super) ports: Option<BTreeMap<u16, NonZeroU16>>,
}

impl Allotment {
    /// The port to bind.
    pub(super) fn bound(&self, port: u16, settings: &Settings) -> Option<NonZeroU16> {
        match &self.ports {
            Some(ports) => ports.get(&port).copied(),
            None => settings.ports.bound(port),
        }
    }
}

/// `namespace/name` of the Service made for a Gateway.
pub fn service_key(gateway: &str) -> Arc<str> {
    let (namespace, name) = gateway.split_once('/').unwrap_or(("", gateway));
    let plain = format!("{name}-nantian");
    // A name may begin with a digit and hold dots where a Service's may not.
    let is_fine = plain.len() <= NAME_BYTES_MAX
        && !plain.contains('.')
        && plain.starts_with(|first: char| first.is_ascii_lowercase());
    if is_fine {
        return format!("{namespace}/{plain}").into();
    }
    let short: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(40)
        .collect();
    format!(
        "{namespace}/gw-{short}-{:08x}",
        fingerprint(name) & 0xffff_ffff
    )
    .into()
}

/// Address families, of which each has an EndpointSlice of its own.
pub const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// `namespace/name` of an EndpointSlice of the Service made for a Gateway.
pub fn slice_key(service: &str, family: &str) -> Arc<str> {
    format!("{service}-{}", family.to_lowercase()).into()
}

/// Name of a port of that Service, which tells the port as written.
pub fn port_name(written: u16, protocol: &str) -> String {
    format!("{}-{written}", protocol.to_lowercase())
}

/// Places for these Gateways, the oldest first; `ports` tells which ports each of them has.
pub(super) fn allot<'a>(
    gateways: impl Iterator<Item = &'a Arc<Object<Gateway>>>,
    ports: &dyn Fn(&Object<Gateway>) -> BTreeSet<u16>,
    view: &ClusterView,
    settings: &Settings,
) -> BTreeMap<Arc<str>, Allotment> {
    match &settings.addressing {
        Addressing::Shared => BTreeMap::new(),
        Addressing::Pool(pool) => by_address(gateways, pool),
        Addressing::Service { first, last } => by_port(gateways, ports, view, (*first, *last)),
    }
}

fn by_address<'a>(
    gateways: impl Iterator<Item = &'a Arc<Object<Gateway>>>,
    pool: &[IpAddr],
) -> BTreeMap<Arc<str>, Allotment> {
    let mut taken = BTreeSet::new();
    let mut allotted = BTreeMap::new();
    let mut waiting = Vec::new();
    for gateway in gateways {
        let asked = gateway.value.spec.addresses.iter().flatten();
        let asked: Vec<IpAddr> = asked
            .filter_map(|it| it.value.as_ref()?.parse().ok())
            .collect();
        if asked.is_empty() {
            waiting.push(gateway);
        } else {
            // It stands where it asks to; others keep away from there.
            taken.extend(asked);
        }
    }
    for gateway in waiting {
        let start = place(&gateway.key, pool.len());
        let turns = (0..pool.len()).map(|step| pool[(start + step) % pool.len()]);
        let free = turns.clone().find(|address| !taken.contains(address));
        // More Gateways than addresses: they share, as far as their ports allow.
        let address = free.or_else(|| turns.clone().next());
        taken.extend(address);
        let ports = None;
        allotted.insert(gateway.key.clone(), Allotment { address, ports });
    }
    allotted
}

fn by_port<'a>(
    gateways: impl Iterator<Item = &'a Arc<Object<Gateway>>>,
    ports_of: &dyn Fn(&Object<Gateway>) -> BTreeSet<u16>,
    view: &ClusterView,
    (first, last): (NonZeroU16, NonZeroU16),
) -> BTreeMap<Arc<str>, Allotment> {
    let gateways: Vec<_> = gateways.collect();
    let range = first.get()..=last.get();
    let mut claims: BTreeMap<NonZeroU16, BTreeSet<(Arc<str>, u16)>> = BTreeMap::new();
    for gateway in &gateways {
        let known = ports_of(gateway);
        for (written, bound) in led(&gateway.key, view) {
            if known.contains(&written) && range.contains(&bound.get()) {
                let claim = (gateway.key.clone(), written);
                claims.entry(bound).or_default().insert(claim);
            }
        }
    }
    let mut taken: BTreeSet<_> = claims.keys().copied().collect();
    let mut allotted: BTreeMap<Arc<str>, BTreeMap<u16, NonZeroU16>> = BTreeMap::new();
    for (bound, mut claims) in claims {
        // Where two are led to one port, either would get the other's requests: nobody has it for now.
        if let (1, Some((gateway, written))) = (claims.len(), claims.pop_first()) {
            allotted.entry(gateway).or_default().insert(written, bound);
        }
    }
    let span = usize::from(last.get() - first.get()) + 1;
    for gateway in &gateways {
        let ports = allotted.entry(gateway.key.clone()).or_default();
        for written in ports_of(gateway) {
            if written == 0 || ports.contains_key(&written) {
                continue;
            }
            let start = place(&format!("{}:{written}", gateway.key), span);
            let turns = (0..span).filter_map(|step| {
                let offset = u16::try_from((start + step) % span).ok()?;
                first.checked_add(offset)
            });
            // None is left: the listener is told that its port is not to be had.
            if let Some(bound) = turns.into_iter().find(|bound| !taken.contains(bound)) {
                taken.insert(bound);
                ports.insert(written, bound);
            }
        }
    }
    let make = |(key, ports)| {
        let address = Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        (
            key,
            Allotment {
                address,
                ports: Some(ports),
            },
        )
    };
    allotted.into_iter().map(make).collect()
}

/// A port of a Service that data planes stand in for.
pub(super) struct MeshPort<'a> {
    /// `namespace/name` of the Service.
    pub(super) service: &'a str,
    /// Name of the port.
    pub(super) name: &'a str,
    /// Where it is said already that data planes listen for it.
    pub(super) known: Option<NonZeroU16>,
}

/// Ports to bind, no two alike and none of those of Gateways; nothing for those that find none in the
/// range.
pub(super) fn ports_apart(
    wanted: &[MeshPort<'_>],
    (first, last): (NonZeroU16, NonZeroU16),
    of_gateways: &BTreeSet<NonZeroU16>,
) -> Vec<Option<NonZeroU16>> {
    let range = first.get()..=last.get();
    let mut taken = of_gateways.clone();
    let known = wanted.iter().map(|port| {
        let known = port.known.filter(|known| range.contains(&known.get()))?;
        taken.insert(known).then_some(known)
    });
    let mut bound: Vec<_> = known.collect();
    let span = usize::from(last.get() - first.get()) + 1;
    for (port, bound) in wanted.iter().zip(&mut bound) {
        if bound.is_some() {
            continue;
        }
        let start = place(&format!("{}:{}", port.service, port.name), span);
        let mut turns = (0..span).filter_map(|step| {
            let offset = u16::try_from((start + step) % span).ok()?;
            first.checked_add(offset)
        });
        *bound = turns.find(|it| !taken.contains(it));
        taken.extend(*bound);
    }
    bound
}

/// Ports of a Gateway as written and as its Service leads to them.
fn led(gateway: &str, view: &ClusterView) -> BTreeMap<u16, NonZeroU16> {
    let service = service_key(gateway);
    let slices = FAMILIES.map(|family| view.endpoint_slices.get(&slice_key(&service, family)));
    let ports = slices.into_iter().flatten();
    let ports = ports.flat_map(|slice| slice.value.ports.iter().flatten());
    let pair = |port: &EndpointPort| {
        let (_, written) = port.name.as_deref()?.split_once('-')?;
        let bound = NonZeroU16::new(u16::try_from(port.port?).ok()?)?;
        Some((written.parse().ok()?, bound))
    };
    ports.filter_map(pair).collect()
}

/// True when an EndpointSlice changed that says where a Gateway listens.
pub(super) fn is_moved(before: &ClusterView, view: &ClusterView, settings: &Settings) -> bool {
    let ports = |slice: Option<&Arc<Object<EndpointSlice>>>| {
        let slice = &slice?.value;
        let labels = slice.metadata.labels.as_ref()?;
        let is_ours = labels.contains_key(GATEWAY_NAME_LABEL);
        is_ours.then(|| slice.ports.clone().unwrap_or_default())
    };
    let mut changes = before.endpoint_slices.changes(&view.endpoint_slices);
    matches!(settings.addressing, Addressing::Service { .. })
        && changes.any(|(old, new)| ports(old) != ports(new))
}

fn place(name: &str, count: usize) -> usize {
    let count = u64::try_from(count.max(1)).unwrap_or(u64::MAX);
    usize::try_from(fingerprint(name) % count).unwrap_or_default()
}

/// FNV-1a: the same in every process and version.
pub fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use gateway_api::experimental::gateways::{GatewayListeners, GatewaySpec};
    use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use kube::api::ObjectMeta;

    use super::*;
    use crate::cluster_view::Origin;

    fn gateway(name: &str, ports: &[i32]) -> Arc<Object<Gateway>> {
        let listener = |port: &i32| GatewayListeners {
            name: format!("l{port}"),
            port: *port,
            protocol: "HTTP".to_owned(),
            ..GatewayListeners::default()
        };
        let spec = GatewaySpec {
            listeners: ports.iter().map(listener).collect(),
            ..GatewaySpec::default()
        };
        let mut gateway = Gateway::new(name, spec);
        gateway.metadata.namespace = Some("a".to_owned());
        Arc::new(Object::new(gateway, Origin::default()))
    }

    fn written(gateway: &Object<Gateway>) -> BTreeSet<u16> {
        let listeners = gateway.value.spec.listeners.iter();
        listeners
            .filter_map(|it| u16::try_from(it.port).ok())
            .collect()
    }

    fn settings(addressing: Addressing) -> Settings {
        Settings {
            addressing,
            ..Settings::default()
        }
    }

    fn ports(first: u16, last: u16) -> Settings {
        let (first, last) = (
            NonZeroU16::new(first).unwrap(),
            NonZeroU16::new(last).unwrap(),
        );
        settings(Addressing::Service { first, last })
    }

    #[test]
    fn each_gateway_has_an_address_until_there_are_no_more() {
        let pool: Vec<IpAddr> = ["192.0.2.1", "192.0.2.2"]
            .map(|ip| ip.parse().unwrap())
            .to_vec();
        let gateways = [
            gateway("x", &[80]),
            gateway("y", &[80]),
            gateway("z", &[80]),
        ];
        let settings = settings(Addressing::Pool(pool.clone()));
        let allotted = allot(
            gateways.iter(),
            &written,
            &ClusterView::default(),
            &settings,
        );
        let of = |key: &str| allotted[key].address.unwrap();
        assert_ne!(of("a/x"), of("a/y"));
        assert!(pool.contains(&of("a/z")), "it shares");
    }

    #[test]
    fn no_two_gateways_share_a_port_and_a_port_that_is_not_to_be_had_is_left_out() {
        let gateways = [gateway("x", &[80, 443]), gateway("y", &[80])];
        let allotted = allot(
            gateways.iter(),
            &written,
            &ClusterView::default(),
            &ports(10_000, 10_001),
        );
        let bound: Vec<_> = allotted
            .values()
            .flat_map(|it| it.ports.iter().flatten().map(|(_, bound)| bound.get()))
            .collect();
        let distinct: BTreeSet<_> = bound.iter().collect();
        assert_eq!((bound.len(), distinct.len()), (2, 2));
    }

    /// An EndpointSlice of a Gateway's Service that leads port 80 there.
    fn slice(gateway: &str, family: &str, bound: u16) -> Object<EndpointSlice> {
        let key = slice_key(&service_key(&format!("a/{gateway}")), family);
        let (namespace, name) = key.split_once('/').unwrap();
        let slice = EndpointSlice {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            address_type: family.to_owned(),
            ports: Some(vec![EndpointPort {
                name: Some(port_name(80, "TCP")),
                port: Some(bound.into()),
                ..EndpointPort::default()
            }]),
            ..EndpointSlice::default()
        };
        Object::new(slice, Origin::default())
    }

    /// Where port 80 of the Gateways `a/x` and `a/y` is bound.
    fn bound(view: &ClusterView, settings: &Settings) -> (u16, u16) {
        let gateways = [gateway("x", &[80]), gateway("y", &[80])];
        let allotted = allot(gateways.iter(), &written, view, settings);
        let of = |key: &str| allotted[key].ports.as_ref().unwrap()[&80].get();
        (of("a/x"), of("a/y"))
    }

    #[test]
    fn a_service_that_names_the_port_of_another_gateway_does_not_get_it() {
        let settings = ports(10_000, 10_099);
        let (older, younger) = bound(&ClusterView::default(), &settings);
        let mut view = ClusterView::default();
        view.insert(slice("x", "IPv4", older).into());
        view.insert(slice("y", "IPv4", younger).into());
        let service = Service {
            metadata: ObjectMeta {
                name: Some("x-nantian".to_owned()),
                namespace: Some("a".to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(ServiceSpec {
                ports: Some(vec![ServicePort {
                    port: 80,
                    target_port: Some(IntOrString::Int(younger.into())),
                    ..ServicePort::default()
                }]),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        view.insert(Object::new(service, Origin::default()).into());
        assert_eq!(bound(&view, &settings), (older, younger));
    }

    #[test]
    fn a_port_that_two_gateways_are_led_to_is_nobodys() {
        let settings = ports(10_000, 10_099);
        let (_, younger) = bound(&ClusterView::default(), &settings);
        let mut view = ClusterView::default();
        view.insert(slice("x", "IPv4", younger).into());
        view.insert(slice("y", "IPv4", younger).into());
        let (one, other) = bound(&view, &settings);
        assert!(one != younger && other != younger && one != other);
    }

    #[test]
    fn where_a_gateway_is_led_already_is_kept() {
        for family in FAMILIES {
            let mut view = ClusterView::default();
            view.insert(slice("y", family, 10_003).into());
            assert_eq!(bound(&view, &ports(10_003, 10_004)), (10_004, 10_003));
        }
    }

    #[test]
    fn names_of_services_are_names() {
        assert_eq!(&*service_key("a/web"), "a/web-nantian");
        for name in ["1st", "with.dots", &"x".repeat(63)] {
            let key = service_key(&format!("a/{name}"));
            let (_, made) = key.split_once('/').unwrap();
            assert!(
                made.len() <= NAME_BYTES_MAX && made.starts_with("gw-"),
                "{made}"
            );
        }
    }
}
