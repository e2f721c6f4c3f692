//! Compiles the `.proto` files into messages, clients and servers, without an installed `protoc`.
//!
//! protox parses them, tonic-prost-build writes the code that `src/wire.rs` includes. Maps become
//! ordered maps, so that equal messages encode to equal bytes.

use std::error::Error;

const FILES: [&str; 9] = [
    "gateway/control/v1/discovery.proto",
    "gateway/control/v1/config.proto",
    "gateway/control/v1/extension.proto",
    "gateway/control/v1/listener_settings.proto",
    "gateway/control/v1/ai.proto",
    "gateway/control/v1/route_policy.proto",
    "gateway/control/v1/backend_policy.proto",
    "gateway/control/v1/wasm.proto",
    "envoy/service/auth/v3/external_auth.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .btree_map(".")
        .codec_path("crate::codec::Codec")
        // Their Debug would show key material, or a module of many megabytes: see wire.rs.
        .skip_debug([
            ".gateway.control.v1.SecretMaterial",
            ".gateway.control.v1.WasmPluginConfig",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}
