//! Leave to refer into another namespace (Gateway API `ReferenceGrant`).
//!
//! Built once per set of grants and asked by [`super::listener`] for certificates and by
//! [`super::backend`] for Services.

use std::collections::BTreeMap;

use gateway_api::experimental::referencegrants::ReferenceGrantTo;

use crate::cluster_view::ClusterView;

/// Every grant, by who is allowed what.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Grants(BTreeMap<(String, From), Vec<ReferenceGrantTo>>);

/// Who refers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct From {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) namespace: String,
}

/// What is referred to.
#[derive(Clone, Copy, Debug)]
pub(super) struct To<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl From {
    /// A Gateway API object of that kind and namespace.
    pub(super) fn gateway_api(kind: &str, namespace: &str) -> Self {
        Self {
            group: super::GATEWAY_API.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
        }
    }
}

impl Grants {
    pub(super) fn new(view: &ClusterView) -> Self {
        let mut grants = Self::default();
        for object in view.reference_grants.iter() {
            for from in &object.value.spec.from {
                let from = From {
                    group: from.group.clone(),
                    kind: from.kind.clone(),
                    namespace: from.namespace.clone(),
                };
                let key = (object.namespace().to_owned(), from);
                grants
                    .0
                    .entry(key)
                    .or_default()
                    .extend(object.value.spec.to.iter().cloned());
            }
        }
        grants
    }

    /// True when `from` may refer to `to`; within one namespace it always may.
    pub(super) fn allow(&self, from: From, to: To<'_>) -> bool {
        if from.namespace == to.namespace {
            return true;
        }
        let targets = self.0.get(&(to.namespace.to_owned(), from));
        targets.into_iter().flatten().any(|target| {
            target.group == to.group
                && target.kind == to.kind
                && target
                    .name
                    .as_deref()
                    .is_none_or(|name| name.is_empty() || name == to.name)
        })
    }
}
