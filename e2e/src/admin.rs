//! The admin APIs, of both planes, asked over HTTP.
//!
//! What cannot be reached or read comes back as null or false, because most questions are asked
//! until the answer is the expected one.

use std::net::SocketAddr;

use dataplane_testkit::client::http1;
use serde_json::Value;

/// Where an admin API listens.
#[derive(Clone, Copy, Debug)]
pub struct Admin(pub SocketAddr);

impl Admin {
    /// The status of an answer; 0 when there is none.
    pub async fn status(&self, path: &str) -> u16 {
        let answer = http1::get(self.0, "admin", path).await;
        answer.map_or(0, |answer| answer.status.as_u16())
    }

    /// True once what stands behind it is ready.
    pub async fn is_ready(&self) -> bool {
        self.status("/readyz").await == 200
    }

    /// The text of an answer; empty when there is none.
    pub async fn text(&self, path: &str) -> String {
        let answer = http1::get(self.0, "admin", path).await;
        answer.map(|answer| answer.text()).unwrap_or_default()
    }

    /// The JSON of an answer; null when there is none.
    pub async fn json(&self, path: &str) -> Value {
        let answer = http1::get(self.0, "admin", path).await;
        answer.map(|answer| answer.json()).unwrap_or_default()
    }

    /// The version that serves; for the data plane.
    pub async fn served_version(&self) -> Option<String> {
        version(&self.json("/api/v1/config/version").await)
    }

    /// The version that was published last; for the control plane.
    pub async fn published_version(&self) -> Option<String> {
        version(&self.json("/api/v1/config/snapshot/version").await)
    }

    /// What one object is told, line by line; for the control plane. Conditions come as
    /// `Accepted=True Accepted: …`, with `parent …` or `listener …` before them where they are about
    /// a part; then violations and warnings.
    pub async fn told(&self, kind: &str, key: &str) -> Vec<String> {
        let status = self.json("/api/v1/status").await;
        let objects = status["objects"].as_array().cloned().unwrap_or_default();
        let object = objects
            .iter()
            .find(|object| object["kind"] == kind && object["key"] == key);
        object.map(lines).unwrap_or_default()
    }

    /// Every line of [`Self::told`] about every object, with the object before it.
    pub async fn told_all(&self) -> Vec<String> {
        let status = self.json("/api/v1/status").await;
        let objects = status["objects"].as_array().cloned().unwrap_or_default();
        let mut all = Vec::new();
        for object in &objects {
            let title = format!("{} {}", text(&object["kind"]), text(&object["key"]));
            all.extend(lines(object).iter().map(|line| format!("{title}: {line}")));
        }
        for fault in status["faults"].as_array().into_iter().flatten() {
            all.push(format!("fault: {}", text(fault)));
        }
        all
    }
}

fn version(answer: &Value) -> Option<String> {
    let version = answer["version"].as_str()?;
    (!version.is_empty()).then(|| version.to_owned())
}

fn lines(object: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    conditions("", object, &mut lines);
    for parent in object["parents"].as_array().into_iter().flatten() {
        let part = format!(
            "parent {}/{} ",
            text(&parent["namespace"]),
            text(&parent["name"])
        );
        conditions(&part, parent, &mut lines);
    }
    for listener in object["listeners"].as_array().into_iter().flatten() {
        let part = format!("listener {} ", text(&listener["name"]));
        conditions(&part, listener, &mut lines);
    }
    for name in ["violations", "warnings"] {
        let list = object[name].as_array().into_iter().flatten();
        lines.extend(list.map(|line| text(line).to_owned()));
    }
    lines
}

fn conditions(part: &str, of: &Value, lines: &mut Vec<String>) {
    for condition in of["conditions"].as_array().into_iter().flatten() {
        lines.push(format!(
            "{part}{}={} {}: {}",
            text(&condition["type"]),
            text(&condition["status"]),
            text(&condition["reason"]),
            text(&condition["message"])
        ));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
