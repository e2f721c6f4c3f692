//! Questions to an authorization service that speaks Envoy's protocol, and its answers, typed.
//!
//! The data plane builds a [`Check`] and reads a [`Verdict`]; the call between them is its own. Names
//! and values of header fields are as the service wrote them: whoever uses them must check them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use prost::Message as _;

use self::wire::check_response::HttpResponse;

/// The method that is called.
pub const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::use_self,
    clippy::allow_attributes_without_reason,
    reason = "the code is generated"
)]
mod wire {
    tonic::include_proto!("envoy.service.auth.v3");
}

/// What is asked about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The client.
    pub source: SocketAddr,
    /// Where it came to.
    pub destination: SocketAddr,
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Host, perhaps with a port.
    pub host: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// As `HTTP/1.1`.
    pub protocol: &'static str,
    /// Header fields in lower case, several values joined by commas.
    pub headers: BTreeMap<String, String>,
    /// Length of the request's body, -1 when it is not known.
    pub size: i64,
    /// The body, as far as it is sent along.
    pub body: Vec<u8>,
}

impl Check {
    /// The message as it goes over the wire.
    pub fn encode(self) -> Vec<u8> {
        // Proto3 texts are UTF-8; what is not goes as bytes.
        let (body, raw_body) = match String::from_utf8(self.body) {
            Ok(text) => (text, Vec::new()),
            Err(error) => (String::new(), error.into_bytes()),
        };
        let http = wire::attribute_context::HttpRequest {
            method: self.method,
            headers: self.headers,
            path: self.path,
            host: self.host,
            scheme: self.scheme.to_owned(),
            size: self.size,
            protocol: self.protocol.to_owned(),
            body,
            raw_body,
        };
        let request = wire::CheckRequest {
            attributes: Some(wire::AttributeContext {
                source: Some(peer(self.source)),
                destination: Some(peer(self.destination)),
                request: Some(wire::attribute_context::Request { http: Some(http) }),
            }),
        };
        request.encode_to_vec()
    }
}

fn peer(address: SocketAddr) -> wire::attribute_context::Peer {
    wire::attribute_context::Peer {
        address: Some(wire::Address {
            socket_address: Some(wire::SocketAddress {
                address: address.ip().to_string(),
                port_value: u32::from(address.port()),
            }),
        }),
    }
}

/// What the service says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request may pass.
    Allowed {
        /// Changes to its header fields.
        request: Vec<FieldEdit>,
        /// Header fields to take out of it.
        remove: Vec<String>,
        /// Changes to the header fields of its response.
        response: Vec<FieldEdit>,
    },
    /// The request may not.
    Denied {
        /// Status of the answer; 403 when the service names none.
        status: u16,
        /// Header fields of the answer.
        headers: Vec<FieldEdit>,
        /// Body of the answer.
        body: String,
    },
}

/// A change to one header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldEdit {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
    /// What happens to a field that is there.
    pub action: EditAction,
}

/// What happens to a field that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditAction {
    /// The value stands beside those that are there.
    Append,
    /// The value is added where there is none.
    AddIfAbsent,
    /// The value takes the place of those that are there.
    Overwrite,
    /// As [`Self::Overwrite`], but only where there is one.
    OverwriteIfPresent,
}

impl Verdict {
    /// Reads the answer; nothing when it is no such message, or says neither.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let response = wire::CheckResponse::decode(message).ok()?;
        let code = response.status.map_or(0, |status| status.code);
        match (code, response.http_response) {
            // gRPC status OK, and nothing in the answer speaks against it.
            (0, None) => Some(Self::Allowed {
                request: Vec::new(),
                remove: Vec::new(),
                response: Vec::new(),
            }),
            (0, Some(HttpResponse::OkResponse(ok))) => Some(Self::Allowed {
                request: edits(ok.headers),
                remove: ok.headers_to_remove,
                response: edits(ok.response_headers_to_add),
            }),
            (_, Some(HttpResponse::DeniedResponse(denied))) => Some(Self::Denied {
                status: denied
                    .status
                    .and_then(|status| u16::try_from(status.code).ok())
                    .filter(|code| (300..600).contains(code))
                    .unwrap_or(403),
                headers: edits(denied.headers),
                body: denied.body,
            }),
            (_, None | Some(HttpResponse::OkResponse(_))) => Some(Self::Denied {
                status: 403,
                headers: Vec::new(),
                body: String::new(),
            }),
        }
    }
}

fn edits(options: Vec<wire::HeaderValueOption>) -> Vec<FieldEdit> {
    let edit = |option: wire::HeaderValueOption| {
        let header = option.header?;
        Some(FieldEdit {
            name: header.key,
            value: match header.raw_value.is_empty() {
                true => header.value.into_bytes(),
                false => header.raw_value,
            },
            // In this protocol a field that says nothing about it overwrites.
            action: match (option.append, option.append_action) {
                (Some(true), _) => EditAction::Append,
                (_, 1) => EditAction::AddIfAbsent,
                (_, 3) => EditAction::OverwriteIfPresent,
                _ => EditAction::Overwrite,
            },
        })
    };
    options.into_iter().filter_map(edit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_lets_a_request_pass() {
        let denied = wire::DeniedHttpResponse {
            status: Some(wire::HttpStatus { code: 401 }),
            headers: Vec::new(),
            body: "no".to_owned(),
        };
        let ok = wire::OkHttpResponse::default();
        for (code, http_response, status) in [
            (0, None, None),
            (0, Some(HttpResponse::OkResponse(ok.clone())), None),
            (7, None, Some(403)),
            (7, Some(HttpResponse::OkResponse(ok)), Some(403)),
            (
                0,
                Some(HttpResponse::DeniedResponse(denied.clone())),
                Some(401),
            ),
            (16, Some(HttpResponse::DeniedResponse(denied)), Some(401)),
        ] {
            let response = wire::CheckResponse {
                status: Some(wire::RpcStatus {
                    code,
                    message: String::new(),
                }),
                http_response,
            };
            let verdict = Verdict::decode(&response.encode_to_vec());
            match verdict {
                Some(Verdict::Allowed { .. }) => assert_eq!(status, None),
                Some(Verdict::Denied { status: told, .. }) => assert_eq!(status, Some(told)),
                None => panic!("{response:?}"),
            }
        }
        assert_eq!(Verdict::decode(b"\xff\xff\xff"), None);
    }

    #[test]
    fn a_body_that_is_no_text_goes_as_bytes() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let check = |body: &[u8]| Check {
            source: address,
            destination: address,
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: "a".to_owned(),
            scheme: "http",
            protocol: "HTTP/1.1",
            headers: BTreeMap::new(),
            size: 2,
            body: body.to_vec(),
        };
        for (body, text, raw) in [(&b"hi"[..], "hi", &b""[..]), (b"\xff\xfe", "", b"\xff\xfe")] {
            let sent = wire::CheckRequest::decode(&check(body).encode()[..]).unwrap();
            let http = sent.attributes.unwrap().request.unwrap().http.unwrap();
            assert_eq!((&*http.body, &*http.raw_body), (text, raw));
        }
    }
}
