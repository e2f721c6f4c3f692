//! Tests of the settings file.

use super::*;

/// The table as the YAML file it describes.
fn table_as_yaml() -> String {
    let mut yaml = String::new();
    let mut section = "";
    for (key, default, _) in KEYS {
        match key.split_once('.') {
            Some((head, tail)) => {
                if head != section {
                    yaml.push_str(&format!("{head}:\n"));
                    section = head;
                }
                yaml.push_str(&format!("  {tail}: {default}\n"));
            }
            None => yaml.push_str(&format!("{key}: {default}\n")),
        }
    }
    yaml
}

#[test]
fn the_table_names_every_key_with_its_default() {
    let from_table = Settings::parse(&table_as_yaml()).unwrap();
    assert_eq!(
        format!("{from_table:?}"),
        format!("{:?}", Settings::default())
    );
}

#[test]
fn an_empty_file_means_defaults() {
    let parsed = Settings::parse("  \n").unwrap();
    assert_eq!(format!("{parsed:?}"), format!("{:?}", Settings::default()));
}

#[test]
fn bad_settings_are_refused_with_what_to_do() {
    let rows = [
        (
            "grpcRuntime: {keepalivTime: 5s}",
            "did you mean `grpcRuntime.keepaliveTime`",
        ),
        ("grpcRuntim: {}", "did you mean `grpcRuntime`"),
        ("zzz: 1", "unknown settings: `zzz`"),
        ("grpcRuntime: {keepaliveTime: 5}", "is not a duration"),
        ("grpcRuntime: {keepaliveTime: 0s}", "at least 1ms"),
        (
            "grpcRuntime: {snapshotAckTimeout: []}",
            "grpcRuntime.snapshotAckTimeout",
        ),
        ("grpcAddr: nowhere", "is not an address"),
        ("grpcTLS: {enabled: true}", "grpcTLS.certPath"),
        (
            "grpcTLS: {enabled: true, certPath: a, keyPath: b, requireClientCert: true}",
            "grpcTLS.clientCAPath",
        ),
        ("adminTLS: {enabled: true, certPath: a}", "adminTLS.keyPath"),
        (
            "adminTLS: {enabled: true, certPath: a, keyPath: b, requireClientCert: true}",
            "adminTLS.clientCAPath: is empty, but adminTLS.requireClientCert",
        ),
        (
            "grpcRuntime: {initialWindowSize: 2147483648}",
            "above 2147483647",
        ),
        (
            "adminAuth: {bearerToken: a, bearerTokenFile: b}",
            "not both",
        ),
        ("historySize: 100000", "above 10000"),
        ("quarantine: {retryAfter: 500ms}", "below 1s"),
        (
            "leaderElection: {leaseDuration: 3900ms, renewDeadline: 3500ms}",
            "leaseDuration in whole seconds",
        ),
        (
            "leaderElection: {renewDeadline: 2s, retryPeriod: 2s}",
            "retryPeriod < renewDeadline",
        ),
        ("leaderElection: {leaseDuration: 900ms}", "leaderElection"),
        (
            "{addresses: {strategy: service, lastPort: 20000}, mesh: {enabled: true}}",
            "overlaps with 20000 to 29999 of mesh.firstPort",
        ),
        ("- a list", "malformed"),
    ];
    for (yaml, expected) in rows {
        let message = Settings::parse(yaml).unwrap_err().to_string();
        assert!(message.contains(expected), "for {yaml:?}: {message}");
    }
}

#[test]
fn an_admin_address_open_to_others_needs_a_token() {
    let open = Settings::parse("adminAddr: ':8081'").unwrap();
    assert!(open.check_admin().is_err());
    let guarded = Settings::parse("{adminAddr: ':8081', adminAuth: {bearerToken: t}}").unwrap();
    assert!(guarded.check_admin().is_ok());
    assert!(Settings::default().check_admin().is_ok());
}

#[test]
fn a_token_is_not_in_debug_output() {
    let settings = Settings::parse("adminAuth: {bearerToken: canary-token}").unwrap();
    assert!(!format!("{settings:?}").contains("canary"));
}
