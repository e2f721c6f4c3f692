//! The kinds of `gateway.nantian.dev`: what a user may write, and what the gateway says about it.
//!
//! Each kind is a type with its OpenAPI schema, descriptions and validation rules; [`manifest`] turns
//! them into the CustomResourceDefinitions under `manifests/crds`, [`reference`] into pages, and
//! [`check`] holds objects against the same schema and rules without an API server. The shim reads
//! these types and says what they do; nothing here translates or serves.

#![expect(
    clippy::duplicated_attributes,
    reason = "each printer column is an attribute of its own"
)]

pub mod reference;
pub mod check;
pub mod manifest;
pub mod route_policy;
pub mod backend_lb_policy;
pub mod security_policy;
pub mod ai_service;
pub mod token_policy;
pub mod wasm_plugin;
pub mod direct_response;
pub mod service_import;
pub mod status;
pub mod target_ref;
pub mod duration;
pub mod rule;

pub use ai_service::{AIService, AIServiceSpec};
pub use backend_lb_policy::{BackendLBPolicy, BackendLBPolicySpec};
pub use direct_response::{DirectResponse, DirectResponseSpec};
pub use route_policy::{RoutePolicy, RoutePolicySpec};
pub use security_policy::{SecurityPolicy, SecurityPolicySpec};
pub use service_import::{ServiceImport, ServiceImportSpec};
pub use token_policy::{TokenPolicy, TokenPolicySpec};
pub use wasm_plugin::{WasmPlugin, WasmPluginSpec};

/// The API group of every kind here.
pub const GROUP: &str = "gateway.nantian.dev";
/// Its version.
pub const VERSION: &str = "v1alpha1";
