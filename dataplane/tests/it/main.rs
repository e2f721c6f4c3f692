//! The whole data plane in process, on loopback, under a control plane that the test plays.

mod support;

mod http;
mod limits;
mod update;
