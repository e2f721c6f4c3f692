//! The server name a client asks for, read from its ClientHello without ending TLS.
//!
//! [`HelloReader`] is a pure state machine: it is shown all bytes that have arrived so far, again
//! and again, and looks at each only once. The accept loop shows it what it has peeked from the
//! socket, so whoever gets the connection afterwards reads the same bytes. Only what routing needs
//! is read; extensions that are not known (GREASE, RFC 8701) are skipped, and of an encrypted
//! ClientHello the outer name counts. Keeping a deadline is the caller's work.

/// Most bytes a ClientHello may take, record headers included, unless a reader is told otherwise.
///
/// It is peeked, not read, so it has to fit into the receive window that the kernel offers at
/// first, which is about 64 KiB. Those of today's clients have 200 to 2,000 bytes.
pub const HELLO_BYTES_MAX: usize = 32 * 1024;

/// TLS record type of handshake messages (RFC 8446 5.1).
const HANDSHAKE: u8 = 22;
/// Handshake type of a ClientHello (RFC 8446 4).
const CLIENT_HELLO: u8 = 1;
/// Length of a record header, and of a handshake header.
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
/// Longest plaintext of a record (RFC 8446 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
/// Extension numbers as IANA has them.
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// What a client wants, as far as routing goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host name asked for, in lower case and without a trailing dot; an IP address, which
    /// RFC 6066 does not allow, counts as none.
    pub server_name: Option<Box<str>>,
    /// It carries an encrypted ClientHello, or pretends to, as some clients always do.
    pub has_encrypted_hello: bool,
    /// The protocols offered by ALPN, as they stand in the extension.
    alpn: Box<[u8]>,
}

impl ClientHello {
    /// The protocols offered by ALPN, in the client's order.
    pub fn alpn_protocols(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Reader(&self.alpn);
        std::iter::from_fn(move || rest.short_vector().ok())
    }
}

/// Why a ClientHello cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// What came is not TLS.
    #[error("this is not TLS")]
    NotTls,
    /// It is longer than is taken, or a record is longer than TLS allows.
    #[error("the ClientHello is too long")]
    TooLong,
    /// A handshake message, but not a ClientHello.
    #[error("the first message is not a ClientHello")]
    NotAHello,
    /// A length does not fit, or a part occurs twice.
    #[error("the ClientHello is malformed: {0}")]
    Malformed(&'static str),
}

impl HelloError {
    /// The alert that tells the client; none where the peer would not know what an alert is.
    pub fn alert(self) -> Option<Alert> {
        match self {
            Self::NotTls => None,
            Self::TooLong => Some(Alert::RecordOverflow),
            Self::NotAHello => Some(Alert::UnexpectedMessage),
            Self::Malformed(_) => Some(Alert::DecodeError),
        }
    }
}

/// Fatal alerts that are sent in plain text before there is a session (RFC 8446 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// The message is out of place.
    UnexpectedMessage = 10,
    /// A record is too long.
    RecordOverflow = 22,
    /// The client may not come in.
    AccessDenied = 49,
    /// The message cannot be read.
    DecodeError = 50,
    /// A fault behind us, such as a backend that cannot be reached.
    InternalError = 80,
    /// Nobody here has the name that was asked for, or a name is needed and there was none.
    UnrecognizedName = 112,
}

impl Alert {
    /// The record to send.
    pub fn record(self) -> [u8; 7] {
        const ALERT: u8 = 21;
        const FATAL: u8 = 2;
        [ALERT, 3, 3, 0, 2, FATAL, self as u8]
    }
}

/// Reads a ClientHello from bytes that arrive bit by bit.
#[derive(Debug)]
pub struct HelloReader {
    /// The most that is taken.
    bytes_max: usize,
    /// Where the next record begins.
    at: usize,
    /// The handshake message as far as whole records of it are here.
    message: Vec<u8>,
}

impl Default for HelloReader {
    fn default() -> Self {
        Self::new(HELLO_BYTES_MAX)
    }
}

impl HelloReader {
    /// One that takes so many bytes, record headers included.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            at: 0,
            message: Vec::new(),
        }
    }

    /// Looks at everything that has arrived; `bytes` must begin with what it began with before.
    ///
    /// Gives nothing while more is needed. The work over all calls is linear in the bytes.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        loop {
            let Some(record) = self.next_record(bytes)? else {
                return if bytes.len() >= self.bytes_max {
                    Err(HelloError::TooLong)
                } else {
                    Ok(None)
                };
            };
            self.at += RECORD_HEADER + record.len();
            if self.at > self.bytes_max {
                return Err(HelloError::TooLong);
            }
            self.message.extend_from_slice(record);
            if let Some(length) = self.body_length()? {
                let body = self.message.get(MESSAGE_HEADER..MESSAGE_HEADER + length);
                if let Some(body) = body {
                    return hello(Reader(body)).map(Some);
                }
            }
        }
    }

    /// The content of the record at `self.at`, once it is whole; its header is judged at once.
    fn next_record<'a>(&self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, HelloError> {
        let rest = bytes.get(self.at..).unwrap_or_default();
        match rest.first() {
            None => return Ok(None),
            Some(&HANDSHAKE) => {}
            Some(_) if self.at == 0 => return Err(HelloError::NotTls),
            Some(_) => return Err(HelloError::Malformed("another record stands inside it")),
        }
        // SSL 3.0 and every TLS write 3 here (RFC 8446 5.1).
        if rest.get(1).is_some_and(|major| *major != 3) {
            return Err(HelloError::NotTls);
        }
        let Some(&[high, low]) = rest.get(3..RECORD_HEADER) else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 {
            return Err(HelloError::Malformed("a record is empty"));
        }
        if length > RECORD_BYTES_MAX {
            return Err(HelloError::TooLong);
        }
        Ok(rest.get(RECORD_HEADER..RECORD_HEADER + length))
    }

    /// The length of the ClientHello's body, once its header is here.
    fn body_length(&self) -> Result<Option<usize>, HelloError> {
        if self
            .message
            .first()
            .is_some_and(|kind| *kind != CLIENT_HELLO)
        {
            return Err(HelloError::NotAHello);
        }
        let Some(&[_, a, b, c]) = self.message.get(..MESSAGE_HEADER) else {
            return Ok(None);
        };
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if length + MESSAGE_HEADER + RECORD_HEADER > self.bytes_max {
            return Err(HelloError::TooLong);
        }
        Ok(Some(length))
    }
}

/// RFC 8446 4.1.2; TLS 1.2 and earlier look the same.
fn hello(mut body: Reader<'_>) -> Result<ClientHello, HelloError> {
    let mut hello = ClientHello::default();
    // Version and random.
    body.take(2 + 32)?;
    // Session id, cipher suites, compression methods.
    body.short_vector()?;
    body.vector()?;
    body.short_vector()?;
    if body.0.is_empty() {
        // Before TLS 1.3 extensions may be missing altogether.
        return Ok(hello);
    }
    let mut extensions = Reader(body.vector()?);
    let (mut has_name, mut has_alpn) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = Reader(extensions.vector()?);
        match kind {
            SERVER_NAME => {
                once(&mut has_name, "two lists of server names")?;
                hello.server_name = server_name(content)?;
            }
            ALPN => {
                once(&mut has_alpn, "two lists of protocols")?;
                hello.alpn = alpn(content)?;
            }
            ENCRYPTED_CLIENT_HELLO => hello.has_encrypted_hello = true,
            _ => {}
        }
    }
    Ok(hello)
}

fn once(seen: &mut bool, fault: &'static str) -> Result<(), HelloError> {
    if std::mem::replace(seen, true) {
        return Err(HelloError::Malformed(fault));
    }
    Ok(())
}

/// RFC 6066 3.
fn server_name(mut content: Reader<'_>) -> Result<Option<Box<str>>, HelloError> {
    const HOST_NAME: u8 = 0;
    let mut list = Reader(content.vector()?);
    let mut found = None;
    if list.0.is_empty() {
        return Err(HelloError::Malformed("the list of server names is empty"));
    }
    while !list.0.is_empty() {
        let kind = list.take(1)?;
        let name = list.vector()?;
        if kind != [HOST_NAME] {
            continue;
        }
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| name.is_ascii());
        let name = name.ok_or(HelloError::Malformed("the server name is not ASCII"))?;
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err(HelloError::Malformed("the server name is empty"));
        }
        if found.replace(name).is_some() {
            return Err(HelloError::Malformed("two server names"));
        }
    }
    let is_address = |name: &&str| name.parse::<std::net::IpAddr>().is_ok();
    Ok(found
        .filter(|name| !is_address(name))
        .map(|name| name.to_ascii_lowercase().into()))
}

/// RFC 7301 3.1.
fn alpn(mut content: Reader<'_>) -> Result<Box<[u8]>, HelloError> {
    let list = content.vector()?;
    let mut rest = Reader(list);
    while !rest.0.is_empty() {
        if rest.short_vector()?.is_empty() {
            return Err(HelloError::Malformed("a protocol has no name"));
        }
    }
    Ok(list.into())
}

/// Takes parts off the front.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(HelloError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u16, HelloError> {
        let taken = self.take(2)?;
        Ok(taken
            .iter()
            .fold(0, |sum, byte| sum << 8 | u16::from(*byte)))
    }

    /// A part behind its length of two bytes.
    fn vector(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.number()?;
        self.take(usize::from(length))
    }

    /// A part behind its length of one byte.
    fn short_vector(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.take(1)?.first().copied().unwrap_or_default();
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests;
