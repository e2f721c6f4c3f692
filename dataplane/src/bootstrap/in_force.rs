//! The limits that are in force, as figures for the metrics.
//!
//! Taken from what the bootstrap file and the environment say about each key of the page of limits;
//! `cli.rs` hands them to the metrics once, at the start.

use super::keys::{self, Kind, Zero};
use super::reference::limits::SECTIONS;
use super::{Bootstrap, Effective};

impl Bootstrap {
    /// Keys of limits and their values, in the unit of the key; a flag is 0 or 1.
    pub fn limits(&self) -> Vec<(&'static str, u64)> {
        let rows = SECTIONS.iter().flat_map(|(_, rows)| *rows);
        let value = |key| match key {
            // Without one of its own it depends on the whole time.
            "runtimeTuning.drainMinAcceptMs" => Some(
                self.drain
                    .min_accept
                    .as_millis()
                    .try_into()
                    .unwrap_or(u64::MAX),
            ),
            key => {
                let set = self.effective.iter().find(|it| it.key == key);
                set.and_then(figure)
            }
        };
        rows.filter_map(|row| Some((row.key, value(row.key)?)))
            .collect()
    }
}

fn figure(set: &Effective) -> Option<u64> {
    let key = keys::ALL.iter().find(|key| key.name == set.key)?;
    match key.kind {
        Kind::Flag => Some(u64::from(set.value == "true")),
        Kind::Number { zero, .. } => {
            let value = set.value.parse().ok()?;
            match (value, zero) {
                (0, Zero::Default) => key.default.parse().ok(),
                _ => Some(value),
            }
        }
        _ => None,
    }
}
