//! Why a match did not get a request, as a sentence.

use dataplane_route::table::{Lost, Precedence, Unmet};

/// What is told of it.
pub(super) fn of(lost: &Lost<'_>, host: &str) -> String {
    let unmet = |what: String| format!("host and path match; {what}");
    match lost {
        Lost::Precedence(by) => format!("it matches, but the other goes first: {}", first(*by)),
        Lost::Unmet(Unmet::Method(method)) => unmet(format!("the method is not {method}")),
        Lost::Unmet(Unmet::Call) => unmet("the gRPC service or method is another one".to_owned()),
        Lost::Unmet(Unmet::Header(name)) => {
            unmet(format!("header {name} is missing or has another value"))
        }
        Lost::Unmet(Unmet::Param(name)) => {
            let name = name.escape_debug();
            unmet(format!(
                "query parameter {name} is missing or has another value"
            ))
        }
        Lost::NotGrpc => {
            unmet("it is for gRPC calls: POST with content-type application/grpc".to_owned())
        }
        Lost::Path => "the path does not match; everything else does".to_owned(),
        Lost::Host => format!("host {host:?} is not among its hosts; everything else matches"),
    }
}

/// What the one that goes first has more of.
fn first(by: Precedence) -> &'static str {
    match by {
        Precedence::Host => "its host is more specific",
        Precedence::Grpc => "a GRPCRoute goes before an HTTPRoute for a gRPC call",
        Precedence::PathKind => {
            "an exact path goes before a regular expression, that before a prefix"
        }
        Precedence::LongerPrefix => "its prefix is longer",
        Precedence::LongerPattern => "its regular expression is longer",
        Precedence::LongerCall => "it names more of the gRPC service and method",
        Precedence::Method => "it names the method",
        Precedence::MoreHeaders => "it has more conditions on header fields",
        Precedence::MoreParams => "it has more conditions on query parameters",
        Precedence::Older => "its route is older",
        Precedence::Name => "its namespace/name comes first, and nothing else decides",
        Precedence::Earlier => "it stands earlier in the same route",
    }
}
