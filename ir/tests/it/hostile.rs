//! Bytes from a peer that is broken or worse: refused or read, never a panic.

use ir::{decode, encode, wire};
use proptest::prelude::*;
use prost::Message;

use crate::text;

/// A real snapshot, as bytes.
fn real() -> Vec<u8> {
    let text = include_str!("../data/golden/every_field.textproto");
    text::snapshot(text).encode_to_vec()
}

/// Whatever the bytes are: if they are a message, it decodes to a value that keeps the law, or is
/// refused with at least one reason.
fn digest(bytes: &[u8]) {
    if let Ok(message) = wire::ConfigSnapshot::decode(bytes) {
        match decode::snapshot(message) {
            Ok(snapshot) => {
                assert_eq!(decode::snapshot(encode::snapshot(&snapshot)), Ok(snapshot));
            }
            Err(violations) => assert!(!violations.is_empty()),
        }
    }
    if let Ok(message) = wire::SnapshotDelta::decode(bytes) {
        let _ = decode::delta(message);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        digest(&bytes);
    }

    #[test]
    fn flipped_bits_do_no_harm(flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..6)) {
        let mut bytes = real();
        for (index, bit) in flips {
            let index = index.index(bytes.len());
            bytes[index] ^= 1 << bit;
        }
        digest(&bytes);
    }

    #[test]
    fn spliced_bytes_do_no_harm(
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        noise in proptest::collection::vec(any::<u8>(), 0..32),
    ) {
        let mut bytes = real();
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        bytes.splice(from.min(to)..from.max(to), noise);
        digest(&bytes);
    }
}

#[test]
fn truncated_bytes_do_no_harm() {
    let bytes = real();
    for end in (0..bytes.len()).step_by(23) {
        digest(&bytes[..end]);
    }
}

#[test]
fn a_flood_of_faults_is_bounded() {
    let route = wire::HttpRoute {
        name: "x".repeat(100_000),
        namespace: "a".to_owned(),
        hostnames: vec!["not a name".repeat(1000); 2000],
        ..wire::HttpRoute::default()
    };
    let violations = decode::http_route(route).unwrap_err();
    assert_eq!(violations.len(), 2000);
    assert!(violations.to_string().len() < 512 * 1024);
}

#[test]
fn repeated_names_take_no_square_time() {
    let headers = (0..100_000).map(|n| wire::HeaderMatch {
        name: format!("x-{n}"),
        ..wire::HeaderMatch::default()
    });
    let matches = vec![wire::HttpMatch {
        headers: headers.collect(),
        ..wire::HttpMatch::default()
    }];
    let route = wire::HttpRoute {
        name: "r".to_owned(),
        namespace: "a".to_owned(),
        attached_listeners: (0..100_000)
            .map(|n| format!("a/gw/{}", n % 50_000))
            .collect(),
        hostnames: (0..100_000).map(|n| format!("h{n}.example.com")).collect(),
        rules: vec![wire::HttpRule {
            matches,
            ..wire::HttpRule::default()
        }],
        ..wire::HttpRoute::default()
    };
    let route = decode::http_route(route).unwrap();
    assert_eq!(route.listeners.len(), 50_000);
}
