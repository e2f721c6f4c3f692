//! HTTP/1.1 on the wire: heads and bodies, to and from bytes, without any IO.
//! `connection` (downstream) and `exchange` (upstream) own the sockets and call in here with their buffers.
//! Parsing is strict: whatever two implementations could read in two ways is refused, and what goes out
//! is written anew from the parsed form, so no byte of a sender's framing is ever passed on.
//! Time limits, body size limits and the routing of a request are deliberately not here.

mod body;
mod encode;
mod response_head;
mod request_head;
mod authority;
mod fields;
mod hop_by_hop;
mod error;

pub use authority::Authority;
pub use body::{BodyDecoder, Frame};
pub use encode::{
    BodyEncoder, ChunkPrefix, Connection, Encoded, encode_request_head, encode_response_head,
};
pub use error::{BodyError, EncodeError, HeadError};
pub use hop_by_hop::{
    is_allowed_in_trailers, is_websocket_upgrade, strip_hop_by_hop, strip_trailers,
};
pub use request_head::{RequestHead, Target, Upgrade, request_head};
pub use response_head::{ResponseHead, response_head};

/// How large a message head, and equally a trailer section, may be, and what comes between chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head with its first line and the empty line at its end.
    pub head_bytes_max: usize,
    /// Field lines, repeats counted one by one.
    pub fields_max: usize,
    /// The request target; longer ones are answered with 414.
    pub target_bytes_max: usize,
    /// Bytes of chunk extensions in one message; nobody uses them but to waste our time.
    pub chunk_extension_bytes_max: usize,
    /// Whether CONNECT requests are parsed; when not they are refused.
    pub is_connect_allowed: bool,
}

impl HeadLimits {
    /// What a listener allows its clients unless configured otherwise.
    pub const REQUEST: Self = Self {
        head_bytes_max: 64 * 1024,
        fields_max: 128,
        target_bytes_max: 16 * 1024,
        chunk_extension_bytes_max: 4 * 1024,
        is_connect_allowed: false,
    };

    /// What an origin may answer with.
    pub const RESPONSE: Self = Self {
        fields_max: 200,
        ..Self::REQUEST
    };
}

/// How the end of a body is found, on either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body, and no field that speaks of one.
    None,
    /// Content-Length, which may be 0.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// A response that ends with its connection.
    UntilClose,
}

impl BodyLength {
    /// True when no body byte follows the head.
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    /// The framing for a client of this version: HTTP/1.0 knows no chunks, so such a body ends
    /// with the connection.
    pub fn for_version(self, version: http::Version) -> Self {
        match self {
            Self::Chunked if version < http::Version::HTTP_11 => Self::UntilClose,
            other => other,
        }
    }
}
