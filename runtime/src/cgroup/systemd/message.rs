//! D-Bus messages, as far as talking to systemd needs them (D-Bus Specification, "Message Protocol" and
//! "Marshaling").

/// The largest message that is read; the specification allows 128 MiB, and systemd's answers are far below.
pub(super) const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// Everything before the header fields' own bytes: the fixed part and the length of the fields.
pub(super) const PREFIX_BYTES: usize = 16;

/// Messages are in this machine's byte order.
const ENDIANNESS: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };

const METHOD_CALL: u8 = 1;
const VERSION: u8 = 1;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    Error,
    Signal,
    /// A call, or what a later version of the protocol may have.
    Other,
}

/// A call of a method.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// Whose method it is on a bus; nobody's on a connection to systemd itself.
    pub(super) destination: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    /// The types of the arguments; empty if there are none.
    pub(super) signature: &'a str,
    pub(super) body: Writer,
}

impl Call<'_> {
    pub(super) fn encode(self, serial: u32) -> Vec<u8> {
        let mut message = Writer { bytes: vec![ENDIANNESS, METHOD_CALL, 0, VERSION] };
        message.u32(self.body.bytes.len() as u32);
        message.u32(serial);
        let fields = [
            (1, "o", Some(self.path)),
            (2, "s", Some(self.interface)),
            (3, "s", Some(self.member)),
            (6, "s", self.destination),
            (8, "g", Some(self.signature).filter(|signature| !signature.is_empty())),
        ];
        message.array(8, |message| {
            for (code, kind, value) in fields {
                let Some(value) = value else { continue };
                message.align(8);
                message.bytes.push(code);
                message.signature(kind);
                if kind == "g" { message.signature(value) } else { message.text(value) }
            }
        });
        message.align(8);
        message.bytes.extend(self.body.bytes);
        message.bytes
    }
}

/// Arguments on their way into a message.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    pub(super) fn u32(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_ne_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.align(8);
        self.bytes.extend(number.to_ne_bytes());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u32(value.into());
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    pub(super) fn signature(&mut self, signature: &str) {
        self.bytes.push(signature.len() as u8);
        self.bytes.extend(signature.as_bytes());
        self.bytes.push(0);
    }

    /// A structure's members follow.
    pub(super) fn structure(&mut self) {
        self.align(8);
    }

    /// An array of elements that are aligned to `alignment`.
    pub(super) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let begin = self.bytes.len();
        elements(self);
        let length = (self.bytes.len() - begin) as u32;
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// A message that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// The serial of the call it answers.
    pub(super) answers: Option<u32>,
    /// The signal's name.
    pub(super) member: Option<String>,
    /// The error's name.
    pub(super) error: Option<String>,
    pub(super) body: Vec<u8>,
}

/// How many bytes the message has that begins with these, its prefix among them; `None` if it is none that can be read.
pub(super) fn length(prefix: &[u8; PREFIX_BYTES]) -> Option<usize> {
    let mut reader = Reader { bytes: prefix, at: 4 };
    let (body, _serial, fields) = (reader.u32()? as usize, reader.u32()?, reader.u32()? as usize);
    let length = fields.checked_add(PREFIX_BYTES)?.checked_next_multiple_of(8)?.checked_add(body)?;
    (prefix[0] == ENDIANNESS && prefix[3] == VERSION && length <= MESSAGE_LIMIT_BYTES).then_some(length)
}

impl Message {
    /// A whole message; `None` if it is malformed.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let total = length(bytes.first_chunk()?)?;
        let kind = match bytes[1] {
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        };
        let mut reader = Reader { bytes, at: PREFIX_BYTES - 4 };
        let end = PREFIX_BYTES + reader.u32()? as usize;
        let mut message = Self { kind, answers: None, member: None, error: None, body: Vec::new() };
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            let signature = reader.signature()?;
            match (signature, code) {
                ("u", 5) => message.answers = Some(reader.u32()?),
                ("u", _) => drop(reader.u32()?),
                ("s", 3) => message.member = Some(reader.text()?.to_owned()),
                ("s", 4) => message.error = Some(reader.text()?.to_owned()),
                ("s" | "o", _) => drop(reader.text()?),
                ("g", _) => drop(reader.signature()?),
                _ => return None,
            }
        }
        let body = end.checked_next_multiple_of(8)?;
        message.body = bytes.get(body..total).filter(|_| reader.at == end)?.to_owned();
        Some(message)
    }

    /// Its arguments, to be read one by one.
    pub(super) fn arguments(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }
}

/// Arguments of a message; `None` where they are not what is asked for.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        Some(())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        self.take(4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    fn terminated(&mut self, length: usize) -> Option<&'a str> {
        let text = self.take(length)?;
        (self.byte()? == 0).then(|| std::str::from_utf8(text).ok())?
    }

    /// Of a string or an object path.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        self.terminated(length)
    }

    pub(super) fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()?.into();
        self.terminated(length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `Call::encode`, made the other way round: what a call looks like to who gets it.
    fn call() -> Vec<u8> {
        let mut body = Writer::default();
        body.text("name");
        body.array(8, |body| {
            body.structure();
            body.text("Delegate");
            body.signature("b");
            body.bool(true);
        });
        Call { destination: Some("d.e"), path: "/p", interface: "i.n", member: "Do", signature: "sa(sv)", body }.encode(7)
    }

    #[test]
    fn a_call_is_what_the_specification_says() {
        let message = call();
        let n = |number: u32| number.to_ne_bytes().to_vec();
        let body: Vec<u8> = [
            n(4),
            b"name\0".to_vec(),
            vec![0; 3],
            n(20),
            n(8),
            b"Delegate\0\x01b\0".to_vec(),
            // The value of the variant is aligned to four.
            n(1),
        ]
        .concat();
        assert!(message.ends_with(&body), "{message:?}");
        let fields: Vec<u8> = [
            [b"\x01\x01o\0".to_vec(), n(2), b"/p\0\0\0\0\0\0".to_vec()].concat(),
            [b"\x02\x01s\0".to_vec(), n(3), b"i.n\0\0\0\0\0".to_vec()].concat(),
            [b"\x03\x01s\0".to_vec(), n(2), b"Do\0\0\0\0\0\0".to_vec()].concat(),
            [b"\x06\x01s\0".to_vec(), n(3), b"d.e\0\0\0\0\0".to_vec()].concat(),
            b"\x08\x01g\0\x06sa(sv)\0".to_vec(),
        ]
        .concat();
        let fixed = [vec![ENDIANNESS, 1, 0, 1], n(body.len() as u32), n(7), n(fields.len() as u32)].concat();
        let padding = vec![0; fields.len().next_multiple_of(8) - fields.len()];
        assert_eq!(message, [fixed, fields, padding, body].concat());
        assert_eq!(length(message.first_chunk().unwrap()), Some(message.len()));
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_no_message() {
        let message = call();
        let decoded = Message::decode(&message).unwrap();
        assert_eq!((decoded.kind, decoded.member.as_deref()), (Kind::Other, Some("Do")));
        let mut arguments = decoded.arguments();
        assert_eq!((arguments.text(), arguments.u32(), arguments.text()), (Some("name"), Some(20), Some("Delegate")));
        for end in 0..message.len() {
            assert_eq!(Message::decode(&message[..end]), None, "{end}");
        }
        let mut long = message;
        long[4..8].copy_from_slice(&(MESSAGE_LIMIT_BYTES as u32).to_ne_bytes());
        assert_eq!(length(long.first_chunk().unwrap()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_out_of_bounds(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), whole: bool) {
            if whole && bytes.len() >= PREFIX_BYTES {
                // Far enough to get into the fields.
                let fields = u32::from(bytes[15]) % 64;
                bytes[..4].copy_from_slice(&[ENDIANNESS, 3, 0, VERSION]);
                bytes[4..8].copy_from_slice(&16_u32.to_ne_bytes());
                bytes[12..16].copy_from_slice(&fields.to_ne_bytes());
            }
            if let Some(message) = Message::decode(&bytes) {
                let mut arguments = message.arguments();
                let _ = (arguments.text(), arguments.signature(), arguments.u32());
            }
        }
    }
}
