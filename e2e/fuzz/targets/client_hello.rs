//! A ClientHello, as it is peeked for its server name. Laws: how it arrives changes nothing; a name that
//! rustls reads from it is the name found, so that routing and handshake never see different ones.

#![no_main]

use dataplane_tls::HelloReader;
use libfuzzer_sys::fuzz_target;
use rustls::server::Acceptor;

fuzz_target!(|input: &[u8]| {
    let whole = HelloReader::default().read(input);
    let mut reader = HelloReader::default();
    let mut piecewise = Ok(None);
    for end in 0..=input.len() {
        piecewise = reader.read(&input[..end]);
        if !matches!(piecewise, Ok(None)) {
            break;
        }
    }
    assert_eq!(whole, piecewise);
    let Ok(Some(ours)) = whole else { return };
    if let Some(name) = &ours.server_name {
        assert!(name.len() <= 253 && !name.is_empty(), "{name:?}");
        assert!(
            !name.bytes().any(|byte| byte.is_ascii_uppercase()),
            "{name:?}"
        );
    }
    let protocols: Vec<&[u8]> = ours.alpn_protocols().collect();

    let mut acceptor = Acceptor::default();
    let mut rest = input;
    while !rest.is_empty() && acceptor.read_tls(&mut rest).is_ok_and(|read| read > 0) {
        let accepted = match acceptor.accept() {
            Ok(Some(accepted)) => accepted,
            Ok(None) => continue,
            Err(_) => return,
        };
        let theirs = accepted.client_hello();
        if let Some(name) = theirs.server_name() {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            assert_eq!(ours.server_name.as_deref(), Some(&*name));
        }
        if let Some(alpn) = theirs.alpn() {
            assert_eq!(protocols, alpn.collect::<Vec<_>>());
        }
        return;
    }
});
