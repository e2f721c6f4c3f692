//! A watch of the API server, beside the shim's own: what any other controller would see, and when.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::stage::Stage;

/// What was seen when, from the start on.
pub(crate) struct Watch<T> {
    seen: Arc<Mutex<Vec<(Instant, T)>>>,
    task: JoinHandle<()>,
}

impl<T: Clone + Send + 'static> Watch<T> {
    /// Watches objects of the Gateway API in namespace `default`, from now on; of each event
    /// `what` is kept.
    pub(crate) async fn start(
        stage: &Stage,
        plural: &str,
        what: impl Fn(&Value) -> Option<T> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let mut api = stage.proxy.connect().await?;
        let gateway = stage.gateway(&mut api).await?;
        // Versions count for all kinds alike.
        let version = gateway["metadata"]["resourceVersion"].as_str();
        let version = version.context("the Gateway has no version")?;
        let mut stream = TcpStream::connect(stage.proxy.address()).await?;
        // HTTP/1.0, so that events come as lines and nothing else.
        let request = format!(
            "GET /apis/gateway.networking.k8s.io/v1/namespaces/default/{plural}?watch=1\
             &resourceVersion={version} HTTP/1.0\r\nhost: localhost\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let now = Instant::now();
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(found) = what(&event) {
                    let mut seen = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.push((now, found));
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// Everything until now.
    pub(crate) fn seen(&self) -> Vec<(Instant, T)> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
