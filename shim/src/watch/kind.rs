//! One kind of one API group, followed for as long as it is installed.
//!
//! [`follow`] lists and watches and hands every change to the collector, which it may have to wait
//! for. A watch that expired is listed again by `kube`; an API server that is gone is tried again
//! with a pause that grows to [`PAUSE_MAX`]. A kind that is not there ends the task;
//! [`super::discovery`] starts another when it comes back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Config};
use tokio::sync::mpsc::Sender;
use tracing::{debug, warn};

use super::key_of;
use super::secrets::SecretChange;

/// First pause after a failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Connecting takes no longer than this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An API server says something every minute, if only a bookmark.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// A client for the API server that the environment or `kubeconfig` names.
pub async fn client(kubeconfig: Option<&std::path::Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context(
            "no API server is configured; set KUBECONFIG, give --kubeconfig, or run in a pod",
        )?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).context("the configuration of the API server cannot be used")
}

/// A kind as the API server serves it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// API group; empty for the core.
    pub group: Arc<str>,
    /// Version that is read.
    pub version: Arc<str>,
    /// Kind as written in a manifest.
    pub kind: String,
    /// Name in paths.
    pub plural: String,
    /// The one namespace that is followed; nothing for all of the cluster.
    pub namespace: Option<Arc<str>>,
}

impl Source {
    /// `group/version`, or the version alone for the core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The same for a client.
    pub fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_string(),
            version: self.version.to_string(),
            api_version: self.api_version(),
            kind: self.kind.clone(),
            plural: self.plural.clone(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version(), self.kind)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What happened in the cluster.
pub(super) enum Change {
    /// These kinds are installed; each will be listed.
    Installed(Vec<Source>),
    /// This kind is not installed any more.
    Gone(Source),
    /// It is, and may not be listed: in the API server's words.
    Forbidden(Source, String),
    /// All objects of the kind follow.
    ListBegins(Source),
    /// One object, of a list or changed.
    Listed(Source, Box<DynamicObject>),
    /// That was all.
    ListEnds(Source),
    /// An object is gone.
    Deleted(Source, Arc<str>),
    /// Something about Secrets or ConfigMaps.
    Secret(SecretChange),
}

/// Follows one kind until it is not installed any more, or nobody listens.
pub(super) async fn follow(client: Client, source: Source, changes: Sender<Change>) {
    let resource = source.resource();
    let api = match &source.namespace {
        Some(namespace) => Api::<DynamicObject>::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    let mut pause = Pause::default();
    let mut is_told = false;
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(event) => {
                pause.reset();
                match event {
                    Event::Init => Change::ListBegins(source.clone()),
                    Event::InitApply(object) | Event::Apply(object) => {
                        Change::Listed(source.clone(), Box::new(object))
                    }
                    Event::InitDone => Change::ListEnds(source.clone()),
                    Event::Delete(object) => Change::Deleted(source.clone(), key_of(&object)),
                }
            }
            Err(error) if is_gone(&error) => {
                debug!(kind = %source, "is not installed");
                drop(changes.send(Change::Gone(source)).await);
                return;
            }
            Err(error) => {
                if let Some(said) = forbidden(&error)
                    && !std::mem::replace(&mut is_told, true)
                {
                    let change = Change::Forbidden(source.clone(), said);
                    if changes.send(change).await.is_err() {
                        return;
                    }
                }
                pause.after(&source, &error).await;
                continue;
            }
        };
        is_told &= !matches!(change, Change::ListEnds(_));
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// What the API server said when the kind may not be listed or watched.
fn forbidden(error: &watcher::Error) -> Option<String> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if status.code == 403 =>
        {
            Some(status.message.clone())
        }
        _ => None,
    }
}

/// True when the API server does not know the kind.
pub(super) fn is_gone(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// Pauses between tries, longer and longer.
#[derive(Default)]
pub(super) struct Pause(Option<Duration>);

impl Pause {
    /// All is well.
    pub(super) fn reset(&mut self) {
        self.0 = None;
    }

    /// Waits; an expired watch is the way of things and waits for nothing.
    pub(super) async fn after(&mut self, what: &impl fmt::Display, error: &watcher::Error) {
        if matches!(error, watcher::Error::WatchError(status) if status.code == 410) {
            debug!(kind = %what, "watch expired, listing again");
            return;
        }
        let pause = self.0.unwrap_or(PAUSE_MIN);
        if self.0.is_none() {
            debug!(kind = %what, %error, "watch failed");
        } else {
            warn!(kind = %what, %error, "the API server does not answer, trying again");
        }
        self.0 = Some((pause * 2).min(PAUSE_MAX));
        tokio::time::sleep(pause).await;
    }
}
