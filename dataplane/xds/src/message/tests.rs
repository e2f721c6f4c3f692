//! What is said and what is understood, with hostile lengths.

use super::*;

fn node() -> Node {
    Node {
        id: "node-1".to_owned(),
        cluster: "edge".to_owned(),
    }
}

fn full(id: &str, version: &str) -> wire::DiscoveryResponse {
    wire::DiscoveryResponse {
        version: version.to_owned(),
        nonce: "n".to_owned(),
        snapshot: Some(wire::ConfigSnapshot {
            id: id.to_owned(),
            ..wire::ConfigSnapshot::default()
        }),
        ..wire::DiscoveryResponse::default()
    }
}

fn delta(base: &str, inner: &str, outer: &str) -> wire::DiscoveryResponse {
    wire::DiscoveryResponse {
        version: outer.to_owned(),
        delta: Some(wire::SnapshotDelta {
            base_version: base.to_owned(),
            version: inner.to_owned(),
            ..wire::SnapshotDelta::default()
        }),
        ..wire::DiscoveryResponse::default()
    }
}

fn content(response: wire::DiscoveryResponse) -> Content<Update> {
    match read(response) {
        Response::Push(push) => push.content,
        Response::Heartbeat => panic!("a heartbeat"),
    }
}

#[test]
fn an_empty_response_is_a_heartbeat_even_with_a_version() {
    let response = wire::DiscoveryResponse {
        version: "7".to_owned(),
        ..wire::DiscoveryResponse::default()
    };
    assert!(matches!(read(response), Response::Heartbeat));
}

#[test]
fn the_version_inside_wins_over_the_one_beside() {
    let longest = "v".repeat(NAME_BYTES_MAX);
    let long = "v".repeat(NAME_BYTES_MAX + 1);
    let rows = [
        (longest.as_str(), "8", Some(longest.as_str())),
        ("7", "8", Some("7")),
        ("", "8", Some("8")),
        ("  ", "8", Some("8")),
        ("", " ", None),
        (long.as_str(), "8", None),
    ];
    for (inner, outer, expected) in rows {
        for content in [
            content(full(inner, outer)),
            content(delta("1", inner, outer)),
        ] {
            let found = match &content {
                Content::Full {
                    version,
                    update: Update::Full(snapshot),
                } => {
                    assert_eq!(snapshot.id, version.as_str());
                    Some(version.as_str())
                }
                Content::Delta {
                    version,
                    update: Update::Delta(delta),
                    ..
                } => {
                    assert_eq!(delta.version, version.as_str());
                    Some(version.as_str())
                }
                _ => None,
            };
            assert_eq!(found, expected, "{inner:?} beside {outer:?}");
        }
    }
}

#[test]
fn a_delta_without_a_usable_base_fits_nothing() {
    let name = |bytes| "v".repeat(bytes);
    let (longest, too_long) = (name(NAME_BYTES_MAX), name(NAME_BYTES_MAX + 1));
    let rows = [
        ("", None),
        ("1", Some("1")),
        (longest.as_str(), Some(longest.as_str())),
        (too_long.as_str(), None),
    ];
    for (sent, expected) in rows {
        let Content::Delta { base, .. } = content(delta(sent, "2", "")) else {
            panic!("not a delta");
        };
        assert_eq!(base.as_ref().map(Version::as_str), expected, "{sent:?}");
    }
}

#[test]
fn a_snapshot_beside_a_delta_wins() {
    let mut both = full("2", "");
    both.delta = delta("1", "2", "").delta;
    assert!(matches!(content(both), Content::Full { .. }));
}

#[test]
fn an_oversized_nonce_is_cut_and_the_update_refused() {
    let mut response = full("2", "");
    response.nonce = "n".repeat(10_000);
    let Response::Push(push) = read(response) else {
        panic!("a heartbeat");
    };
    assert_eq!(push.nonce.len(), NAME_BYTES_MAX);
    assert!(matches!(push.content, Content::Unusable { .. }));
}

#[test]
fn type_versions_are_bounded() {
    let mut response = full("2", "");
    response.type_versions = (0..1000).map(|n| (n.to_string(), "v".to_owned())).collect();
    response
        .type_versions
        .insert("0".to_owned(), "v".repeat(NAME_BYTES_MAX + 1));
    let Response::Push(push) = read(response) else {
        panic!("a heartbeat");
    };
    assert_eq!(push.type_versions.len(), TYPES_MAX);
    assert!(!push.type_versions.contains_key("0"));
}

#[test]
fn the_opening_request_tells_everything_about_the_node() {
    let types = BTreeMap::from([("t".to_owned(), "1".to_owned())]);
    let request = node().hello(Some(&Version::new("7")), &types);
    assert_eq!(request.node_id, "node-1");
    assert_eq!(request.cluster, "edge");
    assert_eq!(request.version, "7");
    assert_eq!(request.subscriptions, ["*"]);
    assert_eq!(request.supported_features.len(), 5);
    assert!(request.accepts_delta);
    assert_eq!(request.type_versions, types);
    assert_eq!(request.result_status, 0);
    let anew = node().hello(None, &types);
    assert!(anew.version.is_empty() && anew.type_versions.is_empty());
}

#[test]
fn a_refusal_carries_the_refused_version_and_stays_small() {
    let violation = ir::Violation {
        object: "HTTPRoute a/b".to_owned(),
        path: "rules[0]".to_owned(),
        message: "ä".repeat(4000),
    };
    let rejection = Rejection {
        reason: "é".repeat(100_000),
        violations: vec![violation; 1000],
        resync: false,
    };
    let request = node().nack(Some(&Version::new("9")), "n9".to_owned(), &rejection);
    assert_eq!(
        (request.version.as_str(), request.nonce.as_str()),
        ("9", "n9")
    );
    assert_eq!(request.result_status, 2);
    assert!(request.error_detail.len() <= REASON_BYTES_MAX);
    assert_eq!(request.violations.len(), VIOLATIONS_MAX);
    assert!(request.violations[0].message.len() <= VIOLATION_BYTES_MAX);
    assert_eq!(request.violations[0].object, "HTTPRoute a/b");
}

#[test]
fn a_periodic_report_has_no_version() {
    let standing = Standing {
        version: None,
        ready: true,
        message: "snapshot applied".to_owned(),
    };
    let detail = Detail {
        http_routes: 3,
        ..Detail::default()
    };
    let report = node().status_report(&standing, Some(detail), SystemTime::UNIX_EPOCH);
    assert!(report.version.is_empty() && report.ready);
    assert_eq!(report.detail.unwrap().http_routes, 3);
    assert_eq!(report.observed_at.unwrap().seconds, 0);
}
