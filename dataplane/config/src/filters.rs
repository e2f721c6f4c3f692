//! The filters of a rule or a backend, in the order in which they are applied.
//!
//! A filter that this data plane cannot apply is kept as such: its requests are answered with 500
//! instead of passing unfiltered (Gateway API `HTTPRouteFilter`).

use std::sync::Arc;

use ir::Filter;
use ir::filter::DirectResponse;

use dataplane_route::filter::headers::HeaderEdit;
use dataplane_route::filter::redirect::Redirect;
use dataplane_route::filter::rewrite::Rewrite;

/// Compiled filters.
#[derive(Debug, Default)]
pub struct Filters {
    /// Applied to the request, in order.
    pub request: Vec<RequestFilter>,
    /// Applied to the response, in order.
    pub response: Vec<HeaderEdit>,
}

/// What is done to a request.
#[derive(Debug)]
pub enum RequestFilter {
    /// Header fields change.
    Headers(HeaderEdit),
    /// The request is answered with a redirect.
    Redirect(Redirect),
    /// Host or path change.
    Rewrite(Rewrite),
    /// The request is answered from the configuration.
    DirectResponse(Arc<DirectResponse>),
    /// The request is answered with 500.
    Unsupported,
}

impl Filters {
    /// Compiles what can be applied.
    pub(crate) fn compile(filters: &[Filter]) -> Self {
        let mut compiled = Self::default();
        for filter in filters {
            match filter {
                Filter::ResponseHeaders(edit) => match HeaderEdit::compile(edit) {
                    Ok(edit) => compiled.response.push(edit),
                    Err(_) => compiled.request.push(RequestFilter::Unsupported),
                },
                filter => compiled.request.push(RequestFilter::compile(filter)),
            }
        }
        compiled
    }
}

impl RequestFilter {
    fn compile(filter: &Filter) -> Self {
        let compiled = match filter {
            Filter::RequestHeaders(edit) => HeaderEdit::compile(edit).map(Self::Headers),
            Filter::Redirect(redirect) => Redirect::compile(redirect).map(Self::Redirect),
            Filter::Rewrite(rewrite) => Rewrite::compile(rewrite).map(Self::Rewrite),
            Filter::DirectResponse(direct) => Ok(Self::DirectResponse(Arc::new(direct.clone()))),
            _ => Ok(Self::Unsupported),
        };
        compiled.unwrap_or(Self::Unsupported)
    }
}
