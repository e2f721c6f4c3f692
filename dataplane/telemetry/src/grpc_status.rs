//! How calls over gRPC end: the code that a server gives beside the status of HTTP.
//!
//! The request path reads it from heads and trailers; access log, metrics and spans tell it.

/// The code with which a call over gRPC ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcStatus(u16);

/// Values of the label; the last is for codes that gRPC does not have.
pub(crate) const LABELS: [&str; 18] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "other",
];

impl GrpcStatus {
    /// Reads a value of `grpc-status`; what is no number is UNKNOWN, as clients take it.
    pub fn read(value: &[u8]) -> Self {
        const UNKNOWN: u16 = 2;
        let text = std::str::from_utf8(value).ok();
        let code = text.and_then(|text| text.parse().ok());
        Self(code.unwrap_or(UNKNOWN))
    }

    /// The code of that number.
    pub(crate) const fn of(code: u16) -> Self {
        Self(code)
    }

    /// The number.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The server's doing, by OpenTelemetry's conventions for servers: UNKNOWN, DEADLINE_EXCEEDED,
    /// UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
    pub const fn is_fault(self) -> bool {
        matches!(self.0, 2 | 4 | 12..=15)
    }

    /// Its place in [`LABELS`].
    pub(crate) fn label_index(self) -> usize {
        usize::from(self.0).min(LABELS.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_clients_do() {
        for (value, code, label, is_fault) in [
            (&b"0"[..], 0, "0", false),
            (b"2", 2, "2", true),
            (b"4", 4, "4", true),
            (b"5", 5, "5", false),
            (b"11", 11, "11", false),
            (b"12", 12, "12", true),
            (b"15", 15, "15", true),
            (b"16", 16, "16", false),
            (b"17", 17, "other", false),
            (b"65535", 65535, "other", false),
            (b"65536", 2, "2", true),
            (b"", 2, "2", true),
            (b"\xff", 2, "2", true),
        ] {
            let status = GrpcStatus::read(value);
            let told = (
                status.code(),
                LABELS[status.label_index()],
                status.is_fault(),
            );
            assert_eq!(told, (code, label, is_fault), "{value:?}");
        }
    }
}
