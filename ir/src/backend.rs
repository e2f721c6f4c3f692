//! What a route, a mirror or a policy names as its destination.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::sync::Arc;

/// Key in a reference's metadata: `false` marks one that the control plane could not resolve.
pub const VALID_KEY: &str = "nantian.dev/backend-ref-valid";

/// The group or the kind of an object; the usual ones take no place of their own.
pub type Word = Cow<'static, str>;

/// A group or a kind, whether it is a usual one or not.
pub fn word(text: &str) -> Word {
    const USUAL: [&str; 7] = [
        "Service",
        "Gateway",
        "ListenerSet",
        "gateway.networking.k8s.io",
        "ServiceImport",
        "multicluster.x-k8s.io",
        "",
    ];
    match USUAL.into_iter().find(|usual| *usual == text) {
        Some(usual) => Cow::Borrowed(usual),
        None => Cow::Owned(text.to_owned()),
    }
}

/// A reference to a backend, resolved to the keys its cluster may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTarget {
    /// What it names, for display: `namespace/name:port`.
    pub display: Arc<str>,
    /// Keys under which its cluster may be found, in order of preference.
    ///
    /// Empty when the control plane could not resolve it; its share of requests then fails.
    pub cluster_keys: Vec<Arc<str>>,
    /// API group of the reference; empty for the core group.
    pub group: Word,
    /// Kind of the reference, mostly `Service`.
    pub kind: Word,
}

impl BackendTarget {
    /// A reference to a backend that exists: its cluster is `namespace/name` or, with a port,
    /// `namespace/name:port`.
    pub fn new(
        group: &str,
        kind: &str,
        namespace: &str,
        name: &str,
        port: Option<NonZeroU16>,
    ) -> Self {
        let plain: Arc<str> = format!("{namespace}/{name}").into();
        let (display, cluster_keys) = match port {
            Some(port) => {
                let display: Arc<str> = format!("{plain}:{port}").into();
                (display.clone(), vec![plain, display])
            }
            None => (plain.clone(), vec![plain]),
        };
        Self {
            display,
            cluster_keys,
            group: word(group),
            kind: word(kind),
        }
    }

    /// Namespace, name and port as the reference names them.
    pub fn parts(&self) -> (&str, &str, Option<u16>) {
        let (namespace, rest) = self.display.split_once('/').unwrap_or(("", &self.display));
        match rest.split_once(':') {
            Some((name, port)) => (namespace, name, port.parse().ok()),
            None => (namespace, rest, None),
        }
    }

    /// The same reference as one that the control plane could not resolve.
    pub fn unresolved(self) -> Self {
        Self {
            cluster_keys: Vec::new(),
            ..self
        }
    }
}
