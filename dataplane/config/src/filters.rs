//! The filters of a rule or a backend, in the order in which they are applied.
//!
//! A filter that this data plane cannot apply is kept as such: its requests are answered with 500
//! instead of passing unfiltered (Gateway API `HTTPRouteFilter`).

use std::sync::Arc;

use http::HeaderName;
use ir::Filter;
use ir::filter::DirectResponse;

use dataplane_route::filter::FilterError;
use dataplane_route::filter::cors::Cors;
use dataplane_route::filter::headers::HeaderEdit;
use dataplane_route::filter::redirect::Redirect;
use dataplane_route::filter::rewrite::Rewrite;
use dataplane_upstream::weighted::WeightedChoice;

/// Compiled filters.
#[derive(Debug, Default)]
pub struct Filters {
    /// Applied to the request, in order.
    pub request: Box<[RequestFilter]>,
    /// Applied to the response, in order, which is the reverse of how they are written.
    pub response: Box<[ResponseFilter]>,
    /// One of them needs to know what the request said about its origin.
    pub has_cors: bool,
}

/// What is done to a response.
#[derive(Debug)]
pub enum ResponseFilter {
    /// Header fields change.
    Headers(HeaderEdit),
    /// The origin of the request is told what it may do.
    Cors(Box<Cors>),
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
    /// A copy of the request goes elsewhere.
    Mirror(Mirror),
    /// A service is asked whether the request may pass.
    ExternalAuth(Box<ExternalAuth>),
    /// A preflight is answered; what the answer says is a matter of the response.
    Cors,
    /// The request is answered with 500.
    Unsupported,
}

/// A copy of requests to another backend.
#[derive(Debug)]
pub struct Mirror {
    /// Keys its cluster may have; empty when it could not be resolved.
    pub cluster_keys: Vec<Arc<str>>,
    /// Which requests are copied: those for which it says 0.
    share: WeightedChoice,
}

impl Mirror {
    fn compile(mirror: &ir::filter::Mirror) -> Self {
        let (part, whole) = mirror.fraction;
        Self {
            cluster_keys: mirror.backend.cluster_keys.clone(),
            share: WeightedChoice::new([part, whole.saturating_sub(part)]),
        }
    }

    /// True when the next request shall be copied.
    pub fn takes_next(&self) -> bool {
        self.share.next() == Some(0)
    }
}

/// A service that is asked whether requests may pass.
#[derive(Debug)]
pub struct ExternalAuth {
    /// Keys its cluster may have; empty when it could not be resolved.
    pub cluster_keys: Vec<Arc<str>>,
    /// Name of the service, for calls that have no host of their own.
    pub authority: String,
    /// How it is asked.
    pub protocol: AuthProtocol,
    /// The largest body that it is sent; 0 for none.
    pub body_bytes_max: usize,
}

/// How an authorization service is asked.
#[derive(Debug)]
pub enum AuthProtocol {
    /// With a request like the one that is judged.
    Http {
        /// Put before the path.
        path_prefix: String,
        /// Fields of the request that it may see besides those it always does.
        allowed: Vec<HeaderName>,
        /// Fields of its answer that the backend gets; all when empty.
        returned: Vec<HeaderName>,
    },
    /// With Envoy's gRPC protocol.
    Grpc {
        /// Fields of the request that it may see; all when empty.
        allowed: Vec<HeaderName>,
    },
}

impl ExternalAuth {
    fn compile(auth: &ir::filter::ExternalAuth) -> Result<Self, FilterError> {
        use ir::filter::ExternalAuthProtocol as Wanted;
        let (namespace, name, _) = auth.backend.parts();
        Ok(Self {
            cluster_keys: auth.backend.cluster_keys.clone(),
            authority: format!("{name}.{namespace}"),
            protocol: match &auth.protocol {
                Wanted::Http {
                    path_prefix,
                    allowed_headers,
                    allowed_response_headers,
                } => AuthProtocol::Http {
                    path_prefix: path_prefix.clone(),
                    allowed: names(allowed_headers)?,
                    returned: names(allowed_response_headers)?,
                },
                Wanted::Grpc { allowed_headers } => AuthProtocol::Grpc {
                    allowed: names(allowed_headers)?,
                },
            },
            body_bytes_max: usize::try_from(auth.forward_body_bytes_max).unwrap_or(usize::MAX - 1),
        })
    }
}

fn names(texts: &[String]) -> Result<Vec<HeaderName>, FilterError> {
    let name = |text: &String| {
        HeaderName::from_bytes(text.as_bytes()).map_err(|_| FilterError::HeaderName(text.clone()))
    };
    texts.iter().map(name).collect()
}

impl Filters {
    /// Compiles what can be applied; filters that exclude each other cannot.
    pub(crate) fn compile(filters: &[Filter]) -> Self {
        let (mut request, mut response) = (Vec::new(), Vec::new());
        let mut has_cors = false;
        if are_in_conflict(filters) {
            request.push(RequestFilter::Unsupported);
        }
        for filter in filters {
            match filter {
                Filter::ResponseHeaders(edit) => match HeaderEdit::compile(edit) {
                    Ok(edit) => response.push(ResponseFilter::Headers(edit)),
                    Err(_) => request.push(RequestFilter::Unsupported),
                },
                Filter::Cors(cors) => match Cors::compile(cors) {
                    Ok(cors) => {
                        has_cors = true;
                        request.push(RequestFilter::Cors);
                        response.push(ResponseFilter::Cors(Box::new(cors)));
                    }
                    Err(_) => request.push(RequestFilter::Unsupported),
                },
                filter => request.push(RequestFilter::compile(filter)),
            }
        }
        response.reverse();
        Self {
            request: request.into(),
            response: response.into(),
            has_cors,
        }
    }
}

/// Gateway API: these may stand in a list once, and a redirect leaves nothing to rewrite.
fn are_in_conflict(filters: &[Filter]) -> bool {
    let count = |is_one: fn(&Filter) -> bool| filters.iter().filter(|f| is_one(f)).count();
    let redirects = count(|filter| matches!(filter, Filter::Redirect(_)));
    let rewrites = count(|filter| matches!(filter, Filter::Rewrite(_)));
    let cors = count(|filter| matches!(filter, Filter::Cors(_)));
    let auth = count(|filter| matches!(filter, Filter::ExternalAuth(_)));
    redirects + rewrites > 1 || cors > 1 || auth > 1
}

impl RequestFilter {
    fn compile(filter: &Filter) -> Self {
        let compiled = match filter {
            Filter::RequestHeaders(edit) => HeaderEdit::compile(edit).map(Self::Headers),
            Filter::Redirect(redirect) => Redirect::compile(redirect).map(Self::Redirect),
            Filter::Rewrite(rewrite) => Rewrite::compile(rewrite).map(Self::Rewrite),
            Filter::ExternalAuth(auth) => {
                ExternalAuth::compile(auth).map(|auth| Self::ExternalAuth(Box::new(auth)))
            }
            Filter::Mirror(mirror) => Ok(Self::Mirror(Mirror::compile(mirror))),
            Filter::DirectResponse(direct) => Ok(Self::DirectResponse(Arc::new(direct.clone()))),
            Filter::Cors(_) | Filter::ResponseHeaders(_) | Filter::Unsupported { .. } => {
                Ok(Self::Unsupported)
            }
        };
        compiled.unwrap_or(Self::Unsupported)
    }
}

#[cfg(test)]
mod tests {
    use ir::filter::{Cors, HeaderEdit, Redirect, Rewrite};

    use super::*;

    #[test]
    fn what_excludes_each_other_is_out_of_service() {
        let redirect = || {
            Filter::Redirect(Redirect {
                scheme: None,
                hostname: None,
                path: None,
                port: None,
                status: 302,
            })
        };
        let rewrite = || {
            Filter::Rewrite(Rewrite {
                hostname: Some("a.example.com".to_owned()),
                path: None,
            })
        };
        let cors = || Filter::Cors(Cors::default());
        let headers = || Filter::RequestHeaders(HeaderEdit::default());
        for (filters, is_served) in [
            (vec![redirect()], true),
            (vec![redirect(), rewrite()], false),
            (vec![rewrite(), rewrite()], false),
            (vec![cors(), headers(), rewrite()], true),
            (vec![cors(), cors()], false),
            (vec![headers(), headers()], true),
        ] {
            let compiled = Filters::compile(&filters);
            let first = compiled.request.first();
            let is_refused = matches!(first, Some(RequestFilter::Unsupported));
            assert_eq!(is_refused, !is_served, "{filters:?}");
        }
    }

    #[test]
    fn responses_are_filtered_in_reverse() {
        let filters = [
            Filter::Cors(Cors::default()),
            Filter::ResponseHeaders(HeaderEdit::default()),
        ];
        let compiled = Filters::compile(&filters);
        assert!(matches!(
            &compiled.response[..],
            [ResponseFilter::Headers(_), ResponseFilter::Cors(_)]
        ));
    }
}
