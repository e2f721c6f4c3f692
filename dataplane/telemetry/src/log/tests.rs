//! Tests of the log: what lines say, what a filter lets through, what a full queue costs.

use std::error::Error as _;
use std::sync::mpsc;

use serde_json::Value;
use tracing::{debug, info, warn};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// Keeps what is written.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `events` leave in the log.
fn logged(settings: Settings, events: impl FnOnce(&LogHandle)) -> String {
    let memory = Memory::default();
    let (subscriber, handle) = build(settings, Box::new(memory.clone())).unwrap();
    tracing::subscriber::with_default(subscriber, || events(&handle));
    assert!(handle.stop(PATIENCE));
    memory.text()
}

#[test]
fn json_lines_hold_the_fields_of_the_event() {
    let text = logged(Settings::default(), |_| {
        info!(version = %"v7", listeners = 2, "configuration \"applied\"\n");
    });
    let value: Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(value["level"], "INFO");
    assert_eq!(value["message"], "configuration \"applied\"\n");
    assert_eq!(value["version"], "v7");
    assert_eq!(value["listeners"], 2);
    assert!(value["timestamp"].as_str().unwrap().ends_with('Z'));
    for absent in [
        "target",
        "filename",
        "line_number",
        "threadId",
        "threadName",
    ] {
        assert_eq!(value.get(absent), None, "{absent}");
    }
}

#[test]
fn options_add_source_target_and_thread() {
    let settings = Settings {
        adds_source: true,
        includes_target: true,
        includes_thread_ids: true,
        includes_thread_names: true,
        ..Settings::default()
    };
    let text = logged(settings, |_| info!("x"));
    let value: Value = serde_json::from_str(text.trim_end()).unwrap();
    for present in [
        "target",
        "filename",
        "line_number",
        "threadId",
        "threadName",
    ] {
        assert!(value.get(present).is_some(), "{present} in {value}");
    }
}

#[test]
fn text_is_one_line_without_colours() {
    let settings = Settings {
        format: Format::Text,
        writing: Writing::Direct,
        ..Settings::default()
    };
    let text = logged(settings, |_| warn!(port = 80, "cannot bind"));
    assert!(text.ends_with("WARN cannot bind port=80\n"), "{text:?}");
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn the_filter_works_per_module_and_changes_live() {
    let settings = Settings {
        filter: "info,quiet=warn".to_owned(),
        ..Settings::default()
    };
    let text = logged(settings, |handle| {
        info!("one");
        info!(target: "quiet", "hidden");
        debug!("hidden");
        handle.set_filter("debug").unwrap();
        assert_eq!(handle.filter(), "debug");
        debug!("two");
        let error = handle.set_filter("info,x=loud").unwrap_err();
        assert!(error.to_string().contains("\"info,x=loud\""), "{error}");
        assert!(error.source().is_some());
        assert_eq!(handle.filter(), "debug");
        debug!("three");
    });
    let messages: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["message"].clone())
        .collect();
    assert_eq!(messages, ["one", "two", "three"]);
}

#[test]
fn a_filter_that_cannot_be_read_is_refused_at_start() {
    let settings = Settings {
        filter: "=,=".to_owned(),
        ..Settings::default()
    };
    let result = build(settings, Box::new(Memory::default()));
    assert!(matches!(result, Err(InitError::Filter(_))));
}

/// An output that waits until it is let go on.
struct Stuck {
    gate: mpsc::Receiver<()>,
    memory: Memory,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The other end is gone once everything may pass.
        let _ = self.gate.recv();
        self.memory.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_output_costs_lines_not_time() {
    let (let_go, gate) = mpsc::sync_channel(0);
    let memory = Memory::default();
    let settings = Settings {
        writing: Writing::Queued {
            lines: 10,
            when_full: WhenFull::Drop,
        },
        ..Settings::default()
    };
    let counts = Arc::clone(&settings.counts);
    let output = Stuck {
        gate,
        memory: memory.clone(),
    };
    let (subscriber, handle) = build(settings, Box::new(output)).unwrap();
    tracing::subscriber::with_default(subscriber, || (0..100).for_each(|i| info!(i, "line")));
    assert!(!handle.stop(Duration::from_millis(1)));
    drop(let_go);
    assert!(handle.stop(PATIENCE));
    let kept = memory.text().lines().count();
    assert!((10..=11).contains(&kept), "{kept}");
    assert_eq!(kept as u64 + counts.dropped_lines.value(), 100);
}

#[test]
fn waiting_loses_nothing() {
    let settings = Settings {
        writing: Writing::Queued {
            lines: 1,
            when_full: WhenFull::Wait,
        },
        ..Settings::default()
    };
    let counts = Arc::clone(&settings.counts);
    let text = logged(settings, |_| (0..200).for_each(|i| info!(i, "line")));
    assert_eq!(
        (text.lines().count(), counts.dropped_lines.value()),
        (200, 0)
    );
}

#[test]
fn a_broken_output_is_counted() {
    for writing in [
        Writing::Direct,
        Writing::Queued {
            lines: 100,
            when_full: WhenFull::Drop,
        },
    ] {
        let settings = Settings {
            writing,
            ..Settings::default()
        };
        let counts = Arc::clone(&settings.counts);
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let (subscriber, handle) = build(settings, Box::new(full)).unwrap();
        tracing::subscriber::with_default(subscriber, || info!("lost"));
        assert!(handle.stop(PATIENCE));
        assert_eq!(counts.dropped_lines.value(), 1, "{writing:?}");
    }
}
