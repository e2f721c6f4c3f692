//! Whole snapshots by chance: every field, every variant, only valid values.
//!
//! Keys come from small pools, so that two snapshots share, change, add and drop resources. What is
//! made here is what `decode` can give, so it is also a description of the typed snapshot's range.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU64};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ir::ai::{
    AiAuth, AiAuthKind, AiFormat, AiProvider, AiService, OnLimit, TokenPolicy, TokenScope,
};
use ir::cluster::{
    BackendTls, Balancing, ClusterProtocol, EndpointAddress, HashKey, SubjectAltName,
};
use ir::filter::{
    Cors, DirectResponse, ExternalAuth, ExternalAuthProtocol, HeaderEdit, Mirror, PathEdit,
    Redirect, Rewrite, Scheme,
};
use ir::http_route::{
    BackendRef, GrpcMatch, GrpcMethodMatch, GrpcRule, HttpMatch, HttpRule, ParentRef, PathMatch,
    Route, TextMatch, Timeouts, ValueMatch,
};
use ir::listener::{
    ClientValidation, ClientValidationMode, ListenerProtocol, ListenerTls, TlsVersion,
};
use ir::policy::{
    BasicAuth, JwtIssuer, Oidc, RateLimit, RateLimitKey, RateLimitScope, Retry, RoutePolicy,
    SecurityExternalAuth, SecurityExternalAuthProtocol, SecurityPolicy, SessionCarrier,
    SessionPersistence,
};
use ir::secret::Certificate;
use ir::snapshot::Workload;
use ir::stream_route::{StreamKind, StreamMatch, StreamRule, TlsRouteMode};
use ir::wasm::{WasmHook, WasmPlugin, WasmSandbox, WasmSource};
use ir::{
    BackendTarget, Cluster, Endpoint, Filter, GrpcRoute, Hostname, HttpRoute, Listener, Pattern,
    Resource, Resources, Secret, SecretText, Snapshot, StreamRoute, Version,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

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
        vec(listener_shape(), 0..5),
    );
    let rest = (
        of(moment()),
        vec(workload(), 0..3),
        select(vec!["", "full-v1"]),
        of(name()),
    );
    (routes, others, rest).prop_map(
        move |((http_routes, grpc_routes, stream_routes), (clusters, secrets, shapes), rest)| {
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
                workloads: workloads.into(),
                required_features: vec!["core.v1".to_owned()],
                compatibility_profile: profile.to_owned(),
                traceparent,
            }
        },
    )
}

fn resources<T: Resource + 'static>(
    resource: impl Strategy<Value = T>,
    max: usize,
) -> impl Strategy<Value = Resources<T>> {
    vec(resource, 0..=max).prop_map(|items| items.into_iter().collect())
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

fn metadata() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(name(), any_text(), 0..3)
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
        vec((key(), of(any_text()), of(any_text())), 0..3),
        any::<bool>(),
    )
        .prop_map(|(extra, swap)| {
            let text = |text: Option<String>| text.filter(|t| !t.is_empty()).map(SecretText::new);
            let extra = extra.into_iter().map(|(key, htpasswd, oidc)| Secret {
                key,
                certificate: None,
                htpasswd: text(htpasswd),
                oidc_client_secret: text(oidc),
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
                }
            });
            extra.chain(pairs).collect()
        })
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
    let rest = (metadata(), of(reference()), shared(security_policy()));
    (protocol, any::<bool>(), tls, addresses, hostnames(), rest).prop_map(
        |(protocol, secure_grpc, tls, addresses, hostnames, (metadata, client, security))| {
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
            };
            (protocol, listener)
        },
    )
}

/// Each on a port of its own: conflicts have their own tests.
fn placed(index: usize, (_, listener): ListenerShape) -> Listener {
    Listener {
        name: format!("a/gw/l{index}").into(),
        port: NonZeroU16::new(8000 + u16::try_from(index).unwrap()).unwrap(),
        ..listener
    }
}

fn parent_ref() -> impl Strategy<Value = ParentRef> {
    let kind = select(vec!["", "Gateway", "Service", "ListenerSet"]);
    (name(), kind, name(), name(), of(name()), of(1..=u16::MAX)).prop_map(
        |(group, kind, namespace, name, section_name, port)| ParentRef {
            group,
            kind: kind.to_owned(),
            namespace,
            name,
            section_name,
            port,
        },
    )
}

fn attached() -> impl Strategy<Value = Vec<Arc<str>>> {
    btree_set("a/gw/l[0-4]", 0..3)
        .prop_map(|names| names.iter().map(|n| n.as_str().into()).collect())
}

fn route<R: std::fmt::Debug>(rule: impl Strategy<Value = R>) -> impl Strategy<Value = Route<R>> {
    let head = (key(), hostnames(), attached(), vec(parent_ref(), 0..2));
    let tail = (
        shared(route_policy()),
        shared(security_policy()),
        of(moment()),
    );
    (head, vec(rule, 0..3), metadata(), metadata(), tail).prop_map(
        |((key, hostnames, listeners, parent_refs), rules, labels, annotations, tail)| {
            let (policy, security_policy, created_at) = tail;
            Route {
                key,
                hostnames,
                listeners,
                parent_refs,
                rules,
                labels,
                annotations,
                policy,
                security_policy,
                created_at,
            }
        },
    )
}

fn http_route() -> impl Strategy<Value = HttpRoute> {
    let matches = vec(http_match(), 1..3);
    let timeouts = (of(duration()), of(duration()));
    let tail = (of(retry()), of(session_persistence()));
    let rule = (of(name()), matches, filters(), backends(), timeouts, tail);
    route(rule.prop_map(
        |(name, matches, filters, backends, timeouts, tail)| HttpRule {
            name,
            matches,
            filters,
            backends,
            timeouts: Timeouts {
                request: timeouts.0,
                backend_request: timeouts.1,
            },
            retry: tail.0,
            session_persistence: tail.1,
        },
    ))
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        path().prop_map(PathMatch::Exact),
        "(/[a-z]{1,4}){1,3}|/".prop_map(PathMatch::Prefix),
        pattern().prop_map(|pattern| match pattern.as_str() {
            "" => PathMatch::Prefix("/".to_owned()),
            _ => PathMatch::Regex(pattern),
        }),
    ];
    let method = of(select(vec!["GET", "POST", "purge"]).prop_map(str::to_owned));
    let query = value_matches("[A-Za-z]{1,4}", any_text());
    (path, method, header_matches(), query).prop_map(|(path, method, headers, query_params)| {
        HttpMatch {
            path,
            method,
            headers,
            query_params,
        }
    })
}

fn header_matches() -> impl Strategy<Value = Vec<ValueMatch>> {
    value_matches("x-[a-z]{1,3}", header_value())
}

fn header_value() -> impl Strategy<Value = String> {
    "([!-~é]([ -~é]{0,4}[!-~é])?)?"
}

fn value_matches(
    name: &'static str,
    text: impl Strategy<Value = String>,
) -> impl Strategy<Value = Vec<ValueMatch>> {
    let value = (text, pattern(), 0..5u8).prop_map(|(text, pattern, kind)| match kind {
        0 => TextMatch::Exact(text),
        1 => TextMatch::Prefix(text),
        2 => TextMatch::Suffix(text),
        3 => TextMatch::Regex(pattern),
        _ => TextMatch::Present,
    });
    btree_map(name, value, 0..3).prop_map(|items| {
        let items = items.into_iter();
        items
            .map(|(name, value)| ValueMatch { name, value })
            .collect()
    })
}

fn grpc_route() -> impl Strategy<Value = GrpcRoute> {
    let exact = (of(name()), of(name())).prop_map(|(service, method)| match (service, method) {
        (None, None) => GrpcMethodMatch::Any,
        (service, method) => GrpcMethodMatch::Exact { service, method },
    });
    let regex = (pattern(), any::<bool>()).prop_map(|(pattern, is_service)| {
        let (service, method) = match (pattern.as_str(), is_service) {
            ("", _) => return GrpcMethodMatch::Any,
            (_, true) => (Some(pattern), None),
            (_, false) => (None, Some(pattern)),
        };
        GrpcMethodMatch::Regex { service, method }
    });
    let method = prop_oneof![exact, regex];
    let item =
        (method, header_matches()).prop_map(|(method, headers)| GrpcMatch { method, headers });
    let rule = (
        of(name()),
        vec(item, 1..3),
        filters(),
        backends(),
        of(session_persistence()),
    );
    route(rule.prop_map(
        |(name, matches, filters, backends, session_persistence)| GrpcRule {
            name,
            matches,
            filters,
            backends,
            session_persistence,
        },
    ))
}

fn stream_route() -> impl Strategy<Value = StreamRoute> {
    let kind = select(vec![StreamKind::Tcp, StreamKind::Udp, StreamKind::Tls]);
    let mode = of(select(vec![
        TlsRouteMode::Passthrough,
        TlsRouteMode::Terminate,
    ]));
    let item = (of(port()), of(hostname()), mode);
    let item = item.prop_map(|(port, sni, mode)| StreamMatch { port, sni, mode });
    let rule = (of(name()), vec(item, 1..3), backends());
    let rule = rule.prop_map(|(name, matches, backends)| StreamRule {
        name,
        matches,
        backends,
    });
    let head = (key(), kind, attached(), vec(parent_ref(), 0..2));
    (head, vec(rule, 0..3), metadata(), metadata(), of(moment())).prop_map(
        |((key, kind, listeners, parent_refs), mut rules, labels, annotations, created_at)| {
            if kind != StreamKind::Tls {
                let matches = rules.iter_mut().flat_map(|rule| &mut rule.matches);
                matches.for_each(|item| item.sni = None);
            }
            StreamRoute {
                key: format!("{}/{key}", kind.as_str()).into(),
                kind,
                listeners,
                parent_refs,
                rules,
                labels,
                annotations,
                created_at,
            }
        },
    )
}

fn target() -> impl Strategy<Value = BackendTarget> {
    let kind = select(vec!["Service", "AIService"]);
    (name(), kind, name(), name(), of(port()), any::<bool>()).prop_map(
        |(group, kind, namespace, name, port, is_resolved)| {
            let target = BackendTarget::new(&group, kind, &namespace, &name, port);
            if is_resolved {
                target
            } else {
                target.unresolved()
            }
        },
    )
}

fn backends() -> impl Strategy<Value = Vec<BackendRef>> {
    let backend = (target(), 0..=1_000_000u32, vec(filter(), 0..2));
    vec(
        backend.prop_map(|(target, weight, filters)| BackendRef {
            target,
            weight,
            filters,
        }),
        0..3,
    )
}

fn filters() -> impl Strategy<Value = Vec<Filter>> {
    vec(filter(), 0..3)
}

fn filter() -> impl Strategy<Value = Filter> {
    let unsupported = (name(), any_text());
    prop_oneof![
        header_edit().prop_map(Filter::RequestHeaders),
        header_edit().prop_map(Filter::ResponseHeaders),
        redirect().prop_map(Filter::Redirect),
        rewrite().prop_map(Filter::Rewrite),
        mirror().prop_map(Filter::Mirror),
        cors().prop_map(Filter::Cors),
        external_auth().prop_map(Filter::ExternalAuth),
        (200..600u16, any_text(), header_value()).prop_map(|(status, body, content_type)| {
            Filter::DirectResponse(DirectResponse {
                status,
                body: body.into(),
                content_type,
            })
        }),
        unsupported.prop_map(|(name, reason)| Filter::Unsupported { name, reason }),
    ]
}

fn header_edit() -> impl Strategy<Value = HeaderEdit> {
    let pairs = || vec(("x-[a-z]{1,3}", header_value()), 0..3);
    (pairs(), pairs(), vec("x-[a-z]{1,3}", 0..3)).prop_map(|(set, add, remove)| HeaderEdit {
        set,
        add,
        remove,
    })
}

fn path_edit() -> impl Strategy<Value = PathEdit> {
    prop_oneof![
        path().prop_map(PathEdit::Full),
        path().prop_map(PathEdit::Prefix)
    ]
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let scheme = of(select(vec![Scheme::Http, Scheme::Https]));
    let hostname = of(exact_hostname().prop_map(|name| name.as_str().to_owned()));
    let status = select(vec![301, 302, 303, 307, 308]);
    (scheme, hostname, of(path_edit()), of(1..=u16::MAX), status).prop_map(
        |(scheme, hostname, path, port, status)| Redirect {
            scheme,
            hostname,
            path,
            port,
            status,
        },
    )
}

fn rewrite() -> impl Strategy<Value = Rewrite> {
    let hostname = of(exact_hostname().prop_map(|name| name.as_str().to_owned()));
    (hostname, path_edit(), any::<bool>()).prop_map(|(hostname, path, has_path)| Rewrite {
        path: (has_path || hostname.is_none()).then_some(path),
        hostname,
    })
}

fn mirror() -> impl Strategy<Value = Mirror> {
    (target(), 1..=u32::MAX, any::<u32>()).prop_map(|(backend, denominator, part)| Mirror {
        backend,
        fraction: (part % denominator, denominator),
    })
}

fn words() -> impl Strategy<Value = Vec<String>> {
    vec("[A-Za-z-]{1,4}|[*]", 0..3)
}

fn cors() -> impl Strategy<Value = Cors> {
    let origins = vec("https://[a-z]{1,3}\\.example(:[0-9]{2})?|[*]", 0..3);
    let max_age = 0..=i32::MAX.unsigned_abs();
    (origins, words(), words(), words(), any::<bool>(), max_age).prop_map(
        |(origins, methods, headers, exposed, allow_credentials, max_age_seconds)| Cors {
            allow_origins: origins,
            allow_methods: methods,
            allow_headers: headers,
            expose_headers: exposed,
            allow_credentials,
            max_age_seconds,
        },
    )
}

fn external_auth() -> impl Strategy<Value = ExternalAuth> {
    let names = || vec("x-[a-z]{1,3}", 0..3);
    let http = (prop_oneof![Just(String::new()), path()], names(), names()).prop_map(
        |(path_prefix, allowed_headers, allowed_response_headers)| ExternalAuthProtocol::Http {
            path_prefix,
            allowed_headers,
            allowed_response_headers,
        },
    );
    let grpc = names().prop_map(|allowed_headers| ExternalAuthProtocol::Grpc { allowed_headers });
    (target(), prop_oneof![http, grpc], any::<u32>()).prop_map(
        |(backend, protocol, forward_body_bytes_max)| ExternalAuth {
            backend,
            protocol,
            forward_body_bytes_max,
        },
    )
}

fn retry() -> impl Strategy<Value = Retry> {
    (btree_set(400..600u16, 0..3), any::<u32>(), of(duration())).prop_map(
        |(codes, attempts, backoff)| Retry {
            codes: codes.into_iter().collect(),
            attempts,
            backoff,
        },
    )
}

fn session_persistence() -> impl Strategy<Value = SessionPersistence> {
    use SessionCarrier::{Header, PermanentCookie, SessionCookie};
    let carrier = select(vec![Header, PermanentCookie, SessionCookie]);
    (
        of(name()),
        duration(),
        any::<bool>(),
        of(duration()),
        carrier,
    )
        .prop_map(
            |(session_name, absolute, has_absolute, idle_timeout, carrier)| SessionPersistence {
                session_name,
                absolute_timeout: (has_absolute || carrier == PermanentCookie).then_some(absolute),
                idle_timeout,
                carrier,
            },
        )
}

fn route_policy() -> impl Strategy<Value = RoutePolicy> {
    let times = proptest::array::uniform7(of(duration()));
    let sizes = proptest::array::uniform4(of(1..=u64::MAX));
    let counts = proptest::array::uniform3(of(1..=u32::MAX));
    (times, sizes, counts, any::<[Option<bool>; 2]>()).prop_map(|(times, sizes, counts, flags)| {
        RoutePolicy {
            request_timeout: times[0],
            backend_request_timeout: times[1],
            connect_timeout: times[2],
            next_upstream_timeout: times[3],
            keepalive_time: times[4],
            keepalive_timeout: times[5],
            upstream_keepalive_idle: times[6],
            request_body_bytes_max: sizes[0],
            request_body_buffer_bytes: sizes[1],
            request_header_bytes_max: sizes[2],
            buffer_bytes: sizes[3],
            buffer_count: counts[0],
            keepalive_requests: counts[1],
            upstream_keepalive_pool_size: counts[2],
            request_buffering: flags[0],
            response_buffering: flags[1],
        }
    })
}

fn url() -> impl Strategy<Value = String> {
    "(https?://[a-z]{1,3}\\.example/[a-z]{0,3})?"
}

fn whole_seconds() -> impl Strategy<Value = Option<Duration>> {
    of((1..300_000_000u64).prop_map(Duration::from_secs))
}

fn jwt_issuer() -> impl Strategy<Value = JwtIssuer> {
    let claims = btree_map(any_text(), "x-[a-z]{1,3}", 0..3);
    let header = prop_oneof![Just(String::new()), "x-[a-z]{1,3}"];
    (
        any_text(),
        url(),
        any_text(),
        header,
        "([A-Z][a-z]{1,3} )?",
        claims,
        whole_seconds(),
    )
        .prop_map(
            |(issuer, jwks_url, audience, header_name, token_prefix, claims, ttl)| JwtIssuer {
                issuer,
                jwks_url,
                audience,
                header_name,
                token_prefix,
                claims_to_headers: claims,
                cache_ttl: ttl,
            },
        )
}

fn oidc() -> impl Strategy<Value = Oidc> {
    let urls = (url(), url(), url(), url(), url());
    let refs = (
        prop_oneof![Just(""), Just("a/x")],
        prop_oneof![Just(""), Just("a/y")],
    );
    let rest = (
        any_text(),
        vec(any_text(), 0..3),
        "(/[a-z]{1,3})?",
        "[a-z]{0,3}",
        whole_seconds(),
    );
    (urls, refs, rest).prop_map(|(urls, refs, rest)| {
        let (client_id, scopes, callback_path, session_cookie_name, session_ttl) = rest;
        Oidc {
            authorization_url: urls.0,
            token_url: urls.1,
            jwks_url: urls.2,
            userinfo_url: urls.3,
            client_id,
            client_secret_ref: refs.0.to_owned(),
            callback_path,
            scopes,
            redirect_url: urls.4,
            session_signing_key_ref: refs.1.to_owned(),
            session_cookie_name,
            session_ttl,
        }
    })
}

fn security_external_auth() -> impl Strategy<Value = SecurityExternalAuth> {
    let headers = vec("x-[a-z]{1,3}(: [a-z]{1,3})?", 0..3);
    let http = ("(/[a-z]{1,3})?", headers).prop_map(|(path_prefix, headers_to_add)| {
        SecurityExternalAuthProtocol::Http {
            path_prefix,
            headers_to_add,
        }
    });
    let grpc = any_text().prop_map(|service| SecurityExternalAuthProtocol::Grpc { service });
    (
        of(target()),
        prop_oneof![http, grpc],
        0..=i32::MAX.unsigned_abs(),
    )
        .prop_map(
            |(backend, protocol, forward_body_bytes_max)| SecurityExternalAuth {
                backend,
                protocol,
                forward_body_bytes_max,
            },
        )
}

fn rate_limit() -> impl Strategy<Value = RateLimit> {
    use RateLimitScope::{Backend, Global, Listener, Route};
    let scope = select(vec![Backend, Global, Listener, Route]);
    let key = prop_oneof![
        Just(RateLimitKey::Route),
        Just(RateLimitKey::SourceIp),
        "x-[a-z]{1,3}".prop_map(RateLimitKey::Header),
    ];
    (scope, 1..=u32::MAX, any::<u32>(), key, any::<bool>()).prop_map(
        |(scope, requests_per_second, burst, key, queue)| RateLimit {
            scope,
            requests_per_second,
            burst,
            key,
            queue,
        },
    )
}

fn security_policy() -> impl Strategy<Value = SecurityPolicy> {
    let basic = ("a/[a-z]", any::<bool>(), header_value());
    let basic = basic.prop_map(|(htpasswd_ref, bcrypt, realm)| BasicAuth {
        htpasswd_ref,
        bcrypt,
        realm,
    });
    let cidrs = || {
        vec(
            select(vec!["10.0.0.0/8", "::/0", "192.0.2.1"]).prop_map(str::to_owned),
            0..3,
        )
    };
    let authn = (vec(jwt_issuer(), 0..2), of(oidc()), of(basic));
    let rest = (
        of(security_external_auth()),
        of(cors()),
        vec(rate_limit(), 0..2),
    );
    (authn, rest, cidrs(), cidrs()).prop_map(|(authn, rest, allow_cidrs, deny_cidrs)| {
        SecurityPolicy {
            jwt: authn.0,
            oidc: authn.1,
            basic_auth: authn.2,
            external_auth: rest.0,
            cors: rest.1,
            rate_limits: rest.2,
            allow_cidrs,
            deny_cidrs,
        }
    })
}

fn cluster() -> impl Strategy<Value = Cluster> {
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
    );
    let engines = (
        shared(ai_service()),
        shared(token_policy()),
        shared(wasm_plugin()),
    );
    (head, times, policies, engines, shared(security_policy())).prop_map(
        |((key, protocol, endpoints), times, policies, engines, security_policy)| Cluster {
            key: key.into(),
            protocol,
            endpoints,
            connect_timeout: times.0,
            request_timeout: times.1,
            metadata: times.2,
            tls: policies.0,
            session_persistence: policies.1,
            balancing: policies.2,
            max_inflight_requests: times.3,
            ai_service: engines.0,
            token_policy: engines.1,
            wasm_plugin: engines.2,
            security_policy,
        },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let address = prop_oneof![
        any::<IpAddr>().prop_map(EndpointAddress::Ip),
        exact_hostname().prop_map(EndpointAddress::Name),
    ];
    (address, port(), any::<bool>(), any_text(), 1..=1_000_000u32).prop_map(
        |(address, port, is_ready, zone, weight)| Endpoint {
            address,
            port,
            is_ready,
            zone,
            weight,
        },
    )
}

fn backend_tls() -> impl Strategy<Value = BackendTls> {
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

fn balancing() -> impl Strategy<Value = Balancing> {
    prop_oneof![
        Just(Balancing::RoundRobin),
        Just(Balancing::LeastRequest),
        Just(Balancing::Random),
        Just(Balancing::ConsistentHash(HashKey::SourceIp)),
        Just(Balancing::ConsistentHash(HashKey::Hostname)),
        "x-[a-z]{1,3}".prop_map(|name| Balancing::ConsistentHash(HashKey::Header(name))),
    ]
}

fn ai_service() -> impl Strategy<Value = AiService> {
    use AiAuthKind::{ApiKey, Basic, Bearer};
    let other = || "x[a-z]{1,3}".prop_map(|name| name);
    let provider = prop_oneof![
        select(vec![
            AiProvider::OpenAi,
            AiProvider::Anthropic,
            AiProvider::Ollama
        ]),
        other().prop_map(AiProvider::Other),
    ];
    let format = prop_oneof![
        select(vec![
            AiFormat::OpenAi,
            AiFormat::Anthropic,
            AiFormat::Ollama
        ]),
        other().prop_map(AiFormat::Other),
    ];
    let kind = select(vec![ApiKey, Basic, Bearer]);
    let auth = (kind, reference(), of(name()), of("x-[a-z]{1,3}")).prop_map(
        |(kind, secret_ref, secret_key, header)| AiAuth {
            kind,
            secret_ref,
            secret_key,
            header,
        },
    );
    let endpoint = of("https://[a-z]{1,3}\\.example");
    let times = (of(duration()), of(duration()), any::<u32>());
    (provider, of(format), any_text(), of(auth), endpoint, times).prop_map(
        |(provider, format, model, auth, endpoint, times)| AiService {
            provider,
            format,
            model,
            auth,
            timeout: times.0,
            endpoint,
            retries_max: times.2,
            retry_backoff: times.1,
        },
    )
}

fn token_policy() -> impl Strategy<Value = TokenPolicy> {
    use TokenScope::{ApiKey, Global, Model, Route, User};
    let scope = select(vec![ApiKey, Global, Model, Route, User]);
    let on_limit = select(vec![
        OnLimit::Reject,
        OnLimit::Queue,
        OnLimit::Degrade,
        OnLimit::Warn,
    ]);
    let limits = proptest::array::uniform3(any::<u64>().prop_map(NonZeroU64::new));
    (limits, scope, 0.001..1000.0f64, on_limit).prop_map(|(limits, scope, burst, on_limit)| {
        TokenPolicy {
            tokens_per_minute: limits[0],
            tokens_per_hour: limits[1],
            requests_per_minute: limits[2],
            scope,
            burst,
            on_limit,
        }
    })
}

fn wasm_plugin() -> impl Strategy<Value = WasmPlugin> {
    let source = prop_oneof![
        vec(any::<u8>(), 1..9).prop_map(|module| WasmSource::Inline(module.into())),
        "(https|http|oci)://[a-z]{1,3}\\.example".prop_map(WasmSource::Url),
    ];
    let hooks = select(vec![
        vec![],
        vec![WasmHook::OnResponse, WasmHook::OnRequest],
        vec![WasmHook::OnStreamChunk],
    ]);
    let sandbox = (
        of(1..=u64::MAX),
        of(1..=600_000u64),
        any::<bool>(),
        any::<bool>(),
    );
    (
        key(),
        source,
        of(any::<[u8; 32]>()),
        hooks,
        any_text(),
        sandbox,
    )
        .prop_map(|(key, source, sha256, hooks, config, sandbox)| WasmPlugin {
            key,
            source,
            sha256,
            hooks,
            config: SecretText::new(config),
            sandbox: WasmSandbox {
                memory_bytes_max: sandbox.0,
                execution_time_max: sandbox.1.map(Duration::from_millis),
                allow_network: sandbox.2,
                allow_file_system: sandbox.3,
            },
        })
}
