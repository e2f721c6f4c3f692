//! The keys of traces: where the collector is, and which traces are recorded.

use std::sync::Arc;

use dataplane_telemetry::otlp::{Collector, Protocol};
use dataplane_telemetry::trace::Settings;
use dataplane_telemetry::trace_context::Forms;

use super::to_usize;
use crate::bootstrap::keys as key;
use crate::bootstrap::written::Written;

/// How traces are made, if they are.
pub(super) fn settings(written: &mut Written, node_id: &str) -> Option<Settings> {
    if !written.flag(&key::TRACES_ENABLED) {
        return None;
    }
    let collector = collector(written, node_id);
    Some(Settings {
        collector,
        sample_ratio: written.share(&key::TRACES_RATIO),
        parent_based: written.flag(&key::TRACES_PARENT),
        forms: forms(written),
        queue_spans: to_usize(written.number(&key::TRACES_QUEUE)),
        counts: Arc::default(),
    })
}

/// The collector that traces, and perhaps lines of the access log, are sent to.
pub(super) fn collector(written: &mut Written, node_id: &str) -> Collector {
    Collector {
        endpoint: endpoint(written),
        protocol: match written.text(&key::TRACES_PROTOCOL).as_deref() {
            Some("http") => Protocol::Http,
            _ => Protocol::Grpc,
        },
        authorities: written.text(&key::TRACES_CA).unwrap_or_default().into(),
        timeout: written.duration(&key::TRACES_TIMEOUT),
        service_name: written.text(&key::TRACES_NAME).unwrap_or_default(),
        service_namespace: written.text(&key::TRACES_NAMESPACE).unwrap_or_default(),
        instance: node_id.to_owned(),
    }
}

/// The collector's address, with a scheme.
fn endpoint(written: &mut Written) -> String {
    let endpoint = written.text(&key::TRACES_ENDPOINT).unwrap_or_default();
    let is_insecure = written.flag(&key::TRACES_INSECURE);
    let fault = match endpoint.split_once("://") {
        _ if endpoint.is_empty() => "is required; write it as http://collector:4317",
        Some(("http" | "https", host)) if !host.is_empty() => return endpoint,
        None if is_insecure => return format!("http://{endpoint}"),
        None => return format!("https://{endpoint}"),
        Some(_) => "expected http://host:port or https://host:port",
    };
    written.fault(key::TRACES_ENDPOINT.name, fault);
    endpoint
}

fn forms(written: &mut Written) -> Forms {
    let text = written.text(&key::TRACES_FORMS).unwrap_or_default();
    let mut forms = Forms::default();
    let mut unknown = None;
    for word in text
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        match word {
            "w3c" => forms.w3c = true,
            "b3" => forms.b3 = true,
            "b3multi" => forms.b3_multi = true,
            other => unknown = Some(other.to_owned()),
        }
    }
    if let Some(other) = unknown {
        let message = format!("expected w3c, b3 and b3multi with commas, found {other:?}");
        written.fault(key::TRACES_FORMS.name, message);
    }
    forms
}
