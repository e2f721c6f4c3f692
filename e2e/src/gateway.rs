//! The gateway as processes: in one (`standalone`), or control plane and data plane apart.
//!
//! Each type starts its process with admin APIs at free ports and knows how to wait for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use dataplane_testkit::snapshot::free_port;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::ports::Ports;
use crate::process::{Process, SHIM};

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
        let data_plane = free_address();
        let control_plane = free_address();
        let mut arguments = vec!["standalone".to_owned(), folder.display().to_string()];
        arguments.extend(["--admin-addr".to_owned(), data_plane.to_string()]);
        arguments.extend(["--control-admin-addr".to_owned(), control_plane.to_string()]);
        arguments.extend(ports.flags());
        arguments.extend(more.iter().map(|&flag| flag.to_owned()));
        Ok(Self {
            process: Process::start(SHIM, arguments)?,
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
