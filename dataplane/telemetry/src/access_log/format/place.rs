//! What a line says about the part of the configuration that a request or session met.
//!
//! It is the same for all requests of a rule that go to the same backend, and a good part of the
//! line, so its text is kept: a handful of rules have most of the requests.

use super::{Destination, number, route_parts, text};

/// Places whose text is kept.
const KEPT_MAX: usize = 64;

/// A longer text is not kept.
const TEXT_BYTES_MAX: usize = 1024;

/// Part of the configuration. What is empty or absent is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    listener: &'a str,
    route: &'a str,
    rule: Option<usize>,
    backend: &'a str,
    snapshot_version: &'a str,
}

/// Texts of places that were met lately.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<Kept>);

/// A place and its text; the one of which nothing is known has none.
#[derive(Debug, Default)]
struct Kept {
    listener: String,
    route: String,
    rule: Option<usize>,
    backend: String,
    snapshot_version: String,
    text: Vec<u8>,
}

impl Places {
    pub(super) fn write(&mut self, out: &mut Vec<u8>, place: Place<'_>) {
        if self.0.is_empty() {
            self.0.resize_with(KEPT_MAX, Kept::default);
        }
        let kept = &mut self.0[place.slot()];
        if kept.place() == place {
            out.extend_from_slice(&kept.text);
            return;
        }
        let start = out.len();
        place.write(out);
        let text = &out[start..];
        if text.len() <= TEXT_BYTES_MAX {
            kept.keep(place, text);
        }
    }
}

impl Kept {
    fn place(&self) -> Place<'_> {
        Place {
            listener: &self.listener,
            route: &self.route,
            rule: self.rule,
            backend: &self.backend,
            snapshot_version: &self.snapshot_version,
        }
    }

    /// In the memory of what was kept before.
    fn keep(&mut self, place: Place<'_>, text: &[u8]) {
        place.listener.clone_into(&mut self.listener);
        place.route.clone_into(&mut self.route);
        self.rule = place.rule;
        place.backend.clone_into(&mut self.backend);
        place
            .snapshot_version
            .clone_into(&mut self.snapshot_version);
        text.clone_into(&mut self.text);
    }
}

impl<'a> Place<'a> {
    pub(super) fn of(
        listener: &'a str,
        destination: &Destination<'a>,
        snapshot_version: &'a str,
    ) -> Self {
        Self {
            listener,
            route: destination.route.unwrap_or_default(),
            rule: destination.rule,
            backend: destination.backend.unwrap_or_default(),
            snapshot_version,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        text(out, b",\"listener\":\"", self.listener.as_bytes());
        let (kind, namespace, name) = route_parts(self.route);
        text(out, b",\"route_kind\":\"", kind.as_bytes());
        text(out, b",\"route_namespace\":\"", namespace.as_bytes());
        text(out, b",\"route_name\":\"", name.as_bytes());
        if let Some(rule) = self.rule {
            number(out, b",\"rule\":", rule as u64);
        }
        text(out, b",\"backend\":\"", self.backend.as_bytes());
        let version = self.snapshot_version.as_bytes();
        text(out, b",\"snapshot_version\":\"", version);
    }

    /// Where its text is kept: by where its names lie in memory, which spreads rules well enough.
    fn slot(&self) -> usize {
        let at = |name: &str| name.as_ptr().addr() / 16;
        let names = at(self.route).wrapping_add(at(self.backend));
        names.wrapping_add(self.rule.unwrap_or_default()) % KEPT_MAX
    }
}
