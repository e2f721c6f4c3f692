//! Events for refusals: a condition that turns bad is also told where `kubectl describe` shows it.
//!
//! One event for each turn, not for each write. They are sent by the way: one that is lost costs
//! nothing, and at most [`WAITING_MAX`] wait.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::debug;

use super::Id;
use crate::watch::Entry;

/// Events waiting to be sent; further ones are dropped.
const WAITING_MAX: usize = 256;
/// Longest text of an event (Kubernetes `Event.note`).
const NOTE_BYTES_MAX: usize = 1024;

/// Sends events.
pub(super) struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
}

impl Events {
    pub(super) fn new(client: Client, controller: &str) -> Self {
        let reporter = Reporter {
            controller: controller.to_owned(),
            instance: std::env::var("POD_NAME").ok(),
        };
        let recorder = Recorder::new(client, reporter);
        let (queue, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(WAITING_MAX);
        // Ends when the sender is dropped.
        tokio::spawn(async move {
            while let Some((event, object)) = waiting.recv().await {
                if let Err(error) = recorder.publish(&event, &object).await {
                    debug!(%error, "an event was not taken");
                }
            }
        });
        Self { queue }
    }

    /// Tells what turned bad between the status that stands and the one that is written.
    pub(super) fn tell(&self, id: &Id, entry: &Entry, after: &Value) {
        let before: Value = serde_json::from_str(&entry.status).unwrap_or_default();
        let stood = refusals(&before);
        for (reason, message) in refusals(after) {
            if stood.contains(&(reason.clone(), message.clone())) {
                continue;
            }
            let event = Event {
                type_: EventType::Warning,
                reason,
                note: Some(message[..message.floor_char_boundary(NOTE_BYTES_MAX)].to_owned()),
                action: "Translate".to_owned(),
                secondary: None,
            };
            let (namespace, name) = id.1.split_once('/').unwrap_or(("", &id.1));
            let object = ObjectReference {
                api_version: Some(entry.source.api_version()),
                kind: Some(entry.source.kind.clone()),
                name: Some(name.to_owned()),
                namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
                uid: Some(entry.uid.clone()),
                ..ObjectReference::default()
            };
            // A full queue means that there is too much to read anyway.
            drop(self.queue.try_send((event, object)));
        }
    }
}

/// Reason and message of every refusal in a status, wherever it stands.
fn refusals(status: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(status, &mut found);
    found
}

fn walk(value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            let text = |field: &str| map.get(field).and_then(Value::as_str);
            let is_refusal = match text("type") {
                Some("Accepted" | "ResolvedRefs") => text("status") == Some("False"),
                Some("Conflicted" | "PartiallyInvalid") => text("status") == Some("True"),
                _ => false,
            };
            if is_refusal && let (Some(reason), Some(message)) = (text("reason"), text("message")) {
                let refusal = (reason.to_owned(), message.to_owned());
                if !message.is_empty() && !found.contains(&refusal) {
                    found.push(refusal);
                }
            }
            map.values().for_each(|value| walk(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
        _ => {}
    }
}
