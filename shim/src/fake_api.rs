//! An API server for tests: a client whose requests a closure answers, without a socket.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tonic::codegen::Service;

/// What a request gets.
pub(crate) enum Answer {
    /// A status code and a body.
    Is(u16, Value),
    /// Nothing, ever.
    Never,
}

impl Answer {
    /// An error as Kubernetes words it.
    pub(crate) fn error(code: u16) -> Self {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": format!("answered {code}"), "reason": if code == 404 { "NotFound" } else { "Test" }, "code": code,
        });
        Self::Is(code, status)
    }
}

/// A client that asks `answer`, by method and path.
pub(crate) fn client(answer: impl FnMut(&Method, &str) -> Answer + Send + 'static) -> Client {
    Client::new(FakeApi(answer), "default")
}

struct FakeApi<F>(F);

impl<F: FnMut(&Method, &str) -> Answer> Service<Request<Body>> for FakeApi<F> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match (self.0)(request.method(), request.uri().path()) {
            Answer::Is(code, body) => {
                let mut response = Response::new(Full::from(body.to_string()));
                *response.status_mut() = code.try_into().expect("it is a status code");
                Box::pin(ready(Ok(response)))
            }
            Answer::Never => Box::pin(pending()),
        }
    }
}
