//! The gRPC side of the fake control plane.
//!
//! Notes what comes in and forwards what the test pushes; decides nothing.

use std::sync::Arc;

use ir::wire::configuration_discovery_service_server::ConfigurationDiscoveryService;
use ir::wire::{DiscoveryRequest, DiscoveryResponse, StatusAck, StatusReport};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{HISTORY_MAX, PUSHES_MAX, Shared};

pub(super) struct Discovery(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl ConfigurationDiscoveryService for Discovery {
    type StreamConfigurationStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    async fn stream_configuration(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamConfigurationStream>, Status> {
        let (pushes, receiver) = mpsc::channel(PUSHES_MAX);
        let id = {
            let mut state = self.0.state();
            if let Some(status) = &state.refusal {
                return Err(status.clone());
            }
            state.opened += 1;
            let id = state.opened;
            if let Some(greeting) = &state.greeting {
                // The channel is new and has room.
                let _ = pushes.try_send(Ok(greeting.clone()));
            }
            state.streams.insert(id, pushes);
            id
        };
        // Ends with the stream, because the connection is cut when the control plane is dropped.
        tokio::spawn(listen(self.0.clone(), id, request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn report_status(
        &self,
        request: Request<StatusReport>,
    ) -> Result<Response<StatusAck>, Status> {
        let mut state = self.0.state();
        if state.reports.len() < HISTORY_MAX {
            state.reports.push(request.into_inner());
        }
        match &state.report_refusal {
            Some(status) => Err(status.clone()),
            None => Ok(Response::new(StatusAck { accepted: true })),
        }
    }
}

/// Notes the requests of one stream until it ends.
async fn listen(shared: Arc<Shared>, id: u64, mut requests: Streaming<DiscoveryRequest>) {
    while let Ok(Some(request)) = requests.message().await {
        let mut state = shared.state();
        if state.requests.len() < HISTORY_MAX {
            state.requests.push(request.clone());
            state.unseen.push_back(request);
        }
    }
    shared.state().streams.remove(&id);
}
