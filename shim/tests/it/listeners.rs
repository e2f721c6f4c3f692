//! What a Gateway says about its listeners beyond protocol and host: clients' certificates, TLS
//! versions, PROXY protocol, paths, ports, and who yields to whom.

use dataplane_testkit::certificate::Authority;
use ir::listener::{
    ClientValidationMode, EscapedSlashes, ForwardedFields, ListenerSettings, ProxyProtocol,
    RequestIds, TlsVersion, TrustedProxies,
};
use shim::cluster_view::Kind;
use shim::conditions::{ConditionType as Type, Truth};
use shim::translate::{PortMap, Settings, Translation, keep_former_certificates, translate};

use crate::folder::{GATEWAY, condition, translated, view};

fn class() -> &'static str {
    GATEWAY.split_once("---").unwrap().0
}

fn indented(pem: &str) -> String {
    pem.trim().replace('\n', "\n    ")
}

/// A ConfigMap `infra/<name>` with an authority under that key.
fn config_map(name: &str, namespace: &str, key: &str, pem: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         data:\n  {key}: |\n    {}\n",
        indented(pem)
    )
}

/// The Secret `infra/cert`.
fn secret(authority: &Authority) -> String {
    let identity = authority.server(&["*.example.com"]);
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: cert, namespace: infra}}\n\
         type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        indented(&identity.chain_pem),
        indented(&identity.key_pem)
    )
}

/// A Gateway `infra/gw` with these annotations, `spec.tls.frontend` and listeners (in flow style).
fn gateway(annotations: &str, frontend: &str, listeners: &[&str]) -> String {
    let tls = match frontend {
        "" => String::new(),
        frontend => format!("  tls: {{frontend: {frontend}}}\n"),
    };
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: gw, namespace: infra, annotations: {{{annotations}}}}}\n\
         spec:\n  gatewayClassName: nantian-gw\n{tls}  listeners: [{}]\n",
        listeners.join(", ")
    )
}

fn https(name: &str, port: u16, more: &str) -> String {
    let tls = "tls: {certificateRefs: [{name: cert}]}";
    format!("{{name: {name}, port: {port}, protocol: HTTPS, {tls}{more}}}")
}

fn reference(name: &str) -> String {
    format!("caCertificateRefs: [{{group: '', kind: ConfigMap, name: {name}}}]")
}

fn at_listener(translation: &Translation, listener: &str, wanted: Type) -> (Truth, &'static str) {
    let part = format!("listener {listener}");
    let found = condition(translation, Kind::Gateway, "infra/gw", &part, wanted);
    (found.status, found.reason)
}

fn settings_of(text: &str) -> Option<ListenerSettings> {
    let translation = translated(text);
    let listener = translation.snapshot().listeners.get("infra/gw/http")?;
    Some(listener.settings.clone())
}

#[test]
fn clients_of_a_port_are_judged_by_its_own_authorities_or_by_the_default() {
    let authority = Authority::new("server");
    let (default, own) = (Authority::new("default"), Authority::new("own"));
    let frontend = format!(
        "{{default: {{validation: {{{}}}}}, perPort: [{{port: 8443, tls: {{validation: {{{}, mode: \
         AllowInsecureFallback}}}}}}, {{port: 9443, tls: {{}}}}]}}",
        reference("default-ca"),
        reference("own-ca"),
    );
    let text = [
        class().to_owned(),
        secret(&authority),
        config_map("default-ca", "infra", "ca.crt", default.pem()),
        config_map("own-ca", "infra", "ca.crt", own.pem()),
        gateway(
            "",
            &frontend,
            &[
                &https("https", 443, ""),
                &https("own", 8443, ""),
                &https("none", 9443, ""),
                "{name: http, port: 80, protocol: HTTP}",
            ],
        ),
    ];
    let translation = translated(&text.concat());
    let validation = |name: &str| {
        let listener = translation.snapshot().listeners.get(name).expect(name);
        let tls = listener.tls.as_ref()?;
        tls.client_validation.clone()
    };
    let by_default = validation("infra/gw/https").unwrap();
    assert_eq!(by_default.mode, ClientValidationMode::AllowValidOnly);
    assert_eq!(by_default.ca_pems[0].trim(), default.pem().trim());
    let of_port = validation("infra/gw/own").unwrap();
    assert_eq!(of_port.mode, ClientValidationMode::AllowInsecureFallback);
    assert_eq!(of_port.ca_pems[0].trim(), own.pem().trim());
    assert_eq!(
        validation("infra/gw/none"),
        None,
        "its entry asks for nothing"
    );
    assert_eq!(validation("infra/gw/http"), None);
    let insecure = Type::InsecureFrontendValidationMode;
    let insecure = condition(&translation, Kind::Gateway, "infra/gw", "", insecure);
    assert_eq!(
        (insecure.status, insecure.reason),
        (Truth::True, "ConfigurationChanged")
    );
}

#[test]
fn authorities_that_cannot_be_used_close_exactly_the_listeners_of_their_port() {
    let authority = Authority::new("server");
    let refs = [
        (7443, "{group: '', kind: ConfigMap, name: missing}"),
        (8443, "{group: '', kind: Service, name: cart}"),
        (
            6443,
            "{group: '', kind: ConfigMap, name: far, namespace: elsewhere}",
        ),
        (5443, "{group: '', kind: ConfigMap, name: keyless}"),
        (4443, "{group: '', kind: ConfigMap, name: broken}"),
        (
            3443,
            "{group: '', kind: ConfigMap, name: good}, {group: '', kind: ConfigMap, name: gone}",
        ),
    ];
    let per_port = refs.map(|(port, refs)| {
        format!("{{port: {port}, tls: {{validation: {{caCertificateRefs: [{refs}]}}}}}}")
    });
    let frontend = format!(
        "{{default: {{validation: {{{}}}}}, perPort: [{}]}}",
        reference("good"),
        per_port.join(", ")
    );
    let listeners: Vec<_> = refs
        .iter()
        .map(|(port, _)| https(&format!("p{port}"), *port, ""))
        .collect();
    let mut listeners: Vec<&str> = listeners.iter().map(String::as_str).collect();
    let good = https("good", 443, "");
    listeners.extend([&*good, "{name: http, port: 80, protocol: HTTP}"]);
    let text = [
        class().to_owned(),
        secret(&authority),
        config_map("good", "infra", "ca.crt", authority.pem()),
        config_map("keyless", "infra", "other.crt", authority.pem()),
        config_map("broken", "infra", "ca.crt", "no PEM"),
        config_map("far", "elsewhere", "ca.crt", authority.pem()),
        gateway("", &frontend, &listeners),
    ];
    let translation = translated(&text.concat());
    for (listener, reason) in [
        ("p7443", "InvalidCACertificateRef"),
        ("p8443", "InvalidCACertificateKind"),
        ("p6443", "RefNotPermitted"),
        ("p5443", "InvalidCACertificateRef"),
        ("p4443", "InvalidCACertificateRef"),
    ] {
        let at = |wanted| at_listener(&translation, listener, wanted);
        assert_eq!(at(Type::ResolvedRefs), (Truth::False, reason), "{listener}");
        assert_eq!(
            at(Type::Accepted),
            (Truth::False, "NoValidCACertificate"),
            "{listener}"
        );
        assert_eq!(at(Type::Programmed).0, Truth::False, "{listener}");
    }
    // One of two is good: it serves with that one, and tells.
    let at = |wanted| at_listener(&translation, "p3443", wanted);
    assert_eq!(
        at(Type::ResolvedRefs),
        (Truth::False, "InvalidCACertificateRef")
    );
    assert_eq!(at(Type::Programmed).0, Truth::True);
    for listener in ["good", "http"] {
        for wanted in [Type::ResolvedRefs, Type::Accepted, Type::Programmed] {
            assert_eq!(
                at_listener(&translation, listener, wanted).0,
                Truth::True,
                "{listener}"
            );
        }
    }
    let served: Vec<_> = translation
        .snapshot()
        .listeners
        .iter()
        .map(|l| &*l.name)
        .collect();
    assert_eq!(served, ["infra/gw/good", "infra/gw/http", "infra/gw/p3443"]);
}

#[test]
fn a_config_map_that_comes_later_opens_the_listener() {
    let authority = Authority::new("server");
    let frontend = format!("{{default: {{validation: {{{}}}}}}}", reference("ca"));
    let before = [
        class().to_owned(),
        secret(&authority),
        gateway("", &frontend, &[&https("https", 443, "")]),
    ]
    .concat();
    let first = translated(&before);
    assert!(first.snapshot().listeners.is_empty());
    let after = before + &config_map("ca", "infra", "ca.crt", authority.pem());
    let second = translate(&view(&after), &Settings::default(), Some(&first));
    assert_eq!(second.snapshot().listeners.len(), 1);
}

#[test]
fn options_bound_the_versions_of_tls() {
    let authority = Authority::new("server");
    let rows = [
        ("1.3", "TLS1_3", Some((TlsVersion::V1_3, TlsVersion::V1_3))),
        ("TLS1_2", "1.2", Some((TlsVersion::V1_2, TlsVersion::V1_2))),
        ("1.3", "1.2", None),
        ("1.1", "1.3", None),
    ];
    for (min, max, expected) in rows {
        let options = format!(
            "options: {{gateway.nantian.dev/tls-min-version: '{min}', \
             gateway.nantian.dev/tls-max-version: '{max}'}}"
        );
        let tls = format!("tls: {{certificateRefs: [{{name: cert}}], {options}}}");
        let listener = format!("{{name: https, port: 443, protocol: HTTPS, {tls}}}");
        let text = [
            class().to_owned(),
            secret(&authority),
            gateway("", "", &[&listener]),
        ];
        let translation = translated(&text.concat());
        let listener = translation.snapshot().listeners.get("infra/gw/https");
        let tls = listener.and_then(|listener| listener.tls.as_ref());
        let versions = tls.map(|tls| (tls.min_version, tls.max_version));
        assert_eq!(versions, expected, "{min} {max}");
    }
}

#[test]
fn annotations_of_a_gateway_hold_for_its_listeners() {
    let listener = "{name: http, port: 80, protocol: HTTP}";
    let plain = [class(), &gateway("", "", &[listener])].concat();
    assert_eq!(settings_of(&plain), Some(ListenerSettings::default()));
    let prefix = "gateway.nantian.dev/";
    let all = [
        "proxy-protocol: required",
        "proxy-protocol-trusted-sources: '10.0.0.0/8, ::1'",
        "escaped-slashes: decode",
        "merge-slashes: 'false'",
        "forwarded-fields: both",
        "forwarded-trusted-hops: '2'",
        "forwarded-trusted-sources: 10.0.0.0/8",
        "forwarded-client-certificate: 'true'",
        "request-id: any",
    ];
    let all = all.map(|line| format!("{prefix}{line}")).join(", ");
    let text = [class(), &gateway(&all, "", &[listener])].concat();
    let sources = vec!["10.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
    let expected = ListenerSettings {
        public_port: None,
        proxy_protocol: Some(ProxyProtocol::Required(sources)),
        escaped_slashes: Some(EscapedSlashes::Decode),
        merge_slashes: Some(false),
        forwarded_fields: Some(ForwardedFields::Both),
        trusted_proxies: Some(TrustedProxies {
            hops: 2,
            sources: vec!["10.0.0.0/8".parse().unwrap()],
        }),
        request_ids: Some(RequestIds::Any),
        client_certificate_field: Some(true),
    };
    assert_eq!(settings_of(&text), Some(expected));
    for slip in [
        "proxy-protocol: optional",
        "proxy-protocol-trusted-sources: 10.0.0.0/8",
        "escaped-slashes: allow",
        "merge-slashes: 'yes'",
        "forwarded-fields: all",
        "forwarded-trusted-hops: '33'",
        "forwarded-trusted-sources: everyone",
        "forwarded-client-certificate: '1'",
        "request-id: always",
    ] {
        let text = [
            class(),
            &gateway(&format!("{prefix}{slip}"), "", &[listener]),
        ]
        .concat();
        assert_eq!(settings_of(&text), None, "{slip}");
        let told = at_listener(&translated(&text), "http", Type::Accepted);
        assert_eq!(told, (Truth::False, "UnsupportedValue"), "{slip}");
    }
}

#[test]
fn a_mapped_port_is_told_to_the_data_plane() {
    let text = [
        class(),
        &gateway("", "", &["{name: http, port: 80, protocol: HTTP}"]),
    ]
    .concat();
    let settings = Settings {
        ports: PortMap {
            privileged_offset: 10_000,
            ..PortMap::default()
        },
        ..Settings::default()
    };
    let translation = translate(&view(&text), &settings, None);
    let listener = translation
        .snapshot()
        .listeners
        .get("infra/gw/http")
        .unwrap();
    assert_eq!(
        (listener.port.get(), listener.public_port().get()),
        (10_080, 80)
    );
}

#[test]
fn of_two_gateways_that_want_the_same_the_older_goes_on_serving() {
    let named = |name: &str, year: u16, annotations: &str| {
        let text = gateway(annotations, "", &["{name: http, port: 80, protocol: HTTP}"]);
        let born =
            format!("metadata: {{creationTimestamp: '{year}-01-01T00:00:00Z', name: {name},");
        text.replace("metadata: {name: gw,", &born)
    };
    let rows = [
        ("", "HostnameConflict"),
        (
            "gateway.nantian.dev/proxy-protocol: required",
            "ProtocolConflict",
        ),
    ];
    for (annotations, reason) in rows {
        let text = [
            class(),
            &named("gw", 2025, annotations),
            &named("old", 2020, ""),
        ]
        .concat();
        let translation = translated(&text);
        for wanted in [Type::Accepted, Type::Programmed] {
            assert_eq!(
                at_listener(&translation, "http", wanted).0,
                Truth::False,
                "{reason}"
            );
        }
        let conflicted = at_listener(&translation, "http", Type::Conflicted);
        assert_eq!(conflicted, (Truth::True, reason));
        let served: Vec<_> = translation
            .snapshot()
            .listeners
            .iter()
            .map(|l| &*l.name)
            .collect();
        assert_eq!(served, ["infra/old/http"]);
        let own = condition(
            &translation,
            Kind::Gateway,
            "infra/old",
            "listener http",
            Type::Programmed,
        );
        assert_eq!(own.status, Truth::True);
    }
}

#[test]
fn two_gateways_live_on_one_port_where_address_or_host_tells_them_apart() {
    const UNUSABLE: &str = "[{value: not-an-address}]";
    let named = |name: &str, year: u16, addresses: &str, hostname: &str| {
        let text = gateway(
            "",
            "",
            &[&format!(
                "{{name: http, port: 80, protocol: HTTP{hostname}}}"
            )],
        );
        let text = text.replace("spec:\n", &format!("spec:\n  addresses: {addresses}\n"));
        let born =
            format!("metadata: {{creationTimestamp: '{year}-01-01T00:00:00Z', name: {name},");
        text.replace("metadata: {name: gw,", &born)
    };
    let (one, other) = ("[{value: 127.0.0.1}]", "[{value: 127.0.0.2}]");
    let both = "[{value: 127.0.0.2}, {value: 127.0.0.1}]";
    let (shop, wild) = (
        ", hostname: shop.example.com",
        ", hostname: '*.example.com'",
    );
    // Addresses and host name of the older and of the younger; whether the younger serves, too.
    for (older, younger, is_served) in [
        (("[]", ""), ("[]", ""), false),
        (("[]", ""), ("[]", shop), true),
        (("[]", shop), ("[]", wild), true),
        (("[]", shop), ("[]", shop), false),
        ((one, ""), (one, ""), false),
        ((one, ""), (other, ""), true),
        ((one, ""), (both, ""), false),
        ((one, ""), ("[]", ""), false),
        (("[]", ""), (one, ""), false),
        ((UNUSABLE, ""), ("[]", ""), true),
    ] {
        let text = [
            class().to_owned(),
            named("gw", 2025, younger.0, younger.1),
            named("old", 2020, older.0, older.1),
        ];
        let case = format!("{older:?} {younger:?}");
        let translation = translated(&text.concat());
        let listeners = &translation.snapshot().listeners;
        let is_there = listeners.get("infra/gw/http").is_some();
        assert_eq!(is_there, is_served, "{case}");
        let conflicted = at_listener(&translation, "http", Type::Conflicted).0;
        assert_eq!(conflicted == Truth::True, !is_served, "{case}");
        let is_old_there = listeners.get("infra/old/http").is_some();
        assert_eq!(is_old_there, older.0 != UNUSABLE, "{case}");
        // Without the older one the younger has the place.
        let alone = translated(&text[..2].concat());
        assert!(
            alone.snapshot().listeners.get("infra/gw/http").is_some(),
            "{case}"
        );
    }
}

#[test]
fn listeners_whose_hosts_overlap_over_tls_are_told() {
    let authority = Authority::new("server");
    let listeners = [
        https("a", 443, ", hostname: a.example.com"),
        https("wild", 443, ", hostname: '*.example.com'"),
        https("other", 443, ", hostname: a.example.org"),
        https("elsewhere", 8443, ", hostname: a.example.com"),
    ];
    let listeners: Vec<&str> = listeners.iter().map(String::as_str).collect();
    let text = [
        class().to_owned(),
        secret(&authority),
        gateway("", "", &listeners),
    ]
    .concat();
    let translation = translated(&text);
    let status = translation.status(Kind::Gateway, "infra/gw").unwrap();
    for (listener, overlaps) in [
        ("a", true),
        ("wild", true),
        ("other", false),
        ("elsewhere", false),
    ] {
        let listener = status
            .listeners
            .iter()
            .find(|it| it.name == listener)
            .unwrap();
        let mut kinds = listener.conditions.iter().map(|condition| condition.kind);
        assert_eq!(
            kinds.any(|it| it == Type::OverlappingTLSConfig),
            overlaps,
            "{}",
            listener.name
        );
    }
}

/// The view of `text` after one of `before`, as the pipeline has it.
fn edited(before: &Translation, text: &str) -> Translation {
    let mut now = view(text);
    keep_former_certificates(before.view(), &mut now);
    let next = translate(&now, &Settings::default(), Some(before));
    let afresh = translate(&now, &Settings::default(), None);
    assert_eq!(next.snapshot(), afresh.snapshot());
    next
}

#[test]
fn a_secret_that_an_edit_broke_serves_on_as_it_was_until_it_is_mended_or_taken_away() {
    let authority = Authority::new("server");
    let gateway = [class(), &gateway("", "", &[&https("https", 443, "")])].concat();
    let shown = |translation: &Translation| {
        let secret = translation.snapshot().secrets.get("infra/cert")?;
        Some(secret.certificate.as_ref()?.chain_pem().to_owned())
    };
    let told = |translation: &Translation| {
        let part = "listener https";
        let resolved = condition(
            translation,
            Kind::Gateway,
            "infra/gw",
            part,
            Type::ResolvedRefs,
        );
        let (programmed, _) = at_listener(translation, "https", Type::Programmed);
        (resolved.status, resolved.message, programmed)
    };
    let good = secret(&authority);
    let other_key = indented(&authority.server(&["*.example.com"]).key_pem);
    let (chain, _) = good.split_once("  tls.key: |").unwrap();
    let broken = format!("{chain}  tls.key: |\n    {other_key}\n");

    let before = edited(&Translation::default(), &[&gateway, &good[..]].concat());
    let first = shown(&before).unwrap();
    let spoilt = edited(&before, &[&gateway, &broken[..]].concat());
    assert_eq!(shown(&spoilt).as_ref(), Some(&first));
    let (resolved, message, programmed) = told(&spoilt);
    assert_eq!((resolved, programmed), (Truth::False, Truth::True));
    assert!(message.contains("do not belong together"), "{message}");
    assert!(
        message.contains("serves on until the Secret is mended"),
        "{message}"
    );
    // Broken in another way: it is still the whole one that serves.
    let worse = format!("{chain}  tls.key: nothing\n");
    let spoilt = edited(&spoilt, &[&gateway, &worse[..]].concat());
    assert_eq!(shown(&spoilt).as_ref(), Some(&first));

    let taken_away = edited(&spoilt, &gateway);
    assert_eq!(shown(&taken_away), None);
    let still_broken = edited(&taken_away, &[&gateway, &broken[..]].concat());
    assert_eq!(shown(&still_broken), None);
    assert_eq!(told(&still_broken).2, Truth::False);

    let mended = edited(&spoilt, &[&gateway, &secret(&authority)[..]].concat());
    assert_ne!(shown(&mended).unwrap(), first);
    assert_eq!(told(&mended), (Truth::True, String::new(), Truth::True));
    let spoilt = edited(&mended, &[&gateway, &broken[..]].concat());
    assert_eq!(shown(&spoilt), shown(&mended));
}
