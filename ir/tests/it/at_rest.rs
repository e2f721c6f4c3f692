//! What may lie on a disk holds nothing secret, and what is left is a sound snapshot.

use ir::at_rest::{self, AtRestError, Bare};
use ir::{Filter, decode};
use proptest::prelude::*;

use crate::{arbitrary, text};

const CANARY: &str = "canary-51d0";

/// Every place a secret can be in, beside one of each kind that holds none.
fn planted() -> ir::Snapshot {
    let message = text::snapshot(&format!(
        r#"
        id: "v1"
        listeners {{ name: "a/gw/plain" port: 80 protocol: LISTENER_HTTP }}
        secrets {{ namespace: "a" name: "tls" cert_pem: "@CERT_A@" key_pem: "@KEY_A@" htpasswd: "{CANARY}" oidc_client_secret: "{CANARY}" }}
        backends {{ name: "b:80" namespace: "a" protocol: "TCP" }}
        backends {{ name: "w:80" namespace: "a" protocol: "TCP" wasm_plugin {{ name: "w" namespace: "a" wasm_bytes: "x" config_json: "{CANARY}" }} }}
    "#
    ));
    decode::snapshot(message).unwrap()
}

#[test]
fn planted_secrets_are_not_in_the_bytes() {
    let mut snapshot = planted();
    let plain = snapshot.listeners.get("a/gw/plain").unwrap().clone();
    let mut secure = (*plain).clone();
    secure.name = "a/gw/secure".into();
    secure.protocol = ir::listener::ListenerProtocol::Https;
    secure.tls = Some(ir::listener::ListenerTls {
        passthrough: false,
        certificate_refs: vec!["a/tls".into()],
        sni_hosts: Vec::new(),
        min_version: ir::listener::TlsVersion::V1_2,
        max_version: ir::listener::TlsVersion::V1_3,
        client_validation: None,
    });
    snapshot.listeners.insert(secure);
    let mut guarded = (*plain).clone();
    guarded.name = "a/gw/guarded".into();
    guarded.hostnames = vec![ir::Hostname::new("a.test").unwrap()];
    guarded.plugins = vec!["a/w".into()];
    snapshot.listeners.insert(guarded);
    let route = |key: &str, field: &str| ir::HttpRoute {
        key: key.into(),
        hostnames: Vec::new(),
        listeners: vec!["a/gw/plain".into()],
        parent_refs: Vec::new(),
        rules: vec![ir::http_route::HttpRule {
            name: None,
            matches: vec![ir::http_route::HttpMatch {
                path: ir::http_route::PathMatch::Prefix("/".to_owned()),
                method: None,
                headers: Vec::new(),
                query_params: Vec::new(),
            }],
            filters: vec![Filter::RequestHeaders(ir::filter::HeaderEdit {
                set: vec![(field.to_owned(), format!("Bearer {CANARY}"))],
                ..ir::filter::HeaderEdit::default()
            })],
            backends: Vec::new(),
            timeouts: ir::http_route::Timeouts::default(),
            retry: None,
            session_persistence: None,
            plugins: Vec::new(),
        }],
        labels: ir::resource::Metadata::new(),
        annotations: ir::resource::Metadata::new(),
        policy: None,
        security_policy: None,
        created_at: None,
    };
    snapshot
        .http_routes
        .insert(route("a/token", "authorization"));
    let mut open = route("a/open", "x-team");
    open.rules[0].filters.clear();
    snapshot.http_routes.insert(open.clone());

    let bare = at_rest::without_secrets(&snapshot);
    let bytes = at_rest::to_bytes(&bare);
    let seen = String::from_utf8_lossy(&bytes);
    assert!(
        !seen.contains(CANARY) && !seen.contains("PRIVATE KEY"),
        "{seen}"
    );
    assert_eq!(
        bare.withheld,
        [
            "Listener a/gw/guarded",
            "Listener a/gw/secure",
            "HTTPRoute a/token",
            "Cluster a/w:80"
        ]
    );
    let back = at_rest::from_bytes(&bytes).unwrap();
    assert!(back.listeners.get("a/gw/plain").is_some());
    assert!(back.listeners.get("a/gw/secure").is_none());
    let guarded = back.listeners.get("a/gw/guarded").unwrap();
    let policy = guarded.security_policy.as_ref().unwrap();
    assert_eq!(
        (&policy.deny_cidrs[..], guarded.plugins.len()),
        (&["0.0.0.0/0".to_owned(), "::/0".to_owned()][..], 0),
        "its requests are refused and not served by the one for all hosts"
    );
    assert_eq!(**back.http_routes.get("a/open").unwrap(), open);
    let closed = back.http_routes.get("a/token").unwrap();
    assert!(
        matches!(closed.rules[0].filters[..], [Filter::Unsupported { .. }]),
        "its requests get an error and not another route"
    );
}

#[test]
fn what_is_no_snapshot_is_refused() {
    assert_eq!(
        at_rest::from_bytes(b"\xff\xff"),
        Err(AtRestError::Malformed)
    );
    let empty = at_rest::from_bytes(b"");
    assert!(matches!(empty, Err(AtRestError::Invalid(_))), "no version");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_left_is_sound_and_survives_the_disk(snapshot in arbitrary::snapshot("v1")) {
        let bare = at_rest::without_secrets(&snapshot);
        prop_assert!(bare.snapshot.secrets.is_empty());
        let back = at_rest::from_bytes(&at_rest::to_bytes(&bare));
        let back = back.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&back, &bare.snapshot);
        let Bare { withheld, .. } = at_rest::without_secrets(&back);
        prop_assert!(withheld.is_empty(), "{:?}", withheld);
    }
}
