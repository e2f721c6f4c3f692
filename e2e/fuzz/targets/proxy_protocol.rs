//! The header of the PROXY protocol. Laws: how it arrives changes nothing; a header is judged without
//! what stands behind it; a line of version 1 that is taken says the address that is read from it.

#![no_main]

use dataplane::listener::proxy_protocol::{Header, decode};
use libfuzzer_sys::fuzz_target;

const TLVS_MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let whole = decode(input, TLVS_MAX);
    for end in 0..input.len() {
        match (decode(&input[..end], TLVS_MAX), &whole) {
            (Ok(None), _) => {}
            (Ok(Some(early)), Ok(Some(whole))) => {
                assert_eq!(early, *whole);
                assert!(early.1 <= end);
            }
            (Err(_), Err(_)) => {}
            (early, whole) => panic!("{early:?} of {end} bytes, {whole:?} of all"),
        }
    }
    let Ok(Some((header, length))) = whole else {
        return;
    };
    assert!(length <= input.len());
    let alone = decode(&input[..length], TLVS_MAX).expect("it was taken with bytes behind it");
    assert_eq!(alone, Some((header, length)));
    if let (Some(line), Header::Proxied(client)) = (input[..length].strip_prefix(b"PROXY "), header)
    {
        let line = std::str::from_utf8(line).expect("ASCII");
        let words: Vec<&str> = line.trim_end_matches("\r\n").split(' ').collect();
        assert_eq!(words.len(), 5, "{line}");
        assert_eq!(words[3], client.port().to_string());
        assert_eq!(words[1].parse(), Ok(client.ip()));
    }
});
