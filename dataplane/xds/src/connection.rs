//! One connection to the control plane: its dial, its stream, its health checks, its reports.
//!
//! `client.rs` starts things here and waits for [`Connection::next`]. Dropping or hanging up ends all
//! of it at once. Nothing is decided here; that is `session.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use ir::wire;
use ir::wire::configuration_discovery_service_client::ConfigurationDiscoveryServiceClient;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::apply::Update;
use crate::dial::{DialError, dial, with_causes};
use crate::message;
use crate::session::{Event, Health};
use crate::settings::Settings;

/// How many requests may wait for the network. A control plane that reads none of so many answers
/// is given up.
const REQUESTS_MAX: usize = 64;

pub(crate) struct Connection {
    settings: Arc<Settings>,
    channel: Option<Channel>,
    requests: Option<mpsc::Sender<wire::DiscoveryRequest>>,
    responses: Option<Streaming<wire::DiscoveryResponse>>,
    /// What was started and is not finished.
    tasks: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// A request could not be sent: why.
    broken: Option<String>,
}

/// Something that was started came to its end.
enum Finished {
    Dial(Result<Channel, DialError>),
    Health(Health),
    Open(Result<Streaming<wire::DiscoveryResponse>, tonic::Status>),
    Report(Result<(), String>),
}

impl Connection {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            channel: None,
            requests: None,
            responses: None,
            tasks: FuturesUnordered::new(),
            broken: None,
        }
    }

    pub(crate) fn dial(&mut self) {
        let settings = Arc::clone(&self.settings);
        self.start(async move { Finished::Dial(dial(&settings).await) });
    }

    pub(crate) fn check_health(&mut self) {
        let Some(channel) = self.channel.clone() else {
            return;
        };
        let settings = Arc::clone(&self.settings);
        self.start(async move { Finished::Health(check_health(channel, &settings).await) });
    }

    /// Opens the stream. The first request goes out with the call, because a control plane of the
    /// contract answers nothing, not even with headers, before it has seen one.
    pub(crate) fn open(&mut self, first: wire::DiscoveryRequest) {
        let Some(mut client) = self.client() else {
            return;
        };
        let (requests, outbound) = mpsc::channel(REQUESTS_MAX);
        self.requests = Some(requests);
        self.send(first);
        self.start(async move {
            let opened = client
                .stream_configuration(ReceiverStream::new(outbound))
                .await;
            Finished::Open(opened.map(tonic::Response::into_inner))
        });
    }

    /// Sends a request on the open stream; a failure comes out of [`Self::next`].
    pub(crate) fn send(&mut self, request: wire::DiscoveryRequest) {
        let Some(requests) = &self.requests else {
            return;
        };
        // A closed channel is the end of the stream, which the responses tell with its reason.
        if let Err(TrySendError::Full(_)) = requests.try_send(request) {
            self.broken = Some("the control plane does not read its answers".to_owned());
        }
    }

    pub(crate) fn report(&mut self, report: wire::StatusReport) {
        let Some(mut client) = self.client() else {
            return;
        };
        let limit = self.settings.connect_timeout;
        self.start(async move {
            let result = match tokio::time::timeout(limit, client.report_status(report)).await {
                Ok(Ok(answer)) if answer.get_ref().accepted => Ok(()),
                Ok(Ok(_)) => Err("the control plane did not accept the report".to_owned()),
                Ok(Err(status)) => Err(describe(&status)),
                Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
            };
            Finished::Report(result)
        });
    }

    /// Ends everything that belongs to the connection.
    pub(crate) fn hang_up(&mut self) {
        *self = Self::new(Arc::clone(&self.settings));
    }

    /// What happens next; waits for ever while nothing is under way. May be dropped at any time
    /// without losing anything.
    pub(crate) async fn next(&mut self, wants_read: bool) -> Event<Update> {
        if let Some(reason) = self.broken.take() {
            return Event::StreamEnded(reason);
        }
        let is_reading = wants_read && self.responses.is_some();
        tokio::select! {
            Some(finished) = self.tasks.next(), if !self.tasks.is_empty() => self.take(finished),
            message = next_message(&mut self.responses), if is_reading => match message {
                Some(Ok(response)) => {
                    if response.live_replicas > 0 {
                        let live = &self.settings.live_replicas;
                        live.store(response.live_replicas, Ordering::Relaxed);
                    }
                    Event::Received(message::read(response))
                }
                Some(Err(status)) => Event::StreamEnded(describe(&status)),
                None => Event::StreamEnded("the control plane ended the stream".to_owned()),
            },
            else => std::future::pending().await,
        }
    }

    fn take(&mut self, finished: Finished) -> Event<Update> {
        match finished {
            Finished::Dial(Ok(channel)) => {
                self.channel = Some(channel);
                Event::Dialled
            }
            Finished::Dial(Err(error)) => match error.is_unanswered() {
                true => Event::Unanswered(with_causes(&error)),
                false => Event::DialFailed(with_causes(&error)),
            },
            Finished::Health(health) => Event::HealthChecked(health),
            Finished::Open(Ok(responses)) => {
                self.responses = Some(responses);
                Event::Opened
            }
            Finished::Open(Err(status)) => Event::StreamEnded(describe(&status)),
            Finished::Report(result) => Event::Reported(result),
        }
    }

    fn start(&self, task: impl Future<Output = Finished> + Send + 'static) {
        self.tasks.push(Box::pin(task));
    }

    /// A stub that takes gzip, because a control plane of the contract compresses every message
    /// whether or not that was offered.
    fn client(&self) -> Option<ConfigurationDiscoveryServiceClient<Channel>> {
        let client = ConfigurationDiscoveryServiceClient::new(self.channel.clone()?);
        Some(
            client
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(self.settings.message_bytes_max),
        )
    }
}

async fn next_message(
    responses: &mut Option<Streaming<wire::DiscoveryResponse>>,
) -> Option<Result<wire::DiscoveryResponse, tonic::Status>> {
    responses.as_mut()?.next().await
}

/// Asks for the health of the whole server, the service with the empty name.
async fn check_health(channel: Channel, settings: &Settings) -> Health {
    let limit = settings.connect_timeout;
    let mut client = HealthClient::new(channel).accept_compressed(CompressionEncoding::Gzip);
    let request = HealthCheckRequest {
        service: String::new(),
    };
    match tokio::time::timeout(limit, client.check(request)).await {
        Ok(Ok(answer)) => match answer.get_ref().status() {
            ServingStatus::NotServing => Health::NotServing,
            _ => Health::Serving,
        },
        Ok(Err(status)) => match status.code() {
            // There is no such service, or it keeps no account of the server as a whole.
            Code::Unimplemented | Code::NotFound => Health::Unimplemented,
            _ => Health::Failed(describe(&status) + certificate_hint(&status, settings)),
        },
        Err(_) => Health::Failed(format!("no answer within {} ms", limit.as_millis())),
    }
}

/// What to look at when the connection broke under the first question. With TLS 1.3 a server judges
/// our certificate when the handshake is over for us (RFC 8446, section 4.4.2.4), and often enough
/// the alert is lost and all that is seen is a closed connection.
fn certificate_hint(status: &tonic::Status, settings: &Settings) -> &'static str {
    let is_broken = std::error::Error::source(status).is_some();
    match &settings.tls {
        Some(tls) if is_broken && tls.identity.is_some() => {
            "; if the control plane refuses our certificate, check that xdsTls.certPath is signed by \
             an authority it trusts and has not expired"
        }
        Some(_) if is_broken => {
            "; if the control plane asks for a certificate, set xdsTls.certPath and xdsTls.keyPath"
        }
        _ => "",
    }
}

/// A status in one line, without the metadata and bytes that its own text would show.
fn describe(status: &tonic::Status) -> String {
    let code = status.code();
    let message = status.message();
    let cause = std::error::Error::source(status)
        .map(with_causes)
        .filter(|cause| cause != message)
        .unwrap_or_default();
    let parts = [code.description(), message, cause.as_str()];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(": ") + size_hint(status)
}

/// What to look at when a message of the control plane is larger than we take (tonic's own words).
fn size_hint(status: &tonic::Status) -> &'static str {
    let words = ["length too large", "exceeded while decompressing"];
    match words.iter().any(|words| status.message().contains(words)) {
        true => "; make the configuration smaller, or raise xdsTransport.maxMessageBytes",
        false => "",
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    fn connection() -> Connection {
        Connection::new(Arc::new(Settings::new("127.0.0.1:1", "node")))
    }

    async fn is_idle(connection: &mut Connection) -> bool {
        let next = std::pin::pin!(connection.next(true));
        matches!(poll!(next), Poll::Pending)
    }

    #[tokio::test]
    async fn a_control_plane_that_reads_no_answers_is_given_up() {
        let mut connection = connection();
        let (requests, _unread) = mpsc::channel(REQUESTS_MAX);
        connection.requests = Some(requests);
        for _ in 0..REQUESTS_MAX {
            connection.send(wire::DiscoveryRequest::default());
        }
        assert!(is_idle(&mut connection).await, "all of them fit");
        connection.send(wire::DiscoveryRequest::default());
        let Event::StreamEnded(reason) = connection.next(true).await else {
            panic!("the stream goes on");
        };
        assert_eq!(reason, "the control plane does not read its answers");
        assert!(is_idle(&mut connection).await, "told once");
    }

    #[tokio::test]
    async fn what_a_dropped_connection_had_to_tell_is_not_told() {
        let mut connection = connection();
        connection.broken = Some("late".to_owned());
        connection.start(async { Finished::Health(Health::Serving) });
        connection.hang_up();
        assert!(is_idle(&mut connection).await);
    }

    #[tokio::test]
    async fn nothing_is_started_or_sent_without_a_connection() {
        let mut connection = connection();
        connection.check_health();
        connection.open(wire::DiscoveryRequest::default());
        connection.send(wire::DiscoveryRequest::default());
        connection.report(wire::StatusReport::default());
        assert!(connection.tasks.is_empty());
        assert!(is_idle(&mut connection).await);
    }

    #[tokio::test]
    async fn the_end_of_the_requests_is_told_by_the_responses_alone() {
        let mut connection = connection();
        let (requests, outbound) = mpsc::channel(1);
        connection.requests = Some(requests);
        drop(outbound);
        connection.send(wire::DiscoveryRequest::default());
        assert!(is_idle(&mut connection).await);
    }

    #[test]
    fn a_status_is_one_line_with_its_cause_and_without_metadata() {
        let mut status = tonic::Status::unavailable("try later");
        status
            .metadata_mut()
            .insert("token", "secret".parse().unwrap());
        let mut caused = tonic::Status::unknown("transport error");
        caused.set_source(Arc::new(std::io::Error::other("refused")));
        let rows = [
            (status, "The service is currently unavailable: try later"),
            (tonic::Status::cancelled(""), "The operation was cancelled"),
            (caused, "Unknown error: transport error: refused"),
        ];
        for (status, expected) in rows {
            assert_eq!(describe(&status), expected);
        }
    }
}
