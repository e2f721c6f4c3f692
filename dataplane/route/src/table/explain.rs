//! Why a request meets the rule it meets, and why others came close and did not get it.
//!
//! For people who ask, never for requests: every match of a table is looked at. Which rule wins is
//! said by [`Table::lookup`] itself; hosts, paths and conditions of the others are judged by the
//! functions that the look-up uses, and the order is that of [`CompiledMatch::precedence`].

use std::cmp::Ordering;
use std::sync::Arc;

use super::compile::{CompiledMatch, CompiledRoute, Path, Precedence, RouteKind};
use super::single::PathKind;
use super::{Found, Table};
use crate::hostname::Place;
use crate::http_match::Unmet;
use crate::request::Request;

/// The rule of a request and what came close to it.
#[derive(Debug)]
pub struct Explained<'a, R> {
    /// What [`Table::lookup`] finds.
    pub found: Option<Found<'a, R>>,
    /// The match of that rule that the request met.
    pub winner: Option<Source<'a>>,
    /// Matches that are not it, the nearest first.
    pub others: Vec<Other<'a>>,
    /// Routes that were looked at.
    pub routes: usize,
}

/// Where a match comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source<'a> {
    /// The kind of its route.
    pub kind: RouteKind,
    /// `namespace/name` of its route.
    pub route: &'a str,
    /// Index of its rule in the route.
    pub rule: usize,
    /// Index of the match in that rule.
    pub index: usize,
}

/// A match that did not get the request.
#[derive(Clone, Copy, Debug)]
pub struct Other<'a> {
    /// Where it comes from.
    pub source: Source<'a>,
    /// Why it did not.
    pub lost: Lost<'a>,
}

/// Why a match did not get a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost<'a> {
    /// It agrees with all of the request, and another one goes first.
    Precedence(Precedence),
    /// Host and path agree, but this does not.
    Unmet(Unmet<'a>),
    /// It is for gRPC calls, which the request is not.
    NotGrpc,
    /// Only its path is another one.
    Path,
    /// Only its host is another one.
    Host,
}

impl<R> Table<R> {
    /// As [`Self::lookup`], with what there is to say about it; at most `others_max` other matches.
    pub fn explain(&self, request: &Request<'_>, others_max: usize) -> Explained<'_, R> {
        let found = self.lookup(request);
        let mut covering = Vec::new();
        let mut candidates = self.hosts.candidates(request.host);
        while let Some((place, _)) = candidates.next_place() {
            covering.push(place);
        }
        let asked = Asked {
            request,
            covering,
            is_grpc: request.is_grpc(),
        };
        let mut met = Vec::new();
        let mut others = Nearest::of(others_max);
        let routes = self.http.values().chain(self.grpc.values());
        for route in routes {
            let host = asked.host(route);
            for compiled in route.matches() {
                match asked.judge(route, host, compiled) {
                    Judged::Met(standing) => met.push(standing),
                    Judged::Near(other) => others.add(other),
                    Judged::Far => {}
                }
            }
        }
        let rule = found.as_ref().map(|found| found.rule);
        let winner = met
            .iter()
            .filter(|it| rule.is_some_and(|rule| Arc::ptr_eq(rule, &it.compiled.rule)))
            .min_by(|one, two| one.order(two).0);
        let winner_source = winner.map(Standing::source);
        if let Some(winner) = winner {
            for it in &met {
                // Of the matches of one rule it does not matter which was met.
                if Arc::ptr_eq(&it.compiled.rule, &winner.compiled.rule) {
                    continue;
                }
                let (_, precedence) = winner.order(it);
                others.add(Near {
                    closeness: usize::MAX,
                    other: Other {
                        source: it.source(),
                        lost: Lost::Precedence(precedence),
                    },
                });
            }
        }
        Explained {
            found,
            winner: winner_source,
            others: others.in_order(),
            routes: self.len(),
        }
    }
}

/// A request and what is known of it.
struct Asked<'r, 'h> {
    request: &'r Request<'h>,
    /// The host names of the table that cover its host, the most specific first.
    covering: Vec<Place<'h>>,
    is_grpc: bool,
}

enum Judged<'a, R> {
    Met(Standing<'a, R>),
    Near(Near<'a>),
    Far,
}

impl Asked<'_, '_> {
    /// Place of the route's host among those that cover the request's, 0 for the most specific.
    fn host<R>(&self, route: &CompiledRoute<R>) -> Option<usize> {
        let hosts = route.host_names().map(Place::of);
        let rank = |host: Place<'_>| self.covering.iter().position(|place| *place == host);
        hosts.filter_map(rank).min()
    }

    fn judge<'a, R>(
        &self,
        route: &'a CompiledRoute<R>,
        host: Option<usize>,
        compiled: &'a CompiledMatch<R>,
    ) -> Judged<'a, R> {
        let path = self.request.path;
        let key = compiled.path.key().as_bytes();
        let kind = PathKind::of(&compiled.path);
        let is_path_met = match &compiled.path {
            Path::Regex(regex) => regex.is_match(path),
            Path::Exact(_) | Path::Prefix(_) => kind.covers(key, path),
        };
        let source = Source {
            kind: route.kind(),
            route: route.key(),
            rule: index(compiled.position[0]),
            index: index(compiled.position[1]),
        };
        let near = |lost, closeness| {
            Judged::Near(Near {
                closeness,
                other: Other { source, lost },
            })
        };
        let is_kind_met = route.kind() == RouteKind::Http || self.is_grpc;
        let unmet = || compiled.unmet(self.request);
        match (host, is_path_met) {
            (Some(_), true) if !is_kind_met => near(Lost::NotGrpc, 0),
            (Some(host), true) => match unmet() {
                Some(unmet) => near(Lost::Unmet(unmet), key.len()),
                None => Judged::Met(Standing {
                    host,
                    kind,
                    compiled,
                    source,
                }),
            },
            (Some(_), false) if is_kind_met && unmet().is_none() => {
                near(Lost::Path, common(key, path.as_bytes()))
            }
            (None, true) if is_kind_met && unmet().is_none() => near(Lost::Host, key.len()),
            _ => Judged::Far,
        }
    }
}

/// A match that agrees with the request, and what decides whether it goes first.
struct Standing<'a, R> {
    /// Place of its host name among those that cover the host.
    host: usize,
    kind: PathKind,
    compiled: &'a CompiledMatch<R>,
    source: Source<'a>,
}

impl<'a, R> Standing<'a, R> {
    fn source(&self) -> Source<'a> {
        self.source
    }

    /// `Less` when this one goes before `other`, and what decides that.
    fn order(&self, other: &Self) -> (Ordering, Precedence) {
        let is_http = |it: &Self| it.source.kind == RouteKind::Http;
        let prefix = |it: &Self| match it.kind {
            PathKind::Prefix => it.compiled.path.key().as_bytes().len(),
            PathKind::Exact | PathKind::Regex => 0,
        };
        let steps = [
            (self.host.cmp(&other.host), Precedence::Host),
            (is_http(self).cmp(&is_http(other)), Precedence::Grpc),
            (self.kind.cmp(&other.kind), Precedence::PathKind),
            (prefix(other).cmp(&prefix(self)), Precedence::LongerPrefix),
        ];
        if let Some(decided) = steps.into_iter().find(|(order, _)| order.is_ne()) {
            return decided;
        }
        (
            self.compiled.precedence(other.compiled),
            self.compiled.decided_by(self.source.kind, other.compiled),
        )
    }
}

/// A match that lost, and how near it was.
struct Near<'a> {
    other: Other<'a>,
    /// Of two that lost for the same kind of reason, the one with more is nearer.
    closeness: usize,
}

impl Near<'_> {
    fn order(&self, other: &Self) -> Ordering {
        let class = |near: &Self| match near.other.lost {
            Lost::Precedence(_) => 0,
            Lost::Unmet(Unmet::Param(_)) => 1,
            Lost::Unmet(Unmet::Header(_)) => 2,
            Lost::Unmet(Unmet::Method(_) | Unmet::Call) => 3,
            Lost::NotGrpc => 4,
            Lost::Path => 5,
            Lost::Host => 6,
        };
        let (one, two) = (&self.other.source, &other.other.source);
        class(self)
            .cmp(&class(other))
            .then_with(|| other.closeness.cmp(&self.closeness))
            .then_with(|| one.route.cmp(two.route))
            .then_with(|| (one.rule, one.index).cmp(&(two.rule, two.index)))
    }
}

/// So many matches as somebody wants to see, and never all of a large table: most lost by their host.
struct Nearest<'a> {
    kept: Vec<Near<'a>>,
    most: usize,
}

impl<'a> Nearest<'a> {
    fn of(most: usize) -> Self {
        Self {
            kept: Vec::new(),
            most,
        }
    }

    fn add(&mut self, near: Near<'a>) {
        if self.kept.len() == self.most {
            match self.kept.last() {
                Some(last) if near.order(last).is_lt() => self.kept.pop(),
                _ => return,
            };
        }
        let nearer = |it: &Near<'_>| it.order(&near).is_le();
        let place = self.kept.partition_point(nearer);
        self.kept.insert(place, near);
    }

    fn in_order(self) -> Vec<Other<'a>> {
        self.kept.into_iter().map(|near| near.other).collect()
    }
}

/// How many bytes two paths begin with alike.
fn common(one: &[u8], two: &[u8]) -> usize {
    let pairs = one.iter().zip(two);
    pairs.take_while(|(one, two)| one == two).count()
}

fn index(position: u32) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}
