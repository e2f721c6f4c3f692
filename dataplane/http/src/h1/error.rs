//! Why a head or a body was refused. Every variant knows a stable word for logs and metrics and the
//! status a client gets; for messages of an origin the caller answers 502 whatever the variant.

use http::StatusCode;
use thiserror::Error;

/// A message head that was refused. The connection must be closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("message head refused: {}", self.detail())]
pub enum HeadError {
    /// A line of the head ends with LF alone.
    BareLf,
    /// The head exceeds its byte limit.
    HeadTooLarge,
    /// The request target exceeds its byte limit.
    UriTooLong,
    /// More field lines than allowed.
    TooManyFields,
    /// Not exactly `method SP target SP version`.
    BadRequestLine,
    /// The method is no token, or longer than any real one.
    BadMethod,
    /// The target has none of the four forms, or holds a byte no target may hold.
    BadTarget,
    /// The version does not have the form `HTTP/1.1`.
    BadVersion,
    /// A well-formed version that is neither 1.0 nor 1.1.
    UnsupportedVersion,
    /// CONNECT where it is not configured.
    ConnectRefused,
    /// A field line without a colon.
    MissingColon,
    /// A field name that is no token.
    BadFieldName,
    /// White space between a field name and its colon.
    SpaceBeforeColon,
    /// A line that continues the one before.
    ObsoleteFold,
    /// A control character in a field value, a bare CR included.
    BadFieldValue,
    /// An HTTP/1.1 request without Host.
    MissingHost,
    /// More than one Host.
    RepeatedHost,
    /// A Host, or an authority in the target, that is not `host[:port]`.
    BadHost,
    /// A Content-Length that is not a decimal number below 2^63.
    BadContentLength,
    /// Several Content-Length fields that differ.
    DifferingContentLengths,
    /// A Transfer-Encoding that is not exactly `chunked`.
    BadTransferEncoding,
    /// Transfer-Encoding in an HTTP/1.0 message.
    TransferEncodingInHttp10,
    /// Content-Length and Transfer-Encoding in one message.
    ContentLengthAndTransferEncoding,
    /// An Expect that is not exactly `100-continue`.
    UnknownExpectation,
    /// A response does not begin with `HTTP/1.x`, a status of three digits and a clean reason.
    BadStatusLine,
}

impl HeadError {
    /// The status for the client that sent such a request.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnsupportedVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::UnknownExpectation => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// A stable word for logs.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::HeadTooLarge => "head_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::TooManyFields => "too_many_fields",
            Self::BadRequestLine => "bad_request_line",
            Self::BadMethod => "bad_method",
            Self::BadTarget => "bad_target",
            Self::BadVersion => "bad_version",
            Self::UnsupportedVersion => "unsupported_version",
            Self::ConnectRefused => "connect_refused",
            Self::MissingColon => "missing_colon",
            Self::BadFieldName => "bad_field_name",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::ObsoleteFold => "obsolete_fold",
            Self::BadFieldValue => "bad_field_value",
            Self::MissingHost => "missing_host",
            Self::RepeatedHost => "repeated_host",
            Self::BadHost => "bad_host",
            Self::BadContentLength => "bad_content_length",
            Self::DifferingContentLengths => "differing_content_lengths",
            Self::BadTransferEncoding => "bad_transfer_encoding",
            Self::TransferEncodingInHttp10 => "transfer_encoding_in_http10",
            Self::ContentLengthAndTransferEncoding => "content_length_and_transfer_encoding",
            Self::UnknownExpectation => "unknown_expectation",
            Self::BadStatusLine => "bad_status_line",
        }
    }
}

/// A body that was refused. Nothing more may be read from its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("message body refused: {}", self.detail())]
pub enum BodyError {
    /// The connection ended before the body did.
    Truncated,
    /// A chunk size that is not 1 to 16 hexadecimal digits.
    BadChunkSize,
    /// A chunk size line that does not end with CRLF.
    BadChunkLine,
    /// A chunk extension without a name, or with a control character.
    BadChunkExtension,
    /// More chunk extension bytes in the message than allowed.
    ChunkExtensionsTooLarge,
    /// Chunk data that is not followed by CRLF.
    BadChunkEnd,
    /// The trailer section was refused.
    BadTrailers(HeadError),
}

impl BodyError {
    /// The status for the client that sent such a body, when no answer was begun yet.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadTrailers(cause) => cause.status(),
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// A stable word for logs.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::Truncated => "body_truncated",
            Self::BadChunkSize => "bad_chunk_size",
            Self::BadChunkLine => "bad_chunk_line",
            Self::BadChunkExtension => "bad_chunk_extension",
            Self::ChunkExtensionsTooLarge => "chunk_extensions_too_large",
            Self::BadChunkEnd => "bad_chunk_end",
            Self::BadTrailers(cause) => cause.detail(),
        }
    }
}

/// A body that does not keep what its head promised. The connection must be cut, so that the
/// other side sees an incomplete message and not a shorter one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// More bytes than the Content-Length sent.
    #[error("body longer than its content-length")]
    TooLong,
    /// The end came before all bytes of the Content-Length.
    #[error("body shorter than its content-length by {0} bytes")]
    TooShort(u64),
    /// Data after the end of the body, or for a message without one.
    #[error("data for a message that can hold no more")]
    AfterEnd,
}
