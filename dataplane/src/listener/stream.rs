//! One connection of a socket that does not speak HTTP alone: which listener takes it, and how.
//!
//! Plain TCP goes to the one listener there is. Where TLS is passed through or carries bytes, the
//! ClientHello is looked at and its server name decides: passed through as it is, ended here for
//! bytes, or ended here for HTTP, which then takes the same way as on a socket of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tracing::debug;

use dataplane_config::{Bind, ListenerConfig, Protocol};
use dataplane_stream::{Arrival, Client, server_name};
use dataplane_telemetry::reason::Reason;
use dataplane_tls::{Alert, ServerStream};
use ir::listener::{ListenerProtocol, TlsVersion};

use super::accept::Door;

impl Door {
    /// Serves one connection of a socket that carries streams.
    pub(super) async fn serve_stream(&self, tcp: TcpStream, client: SocketAddr, bind: Arc<Bind>) {
        // A socket that refuses the option still works, only slower.
        let _ = tcp.set_nodelay(true);
        if bind.protocol == Protocol::Tcp {
            let Some(listener) = bind.any_listener().cloned() else {
                return;
            };
            drop(bind);
            let arrival = self.arrival(&tcp, client);
            let client = Client::Plain(tcp);
            return dataplane_stream::serve(self.streams.clone(), client, arrival, listener).await;
        }
        let began = Instant::now();
        let name = match server_name::peek(&self.streams, &tcp).await {
            Ok(hello) => hello.server_name,
            Err(why) => {
                debug!(%client, reason = %why.reason, "no ClientHello");
                bind.metrics.connection_refused(why.reason);
                self.streams
                    .refused(client, None, began.elapsed(), why.reason);
                if let Some(alert) = why.alert {
                    server_name::refuse(&self.streams, tcp, alert).await;
                }
                return;
            }
        };
        let Some(listener) = bind.by_server_name(name.as_deref()).cloned() else {
            debug!(%client, ?name, "no listener serves the server name");
            let reason = Reason::UnknownServerName;
            bind.metrics.connection_refused(reason);
            self.streams
                .refused(client, name.as_deref(), began.elapsed(), reason);
            if bind.passes_through {
                // Not an alert: Gateway API asks for a closed connection, see `dataplane-stream`.
                return drop(tcp.set_zero_linger());
            }
            drop(bind);
            return server_name::refuse(&self.streams, tcp, Alert::UnrecognizedName).await;
        };
        match listener.listener.protocol {
            ListenerProtocol::TlsPassthrough => {
                drop(bind);
                let mut arrival = self.arrival(&tcp, client);
                arrival.server_name = name;
                let client = Client::Passed(tcp);
                dataplane_stream::serve(self.streams.clone(), client, arrival, listener).await;
            }
            ListenerProtocol::Tls => {
                Box::pin(self.end_tls(tcp, client, bind, listener, name)).await;
            }
            // The handshake reads the same ClientHello and finds the same listener.
            _ => Box::pin(self.serve(tcp, client, &bind)).await,
        }
    }

    /// Ends TLS and carries the bytes inside.
    async fn end_tls(
        &self,
        tcp: TcpStream,
        client: SocketAddr,
        bind: Arc<Bind>,
        listener: Arc<ListenerConfig>,
        name: Option<Box<str>>,
    ) {
        let Some(tls) = &bind.tls else { return };
        let mut arrival = self.arrival(&tcp, client);
        arrival.server_name = name;
        if !dataplane_stream::has_route(&listener, arrival.server_name.as_deref()) {
            // Nobody shakes hands with a client that can go nowhere.
            drop(bind);
            dataplane_stream::unrouted(&self.streams, &arrival, &listener);
            return server_name::refuse(&self.streams, tcp, Alert::UnrecognizedName).await;
        }
        let Some(mut stream) = self.shake_hands(tls, tcp, client, &bind).await else {
            return;
        };
        let session = stream.session();
        if session.listener != listener.listener.name {
            return;
        }
        arrival.server_name = session.sni.as_deref().map(Into::into);
        arrival.tls_version = Some(version(&stream));
        arrival.admission = stream.take_admission().map(Box::new);
        drop(bind);
        let client = Client::Ended(Box::new(stream));
        dataplane_stream::serve(self.streams.clone(), client, arrival, listener).await;
    }

    fn arrival(&self, tcp: &TcpStream, client: SocketAddr) -> Arrival {
        Arrival {
            client,
            local: tcp.local_addr().unwrap_or(self.address),
            bind: self.address,
            admission: None,
            server_name: None,
            tls_version: None,
            drain: self.drain.clone(),
        }
    }
}

fn version(stream: &ServerStream<TcpStream>) -> &'static str {
    match stream.session().version {
        TlsVersion::V1_2 => "TLSv1.2",
        TlsVersion::V1_3 => "TLSv1.3",
    }
}
