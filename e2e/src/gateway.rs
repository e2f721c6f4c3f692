//! The gateway as processes: in one (`standalone`), or control plane and data plane apart.
//!
//! Each type starts its process with admin APIs at free ports and knows how to wait for it.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::until;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::ports::Ports;
use crate::process::{DATA_PLANE, Process, SHIM};

/// How long a start, or a new configuration, may take.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// A free address of loopback.
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// `nantian-shim standalone`.
#[derive(Debug)]
pub struct Standalone {
    /// The process.
    pub process: Process,
    /// The admin API of the data plane in it.
    pub data_plane: Admin,
    /// The admin API of the control plane in it.
    pub control_plane: Admin,
}

impl Standalone {
    /// Starts it on a folder and does not wait.
    pub fn spawn(folder: &Path, ports: &Ports, more: &[&str]) -> anyhow::Result<Self> {
        Self::spawn_in(folder, ports, more, &[])
    }

    fn spawn_in(
        folder: &Path,
        ports: &Ports,
        more: &[&str],
        environment: &[(&str, &OsStr)],
    ) -> anyhow::Result<Self> {
        let data_plane = free_address();
        let control_plane = free_address();
        let mut arguments = vec!["standalone".to_owned(), folder.display().to_string()];
        arguments.extend(["--admin-addr".to_owned(), data_plane.to_string()]);
        arguments.extend(["--control-admin-addr".to_owned(), control_plane.to_string()]);
        arguments.extend(ports.flags());
        arguments.extend(more.iter().map(|&flag| flag.to_owned()));
        Ok(Self {
            process: Process::start_in(SHIM, arguments, environment)?,
            data_plane: Admin(data_plane),
            control_plane: Admin(control_plane),
        })
    }

    /// Starts it on a folder and waits until it serves.
    pub async fn start(folder: &Path, ports: &Ports) -> anyhow::Result<Self> {
        let mut standalone = Self::spawn(folder, ports, &[])?;
        standalone.settled().await?;
        Ok(standalone)
    }

    /// As [`Self::start`], on a system whose certificate authorities are those of a PEM file.
    pub async fn start_trusting(
        folder: &Path,
        ports: &Ports,
        authorities: &Path,
    ) -> anyhow::Result<Self> {
        let environment = [("SSL_CERT_FILE", authorities.as_os_str())];
        let mut standalone = Self::spawn_in(folder, ports, &[], &environment)?;
        standalone.settled().await?;
        Ok(standalone)
    }

    /// Waits until the data plane serves what the control plane has published last.
    pub async fn settled(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START_LIMIT;
        loop {
            let published = self.control_plane.published_version().await;
            if published.is_some() && self.data_plane.served_version().await == published {
                return Ok(());
            }
            if !self.process.is_running() || Instant::now() > end {
                bail!("it does not serve; {}", self.process.said());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// `nantian-shim serve`.
#[derive(Debug)]
pub struct ControlPlane {
    /// The process.
    pub process: Process,
    /// Where data planes connect.
    pub grpc: SocketAddr,
    /// Its admin API.
    pub admin: Admin,
}

/// PEM files of one side: its authority, its certificate, its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Who vouches for the other side.
    pub ca: PathBuf,
    /// What this side shows; nothing for a side that shows none.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl ControlPlane {
    /// Starts it on a folder, for data planes at `grpc`, and waits until it has published something.
    pub async fn start(
        folder: &Path,
        grpc: SocketAddr,
        tls: Option<&TlsFiles>,
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let admin = free_address();
        let mut command = vec!["serve".to_owned(), folder.display().to_string()];
        command.extend(["--source", "files"].map(str::to_owned));
        command.extend(["--grpc-addr".to_owned(), grpc.to_string()]);
        command.extend(["--admin-addr".to_owned(), admin.to_string()]);
        if let Some(tls) = tls {
            command.extend(["--tls-client-ca".to_owned(), tls.ca.display().to_string()]);
            if let Some((certificate, key)) = &tls.own {
                command.extend(["--tls-cert".to_owned(), certificate.display().to_string()]);
                command.extend(["--tls-key".to_owned(), key.display().to_string()]);
            }
        }
        command.extend(more.iter().map(|&flag| flag.to_owned()));
        let control_plane = Self {
            process: Process::start(SHIM, command)?,
            grpc,
            admin: Admin(admin),
        };
        control_plane.published().await
    }

    /// Starts it on the API server that `kubeconfig` names, with a settings file, for data planes at
    /// `grpc`, and waits until it has published something.
    pub async fn follow(
        kubeconfig: &Path,
        settings: &Path,
        grpc: SocketAddr,
    ) -> anyhow::Result<Self> {
        let admin = free_address();
        let mut command = ["serve", "--source", "kube", "--kubeconfig"]
            .map(str::to_owned)
            .to_vec();
        command.extend([kubeconfig.display().to_string(), "--config".to_owned()]);
        command.extend([settings.display().to_string(), "--grpc-addr".to_owned()]);
        command.extend([
            grpc.to_string(),
            "--admin-addr".to_owned(),
            admin.to_string(),
        ]);
        let control_plane = Self {
            process: Process::start(SHIM, command)?,
            grpc,
            admin: Admin(admin),
        };
        control_plane.published().await
    }

    /// Waits until it has published something.
    async fn published(mut self) -> anyhow::Result<Self> {
        let control_plane = &mut self;
        let end = Instant::now() + START_LIMIT;
        while control_plane.admin.published_version().await.is_none() {
            if !control_plane.process.is_running() || Instant::now() > end {
                bail!("nothing is published; {}", control_plane.process.said());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(self)
    }
}

/// `nantian-dataplane`.
#[derive(Debug)]
pub struct DataPlane {
    /// The process.
    pub process: Process,
    /// Its admin API.
    pub admin: Admin,
    _bootstrap: TempDir,
}

impl DataPlane {
    /// Starts it against a control plane and does not wait. Pauses between dials are short;
    /// `change` may set anything else in the bootstrap file.
    pub fn spawn(
        grpc: SocketAddr,
        tls: Option<&TlsFiles>,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<Self> {
        let admin = free_address();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut bootstrap = json!({
            "nodeId": "dp-1",
            "controlPlaneAddr": format!("{scheme}://{grpc}"),
            "adminAddr": admin.to_string(),
            "accessLog": { "enabled": false },
            "xdsTls": { "enabled": tls.is_some() },
            "xdsTransport": { "initialReconnectBackoffMs": 50, "maxReconnectBackoffMs": 500 },
            "runtimeTuning": { "drainMinAcceptMs": 500 },
        });
        if let Some(tls) = tls {
            bootstrap["xdsTls"]["caPath"] = json!(tls.ca);
            bootstrap["xdsTls"]["domainName"] = json!("localhost");
            if let Some((certificate, key)) = &tls.own {
                bootstrap["xdsTls"]["certPath"] = json!(certificate);
                bootstrap["xdsTls"]["keyPath"] = json!(key);
            }
        }
        change(&mut bootstrap);
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("dataplane.yaml");
        // JSON is YAML.
        std::fs::write(&file, bootstrap.to_string())?;
        let arguments = [OsStr::new("--config"), file.as_os_str()];
        Ok(Self {
            process: Process::start(DATA_PLANE, arguments)?,
            admin: Admin(admin),
            _bootstrap: folder,
        })
    }

    /// Starts it and waits until it is ready.
    pub async fn start(
        grpc: SocketAddr,
        tls: Option<&TlsFiles>,
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<Self> {
        let mut data_plane = Self::spawn(grpc, tls, change)?;
        data_plane.ready().await?;
        Ok(data_plane)
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + START_LIMIT;
        while !self.admin.is_ready().await {
            if !self.process.is_running() || Instant::now() > end {
                bail!("it is not ready; {}", self.process.said());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until its stream to the control plane stands, or does not.
    pub async fn connected(&self, expected: bool) {
        until(START_LIMIT, || async {
            self.admin.json("/api/v1/xds/status").await["connected"] == expected
        })
        .await;
    }
}
