//! Whole snapshots by chance: every field, every variant, only valid values.
//!
//! Keys come from small pools, so that two snapshots share, change, add and drop resources. What is
//! made here is what `decode` can give, so it is also a description of the typed snapshot's range.

mod ai;
mod backend_policy;
mod cluster;
mod filter;
mod policy;
mod route;
mod wasm;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ir::listener::{
    ClientValidation, ClientValidationMode, EscapedSlashes, ForwardedFields, ListenerProtocol,
    ListenerSettings, ListenerTls, ProxyProtocol, RequestIds, TlsVersion, TrustedProxies,
};
use ir::resource::Metadata;
use ir::secret::Certificate;
use ir::snapshot::Workload;
use ir::{Hostname, Listener, Pattern, Resource, Resources, Secret, SecretText, Snapshot, Version};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use self::cluster::cluster;
use self::policy::security_policy;
use self::route::grpc_route;
use self::route::http_route;
use self::route::stream_route;
use crate::text;

/// A valid snapshot of that version.
pub(crate) fn snapshot(version: &'static str) -> impl Strategy<Value = Snapshot> {
    let routes = (
        resources(http_route(), 6),
        resources(grpc_route(), 3),
        resources(stream_route(), 4),
    );
    let others = (
        resources(cluster(), 4),
        secrets(),
        wasm::plugins(),
        vec(listener_shape().boxed(), 0..5),
    );
    let rest = (
        of(moment()),
        vec(workload(), 0..3),
        select(vec!["", "full-v1"]),
        of(name()),
    );
    (routes, others, rest).prop_map(
        move |((http_routes, grpc_routes, stream_routes), others, rest)| {
            let (clusters, secrets, wasm_plugins, shapes) = others;
            let (generated_at, workloads, profile, traceparent) = rest;
            let shapes = shapes.into_iter().enumerate();
            Snapshot {
                version: Version::new(version),
                generated_at,
                listeners: shapes.map(|(index, shape)| placed(index, shape)).collect(),
                http_routes,
                grpc_routes,
                stream_routes,
                clusters,
                secrets,
                wasm_plugins,
                workloads: workloads.into(),
                required_features: vec!["core.v1".to_owned()],
                compatibility_profile: profile.to_owned(),
                traceparent,
            }
        },
    )
}

fn resources<T: Resource + 'static>(
    resource: impl Strategy<Value = T> + 'static,
    max: usize,
) -> impl Strategy<Value = Resources<T>> {
    // Boxed, because a strategy of everything is larger than a test's stack.
    vec(resource.boxed(), 0..=max).prop_map(|items| items.into_iter().collect())
}

fn name() -> impl Strategy<Value = String> {
    "[a-z]{1,6}"
}

fn key() -> impl Strategy<Value = Arc<str>> {
    "(a|b)/[r-u]".prop_map(Arc::from)
}

fn any_text() -> impl Strategy<Value = String> {
    // Anything, the odd Unicode included.
    "\\PC{0,8}"
}

fn path() -> impl Strategy<Value = String> {
    "/[a-z0-9%._~/é-]{0,8}"
}

fn hostname() -> impl Strategy<Value = Hostname> {
    "([*]\\.)?[a-z]{1,3}\\.example\\.(com|org)".prop_map(|text| Hostname::new(&text).unwrap())
}

fn exact_hostname() -> impl Strategy<Value = Hostname> {
    "[a-z]{1,3}\\.example".prop_map(|text| Hostname::new(&text).unwrap())
}

fn hostnames() -> impl Strategy<Value = Vec<Hostname>> {
    btree_set(hostname(), 0..3).prop_map(|names| names.into_iter().collect())
}

fn pattern() -> impl Strategy<Value = Pattern> {
    select(vec!["/v[0-9]+", "a|b", ".*", "", "x{1,3}"]).prop_map(|s| Pattern::new(s).unwrap())
}

fn port() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|port| NonZeroU16::new(port).unwrap())
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..300_000_000u64, 1..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s, n))
}

fn moment() -> impl Strategy<Value = SystemTime> {
    let seconds = -10_000_000_000i64..10_000_000_000;
    (seconds, 0..1_000_000_000u64).prop_map(|(seconds, nanos)| {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        let second = if seconds < 0 {
            SystemTime::UNIX_EPOCH - distance
        } else {
            SystemTime::UNIX_EPOCH + distance
        };
        second + Duration::from_nanos(nanos)
    })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    btree_map(name(), any_text(), 0..3).prop_map(Metadata::from)
}

fn reference() -> impl Strategy<Value = Arc<str>> {
    "(a|b)/[x-z]".prop_map(Arc::from)
}

fn shared<T: std::fmt::Debug>(
    item: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<Arc<T>>> {
    of(item.prop_map(Arc::new))
}

fn workload() -> impl Strategy<Value = Workload> {
    (name(), name(), any::<IpAddr>()).prop_map(|(namespace, name, ip)| Workload {
        namespace,
        name,
        ip,
    })
}

/// The same two certificates in every snapshot, so that listeners always find theirs.
fn secrets() -> impl Strategy<Value = Resources<Secret>> {
    (
        vec((key(), of(any_text()), of(any_text()), values()), 0..3),
        any::<bool>(),
    )
        .prop_map(|(extra, swap)| {
            let text = |text: Option<String>| text.filter(|t| !t.is_empty()).map(SecretText::new);
            let extra = extra
                .into_iter()
                .map(|(key, htpasswd, oidc, values)| Secret {
                    key,
                    certificate: None,
                    htpasswd: text(htpasswd),
                    oidc_client_secret: text(oidc),
                    values,
                });
            let pairs = text::pairs().iter().zip(["certs/a", "certs/b"]);
            let pairs = pairs.map(|(pair, key)| {
                let pair = if swap { &text::pairs()[0] } else { pair };
                let secret = SecretText::new(pair.key.clone());
                Secret {
                    key: key.into(),
                    certificate: Some(Certificate::new(pair.certificate.clone(), secret).unwrap()),
                    htpasswd: None,
                    oidc_client_secret: None,
                    values: BTreeMap::new(),
                }
            });
            extra.chain(pairs).collect()
        })
}

fn values() -> impl Strategy<Value = BTreeMap<String, SecretText>> {
    btree_map(name(), any_text().prop_map(SecretText::new), 0..3)
}

fn ca_pems() -> impl Strategy<Value = Vec<String>> {
    let pems = text::pairs().iter().map(|pair| pair.certificate.clone());
    vec(select(pems.collect::<Vec<_>>()), 1..3)
}

fn versions() -> impl Strategy<Value = (TlsVersion, TlsVersion)> {
    use TlsVersion::{V1_2, V1_3};
    select(vec![(V1_2, V1_2), (V1_2, V1_3), (V1_3, V1_3)])
}

fn client_validation() -> impl Strategy<Value = ClientValidation> {
    use ClientValidationMode::{AllowInsecureFallback, AllowValidOnly, RejectAll};
    prop_oneof![
        Just(ClientValidation {
            ca_pems: Vec::new(),
            mode: RejectAll
        }),
        (
            ca_pems(),
            select(vec![AllowInsecureFallback, AllowValidOnly, RejectAll])
        )
            .prop_map(|(ca_pems, mode)| ClientValidation { ca_pems, mode }),
    ]
}

type ListenerShape = (ListenerProtocol, Listener);

fn listener_shape() -> impl Strategy<Value = ListenerShape> {
    use ListenerProtocol::{Grpc, Http, Http3, Https, Tcp, Tls, TlsPassthrough, Udp};
    let protocol = select(vec![
        Http,
        Https,
        Grpc,
        Http3,
        Tcp,
        Udp,
        TlsPassthrough,
        Tls,
    ]);
    let certificates = btree_set(select(vec!["certs/a", "certs/b"]), 1..3);
    let tls = (
        certificates,
        hostnames(),
        versions(),
        of(client_validation()),
    );
    let addresses = btree_set(any::<IpAddr>(), 1..3);
    let rest = (
        metadata(),
        of(reference()),
        shared(security_policy()),
        listener_settings(),
        wasm::names(),
    );
    (protocol, any::<bool>(), tls, addresses, hostnames(), rest).prop_map(
        |(protocol, secure_grpc, tls, addresses, hostnames, rest)| {
            let (metadata, client, security, settings, plugins) = rest;
            let (certificates, sni_hosts, (min_version, max_version), client_validation) = tls;
            let has_tls = match protocol {
                Http | Tcp | Udp => false,
                Grpc => secure_grpc,
                Https | Http3 | TlsPassthrough | Tls => true,
            };
            let tls = has_tls.then(|| ListenerTls {
                passthrough: protocol == TlsPassthrough,
                certificate_refs: certificates.into_iter().map(Arc::from).collect(),
                sni_hosts,
                min_version,
                max_version: if protocol == Http3 {
                    TlsVersion::V1_3
                } else {
                    max_version
                },
                client_validation,
            });
            let listener = Listener {
                name: "".into(),
                addresses: addresses.into_iter().collect(),
                port: NonZeroU16::MIN,
                protocol,
                hostnames,
                tls,
                metadata,
                backend_client_certificate: client,
                security_policy: security,
                settings,
                plugins,
            };
            (protocol, listener)
        },
    )
}

fn listener_settings() -> impl Strategy<Value = ListenerSettings> {
    let port = (1..=u16::MAX).prop_map(|port| NonZeroU16::new(port).unwrap());
    let network = || {
        let network = select(vec!["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]);
        network.prop_map(|text| text.parse().unwrap())
    };
    let proxy_protocol = of(vec(network(), 0..3)).prop_map(|sources| match sources {
        Some(sources) => ProxyProtocol::Required(sources),
        None => ProxyProtocol::Off,
    });
    use EscapedSlashes::{Decode, Keep, Redirect, Refuse};
    let escaped = select(vec![Keep, Redirect, Refuse, Decode]);
    use ForwardedFields::{Both, Forwarded, XForwarded};
    let fields = select(vec![ForwardedFields::None, XForwarded, Forwarded, Both]);
    let trusted = (0..=TrustedProxies::HOPS_MAX, vec(network(), 0..3))
        .prop_map(|(hops, sources)| TrustedProxies { hops, sources });
    let ids = select(vec![RequestIds::Off, RequestIds::Trusted, RequestIds::Any]);
    let sockets = (of(port), of(proxy_protocol));
    let paths = (of(escaped), of(any::<bool>()));
    let clients = (of(fields), of(trusted), of(ids), of(any::<bool>()));
    (sockets, paths, clients).prop_map(|(sockets, paths, clients)| ListenerSettings {
        public_port: sockets.0,
        proxy_protocol: sockets.1,
        escaped_slashes: paths.0,
        merge_slashes: paths.1,
        forwarded_fields: clients.0,
        trusted_proxies: clients.1,
        request_ids: clients.2,
        client_certificate_field: clients.3,
    })
}

/// Each on a port of its own: conflicts have their own tests.
fn placed(index: usize, (_, listener): ListenerShape) -> Listener {
    Listener {
        name: format!("a/gw/l{index}").into(),
        port: NonZeroU16::new(8000 + u16::try_from(index).unwrap()).unwrap(),
        ..listener
    }
}

fn header_value() -> impl Strategy<Value = String> {
    "([!-~é]([ -~é]{0,4}[!-~é])?)?"
}
