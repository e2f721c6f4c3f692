//! What one host name serves.
//!
//! Most hosts of a large table have a single match, such as one prefix. It stands in the entry
//! itself, path and all, so that [`super::Table`] reads nothing else; any other host has an index of
//! paths for each kind of route. An entry is never empty: whoever takes out the last match takes out
//! the entry.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Found;
use super::compile::{CompiledMatch, RouteKind};
use super::paths::PathIndex;
use super::single::Single;
use crate::request::Request;
use crate::text_map::Text;

/// The matches of one host.
pub(super) enum HostEntry<R> {
    One {
        path: Text,
        single: Single<R>,
        kind: RouteKind,
    },
    Several(Arc<Indexes<R>>),
}

/// Matches by path, those of GRPCRoutes apart.
pub(super) struct Indexes<R> {
    http: PathIndex<R>,
    grpc: PathIndex<R>,
}

impl<R> HostEntry<R> {
    pub(super) fn new(kind: RouteKind, compiled: &Arc<CompiledMatch<R>>) -> Self {
        Self::One {
            path: compiled.path.key().clone(),
            single: Single::new(compiled),
            kind,
        }
    }

    /// The rule that goes first. `is_grpc` tells whether the request is a gRPC call.
    pub(super) fn lookup(
        &self,
        request: &Request<'_>,
        mut is_grpc: impl FnMut() -> bool,
    ) -> Option<Found<'_, R>> {
        let (rule, prefix_len) = match self {
            Self::One { path, single, kind } => {
                let is_for_kind = *kind == RouteKind::Http || is_grpc();
                let (rule, prefix_len) = single
                    .lookup(path.as_bytes(), request)
                    .filter(|_| is_for_kind)?;
                (rule, prefix_len.filter(|_| *kind == RouteKind::Http))
            }
            Self::Several(indexes) => indexes.lookup(request, is_grpc)?,
        };
        Some(Found { rule, prefix_len })
    }

    pub(super) fn insert(&mut self, kind: RouteKind, compiled: &Arc<CompiledMatch<R>>) {
        if let Self::One {
            single,
            kind: held_kind,
            ..
        } = self
        {
            let mut indexes = Indexes::default();
            indexes.of_mut(*held_kind).insert(single.compiled());
            *self = Self::Several(Arc::new(indexes));
        }
        if let Self::Several(indexes) = self {
            Arc::make_mut(indexes).of_mut(kind).insert(compiled);
        }
    }

    /// Takes a match out. Breaks when it was the last, which stays: the entry must go.
    pub(super) fn remove(
        &mut self,
        kind: RouteKind,
        compiled: &Arc<CompiledMatch<R>>,
    ) -> ControlFlow<()> {
        let remaining = match self {
            Self::One { single, .. } if Arc::ptr_eq(single.compiled(), compiled) => {
                return ControlFlow::Break(());
            }
            Self::One { .. } => None,
            Self::Several(indexes) => {
                let indexes = Arc::make_mut(indexes);
                indexes.of_mut(kind).remove(compiled);
                indexes.only()
            }
        };
        if let Some((kind, compiled)) = remaining {
            *self = Self::new(kind, &compiled);
        }
        ControlFlow::Continue(())
    }
}

impl<R> Indexes<R> {
    fn lookup(
        &self,
        request: &Request<'_>,
        mut is_grpc: impl FnMut() -> bool,
    ) -> Option<(&Arc<R>, Option<usize>)> {
        if !self.grpc.is_empty()
            && is_grpc()
            && let Some((rule, _)) = self.grpc.lookup(request)
        {
            return Some((rule, None));
        }
        self.http.lookup(request)
    }

    fn of_mut(&mut self, kind: RouteKind) -> &mut PathIndex<R> {
        match kind {
            RouteKind::Http => &mut self.http,
            RouteKind::Grpc => &mut self.grpc,
        }
    }

    /// The only match left, when there is just one.
    fn only(&self) -> Option<(RouteKind, Arc<CompiledMatch<R>>)> {
        let (kind, index) = match (self.http.is_empty(), self.grpc.is_empty()) {
            (false, true) => (RouteKind::Http, &self.http),
            (true, false) => (RouteKind::Grpc, &self.grpc),
            _ => return None,
        };
        Some((kind, index.only()?.compiled().clone()))
    }
}

impl<R> Clone for HostEntry<R> {
    fn clone(&self) -> Self {
        match self {
            Self::One { path, single, kind } => Self::One {
                path: path.clone(),
                single: single.clone(),
                kind: *kind,
            },
            Self::Several(indexes) => Self::Several(indexes.clone()),
        }
    }
}

impl<R> Default for Indexes<R> {
    fn default() -> Self {
        Self {
            http: PathIndex::default(),
            grpc: PathIndex::default(),
        }
    }
}

impl<R> Clone for Indexes<R> {
    fn clone(&self) -> Self {
        Self {
            http: self.http.clone(),
            grpc: self.grpc.clone(),
        }
    }
}
