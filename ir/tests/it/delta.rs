//! Deltas: their law, what they refuse, and the versions that go with them.

use std::sync::Arc;

use ir::delta::{Delta, Edits, apply, diff};
use ir::{ContentHash, Snapshot, TypeVersions, Version, content_hash, decode, encode};
use proptest::prelude::*;
use prost::Message as _;

use crate::{arbitrary, text};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_the_difference_gives_the_new_snapshot(
        old in arbitrary::snapshot("v1"),
        new in arbitrary::snapshot("v2"),
    ) {
        let delta = diff(&old, &new);
        let versions = TypeVersions::of(&old).after(&old, &delta);
        prop_assert_eq!(versions, TypeVersions::of(&new), "versions by change differ from scratch");
        let applied = apply(&old, &delta).map_err(|v| TestCaseError::fail(v.to_string()))?;
        prop_assert_eq!(&applied, &new);
        prop_assert!(diff(&applied, &new).is_empty());
    }

    #[test]
    fn growth_adds_up_and_is_never_less_than_what_is_sent(
        old in arbitrary::snapshot("v1"),
        new in arbitrary::snapshot("v1"),
    ) {
        let bare = |snapshot: &Snapshot| Snapshot {
            version: snapshot.version.clone(),
            generated_at: snapshot.generated_at,
            workloads: snapshot.workloads.clone(),
            required_features: snapshot.required_features.clone(),
            compatibility_profile: snapshot.compatibility_profile.clone(),
            traceparent: snapshot.traceparent.clone(),
            ..Snapshot::default()
        };
        let sent = |snapshot: &Snapshot| i64::try_from(encode::snapshot(snapshot).encoded_len()).unwrap();
        let nothing = Snapshot::default();
        let (first, both) = (encode::growth(&nothing, &old), encode::growth(&nothing, &new));
        prop_assert_eq!(first + encode::growth(&old, &new), both);
        let resources = sent(&new) - sent(&bare(&new));
        prop_assert!(both >= resources, "{} of {}", both, resources);
        prop_assert!(both <= resources * 2 + 64, "{} of {}", both, resources);
    }

    #[test]
    fn nothing_differs_from_itself(snapshot in arbitrary::snapshot("v1")) {
        let delta = diff(&snapshot, &snapshot);
        prop_assert!(delta.is_empty());
        prop_assert_eq!(delta.workloads, None);
    }

    #[test]
    fn a_delta_for_another_base_changes_nothing(
        old in arbitrary::snapshot("v1"),
        new in arbitrary::snapshot("v2"),
    ) {
        let delta = diff(&new, &old);
        let violations = apply(&old, &delta).unwrap_err();
        prop_assert!(violations.to_string().contains("applies to version v2, but v1 is held"));
    }
}

const BASE: &str = r#"
    id: "v1"
    listeners { name: "a/gw/1" port: 1 protocol: LISTENER_HTTPS tls { secret_refs: "a/s" } }
    listeners { name: "a/gw/2" port: 2 protocol: LISTENER_HTTP }
    listeners { name: "a/gw/3" port: 3 protocol: LISTENER_HTTP wasm_plugins: "a/w" }
    wasm_plugins { namespace: "a" name: "w" wasm_bytes: "x" }
    http_routes { name: "r" namespace: "a" }
    secrets { namespace: "a" name: "s" cert_pem: "@CERT_A@" key_pem: "@KEY_A@" }
"#;

fn base() -> Snapshot {
    decode::snapshot(text::snapshot(BASE)).unwrap()
}

fn refusal(change: &str) -> String {
    let text = format!("base_version: \"v1\" version: \"v2\" {change}");
    let delta = decode::delta(text::delta(&text)).unwrap();
    apply(&base(), &delta).unwrap_err().to_string()
}

#[test]
fn rules_between_objects_hold_after_a_delta() {
    let table = [
        (
            r#"removed_secrets: "a/s""#,
            "Listener a/gw/1: tls.secret_refs[0]: secret a/s is not in the snapshot",
        ),
        (
            r#"secrets { namespace: "a" name: "s" htpasswd: "x" }"#,
            "Listener a/gw/1: tls.secret_refs[0]: secret a/s holds no certificate",
        ),
        (
            r#"listeners { name: "a/gw/4" port: 2 protocol: LISTENER_TCP }"#,
            "Listener a/gw/4: protocol: cannot share 0.0.0.0 port 2 with listener a/gw/2",
        ),
        (
            r#"listeners { name: "a/gw/4" port: 2 protocol: LISTENER_HTTP }"#,
            "Listener a/gw/4: hostnames: \"*\" on 0.0.0.0 port 2 is also served by listener a/gw/2",
        ),
        (
            r#"removed_wasm_plugins: "a/w""#,
            "Listener a/gw/3: wasm_plugins[0]: plugin a/w is not in the snapshot",
        ),
        (
            r#"http_routes { name: "q" namespace: "a" rules { wasm_plugins: "a/x" } }"#,
            "HTTPRoute a/q: rules[0].wasm_plugins[0]: plugin a/x is not in the snapshot",
        ),
        (
            r#"listeners { name: "a/gw/1" port: 1 protocol: LISTENER_TLS tls { secret_refs: "a/t" } }"#,
            "Listener a/gw/1: tls.secret_refs[0]: secret a/t is not in the snapshot",
        ),
    ];
    for (change, expected) in table {
        let found = refusal(change);
        assert!(found.starts_with(expected), "{change}: {found}");
    }
}

#[test]
fn removing_what_is_not_there_is_no_fault() {
    let base = base();
    let delta = Delta {
        base: base.version.clone(),
        version: Version::new("v2"),
        stream_routes: Edits {
            upserted: Vec::new(),
            removed: vec![Arc::from("tcp/a/r")],
        },
        ..Delta::default()
    };
    assert_eq!(delta.len(), 1);
    assert!(apply(&base, &delta).is_ok());
}

#[test]
fn what_a_delta_does_not_touch_is_shared() {
    let base = base();
    let text = r#"base_version: "v1" version: "v2" http_routes { name: "t" namespace: "a" }"#;
    let next = apply(&base, &decode::delta(text::delta(text)).unwrap()).unwrap();
    assert_eq!(next.http_routes.len(), 2);
    assert!(next.listeners.is_same(&base.listeners));
    let (old, new) = (base.http_routes.get("a/r"), next.http_routes.get("a/r"));
    assert!(Arc::ptr_eq(old.unwrap(), new.unwrap()));
}

#[test]
fn type_versions_are_named_by_url_and_tell_content_apart() {
    let base = base();
    let versions = content_hash::type_versions(&base);
    let urls: Vec<&str> = versions.keys().map(String::as_str).collect();
    let mut expected = content_hash::TYPE_URLS;
    expected.sort_unstable();
    assert_eq!(urls, expected);
    let of_nothing = content_hash::type_versions(&Snapshot::default());
    assert_eq!(
        of_nothing.len(),
        6,
        "plugins are told of where there are some"
    );
    assert!(versions.values().all(|version| version.len() == 32));

    let route = base.http_routes.get("a/r").unwrap();
    let mut changed = (**route).clone();
    assert_eq!(ContentHash::of(&changed), ContentHash::of(&**route));
    changed.labels.insert("a".to_owned(), "b".to_owned());
    assert_ne!(ContentHash::of(&changed), ContentHash::of(&**route));
    let hash = ContentHash::of(&changed);
    assert_eq!(format!("{hash}"), format!("{hash:?}"));
}
