//! The part of the settings that `--source kube` reads: pace, limits, election, addresses.
//!
//! The limits of a snapshot count for folders too. `settings.rs` parses it with the rest and hands it
//! on as [`Cluster`]. Keys of the Go control plane keep their names; defaults differ where the table
//! says so.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::duration::DurationText;
use super::{SettingsError, bad, positive};

/// How an API server is followed and told.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Only these namespaces are followed; empty for all.
    pub watch_namespaces: Vec<Arc<str>>,
    /// Changes are gathered for no longer than this.
    pub settle_delay: Duration,
    /// Statuses are compared again this often.
    pub sync_period: Duration,
    /// Pause before a write that failed is tried again.
    pub retry_backoff: Duration,
    /// How much may be translated.
    pub limits: TranslatorLimits,
    /// Which replica serves.
    pub leader_election: Option<LeaderElection>,
    /// Where Gateways listen.
    pub addresses: Addresses,
    /// Routes may have Services as parents.
    pub mesh: Option<Mesh>,
    /// Shown in the status of a Gateway that is bound everywhere.
    pub status_address: Option<IpAddr>,
}

/// Bounds of a translation; absent means none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslatorLimits {
    /// Objects of all kinds.
    pub max_input_objects: Option<usize>,
    /// Resources of a snapshot.
    pub max_snapshot_objects: Option<usize>,
    /// Endpoints of a snapshot.
    pub max_snapshot_endpoints: Option<usize>,
    /// Bytes of a snapshot as a message.
    pub max_snapshot_bytes: Option<usize>,
}

/// What data planes take unless they are told otherwise (`xdsTransport.maxMessageBytes`).
const SNAPSHOT_BYTES: usize = 96 << 20;

impl Default for TranslatorLimits {
    fn default() -> Self {
        Self {
            max_input_objects: None,
            max_snapshot_objects: None,
            max_snapshot_endpoints: None,
            max_snapshot_bytes: Some(SNAPSHOT_BYTES),
        }
    }
}

/// One of several replicas serves, the one that holds the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// Name of the Lease.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// Others take over when it was not renewed for this long.
    pub lease_duration: Duration,
    /// A holder that cannot renew for this long steps down.
    pub renew_deadline: Duration,
    /// How often it is renewed.
    pub retry_period: Duration,
}

/// Where Gateways listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Each Gateway on an address of its own out of these, or everywhere when there are none.
    Pool(Vec<IpAddr>),
    /// Each Gateway behind a Service of its own, on ports of its own.
    Service(GatewayServices),
}

/// Services made for Gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayServices {
    /// `LoadBalancer`, `ClusterIP` or `NodePort`.
    pub service_type: String,
    /// `namespace/name` of the Service whose endpoints are the data planes.
    pub data_plane: String,
    /// Range of ports that data planes bind.
    pub ports: (NonZeroU16, NonZeroU16),
}

/// How Services are led to data planes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// `namespace/name` of the Service whose endpoints are the data planes.
    pub data_plane: String,
    /// Range of ports that data planes bind.
    pub ports: (NonZeroU16, NonZeroU16),
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            watch_namespaces: Vec::new(),
            settle_delay: Duration::from_millis(20),
            sync_period: Duration::from_secs(30),
            retry_backoff: Duration::from_secs(1),
            limits: TranslatorLimits::default(),
            leader_election: Some(LeaderElection::default()),
            addresses: Addresses::Pool(Vec::new()),
            mesh: None,
            status_address: None,
        }
    }
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            id: "nantian-controlplane-leader".to_owned(),
            namespace: "nantian-gw".to_owned(),
            lease_duration: Duration::from_secs(12),
            renew_deadline: Duration::from_secs(8),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// As written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawRunner {
    settle_delay: Option<DurationText>,
    retry_backoff: Option<DurationText>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawLimits {
    max_input_objects: usize,
    max_snapshot_objects: usize,
    max_snapshot_endpoints: usize,
    max_snapshot_bytes: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawElection {
    enabled: Option<bool>,
    id: Option<String>,
    namespace: Option<String>,
    lease_duration: Option<DurationText>,
    renew_deadline: Option<DurationText>,
    retry_period: Option<DurationText>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawAddresses {
    strategy: Option<String>,
    pool: Vec<String>,
    service_type: Option<String>,
    data_plane_service: Option<String>,
    first_port: Option<u16>,
    last_port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawMesh {
    enabled: bool,
    data_plane_service: Option<String>,
    first_port: Option<u16>,
    last_port: Option<u16>,
}

/// All of it as written.
pub(super) struct RawCluster {
    pub(super) watch_namespaces: Vec<String>,
    pub(super) sync_period: Option<DurationText>,
    pub(super) runner: RawRunner,
    pub(super) limits: RawLimits,
    pub(super) election: RawElection,
    pub(super) addresses: RawAddresses,
    pub(super) mesh: RawMesh,
    pub(super) status_address: Option<String>,
}

impl RawCluster {
    pub(super) fn check(self) -> Result<Cluster, SettingsError> {
        let default = Cluster::default();
        let limit = |given: usize| (given > 0).then_some(given);
        let addresses = self.addresses.check()?;
        let mesh = self.mesh.check()?;
        check_apart(&addresses, mesh.as_ref())?;
        Ok(Cluster {
            watch_namespaces: namespaces(&self.watch_namespaces, &addresses, mesh.as_ref())?,
            settle_delay: positive(
                "reconcilerRunner.settleDelay",
                self.runner.settle_delay,
                default.settle_delay,
            )?,
            sync_period: positive("syncPeriod", self.sync_period, default.sync_period)?,
            retry_backoff: positive(
                "reconcilerRunner.retryBackoff",
                self.runner.retry_backoff,
                default.retry_backoff,
            )?,
            limits: TranslatorLimits {
                max_input_objects: limit(self.limits.max_input_objects),
                max_snapshot_objects: limit(self.limits.max_snapshot_objects),
                max_snapshot_endpoints: limit(self.limits.max_snapshot_endpoints),
                max_snapshot_bytes: match self.limits.max_snapshot_bytes {
                    None => default.limits.max_snapshot_bytes,
                    Some(given) => limit(given),
                },
            },
            leader_election: self.election.check()?,
            addresses,
            mesh,
            status_address: match self.status_address.as_deref() {
                None | Some("") => None,
                Some(text) => Some(ip("statusAddress", text)?),
            },
        })
    }
}

/// The namespaces that are followed: those that are written, and where data planes are.
fn namespaces(
    written: &[String],
    addresses: &Addresses,
    mesh: Option<&Mesh>,
) -> Result<Vec<Arc<str>>, SettingsError> {
    let is_name = |name: &String| {
        let is_inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        (1..=63).contains(&name.len()) && name.chars().all(is_inside)
    };
    if let Some(bad_name) = written.iter().find(|name| !is_name(name)) {
        let problem = format!("`{bad_name}` is no name of a namespace");
        return Err(bad("watchNamespaces", problem));
    }
    if written.is_empty() {
        return Ok(Vec::new());
    }
    let service = match addresses {
        Addresses::Service(services) => Some(&services.data_plane),
        Addresses::Pool(_) => None,
    };
    let services = service.into_iter().chain(mesh.map(|mesh| &mesh.data_plane));
    let of_services = services.filter_map(|service| service.split('/').next());
    let names = written.iter().map(String::as_str).chain(of_services);
    let mut names: Vec<Arc<str>> = names.map(Arc::from).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

impl RawElection {
    fn check(self) -> Result<Option<LeaderElection>, SettingsError> {
        if self.enabled == Some(false) {
            return Ok(None);
        }
        let default = LeaderElection::default();
        let election = LeaderElection {
            id: self.id.unwrap_or(default.id),
            namespace: self.namespace.unwrap_or(default.namespace),
            lease_duration: positive(
                "leaderElection.leaseDuration",
                self.lease_duration,
                default.lease_duration,
            )?,
            renew_deadline: positive(
                "leaderElection.renewDeadline",
                self.renew_deadline,
                default.renew_deadline,
            )?,
            retry_period: positive(
                "leaderElection.retryPeriod",
                self.retry_period,
                default.retry_period,
            )?,
        };
        // A Lease tells others whole seconds: after so many they take over.
        let told = Duration::from_secs(election.lease_duration.as_secs());
        let is_ordered = election.retry_period < election.renew_deadline
            && (election.renew_deadline < told || told.is_zero());
        if !is_ordered {
            let problem = "must be: retryPeriod < renewDeadline < leaseDuration in whole seconds, \
                           else two replicas may serve at once";
            return Err(bad("leaderElection", problem.to_owned()));
        }
        if election.lease_duration < Duration::from_secs(1) {
            return Err(bad(
                "leaderElection.leaseDuration",
                "must be at least 1s, the unit of a Lease".to_owned(),
            ));
        }
        Ok(Some(election))
    }
}

impl RawAddresses {
    fn check(self) -> Result<Addresses, SettingsError> {
        match self.strategy.as_deref().unwrap_or("pool") {
            "pool" => {
                let addresses = self.pool.iter();
                let addresses = addresses.map(|text| ip("addresses.pool", text));
                Ok(Addresses::Pool(addresses.collect::<Result<_, _>>()?))
            }
            "service" => self.check_service(),
            other => Err(bad(
                "addresses.strategy",
                format!("`{other}` is not known, use pool or service"),
            )),
        }
    }

    fn check_service(self) -> Result<Addresses, SettingsError> {
        let service_type = self
            .service_type
            .unwrap_or_else(|| "LoadBalancer".to_owned());
        if !matches!(
            service_type.as_str(),
            "LoadBalancer" | "ClusterIP" | "NodePort"
        ) {
            return Err(bad(
                "addresses.serviceType",
                format!("`{service_type}` is not known, use LoadBalancer, NodePort or ClusterIP"),
            ));
        }
        let data_plane = data_plane("addresses.dataPlaneService", self.data_plane_service)?;
        let default = (FIRST_PORT, LAST_PORT);
        let written = (self.first_port, self.last_port);
        let ports = range("addresses.firstPort", written, default)?;
        Ok(Addresses::Service(GatewayServices {
            service_type,
            data_plane,
            ports,
        }))
    }
}

impl RawMesh {
    fn check(self) -> Result<Option<Mesh>, SettingsError> {
        let written = (self.first_port, self.last_port);
        let mesh = Mesh {
            data_plane: data_plane("mesh.dataPlaneService", self.data_plane_service)?,
            ports: range("mesh.firstPort", written, (MESH_FIRST_PORT, MESH_LAST_PORT))?,
        };
        Ok(self.enabled.then_some(mesh))
    }
}

/// A port of a Gateway's Service must not be one that the mesh leads a Service to.
fn check_apart(addresses: &Addresses, mesh: Option<&Mesh>) -> Result<(), SettingsError> {
    let (Addresses::Service(services), Some(mesh)) = (addresses, mesh) else {
        return Ok(());
    };
    let ((first, last), (mesh_first, mesh_last)) = (services.ports, mesh.ports);
    if last < mesh_first || mesh_last < first {
        return Ok(());
    }
    let problem = format!(
        "{first} to {last} overlaps with {mesh_first} to {mesh_last} of mesh.firstPort and \
         mesh.lastPort, keep them apart"
    );
    Err(bad("addresses.firstPort", problem))
}

fn data_plane(key: &'static str, written: Option<String>) -> Result<String, SettingsError> {
    let name = written.unwrap_or_else(|| DATA_PLANE.to_owned());
    if name.split('/').filter(|part| !part.is_empty()).count() == 2 {
        return Ok(name);
    }
    Err(bad(key, format!("`{name}` is not namespace/name")))
}

fn range(
    key: &'static str,
    (first, last): (Option<u16>, Option<u16>),
    default: (u16, u16),
) -> Result<(NonZeroU16, NonZeroU16), SettingsError> {
    let (first, last) = (first.unwrap_or(default.0), last.unwrap_or(default.1));
    let ports = NonZeroU16::new(first).zip(NonZeroU16::new(last));
    ports
        .filter(|(first, last)| first <= last)
        .ok_or_else(|| bad(key, format!("{first} to {last} is no range of ports")))
}

/// The chart's name of it.
const DATA_PLANE: &str = "nantian-gw/nantian-gw-dataplane";
/// Below the mesh's ports, above those that need a privilege.
const FIRST_PORT: u16 = 10_000;
const LAST_PORT: u16 = 17_999;
/// The contract's range.
const MESH_FIRST_PORT: u16 = 20_000;
const MESH_LAST_PORT: u16 = 29_999;

fn ip(key: &'static str, text: &str) -> Result<IpAddr, SettingsError> {
    let parsed = text.parse();
    parsed.map_err(|_| bad(key, format!("`{text}` is no IP address")))
}
