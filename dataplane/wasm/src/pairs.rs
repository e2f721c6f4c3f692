//! How maps of header fields are written in a guest's memory.
//!
//! A count, then the lengths of every name and value, then all names and values, each ended by a zero byte;
//! numbers are 32 bits, little-endian. What a guest wrote is read with every length checked.

/// Entries that are read at most.
const ENTRIES_MAX: usize = 1024;

/// Writes a map.
pub(crate) fn encode<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let pairs: Vec<_> = pairs.collect();
    let bytes = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len() + 10);
    let mut out = Vec::with_capacity(4 + bytes.sum::<usize>());
    out.extend_from_slice(&length(pairs.len()));
    for (name, value) in &pairs {
        out.extend_from_slice(&length(name.len()));
        out.extend_from_slice(&length(value.len()));
    }
    for (name, value) in pairs {
        for part in [name, value] {
            out.extend_from_slice(part);
            out.push(0);
        }
    }
    out
}

/// Reads a map; `None` when it is not one.
pub(crate) fn decode(data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    // Some SDKs write an empty map as nothing at all.
    if data.is_empty() {
        return Some(Vec::new());
    }
    let (count, mut lengths) = number(data)?;
    if count > ENTRIES_MAX {
        return None;
    }
    let mut texts = lengths.get(count * 8..)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, rest) = number(lengths)?;
        let (value, rest) = number(rest)?;
        lengths = rest;
        let name = text(&mut texts, name)?;
        let value = text(&mut texts, value)?;
        pairs.push((name, value));
    }
    Some(pairs)
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn number(data: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = data.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

/// Takes a text and the zero behind it.
fn text<'a>(texts: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (text, rest) = texts.split_at_checked(length)?;
    let (end, rest) = rest.split_first()?;
    if *end != 0 {
        return None;
    }
    *texts = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(pairs: Vec<(Vec<u8>, Vec<u8>)>) {
            let written = encode(pairs.iter().map(|(n, v)| (&n[..], &v[..])));
            let read = decode(&written).unwrap();
            let read: Vec<_> = read.into_iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn lies_about_lengths_are_refused() {
        for bytes in [
            &[1, 0, 0, 0][..],
            &[255, 255, 255, 255],
            &[1, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', 0],
        ] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
