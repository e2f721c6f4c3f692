//! The law of translation: a previous translation saves work and changes nothing else.

use dataplane_testkit::certificate::Authority;
use shim::cluster_view::{AnyObject, ClusterView};
use shim::translate::{Settings, Translation, translate};

use crate::folder::view;

/// What exists in some variants each; an edit puts one variant in or takes the object out.
#[expect(clippy::too_many_lines, reason = "a flat list of objects")]
fn pool() -> Vec<Vec<AnyObject>> {
    let mut pool = Vec::new();
    let api = "apiVersion: gateway.networking.k8s.io/v1";
    for (class, controller) in [("ours", "nantian-gw"), ("theirs", "other")] {
        pool.push(vec![format!(
            "{api}\nkind: GatewayClass\nmetadata: {{name: {class}}}\n\
             spec: {{controllerName: gateway.networking.k8s.io/{controller}}}"
        )]);
    }
    for gateway in ["g1", "g2"] {
        let listeners = [
            "{name: a, port: 80, protocol: HTTP}",
            "{name: a, port: 80, protocol: HTTP, hostname: a.example, \
             allowedRoutes: {namespaces: {from: All}}}",
            "{name: a, port: 80, protocol: HTTP, \
             allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: x}}}}}, \
             {name: b, port: 81, protocol: HTTP}",
            "{name: b, port: 81, protocol: HTTP}, {name: c, port: 81, protocol: HTTP}",
            "{name: t, port: 9000, protocol: TCP}",
        ];
        let sets = ["", "allowedListeners: {namespaces: {from: All}}, "];
        let variants = ["ours", "theirs"].iter().flat_map(|class| {
            listeners.iter().enumerate().map(move |(n, listeners)| {
                let sets = sets[n % 2];
                format!(
                    "{api}\nkind: Gateway\nmetadata: {{name: {gateway}, namespace: n1}}\n\
                     spec: {{gatewayClassName: {class}, {sets}listeners: [{listeners}]}}"
                )
            })
        });
        pool.push(variants.collect());
    }
    for namespace in ["n1", "n2"] {
        let variants = ["x", "y"].map(|team| {
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{team: {team}}}}}")
        });
        pool.push(variants.to_vec());
        for service in ["s1", "s2"] {
            let meta = format!("{{name: {service}, namespace: {namespace}}}");
            let variants = [
                "{ports: [{port: 80}]}",
                "{ports: [{name: x, port: 80, appProtocol: h2c}, {name: y, port: 81}]}",
                "{type: ExternalName}",
            ];
            let text =
                |spec| format!("apiVersion: v1\nkind: Service\nmetadata: {meta}\nspec: {spec}");
            pool.push(variants.map(text).to_vec());
            for slice in ["x", "y"] {
                let variants = (0..3).map(|n| {
                    let owner = if n == 2 { "s1" } else { service };
                    format!(
                        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                         metadata: {{name: {service}-{slice}, namespace: {namespace}, \
                         labels: {{kubernetes.io/service-name: {owner}}}}}\n\
                         ports: [{{port: 8080}}]\nendpoints: [{{addresses: [10.0.0.{n}]}}]"
                    )
                });
                pool.push(variants.collect());
            }
        }
        for name in ["r1", "r2", "r3"] {
            let rules = [
                "[{backendRefs: [{name: s1, port: 80}]}]",
                "[{backendRefs: [{name: s1, port: 81, weight: 3}, {name: s2, namespace: n1, port: 80}]}]",
                "[{backendRefs: [{name: s2, namespace: n2, port: 80}]}, \
                 {filters: [{type: ExtensionRef, extensionRef: \
                 {group: gateway.nantian.dev, kind: DirectResponse, name: d}}]}]",
            ];
            let parents = [
                "[{name: g1, namespace: n1}]",
                "[{name: g1, namespace: n1, sectionName: b}, {name: g2, namespace: n1}, \
                 {kind: ListenerSet, name: l}]",
            ];
            let hosts = ["[]", "[a.example]", "[b.example, '*.example']"];
            for (kind, method) in [("HTTPRoute", ""), ("GRPCRoute", "")] {
                let variants = (0..6).map(|n| {
                    let rules = if kind == "GRPCRoute" {
                        rules[n % 2]
                    } else {
                        rules[n % 3]
                    };
                    format!(
                        "{api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}, \
                         creationTimestamp: '2026-01-01T00:0{n}:00Z'}}\n\
                         spec: {{parentRefs: {}, hostnames: {}, rules: {rules}}}{method}",
                        parents[n % 2],
                        hosts[n / 2]
                    )
                });
                pool.push(variants.collect());
            }
        }
        let grant = |kind: &str| {
            format!(
                "{api}\nkind: ReferenceGrant\nmetadata: {{name: grant, namespace: {namespace}}}\n\
                 spec: {{from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: n1}}], \
                 to: [{{group: '', kind: Service}}]}}"
            )
        };
        pool.push(vec![grant("HTTPRoute"), grant("GRPCRoute")]);
        let answer = |status| {
            format!(
                "apiVersion: gateway.nantian.dev/v1alpha1\nkind: DirectResponse\n\
                 metadata: {{name: d, namespace: {namespace}}}\nspec: {{statusCode: {status}}}"
            )
        };
        pool.push(vec![answer(200), answer(503), answer(99)]);
        let set = |parent: &str, listener: &str| {
            format!(
                "{api}\nkind: ListenerSet\nmetadata: {{name: l, namespace: {namespace}}}\n\
                 spec: {{parentRef: {{name: {parent}, namespace: n1}}, listeners: [{listener}]}}"
            )
        };
        pool.push(vec![
            set(
                "g1",
                "{name: x, port: 80, protocol: HTTP, hostname: b.example}",
            ),
            set("g2", "{name: x, port: 81, protocol: HTTP}"),
            set("g2", "{name: x, port: 9000, protocol: TCP}"),
        ]);
        policies(namespace, &mut pool);
        own_policies(namespace, &mut pool);
        ai(namespace, &mut pool);
    }
    pool.iter()
        .map(|variants| variants.iter().map(|text| object(text)).collect())
        .collect()
}

/// Policies of our own kinds that compete for a Service, a route and a Gateway.
fn own_policies(namespace: &str, pool: &mut Vec<Vec<String>>) {
    let gateway_api = "group: gateway.networking.k8s.io";
    for policy in ["p", "q"] {
        let text = |kind: &str, spec: &str| {
            format!(
                "apiVersion: gateway.nantian.dev/v1alpha1\nkind: {kind}\n\
                 metadata: {{name: {policy}, namespace: {namespace}}}\nspec: {{{spec}}}"
            )
        };
        let service = "targetRefs: [{group: '', kind: Service, name: s1}]";
        pool.push(vec![
            text(
                "BackendLBPolicy",
                &format!("{service}, loadBalancing: {{type: Random}}"),
            ),
            text(
                "BackendLBPolicy",
                &format!("{service}, circuitBreaker: {{maxInflightRequests: 1}}"),
            ),
            text("BackendLBPolicy", service),
        ]);
        pool.push(vec![
            text(
                "RoutePolicy",
                "targetRefs: [{kind: Gateway, name: g1}], default: {timeout: {request: 1s}}",
            ),
            text(
                "RoutePolicy",
                "targetRefs: [{kind: HTTPRoute, name: r1}], default: {timeout: {connect: 1s}}",
            ),
        ]);
        let targets = [
            format!("{gateway_api}, kind: Gateway, name: g1"),
            format!("{gateway_api}, kind: Gateway, name: g1, sectionName: b"),
            format!("{gateway_api}, kind: GRPCRoute, name: r2"),
            "group: '', kind: Service, name: s2".to_owned(),
        ];
        let says = [
            "ip: {denyCIDRs: [10.0.0.0/8]}",
            "cors: {allowOrigins: ['*']}",
            "authz: {}",
        ];
        let variants = (0..8).map(|n| {
            let target = &targets[n % 4];
            text(
                "SecurityPolicy",
                &format!("targetRefs: [{{{target}}}], {}", says[n % 3]),
            )
        });
        pool.push(variants.collect());
    }
}

/// AIServices with keys that come and go, routes to them, and budgets that compete.
fn ai(namespace: &str, pool: &mut Vec<Vec<String>>) {
    let own = "apiVersion: gateway.nantian.dev/v1alpha1";
    for name in ["a1", "a2"] {
        let specs = [
            "provider: openai, model: m, auth: {secretRef: {name: key, key: a}}",
            "provider: openai, model: m, auth: {secretRef: {name: key}}, \
             endpoint: 'http://s1.n1.svc/v1'",
            "provider: anthropic, model: m, providers: \
             [{provider: ollama, endpoint: 'http://s2.n2.svc:80'}]",
            "provider: anthropic, model: m, tls: {caCertificateRefs: [{kind: ConfigMap, name: ca}]}",
        ];
        let text = |spec| {
            format!(
                "{own}\nkind: AIService\n\
                 metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}"
            )
        };
        pool.push(specs.map(text).to_vec());
    }
    let secret = |data: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\n\
             metadata: {{name: key, namespace: {namespace}}}\nstringData: {{{data}}}"
        )
    };
    pool.push(vec![secret("a: x"), secret("a: y, b: z")]);
    for route in ["ra", "rb"] {
        let backend = "group: gateway.nantian.dev, kind: AIService";
        let rules = [
            format!("[{{backendRefs: [{{{backend}, name: a1}}, {{{backend}, name: a2}}]}}]"),
            format!(
                "[{{backendRefs: [{{{backend}, name: a1, namespace: n2}}, {{name: s1, port: 80}}]}}]"
            ),
        ];
        let text = |rules| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                 metadata: {{name: {route}, namespace: {namespace}}}\n\
                 spec: {{parentRefs: [{{name: g1, namespace: n1}}], rules: {rules}}}"
            )
        };
        pool.push(rules.map(text).to_vec());
        let targets = [
            "{group: gateway.nantian.dev, kind: AIService, name: a1}".to_owned(),
            "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: ra}".to_owned(),
            "{group: gateway.networking.k8s.io, kind: HTTPRoute, name: rb}, \
             {group: '', kind: Service, name: s1}"
                .to_owned(),
        ];
        let text = |targets| {
            format!(
                "{own}\nkind: TokenPolicy\nmetadata: {{name: {route}, namespace: {namespace}}}\n\
                 spec: {{targetRefs: [{targets}], tokensPerMinute: {}}}",
                route.len() + namespace.len()
            )
        };
        pool.push(targets.map(text).to_vec());
    }
}

/// Policies that compete, and an authority that comes, goes and breaks.
fn policies(namespace: &str, pool: &mut Vec<Vec<String>>) {
    let pem = Authority::new("law").pem().trim().replace('\n', "\n    ");
    let map = |text: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: {namespace}}}\n\
             data:\n  ca.crt: |\n    {text}\n"
        )
    };
    pool.push(vec![map(&pem), map("nothing")]);
    let map = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";
    for policy in ["p", "q"] {
        let variants = [
            ("name: s1", "wellKnownCACertificates: System"),
            ("name: s1, sectionName: x", map),
            ("name: s1", map),
            ("name: s2", map),
        ];
        let text = |(target, trust)| {
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
                 metadata: {{name: {policy}, namespace: {namespace}}}\n\
                 spec: {{targetRefs: [{{group: '', kind: Service, {target}}}], \
                 validation: {{hostname: {policy}.example, {trust}}}}}"
            )
        };
        pool.push(variants.map(text).to_vec());
    }
}

fn object(text: &str) -> AnyObject {
    let view = view(text);
    let mut all: Vec<AnyObject> = Vec::new();
    all.extend(
        view.gateway_classes
            .iter()
            .cloned()
            .map(AnyObject::GatewayClass),
    );
    all.extend(view.gateways.iter().cloned().map(AnyObject::Gateway));
    all.extend(
        view.listener_sets
            .iter()
            .cloned()
            .map(AnyObject::ListenerSet),
    );
    all.extend(view.http_routes.iter().cloned().map(AnyObject::HttpRoute));
    all.extend(view.grpc_routes.iter().cloned().map(AnyObject::GrpcRoute));
    all.extend(
        view.reference_grants
            .iter()
            .cloned()
            .map(AnyObject::ReferenceGrant),
    );
    all.extend(
        view.backend_tls_policies
            .iter()
            .cloned()
            .map(AnyObject::BackendTlsPolicy),
    );
    all.extend(
        view.direct_responses
            .iter()
            .cloned()
            .map(AnyObject::DirectResponse),
    );
    all.extend(
        view.backend_lb_policies
            .iter()
            .cloned()
            .map(AnyObject::BackendLbPolicy),
    );
    all.extend(
        view.route_policies
            .iter()
            .cloned()
            .map(AnyObject::RoutePolicy),
    );
    all.extend(
        view.security_policies
            .iter()
            .cloned()
            .map(AnyObject::SecurityPolicy),
    );
    all.extend(view.ai_services.iter().cloned().map(AnyObject::AiService));
    all.extend(
        view.token_policies
            .iter()
            .cloned()
            .map(AnyObject::TokenPolicy),
    );
    all.extend(view.secrets.iter().cloned().map(AnyObject::Secret));
    all.extend(view.services.iter().cloned().map(AnyObject::Service));
    all.extend(
        view.endpoint_slices
            .iter()
            .cloned()
            .map(AnyObject::EndpointSlice),
    );
    all.extend(view.config_maps.iter().cloned().map(AnyObject::ConfigMap));
    all.extend(view.namespaces.iter().cloned().map(AnyObject::Namespace));
    all.pop().unwrap()
}

/// A small generator, so that a failure can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

fn edit(view: &mut ClusterView, pool: &[Vec<AnyObject>], dice: &mut Dice) {
    let variants = &pool[dice.roll(pool.len())];
    if dice.roll(4) == 0 {
        view.remove(variants[0].kind(), variants[0].key());
    } else {
        view.insert(variants[dice.roll(variants.len())].clone());
    }
}

fn statuses(translation: &Translation) -> Vec<&shim::conditions::ObjectStatus> {
    translation.statuses().map(|status| &**status).collect()
}

#[test]
fn a_previous_translation_changes_nothing_but_the_work() {
    let pool = pool();
    let settings = Settings::default();
    for seed in 1..=40 {
        let mut dice = Dice::new(seed);
        let mut view = ClusterView::default();
        (0..80).for_each(|_| edit(&mut view, &pool, &mut dice));
        let mut previous = translate(&view, &settings, None);
        for step in 0..30 {
            (0..=dice.roll(3)).for_each(|_| edit(&mut view, &pool, &mut dice));
            let next = translate(&view, &settings, Some(&previous));
            let fresh = translate(&view, &settings, None);
            let at = format!("seed {seed} step {step}");
            assert_eq!(next.snapshot(), fresh.snapshot(), "{at}");
            assert_eq!(statuses(&next), statuses(&fresh), "{at}");
            previous = next;
        }
    }
}

#[test]
fn a_translation_with_other_settings_starts_afresh() {
    let pool = pool();
    let ports = shim::translate::PortMap {
        privileged_offset: 8000,
        ..Default::default()
    };
    let shifted = Settings {
        ports,
        ..Settings::default()
    };
    let mut differ = 0;
    for seed in 1..=8 {
        let mut dice = Dice::new(seed);
        let mut view = ClusterView::default();
        (0..200).for_each(|_| edit(&mut view, &pool, &mut dice));
        let previous = translate(&view, &Settings::default(), None);
        let next = translate(&view, &shifted, Some(&previous));
        assert_eq!(next.snapshot(), translate(&view, &shifted, None).snapshot());
        differ += usize::from(next.snapshot() != previous.snapshot());
    }
    assert!(differ > 0, "no seed gives a listener");
}

#[test]
fn a_snapshot_always_decodes() {
    let pool = pool();
    let (mut served, mut secured) = (0, 0);
    for seed in 1..=48 {
        let mut dice = Dice::new(seed);
        let mut view = ClusterView::default();
        for _ in 0..200 {
            edit(&mut view, &pool, &mut dice);
            let translation = translate(&view, &Settings::default(), None);
            let mut snapshot = translation.snapshot().clone();
            snapshot.version = ir::Version::new("1");
            served += snapshot.http_routes.len() + snapshot.grpc_routes.len();
            let clusters = snapshot.clusters.iter();
            secured += clusters.filter(|cluster| cluster.tls.is_some()).count();
            let decoded = ir::decode::snapshot(ir::encode::snapshot(&snapshot));
            assert_eq!(decoded.as_ref(), Ok(&snapshot));
        }
    }
    assert!(
        served > 300 && secured > 30,
        "there is little to decode: {served} {secured}"
    );
}
