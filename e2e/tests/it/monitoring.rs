//! Dashboards and alerts of the chart against a real Prometheus (`e2e/monitoring/run`).

use crate::ai::{binary, cannot_be_tried, run, said};

#[test]
fn every_panel_is_answered_and_every_alert_is_tested() {
    let binaries = binary();
    let binaries = binaries.parent().and_then(|it| it.to_str()).unwrap();
    let output = run("e2e/monitoring/run", &["--binaries", binaries]);
    if cannot_be_tried(&output, "e2e/monitoring") {
        return;
    }
    assert!(output.status.success(), "{}", said(&output));
}
