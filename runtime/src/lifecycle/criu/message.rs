//! Messages as criu reads and writes them: the wire format of protobuf, of which a few lines are enough.
//!
//! A message is a sequence of fields, each a number and a value: a varint, or bytes with their length
//! before them (text, and messages inside messages).

/// A message being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// A number, an enumerator or a boolean.
    pub(super) fn number(&mut self, field: u32, value: u64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// Bytes or text.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A message in this one.
    pub(super) fn message(&mut self, field: u32, value: &Self) -> &mut Self {
        self.bytes(field, &value.0)
    }

    /// A field as it was read.
    fn copied(&mut self, field: &Field<'_>) {
        self.0.extend_from_slice(field.whole);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A number of fixed length, which nothing here asks for.
    Fixed,
}

/// A field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) value: Value<'a>,
    /// All of it, its number included.
    whole: &'a [u8],
}

/// The fields of a message, in their order; `None` if it is malformed.
pub(super) fn fields(message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let start = rest;
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut rest)?),
            1 => take(&mut rest, 8).map(|_| Value::Fixed)?,
            2 => {
                let length = varint(&mut rest)?;
                Value::Bytes(take(&mut rest, length.try_into().ok()?)?)
            }
            5 => take(&mut rest, 4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        fields.push(Field { number: key >> 3, value, whole: &start[..start.len() - rest.len()] });
    }
    Some(fields)
}

/// The message without one field of a message that is one of its fields; `None` if it has no such field,
/// or is malformed.
pub(super) fn without(message: &[u8], outer: u64, inner: u64) -> Option<Message> {
    let mut found = false;
    let mut changed = Message::default();
    for field in fields(message)? {
        match field.value {
            Value::Bytes(bytes) if field.number == outer => {
                let mut part = Message::default();
                for field in fields(bytes)? {
                    if field.number == inner {
                        found = true;
                    } else {
                        part.copied(&field);
                    }
                }
                changed.message(outer as u32, &part);
            }
            _ => changed.copied(&field),
        }
    }
    found.then_some(changed)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *take(rest, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_are_read_out_of_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..64), outer in 1..9_u64) {
            if let Some(list) = fields(&bytes) {
                prop_assert!(list.len() <= bytes.len());
            }
            if let Some(changed) = without(&bytes, outer, 8) {
                prop_assert!(fields(changed.as_bytes()).is_some());
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut inner = Message::default();
        inner.bytes(1, b"post-restore").number(2, 4711);
        let mut outer = Message::default();
        outer.number(1, 6).number(2, 1).message(5, &inner).number(38, u64::MAX).number(50, 0);
        // The first bytes as protoc's code writes them.
        assert_eq!(outer.as_bytes()[..6], [0x08, 0x06, 0x10, 0x01, 0x2a, 0x11]);
        let read = fields(outer.as_bytes()).unwrap();
        let numbers: Vec<_> = read.iter().map(|field| field.number).collect();
        assert_eq!(numbers, [1, 2, 5, 38, 50]);
        assert_eq!(read[3].value, Value::Number(u64::MAX));
        let Value::Bytes(inside) = read[2].value else { panic!("{read:?}") };
        let inside = fields(inside).unwrap();
        assert_eq!((inside[0].value, inside[1].value), (Value::Bytes(b"post-restore"), Value::Number(4711)));
    }

    #[test]
    fn a_message_cut_short_is_malformed_and_no_panic() {
        let mut inner = Message::default();
        inner.bytes(1, b"abc").number(2, 300);
        let mut outer = Message::default();
        outer.message(5, &inner).number(16, 1 << 40);
        let whole = outer.as_bytes();
        // Whole fields are a message, too.
        let boundaries = [0, 2 + inner.as_bytes().len(), whole.len()];
        for length in 0..whole.len() {
            assert_eq!(fields(&whole[..length]).is_some(), boundaries.contains(&length), "{length}");
        }
        // Too long a length, a number without an end, groups.
        for bad in [&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0xff; 11], &[0x0b, 0x0c]] {
            assert!(fields(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn one_field_inside_another_is_left_out_and_the_rest_is_as_it_was() {
        let inner = |with: bool| {
            let mut inner = Message::default();
            inner.number(7, 1);
            if with {
                inner.number(8, 9);
            }
            inner.bytes(10, b"comm").clone()
        };
        let outer = |with: bool| {
            let mut outer = Message::default();
            outer.number(1, 1).bytes(2, b"registers").message(5, &inner(with)).number(6, 8).clone()
        };
        assert_eq!(without(outer(true).as_bytes(), 5, 8), Some(outer(false)));
        assert_eq!(without(outer(false).as_bytes(), 5, 8), None);
        assert_eq!(without(&outer(true).as_bytes()[1..], 5, 8), None);
    }
}
