//! ClientHellos as clients write them, cut and stretched, and as they must not be written.

use super::*;

/// One extension.
fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(content)].concat()
}

fn vector(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    [&length.to_be_bytes()[..], content].concat()
}

fn sni(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| [vec![0], vector(name)].concat())
        .collect();
    extension(SERVER_NAME, &vector(&list))
}

/// A handshake message with these extensions.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([1, 9]);
    body.extend(vector(&[0x13, 1, 0x0a, 0x0a]));
    body.extend([1, 0]);
    body.extend(vector(&extensions.concat()));
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [vec![CLIENT_HELLO, a, b, c], body].concat()
}

/// The message in records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [vec![HANDSHAKE, 3, 1], vector(part)].concat();
    message.chunks(size).flat_map(record).collect()
}

fn read(bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    HelloReader::default().read(bytes)
}

fn name_of(extensions: &[Vec<u8>]) -> Result<Option<String>, HelloError> {
    let hello = read(&records(&message(extensions), RECORD_BYTES_MAX))?;
    Ok(hello.expect("it is whole").server_name.map(String::from))
}

#[test]
fn names_are_read_as_routes_write_them() {
    let cases: [(&[u8], Option<&str>); 6] = [
        (b"www.example.com", Some("www.example.com")),
        (b"WWW.Example.COM", Some("www.example.com")),
        (b"example.com.", Some("example.com")),
        (b"_odd.name", Some("_odd.name")),
        (b"10.0.0.1", None),
        (b"2001:db8::1", None),
    ];
    for (name, expected) in cases {
        let found = name_of(&[sni(&[name])]).unwrap();
        assert_eq!(found.as_deref(), expected, "{name:?}");
    }
    assert_eq!(name_of(&[]).unwrap(), None);
}

#[test]
fn what_is_not_known_is_skipped() {
    let grease = extension(0x5a5a, &[1, 2, 3]);
    let ech = extension(ENCRYPTED_CLIENT_HELLO, &[0; 200]);
    let protocols = [
        2, b'h', b'2', 8, b'h', b't', b't', b'p', b'/', b'1', b'.', b'1',
    ];
    let alpn = extension(ALPN, &vector(&protocols));
    let message = message(&[grease.clone(), ech, alpn, sni(&[b"a.test"]), grease]);
    let hello = read(&records(&message, 16_000)).unwrap().unwrap();
    assert_eq!(hello.server_name.as_deref(), Some("a.test"));
    assert!(hello.has_encrypted_hello);
    let protocols: Vec<_> = hello.alpn_protocols().collect();
    assert_eq!(protocols, [&b"h2"[..], b"http/1.1"]);
}

#[test]
fn a_hello_without_extensions_has_no_name() {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0, 5, 1, 0]);
    let message = [
        vec![CLIENT_HELLO, 0, 0, u8::try_from(body.len()).unwrap()],
        body,
    ]
    .concat();
    assert_eq!(
        read(&records(&message, 999)).unwrap(),
        Some(ClientHello::default())
    );
}

#[test]
fn fragments_of_any_size_and_pace_read_the_same() {
    let message = message(&[extension(21, &[0; 700]), sni(&[b"split.test"])]);
    for size in [1, 2, 3, 4, 5, 63, 700, 16_000] {
        let bytes = records(&message, size);
        for step in [1, 2, 7, 1460] {
            let mut reader = HelloReader::default();
            let mut found = None;
            let mut shown = 0;
            while found.is_none() {
                assert!(shown < bytes.len(), "{size} {step}");
                shown = (shown + step).min(bytes.len());
                found = reader.read(&bytes[..shown]).unwrap();
            }
            let name = found.unwrap().server_name;
            assert_eq!(name.as_deref(), Some("split.test"), "{size} {step}");
            assert_eq!(shown, bytes.len(), "it takes all of it, {size} {step}");
        }
    }
}

#[test]
fn long_hellos_are_read_up_to_the_limit() {
    let fits = message(&[extension(21, &vec![0; 30_000]), sni(&[b"long.test"])]);
    let hello = read(&records(&fits, RECORD_BYTES_MAX)).unwrap().unwrap();
    assert_eq!(hello.server_name.as_deref(), Some("long.test"));
    // The message would fit; its records do not.
    assert_eq!(read(&records(&fits, 20)), Err(HelloError::TooLong));
    let too_long = message(&[extension(21, &vec![0; 33_000])]);
    assert_eq!(read(&records(&too_long, 16_000)), Err(HelloError::TooLong));
    assert_eq!(read(&[22, 3, 1, 0x40, 1]), Err(HelloError::TooLong));
}

#[test]
fn what_is_no_hello_is_refused_at_the_first_byte_that_says_so() {
    let malformed = |bytes: &[u8]| matches!(read(bytes), Err(HelloError::Malformed(_)));
    assert_eq!(read(b"G"), Err(HelloError::NotTls));
    assert_eq!(read(b"\x80\x2e\x01\x03\x01"), Err(HelloError::NotTls));
    assert_eq!(read(&[22, 2]), Err(HelloError::NotTls));
    assert_eq!(read(&[22, 3, 1, 0, 1, 2]), Err(HelloError::NotAHello));
    assert!(malformed(&[22, 3, 1, 0, 0]));
    assert!(malformed(&[22, 3, 1, 0, 1, 1, 23]));
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&[22]), Ok(None));
    assert_eq!(read(&[22, 3, 1, 0]), Ok(None));
}

#[test]
fn names_that_could_be_read_in_two_ways_are_refused() {
    let empty_list = extension(SERVER_NAME, &vector(&[]));
    let cut = extension(SERVER_NAME, &[0, 9, 0, 0, 2, b'a']);
    for extensions in [
        &[sni(&[b"a.test", b"b.test"])][..],
        &[sni(&[b"a.test"]), sni(&[b"b.test"])],
        &[sni(&[b""])],
        &[sni(&[b"."])],
        &[sni(&[b"\xc3\xa9.test"])],
        &[empty_list],
        &[cut],
    ] {
        let found = name_of(extensions);
        assert!(matches!(found, Err(HelloError::Malformed(_))), "{found:?}");
    }
}

#[test]
fn every_cut_asks_for_more_and_every_flipped_byte_ends() {
    let good = records(
        &message(&[sni(&[b"flip.test"]), extension(ALPN, &vector(&[1, b'x']))]),
        40,
    );
    for end in 0..good.len() {
        assert_eq!(read(&good[..end]), Ok(None), "{end}");
    }
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            // It may be read, refused, or ask for more; it must not panic.
            let _ = read(&bytes);
        }
    }
}

#[test]
fn faults_have_the_alerts_of_the_rfc() {
    for (error, alert) in [
        (HelloError::NotTls, None),
        (HelloError::TooLong, Some(22)),
        (HelloError::NotAHello, Some(10)),
        (HelloError::Malformed("x"), Some(50)),
    ] {
        assert_eq!(error.alert().map(|alert| alert as u8), alert);
    }
    assert_eq!(Alert::UnrecognizedName.record(), [21, 3, 3, 0, 2, 2, 112]);
}

/// Numbers that a seed repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % limit
    }

    fn bytes(&mut self, limit: usize) -> Vec<u8> {
        let length = self.below(limit);
        (0..length)
            .map(|_| u8::try_from(self.below(256)).unwrap())
            .collect()
    }
}

/// A message of random extensions, among them GREASE and ECH, and the name that it asks for.
fn random_hello(random: &mut Random) -> (Vec<u8>, Option<String>) {
    let mut kinds = vec![0x0a0a, 0xdada, 0xfe0d, 21, 10, 13, 43, 45, 51];
    let mut extensions = Vec::new();
    for _ in 0..random.below(6) {
        let kind = kinds.swap_remove(random.below(kinds.len()));
        extensions.push(extension(kind, &random.bytes(900)));
    }
    let name = (random.below(4) > 0).then(|| format!("h{}.test", random.below(1_000)));
    if let Some(name) = &name {
        let at = random.below(extensions.len() + 1);
        extensions.insert(at, sni(&[name.as_bytes()]));
    }
    (message(&extensions), name)
}

/// Shows a reader more and more of `bytes`; the first answer, and how much was shown.
fn read_in_pieces(
    bytes: &[u8],
    random: &mut Random,
) -> (Result<Option<ClientHello>, HelloError>, usize) {
    let mut reader = HelloReader::default();
    let step = 1 + random.below(1_500);
    let mut shown = 0;
    while shown < bytes.len() {
        shown = (shown + 1 + random.below(step)).min(bytes.len());
        match reader.read(&bytes[..shown]) {
            Ok(None) => {}
            answer => return (answer, shown),
        }
    }
    (Ok(None), shown)
}

#[test]
fn any_hello_reads_the_same_in_any_pieces_by_seed() {
    for seed in 1..=800 {
        let random = &mut Random(seed);
        let (message, name) = random_hello(random);
        let mut bytes = records(&message, 1 + random.below(4_000));
        if bytes.len() > HELLO_BYTES_MAX {
            assert_eq!(read(&bytes), Err(HelloError::TooLong), "seed {seed}");
            continue;
        }
        let (answer, shown) = read_in_pieces(&bytes, random);
        let hello = answer
            .unwrap()
            .unwrap_or_else(|| panic!("seed {seed}: no answer"));
        assert_eq!(hello.server_name.as_deref(), name.as_deref(), "seed {seed}");
        assert_eq!(shown, bytes.len(), "seed {seed}");
        // Broken in a few places: the pieces still do not matter, and nothing panics.
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }
        let (in_pieces, _) = read_in_pieces(&bytes, random);
        let whole = read(&bytes);
        assert_eq!(in_pieces.is_ok(), whole.is_ok(), "seed {seed}");
        if let (Ok(in_pieces), Ok(whole)) = (in_pieces, whole) {
            assert_eq!(in_pieces, whole, "seed {seed}");
        }
    }
}
