//! The control plane of Nantian Gateway for development: manifests in, configuration out.
//!
//! An update runs through the modules in one line: [`files`] keeps a [`cluster_view`] of a folder,
//! [`translate`] turns it into a snapshot and [`conditions`], [`history`] publishes the snapshot, and
//! [`serve`] brings every data plane up to date; what one refuses goes into [`quarantine`]. [`cli`] starts all that, [`admin`] shows it,
//! [`standalone`] adds a data plane in the same process. In production the Go control plane takes
//! this place; both speak the contract that `ir` defines.

pub mod cli;
pub mod standalone;
pub mod demo;
pub mod control_plane;
pub mod admin;
pub mod serve;
pub mod status;
pub mod mesh;
pub mod services;
pub mod leader;
pub mod pipeline;
pub mod history;
pub mod quarantine;
pub mod projection;
pub mod nodes;
pub mod watch;
pub mod metrics;
pub mod tls;
pub mod settings;
pub mod report;
pub mod files;
pub mod translate;
pub mod conditions;
pub mod cluster_view;

#[cfg(test)]
mod fake_api;
