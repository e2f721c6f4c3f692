//! What a line says about a connection that was passed on as bytes, or a UDP session.
//!
//! Written by the stream proxy when a session has ended; the fields that HTTP lines have too are
//! called and written alike.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::{Destination, JsonFormat, address, milliseconds, number, plain, write_tls};
use crate::reason::Reason;

/// What is known about a session when it has ended. Empty and absent fields are left out.
#[derive(Clone, Debug)]
pub struct StreamRecord<'a> {
    /// When the session began.
    pub timestamp: SystemTime,
    /// From there to its end.
    pub duration: Duration,
    /// `tcp`, `tls` or `udp`.
    pub protocol: &'static str,
    /// The listener's name; empty when none was found.
    pub listener: &'a str,
    /// The client.
    pub client: SocketAddr,
    /// Bytes taken from the client.
    pub bytes_received: u64,
    /// Bytes given to the client.
    pub bytes_sent: u64,
    /// Datagrams taken from the client and given to it.
    pub datagrams: Option<(u64, u64)>,
    /// Where it went.
    pub destination: Destination<'a>,
    /// How the session ended.
    pub reason: Reason,
    /// The version of the configuration that it began with.
    pub snapshot_version: &'a str,
    /// `TLSv1.3` and the like, when TLS ended here.
    pub tls_version: Option<&'a str>,
    /// The name the client asked for by TLS.
    pub sni: Option<&'a str>,
}

impl StreamRecord<'_> {
    /// A session of which nothing is known but its protocol and its client.
    pub const fn unknown(protocol: &'static str, client: SocketAddr) -> Self {
        Self {
            timestamp: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            protocol,
            listener: "",
            client,
            bytes_received: 0,
            bytes_sent: 0,
            datagrams: None,
            destination: Destination::NOWHERE,
            reason: Reason::Ok,
            snapshot_version: "",
            tls_version: None,
            sni: None,
        }
    }
}

impl JsonFormat {
    /// Appends one line, with its line feed.
    pub(in crate::access_log) fn write_stream(
        &mut self,
        out: &mut Vec<u8>,
        record: &StreamRecord<'_>,
    ) {
        out.extend_from_slice(b"{\"timestamp\":\"");
        self.clock.write(out, record.timestamp);
        out.extend_from_slice(b"\",\"event\":\"stream_session\"");
        plain(out, b",\"protocol\":\"", record.protocol);
        out.extend_from_slice(b",\"client_ip\":\"");
        address(out, record.client.ip());
        number(out, b"\",\"client_port\":", u64::from(record.client.port()));
        number(out, b",\"bytes_received\":", record.bytes_received);
        number(out, b",\"bytes_sent\":", record.bytes_sent);
        if let Some((received, sent)) = record.datagrams {
            number(out, b",\"datagrams_received\":", received);
            number(out, b",\"datagrams_sent\":", sent);
        }
        milliseconds(out, b",\"duration_ms\":", record.duration);
        plain(out, b",\"reason\":\"", record.reason.as_str());
        plain(out, b",\"response_flags\":\"", record.reason.flag());
        self.write_destination(
            out,
            record.listener,
            &record.destination,
            record.snapshot_version,
        );
        write_tls(out, record.tls_version, record.sni);
        out.extend_from_slice(b"}\n");
    }
}
