//! Snapshots in text form decode to exactly what lies beside them.
//!
//! `UPDATE_GOLDEN=1` writes the expected files anew; the difference is then for review.

use std::fmt::Write as _;
use std::path::Path;

use ir::{decode, encode};

use crate::text;

fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden");
    let source = std::fs::read_to_string(folder.join(format!("{name}.textproto"))).unwrap();
    let (snapshot, notices) = decode::snapshot_with_notices(text::snapshot(&source))
        .unwrap_or_else(|violations| panic!("{name}: {violations}"));

    let mut found = String::new();
    for notice in notices.iter() {
        writeln!(found, "notice: {notice}").unwrap();
    }
    writeln!(found, "{snapshot:#?}").unwrap();
    let [a, b] = text::pairs();
    for (pem, placeholder) in [(&a.certificate, "@CERT_A@"), (&b.certificate, "@CERT_B@")] {
        let shown = format!("{:?}", pem.replace("\r\n", "\n"));
        found = found.replace(&shown, placeholder);
    }

    let expected_path = folder.join(format!("{name}.expected"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&expected_path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
    let difference = expected.lines().zip(found.lines()).find(|(e, f)| e != f);
    assert!(
        expected == found,
        "{name}: {difference:?}; rerun with UPDATE_GOLDEN=1 and review the difference"
    );
    let again = decode::snapshot(encode::snapshot(&snapshot)).unwrap();
    assert!(again == snapshot, "{name}: decode(encode(x)) is not x");
}

#[test]
fn a_snapshot_with_every_field_keeps_every_field() {
    check("every_field");
}

#[test]
fn routes_of_the_shared_contract_are_attached_by_parent_and_kind() {
    check("contract_only");
}

#[test]
fn every_spelling_is_understood() {
    check("spellings");
}

#[test]
fn values_of_newer_generations_are_noticed_and_never_refused() {
    check("newer_generation");
}
