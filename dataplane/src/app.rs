//! Builds every part of the data plane and ties them; the one place that knows all of them.
//!
//! [`run`] is what the binary does after it has read its bootstrap file, and what the shim's
//! standalone mode runs beside itself. Traffic lives on the worker threads; everything else (admin,
//! the stream to the control plane, compiling) on the runtime that calls [`run`].

use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use dataplane_config::{Fetcher, Kept, Overlap, Rotation, Store};
use dataplane_http::Overload;
use dataplane_resilience::admission::{Clients, Gate};
use dataplane_resilience::pressure::SharedLevel;
use dataplane_stream::udp;
use dataplane_telemetry::access_log::AccessLog;
use dataplane_telemetry::log::LogHandle;
use dataplane_telemetry::metrics::Metrics;
use dataplane_telemetry::trace::Tracing;
use dataplane_tls::SealError;
use dataplane_xds::Status;
use dataplane_xds::status::PluginDetail;

use crate::admin::{self, AdminState, Readiness};
use crate::apply::Applier;
use crate::bootstrap::Bootstrap;
use crate::ebb;
use crate::health::Checks;
use crate::last_good::{self, Keeper};
use crate::listener::worker::{Shared, Workers};
use crate::listener::{Listeners, accept};
use crate::overload;
use crate::resolver;
use crate::session_secret;
use crate::shutdown;

/// How long the access log and the traces may take, each, to write out what they hold at the end.
const LOG_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// Of one worker: its runtime, and a socket for each of some listeners.
const DESCRIPTORS_PER_WORKER: usize = 8;

/// Runs a data plane until `stop` resolves, then drains it.
///
/// True when every running request came to its end in time.
pub async fn run(
    bootstrap: Bootstrap,
    metrics: Arc<Metrics>,
    log: Option<LogHandle>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<bool> {
    dataplane_tls::install_crypto_provider();
    overload::descriptors::raise_limit();
    let secrets = session_secrets(&bootstrap).context("cannot seal sessions")?;
    let store = Arc::new(Store::with(
        bootstrap.listener_defaults.clone(),
        kept(&bootstrap, secrets.as_ref()),
    ));
    let status = Arc::new(Status::default());
    let readiness = Arc::new(Readiness::default());
    let connections = Arc::new(Gate::new(bootstrap.connections_max));
    let level = SharedLevel::default();
    let descriptors = descriptors(&bootstrap, &connections);

    let access_log = open_access_log(&bootstrap, &metrics)?;
    let tracing = open_traces(&bootstrap, &metrics)?;
    let (http, streams) = proxies(&bootstrap);
    let shared = Shared {
        store: store.clone(),
        http,
        streams,
        access_log: access_log.clone(),
        tracing: tracing.clone(),
        metrics: metrics.clone(),
        limits: accept_limits(&bootstrap, &connections, &descriptors, &level),
        overload: Overload::new(level.clone(), metrics.overload.clone()),
    };
    let workers = Workers::start(bootstrap.workers, &shared).context("cannot start workers")?;
    let listeners = Arc::new(Mutex::new(Listeners::new(workers)));

    let admin_stop = CancellationToken::new();
    let asked_to_drain = CancellationToken::new();
    let admin = admin::serve(
        bootstrap.admin.clone(),
        AdminState {
            store: store.clone(),
            metrics: metrics.clone(),
            tracing: tracing.clone(),
            status: status.clone(),
            readiness: readiness.clone(),
            log,
            node_id: bootstrap.node_id.clone(),
            http: shared.http.clone(),
            connections: connections.clone(),
            overload: shared.overload.clone(),
            level: level.clone(),
            drain: asked_to_drain.clone(),
        },
        admin_stop.clone(),
    )
    .await
    .context("cannot open the admin listener")?;

    let mut beside = JoinSet::new();
    beside.spawn(overload::watch(
        bootstrap.overload.clone(),
        descriptors,
        level,
        metrics.overload.clone(),
        admin_stop.clone(),
    ));
    if let (Some(file), Some(secrets)) = (bootstrap.session_secret_file.clone(), secrets) {
        let (metrics, stop) = (metrics.sessions.clone(), admin_stop.clone());
        beside.spawn(session_secret::follow(file, secrets, metrics, stop));
    }
    beside.spawn(reopen_on_hangup(access_log.clone(), admin_stop.clone()));
    let keeper = Arc::new(keeper(&bootstrap, &metrics));
    status.ask_plugins(plugin_details(store.clone()));
    let mut applier = Applier::new(
        store,
        metrics.clone(),
        status.clone(),
        listeners.clone(),
        readiness.clone(),
        keeper.clone(),
        Checks::new(bootstrap.health, shared.http.clone()),
    );
    restore(&bootstrap, &mut applier).await;
    let resolving = resolver::run(shared.store.clone(), applier.changed(), admin_stop.clone());
    beside.spawn(resolving);
    let ebbing = ebb::run(applier.changed());
    let (stop_xds, stopped) = watch::channel(false);
    let xds = tokio::spawn(dataplane_xds::run(
        bootstrap.xds.clone(),
        applier,
        status,
        metrics,
        stopped,
    ));

    until_stopped(stop, &asked_to_drain, ebbing).await;
    let whole = shutdown::drain(bootstrap.drain, &readiness, &listeners, &connections).await;
    let _ = stop_xds.send(true);
    let _ = xds.await;
    if let Some(keeper) = Arc::into_inner(keeper) {
        keeper.stop().await;
    }
    admin_stop.cancel();
    let _ = admin.await;
    while beside.join_next().await.is_some() {}
    write_out(listeners, access_log, tracing).await;
    info!(whole, "stopped");
    Ok(whole)
}

/// Returns when the process shall end. Memory is given back here and not in a task: this thread has
/// some too, and nobody else asks it.
async fn until_stopped(
    stop: impl Future<Output = ()>,
    asked_to_drain: &CancellationToken,
    ebbing: impl Future<Output = ()>,
) {
    tokio::select! {
        () = stop => {}
        () = asked_to_drain.cancelled() => {}
        () = ebbing => {}
    }
}

/// Ends the workers, then writes out what they leave: lines of the access log, spans.
async fn write_out(listeners: Arc<Mutex<Listeners>>, access_log: AccessLog, tracing: Tracing) {
    // The workers hold lines of their own, which they hand on at their end.
    if let Some(listeners) = Arc::into_inner(listeners) {
        let workers = listeners.into_inner().into_workers();
        let _ = tokio::task::spawn_blocking(move || workers.join()).await;
    }
    let stopping = tokio::task::spawn_blocking(move || {
        access_log.stop(LOG_PATIENCE);
        tracing.stop(LOG_PATIENCE);
    });
    let _ = stopping.await;
}

/// What the proxies go by; they share the number of connections to endpoints.
fn proxies(
    bootstrap: &Bootstrap,
) -> (
    Arc<dataplane_http::Settings>,
    Arc<dataplane_stream::Settings>,
) {
    let mut http = bootstrap.http.clone();
    http.large_heads = Gate::new(large_heads_max(bootstrap));
    let mut streams = bootstrap.streams.clone();
    streams.upstream_connections = http.upstream_connections.clone();
    (Arc::new(http), Arc::new(streams))
}

/// Who writes what serves to disk, if anybody does.
fn keeper(bootstrap: &Bootstrap, metrics: &Metrics) -> Keeper {
    match &bootstrap.last_good {
        Some(path) => Keeper::start(path.clone(), metrics.last_good.clone()),
        None => Keeper::default(),
    }
}

/// Serves the configuration that was kept on disk, until the control plane sends one.
async fn restore(bootstrap: &Bootstrap, applier: &mut Applier) {
    let kept = bootstrap.last_good.as_deref();
    if let Some(found) = kept.and_then(last_good::load)
        && let Err(rejection) = applier.restore(found).await
    {
        warn!(
            reason = rejection.reason,
            "the configuration on disk cannot be served"
        );
    }
}

/// How plugins are doing, for the control plane.
fn plugin_details(store: Arc<Store>) -> impl Fn() -> Vec<PluginDetail> + Send + Sync {
    move || {
        let config = store.load();
        let states = config.plugins.values().map(|it| it.state());
        let details = states.map(|state| PluginDetail {
            key: state.key,
            sha256: state.sha256.unwrap_or_default(),
            module_error: state.error,
            is_disabled: state.is_disabled,
            last_failure: state.last_error,
        });
        details.collect()
    }
}

/// What outlives configurations, empty.
fn kept(bootstrap: &Bootstrap, secrets: Option<&Rotation>) -> Kept {
    let kept = Kept::new(
        bootstrap.rate_limits.clone(),
        bootstrap.xds.live_replicas.clone(),
    );
    let authorities = bootstrap.plugin_authorities.clone();
    let kept = kept
        .in_zone(&bootstrap.zone)
        .with_access_log_prefix(&bootstrap.access_log_prefix)
        .with_plugins(
            Fetcher::new(bootstrap.plugins_inside, authorities),
            bootstrap.plugins,
        );
    match secrets {
        Some(secrets) => kept.sealing_with(secrets.secrets()),
        None => kept,
    }
}

/// What sessions are sealed under, if the replicas are to share it.
fn session_secrets(bootstrap: &Bootstrap) -> Result<Option<Rotation>, SealError> {
    let Some(secret) = &bootstrap.session_secret else {
        return Ok(None);
    };
    let file = bootstrap.session_secret_file.as_ref();
    let overlap = file.map_or_else(Overlap::default, |file| file.overlap);
    Rotation::new(secret, overlap).map(Some)
}

fn open_access_log(bootstrap: &Bootstrap, metrics: &Metrics) -> anyhow::Result<AccessLog> {
    let Some(mut settings) = bootstrap.access_log.clone() else {
        return Ok(AccessLog::disabled());
    };
    settings.counts = metrics.access_log.clone();
    AccessLog::start(settings).context("cannot start the access log")
}

/// Opens the access log again whenever SIGHUP comes, as those send who have moved it away.
async fn reopen_on_hangup(access_log: AccessLog, stop: CancellationToken) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        return;
    };
    while stop.run_until_cancelled(hangup.recv()).await.is_some() {
        info!("SIGHUP, the access log is opened again");
        access_log.reopen();
    }
}

fn open_traces(bootstrap: &Bootstrap, metrics: &Metrics) -> anyhow::Result<Tracing> {
    let Some(mut settings) = bootstrap.traces.clone() else {
        return Ok(Tracing::default());
    };
    settings.counts = metrics.traces.clone();
    Tracing::start(settings).context("cannot start the thread of traces")
}

/// How many large heads may be on their way at once: a share of the memory, with each as large as may
/// be. The levels of memory come too late for those who send many within a moment.
fn large_heads_max(bootstrap: &Bootstrap) -> Option<usize> {
    bootstrap.overload.memory.as_ref()?;
    let limit = bootstrap.overload.source.measure()?.limit;
    let bytes_max = bootstrap.http.request_head.head_bytes_max.max(1);
    let share = u128::from(limit) * u128::from(bootstrap.overload.large_heads_percent) / 100;
    let share = usize::try_from(share).unwrap_or(usize::MAX);
    Some((share / bytes_max).max(1))
}

/// What every listener asks before it takes a connection.
fn accept_limits(
    bootstrap: &Bootstrap,
    connections: &Arc<Gate>,
    descriptors: &overload::Descriptors,
    level: &SharedLevel,
) -> accept::Limits {
    accept::Limits {
        process: connections.clone(),
        waits_for_descriptors: descriptors.are_the_limit,
        listener_max: bootstrap.listener_connections_max,
        clients: bootstrap.client_connections_max.map(Clients::new),
        level: level.clone(),
        handshake_timeout: bootstrap.handshake_timeout,
        streams: Arc::new(Gate::new(bootstrap.streams_max)),
        listener_streams_max: bootstrap.listener_streams_max,
        proxy_header_timeout: bootstrap.http.first_byte_timeout,
        proxy_tlvs_max: bootstrap.proxy_tlvs_max,
        datagrams: Arc::new(datagram_limits(bootstrap, connections, descriptors, level)),
    }
}

/// What every UDP listener asks before it takes a datagram.
fn datagram_limits(
    bootstrap: &Bootstrap,
    connections: &Arc<Gate>,
    descriptors: &overload::Descriptors,
    level: &SharedLevel,
) -> udp::flood::Limits {
    // A session has a descriptor. Where those are short, at most half of what is for clients is
    // for datagrams, so that a flood of them leaves room for connections.
    let half = connections.limit().map(|limit| (limit / 2).max(1));
    let half = half.filter(|_| descriptors.are_the_limit);
    let sessions_max = half.into_iter().chain(bootstrap.udp_sessions_max).min();
    udp::flood::Limits::new(
        Gate::clone(connections),
        Gate::new(sessions_max),
        level.clone(),
        &bootstrap.streams.udp,
    )
}

/// Holds the number of connections down to what the limit of open files allows.
fn descriptors(bootstrap: &Bootstrap, connections: &Arc<Gate>) -> overload::Descriptors {
    // Workers and their sockets come later; each takes a few.
    let workers = bootstrap.workers.saturating_mul(DESCRIPTORS_PER_WORKER);
    let allowed = overload::descriptors::allowed(bootstrap.overload.descriptors, workers);
    bootstrap
        .http
        .upstream_connections
        .set_limit(Some(allowed.backends));
    let are_the_limit = bootstrap
        .connections_max
        .is_none_or(|max| max > allowed.clients);
    if are_the_limit {
        connections.set_limit(Some(allowed.clients));
        info!(
            connections = allowed.clients,
            "connections are limited by the limit of open files"
        );
    }
    overload::Descriptors {
        connections: connections.clone(),
        are_the_limit,
    }
}
