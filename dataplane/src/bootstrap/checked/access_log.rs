//! The keys of the access log: where lines go, and what they look like.

use std::sync::Arc;

use dataplane_telemetry::access_log::{Rotation, Settings, Sink, Style, Template};

use super::{to_usize, traces};
use crate::bootstrap::keys as key;
use crate::bootstrap::written::Written;

/// How the access log is kept, if it is.
pub(super) fn settings(written: &mut Written, node_id: &str) -> Option<Settings> {
    if !written.flag(&key::ACCESS_ENABLED) {
        return None;
    }
    Some(Settings {
        sink: sink(written, node_id),
        style: style(written),
        rotation: Rotation {
            file_bytes_max: written.number(&key::ACCESS_FILE_BYTES),
            files_max: u32::try_from(written.number(&key::ACCESS_FILES)).unwrap_or(u32::MAX),
        },
        sample_rate: written.share(&key::ACCESS_RATE),
        queue_bytes: to_usize(written.number(&key::ACCESS_QUEUE)),
        counts: Arc::default(),
    })
}

fn sink(written: &mut Written, node_id: &str) -> Sink {
    let path = written.text(&key::ACCESS_PATH).unwrap_or_default();
    match path.as_str() {
        "stdout" => Sink::Stdout,
        "otlp" => Sink::Otlp(traces::collector(written, node_id)),
        "" => {
            let message = "names no file; write a path or stdout, or accessLog.enabled: false";
            written.fault(key::ACCESS_PATH.name, message);
            Sink::Stdout
        }
        path => Sink::File(path.into()),
    }
}

/// What a line looks like. A format is read though lines are JSON, so that a fault in it is not found
/// on the day when they are not.
fn style(written: &mut Written) -> Style {
    let mut chosen = written.text(&key::ACCESS_FORMAT);
    let mut place = key::ACCESS_FORMAT.name.to_owned();
    let mut formats = written.texts(&key::ACCESS_FORMATS);
    if let Some(name) = written.text(&key::ACCESS_FORMAT_NAME) {
        place = format!("{}.{name}", key::ACCESS_FORMATS.name);
        chosen = formats.remove(&name);
        if chosen.is_none() {
            let message = format!("accessLog.formats has no {name:?}");
            written.fault(key::ACCESS_FORMAT_NAME.name, message);
        }
    }
    for (name, format) in formats {
        if let Err(error) = Template::parse(&format) {
            let place = format!("{}.{name}", key::ACCESS_FORMATS.name);
            written.fault(place, error.to_string());
        }
    }
    let template = match chosen.as_deref().map(Template::parse) {
        None => Template::default(),
        Some(Ok(template)) => template,
        Some(Err(error)) => {
            written.fault(place, error.to_string());
            Template::default()
        }
    };
    match written.text(&key::ACCESS_MODE).as_deref() {
        Some("text") => Style::Text(Arc::new(template)),
        _ => Style::Json,
    }
}
