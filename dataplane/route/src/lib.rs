//! Which rule a request meets, and what the rule's filters do to its head.
//!
//! [`table`] holds the routes of one listener and finds the rule for a [`Request`] in Gateway API
//! precedence; [`filter`] applies header edits, redirects and rewrites. Everything here is a pure
//! function of its arguments: no runtime, no sockets, no clock. Paths arrive normalised and hosts
//! in lower case; both are the work of the HTTP engine, which is the only caller on the request
//! path. The compiled forms are built by `dataplane/config`.

pub mod table;
pub mod stream_match;
pub mod filter;
mod http_match;
mod request;
pub mod hostname;
mod text_map;

pub use request::Request;
