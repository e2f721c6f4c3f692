//! Protocol buffers without types: fields by number, as the wire has them.
//!
//! Enough to look at what an exporter sends; what breaks the format ends the message.

/// Fields of one message, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<(u64, Field)>);

#[derive(Debug)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Message {
    pub(super) fn read(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while let Some(field) = field(&mut bytes) {
            fields.push(field);
        }
        Self(fields)
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.0.iter().any(|(at, _)| *at == number)
    }

    /// A number of any wire type; 0 when it is absent.
    pub(super) fn number(&self, number: u64) -> u64 {
        let found = self.0.iter().find_map(|(at, field)| match field {
            Field::Number(value) if *at == number => Some(*value),
            _ => None,
        });
        found.unwrap_or_default()
    }

    pub(super) fn text(&self, number: u64) -> String {
        let bytes = self.bytes(number).next().unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }

    pub(super) fn hex(&self, number: u64) -> String {
        let bytes = self.bytes(number).next().unwrap_or_default();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn messages(&self, number: u64) -> impl Iterator<Item = Self> {
        self.bytes(number).map(Self::read)
    }

    fn bytes(&self, number: u64) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(move |(at, field)| match field {
            Field::Bytes(bytes) if *at == number => Some(bytes.as_slice()),
            _ => None,
        })
    }
}

fn field(bytes: &mut &[u8]) -> Option<(u64, Field)> {
    let tag = varint(bytes)?;
    let field = match tag & 7 {
        0 => Field::Number(varint(bytes)?),
        1 => Field::Number(u64::from_le_bytes(split(bytes, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Field::Bytes(split(bytes, length)?.to_vec())
        }
        5 => {
            let value = u32::from_le_bytes(split(bytes, 4)?.try_into().ok()?);
            Field::Number(value.into())
        }
        _ => return None,
    };
    Some((tag >> 3, field))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = split(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn split<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}
