//! How connections are set up: HTTP/2 parameters, and TLS where it is on.
//!
//! `serve.rs` asks the [`Transport`] for the current [`Door`] before each connection. TLS is ended
//! here and not by tonic, because what is to be counted on a connection (`pings.rs`) can be seen in
//! plain text only.

use std::io;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::connection::Stream;
use crate::settings::{GrpcRuntime, TlsFiles};
use crate::tls::{Purpose, ServerTls, TlsError, accept};

/// gRPC is HTTP/2.
const PURPOSE: Purpose = Purpose {
    section: "grpcTLS",
    alpn: "h2",
};

/// How connections of now are set up.
#[derive(Clone)]
pub(super) struct Door {
    server: Server,
    tls: Option<TlsAcceptor>,
}

impl Door {
    /// The template of a server, with the parameters of HTTP/2.
    pub(super) fn server(&self) -> Server {
        self.server.clone()
    }

    /// Makes the handshake where TLS is on.
    pub(super) async fn open(
        &self,
        socket: TcpStream,
        shutdown: &CancellationToken,
    ) -> io::Result<Stream> {
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(socket));
        };
        let accepted = accept(tls, socket, shutdown).await?;
        Ok(Stream::Tls(Box::new(accepted)))
    }
}

/// Where every [`Door`] comes from.
pub(super) struct Transport {
    server: Server,
    tls: ServerTls,
}

impl Transport {
    /// Reads the files for the first time; here a fault is an error.
    pub(super) async fn new(
        runtime: &GrpcRuntime,
        files: Option<TlsFiles>,
    ) -> Result<Self, TlsError> {
        let server = Server::builder()
            .http2_keepalive_interval(Some(runtime.keepalive_time))
            .http2_keepalive_timeout(Some(runtime.keepalive_timeout))
            .initial_stream_window_size(runtime.initial_window_size)
            .initial_connection_window_size(runtime.initial_conn_window_size)
            .max_concurrent_streams(runtime.max_concurrent_streams)
            .http2_max_header_list_size(16 * 1024);
        let tls = ServerTls::new(PURPOSE, files).await?;
        Ok(Self { server, tls })
    }

    /// The one to use for a connection that comes now.
    pub(super) async fn current(&mut self) -> Door {
        Door {
            server: self.server.clone(),
            tls: self.tls.current().await,
        }
    }
}
