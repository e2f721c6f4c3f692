//! A snapshot from the control plane. Laws: it is refused with reasons or understood; what is understood
//! is encoded to what decodes the same, compiles or is refused, and a delta from one to another leads there.

#![no_main]

use std::sync::{Arc, LazyLock};

use dataplane_config::{RuntimeConfig, compile};
use dataplane_telemetry::metrics::Metrics;
use ir::{Snapshot, decode, delta, encode, wire};
use libfuzzer_sys::fuzz_target;
use prost::Message;

static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(Metrics::new);

// Two messages, the length of the first in two bytes before them.
fuzz_target!(|input: &[u8]| {
    let Some((length, input)) = input.split_first_chunk::<2>() else {
        return;
    };
    let first = usize::from(u16::from_be_bytes(*length)).min(input.len());
    let read = |bytes: &[u8]| {
        let message = wire::ConfigSnapshot::decode(bytes).ok()?;
        match decode::snapshot(message) {
            Ok(snapshot) => Some(snapshot),
            Err(violations) => {
                assert!(!violations.to_string().is_empty());
                None
            }
        }
    };
    let Some(old) = read(&input[..first]) else {
        return;
    };
    check(&old);
    let Some(new) = read(&input[first..]) else {
        return;
    };
    let difference = delta::diff(&old, &new);
    let arrived = delta::apply(&old, &difference).expect("a delta of two sound snapshots");
    assert_eq!(arrived, new);
    if let Ok(before) = compile(old, &RuntimeConfig::default(), &METRICS) {
        let changed = compile(new.clone(), &before, &METRICS);
        let fresh = compile(new, &RuntimeConfig::default(), &METRICS);
        assert_eq!(changed.is_ok(), fresh.is_ok());
    }
});

fn check(snapshot: &Snapshot) {
    let again = decode::snapshot(encode::snapshot(snapshot)).expect("what we write we accept");
    assert_eq!(&again, snapshot);
    let _ = compile(again, &RuntimeConfig::default(), &METRICS);
}
