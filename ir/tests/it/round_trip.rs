//! The law `decode(encode(x)) == x`, for snapshots and for deltas, through real bytes.

use ir::{decode, delta, encode, wire};
use proptest::prelude::*;
use prost::Message;

use crate::arbitrary;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_snapshot_survives_the_wire(snapshot in arbitrary::snapshot("v1")) {
        let bytes = encode::snapshot(&snapshot).encode_to_vec();
        let message = wire::ConfigSnapshot::decode(bytes.as_slice()).unwrap();
        let decoded = decode::snapshot(message).map_err(|v| TestCaseError::fail(v.to_string()))?;
        prop_assert_eq!(decoded, snapshot);
    }

    #[test]
    fn a_delta_survives_the_wire(
        old in arbitrary::snapshot("v1"),
        new in arbitrary::snapshot("v2"),
    ) {
        let delta = delta::diff(&old, &new);
        let bytes = encode::delta(&delta).encode_to_vec();
        let message = wire::SnapshotDelta::decode(bytes.as_slice()).unwrap();
        let decoded = decode::delta(message).map_err(|v| TestCaseError::fail(v.to_string()))?;
        prop_assert_eq!(decoded, delta);
    }

    #[test]
    fn single_resources_survive_the_wire(snapshot in arbitrary::snapshot("v1")) {
        for listener in snapshot.listeners.iter() {
            prop_assert_eq!(&decode::listener(encode::listener(listener)).unwrap(), &**listener);
        }
        for route in snapshot.http_routes.iter() {
            prop_assert_eq!(&decode::http_route(encode::http_route(route)).unwrap(), &**route);
        }
        for route in snapshot.grpc_routes.iter() {
            prop_assert_eq!(&decode::grpc_route(encode::grpc_route(route)).unwrap(), &**route);
        }
        for route in snapshot.stream_routes.iter() {
            prop_assert_eq!(&decode::stream_route(encode::stream_route(route)).unwrap(), &**route);
        }
        for cluster in snapshot.clusters.iter() {
            prop_assert_eq!(&decode::cluster(encode::cluster(cluster)).unwrap(), &**cluster);
        }
        for secret in snapshot.secrets.iter() {
            prop_assert_eq!(&decode::secret(encode::secret(secret)).unwrap(), &**secret);
        }
    }
}
