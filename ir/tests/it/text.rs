//! Messages in protobuf's text form, with certificates filled in.
//!
//! Key material is made at run time: `@CERT_A@`, `@KEY_A@`, `@CERT_B@` and `@KEY_B@` in a text stand
//! for PEM, so that no key lies in the repository.

use std::sync::OnceLock;

use ir::wire;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};

/// A self-signed certificate and its key, as PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Two pairs that do not belong together.
pub(crate) fn pairs() -> &'static [Pair; 2] {
    static PAIRS: OnceLock<[Pair; 2]> = OnceLock::new();
    PAIRS.get_or_init(|| {
        ["a.example.com", "b.example.com"].map(|name| {
            let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            Pair {
                certificate: pair.cert.pem(),
                key: pair.signing_key.serialize_pem(),
            }
        })
    })
}

/// Text with its placeholders filled in.
pub(crate) fn fill(text: &str) -> String {
    let [a, b] = pairs();
    let escape = |pem: &str| pem.replace("\r\n", "\n").replace('\n', "\\n");
    text.replace("@CERT_A@", &escape(&a.certificate))
        .replace("@KEY_A@", &escape(&a.key))
        .replace("@CERT_B@", &escape(&b.certificate))
        .replace("@KEY_B@", &escape(&b.key))
}

/// The snapshot that `text` describes.
pub(crate) fn snapshot(text: &str) -> wire::ConfigSnapshot {
    parse("ConfigSnapshot", text)
}

/// The delta that `text` describes.
pub(crate) fn delta(text: &str) -> wire::SnapshotDelta {
    parse("SnapshotDelta", text)
}

fn parse<M: Message + Default>(name: &str, text: &str) -> M {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
        let files = protox::compile(["gateway/control/v1/discovery.proto"], [root]).unwrap();
        DescriptorPool::from_file_descriptor_set(files).unwrap()
    });
    let descriptor = pool.get_message_by_name(&format!("gateway.control.v1.{name}"));
    let message = DynamicMessage::parse_text_format(descriptor.unwrap(), &fill(text))
        .unwrap_or_else(|error| panic!("{error} in:\n{text}"));
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}
