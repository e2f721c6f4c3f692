//! The module in a layer that `docker build` made: a gzip of a tar archive with `plugin.wasm` in it.
//!
//! Read in one pass with a bound on what it unpacks to; of tar only what such a layer needs.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

/// The file that is looked for, at the root.
const NAME: &str = "plugin.wasm";
const BLOCK: usize = 512;

/// The module in the layer, or what is wrong with it.
pub(super) fn module(layer: &[u8], bytes_max: u64) -> Result<Bytes, String> {
    // The head and the end of an archive come on top.
    let mut unpacked = MultiGzDecoder::new(layer).take(bytes_max.saturating_add(1 << 20));
    let mut head = [0; BLOCK];
    loop {
        if unpacked.read_exact(&mut head).is_err() || head.iter().all(|byte| *byte == 0) {
            return Err(format!("has a layer without {NAME} in it"));
        }
        let size = octal(&head[124..136]).ok_or("has a layer that is no tar archive")?;
        if name(&head) == NAME && matches!(head[156], b'0' | 0) {
            if size > bytes_max {
                return Err(format!("holds a module of more than {bytes_max} bytes"));
            }
            let mut module = Vec::new();
            let read = (&mut unpacked).take(size).read_to_end(&mut module);
            return match read {
                Ok(read) if read as u64 == size => Ok(module.into()),
                _ => Err("has a layer that ends early".to_owned()),
            };
        }
        let padded = size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64);
        let skipped = std::io::copy(&mut (&mut unpacked).take(padded), &mut std::io::sink());
        if skipped.ok() != Some(padded) {
            return Err(format!("has a layer without {NAME} in it"));
        }
    }
}

/// The path of an entry, without what stands for the root.
fn name(head: &[u8; BLOCK]) -> &str {
    let name = head[..100].split(|byte| *byte == 0).next();
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    let name = name.unwrap_or_default();
    name.trim_start_matches("./").trim_start_matches('/')
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        for (name, content) in files {
            let mut head = [0u8; BLOCK];
            head[..name.len()].copy_from_slice(name.as_bytes());
            let size = format!("{:011o}\0", content.len());
            head[124..136].copy_from_slice(size.as_bytes());
            head[156] = b'0';
            gz.write_all(&head).unwrap();
            gz.write_all(content).unwrap();
            let rest = content.len().next_multiple_of(BLOCK) - content.len();
            gz.write_all(&vec![0; rest]).unwrap();
        }
        gz.write_all(&[0; 2 * BLOCK]).unwrap();
        gz.finish().unwrap()
    }

    #[test]
    fn the_module_is_found_behind_other_files() {
        let found = module(
            &layer(&[("etc/passwd", &[b'x'; 700]), ("./plugin.wasm", b"\0asm")]),
            10,
        );
        assert_eq!(found.unwrap(), b"\0asm"[..]);
    }

    #[test]
    fn what_is_no_such_layer_is_refused() {
        let rows: [(Vec<u8>, &str); 5] = [
            (layer(&[("other.wasm", b"\0asm")]), "without plugin.wasm"),
            (layer(&[]), "without plugin.wasm"),
            (b"no gzip at all".to_vec(), "without plugin.wasm"),
            (layer(&[("plugin.wasm", &[0; 11])]), "more than 10 bytes"),
            (
                layer(&[("bomb", &vec![0; 4 << 20]), ("plugin.wasm", b"\0asm")]),
                "without plugin.wasm",
            ),
        ];
        for (layer, expected) in rows {
            let error = module(&layer, 10).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let mut cut = layer(&[("plugin.wasm", &[7; 5000])]);
        cut.truncate(60);
        assert!(module(&cut, 10_000).is_err());
    }
}
