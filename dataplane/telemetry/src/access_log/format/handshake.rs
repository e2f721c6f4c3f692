//! What a line says about a TLS handshake that failed.
//!
//! Written by the accept loop, since no proxy ever sees such a connection; the fields that other
//! lines have too are called and written alike.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::{JsonFormat, address, milliseconds, number, plain, text, write_tls};
use crate::reason::Reason;

/// What is known about a handshake that failed. Empty and absent fields are left out.
#[derive(Clone, Debug)]
pub struct HandshakeRecord<'a> {
    /// When it began.
    pub timestamp: SystemTime,
    /// From there to its end.
    pub duration: Duration,
    /// The name of the listener that was to take the connection; empty when none was found.
    pub listener: &'a str,
    /// The client.
    pub client: SocketAddr,
    /// Why it failed.
    pub reason: Reason,
    /// The same in words.
    pub detail: &'a str,
    /// The version of the configuration it was refused by.
    pub snapshot_version: &'a str,
    /// The name the client asked for, where it was read.
    pub sni: Option<&'a str>,
}

impl JsonFormat {
    /// Appends one line, with its line feed.
    pub(in crate::access_log) fn write_handshake(
        &mut self,
        out: &mut Vec<u8>,
        record: &HandshakeRecord<'_>,
    ) {
        out.extend_from_slice(b"{\"timestamp\":\"");
        self.clock.write(out, record.timestamp);
        out.extend_from_slice(b"\",\"event\":\"tls_handshake\",\"protocol\":\"tls\"");
        text(out, b",\"listener\":\"", record.listener.as_bytes());
        out.extend_from_slice(b",\"client_ip\":\"");
        address(out, record.client.ip());
        number(out, b"\",\"client_port\":", u64::from(record.client.port()));
        milliseconds(out, b",\"duration_ms\":", record.duration);
        plain(out, b",\"reason\":\"", record.reason.as_str());
        plain(out, b",\"response_flags\":\"", record.reason.flag());
        text(out, b",\"detail\":\"", record.detail.as_bytes());
        let version = record.snapshot_version.as_bytes();
        text(out, b",\"snapshot_version\":\"", version);
        write_tls(out, None, record.sni);
        out.extend_from_slice(b"}\n");
    }
}
