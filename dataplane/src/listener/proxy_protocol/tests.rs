//! Headers of both versions: what they tell, cut at every byte, broken in every way.

use super::*;
use proptest::prelude::*;

const TLVS_MAX: usize = 4096;

fn said(bytes: &[u8]) -> Result<Option<(Header, usize)>, String> {
    decode(bytes, TLVS_MAX).map_err(|error| error.to_string())
}

fn proxied(address: &str) -> Header {
    Header::Proxied(address.parse().expect("it is an address"))
}

fn header_v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len())
        .expect("it is short")
        .to_be_bytes();
    [&V2_SIGNATURE[..], &[command, family], &length, body].concat()
}

fn tcp4(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];
    header_v2(0x21, 0x11, &[&addresses[..], tlvs].concat())
}

#[test]
fn a_line_of_v1_tells_the_client() {
    for (line, header) in [
        (
            "PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\n",
            proxied("192.0.2.7:8080"),
        ),
        (
            "PROXY TCP6 2001:db8::7 ::1 65535 0\r\n",
            proxied("[2001:db8::7]:65535"),
        ),
        ("PROXY UNKNOWN\r\n", Header::Local),
        ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Header::Local),
    ] {
        let with_more = format!("{line}GET / HTTP/1.1\r\n");
        let expected = Ok(Some((header, line.len())));
        assert_eq!(said(with_more.as_bytes()), expected, "{line}");
        for end in 0..line.len() {
            assert_eq!(
                said(&line.as_bytes()[..end]),
                Ok(None),
                "{line} cut at {end}"
            );
        }
    }
}

#[test]
fn a_line_of_v1_that_breaks_the_rules_is_refused() {
    for line in [
        "PROXY TCP4 192.0.2.7 10.0.0.1 8080\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 8080 80 9\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 8080 65536\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 +8080 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 08080 80\r\n",
        "PROXY TCP4  192.0.2.7 10.0.0.1 8080 80\r\n",
        "PROXY TCP4 2001:db8::7 10.0.0.1 8080 80\r\n",
        "PROXY TCP6 192.0.2.7 ::1 8080 80\r\n",
        "PROXY UDP4 192.0.2.7 10.0.0.1 8080 80\r\n",
        "PROXY \r\n",
        "PROXY\tTCP4 192.0.2.7 10.0.0.1 8080 80\r\n",
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 192.0.2.7 10.0.0.1 8080 80\r\n",
    ] {
        assert!(decode(line.as_bytes(), TLVS_MAX).is_err(), "{line}");
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'a'; V1_BYTES_MAX]].concat();
    assert!(matches!(
        decode(&endless, TLVS_MAX),
        Err(ProxyError::TooLong)
    ));
    assert!(matches!(
        decode(&endless[..V1_BYTES_MAX - 1], TLVS_MAX),
        Ok(None)
    ));
}

#[test]
fn a_header_of_v2_tells_the_client() {
    let tcp6: Vec<u8> = [
        &Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).octets()[..],
        &Ipv6Addr::LOCALHOST.octets(),
        &[0x1f, 0x90, 0, 80],
    ]
    .concat();
    for (name, bytes, header) in [
        ("tcp4", tcp4(&[]), proxied("192.0.2.7:8080")),
        (
            "authority and SSL",
            tcp4(b"\x02\0\x01x\x20\0\x05\x01\0\0\0\0"),
            proxied("192.0.2.7:8080"),
        ),
        (
            "tcp6",
            header_v2(0x21, 0x21, &tcp6),
            proxied("[2001:db8::7]:8080"),
        ),
        ("local", header_v2(0x20, 0, &[]), Header::Local),
        (
            "local with addresses",
            header_v2(0x20, 0x11, &[1; 12]),
            Header::Local,
        ),
        ("unspecified", header_v2(0x21, 0, &[]), Header::Local),
        ("unix", header_v2(0x21, 0x31, &[0; 216]), Header::Local),
    ] {
        let with_more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(said(&with_more), Ok(Some((header, bytes.len()))), "{name}");
        for end in 0..bytes.len() {
            assert_eq!(said(&bytes[..end]), Ok(None), "{name} cut at {end}");
        }
    }
}

#[test]
fn a_header_of_v2_that_breaks_the_rules_is_refused() {
    for (name, bytes) in [
        ("version 1", header_v2(0x11, 0x11, &[0; 12])),
        ("command 2", header_v2(0x22, 0x11, &[0; 12])),
        ("family 4", header_v2(0x21, 0x41, &[0; 12])),
        ("datagrams", header_v2(0x21, 0x12, &[0; 12])),
        ("cut addresses", header_v2(0x21, 0x11, &[0; 11])),
        ("cut IPv6 addresses", header_v2(0x21, 0x21, &[0; 35])),
        ("cut path", header_v2(0x21, 0x31, &[0; 215])),
        ("cut TLV", tcp4(&[4, 0])),
        ("TLV beyond the end", tcp4(&[4, 0, 2, 0])),
        ("short checksum", tcp4(&[3, 0, 2, 0, 0])),
        ("wrong checksum", tcp4(&[3, 0, 4, 1, 2, 3, 4])),
        ("too many TLVs", tcp4(&[0; TLVS_MAX + 1])),
    ] {
        assert!(decode(&bytes, TLVS_MAX).is_err(), "{name}");
    }
    let mut huge = header_v2(0x21, 0x11, &[]);
    huge[14..16].copy_from_slice(&[0xff, 0xff]);
    assert!(
        matches!(decode(&huge, TLVS_MAX), Err(ProxyError::TooLong)),
        "before its bytes are here"
    );
}

#[test]
fn a_checksum_that_fits_is_taken() {
    // The check value of CRC-32C.
    assert_eq!(crc32c(&[b"12345", b"6789"]), 0xe306_9283);
    let mut bytes = tcp4(&[3, 0, 4, 0, 0, 0, 0, 4, 0, 0]);
    let sum = crc32c(&[&bytes]).to_be_bytes();
    let place = V2_FIXED + 12 + 3;
    bytes[place..place + 4].copy_from_slice(&sum);
    assert_eq!(
        said(&bytes),
        Ok(Some((proxied("192.0.2.7:8080"), bytes.len())))
    );
    bytes[V2_FIXED] ^= 1;
    assert!(
        decode(&bytes, TLVS_MAX).is_err(),
        "another address under the same checksum"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_judged_and_never_read_beyond(
        front in prop::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", &V2_SIGNATURE]),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [front, &bytes].concat();
        if let Ok(Some((_, length))) = decode(&bytes, TLVS_MAX) {
            prop_assert!(length <= bytes.len());
            prop_assert_eq!(said(&bytes[..length]), said(&bytes));
        }
    }
}
