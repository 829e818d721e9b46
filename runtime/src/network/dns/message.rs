//! Messages of DNS: the question of one, and answers to it.
//!
//! RFC 1035. Nothing behind the question is looked at: what is not answered here is passed on as it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER_BYTES: usize = 12;

/// The longest name, as it is written with dots.
const NAME_LIMIT_BYTES: usize = 253;

/// How long an answer may be kept, in seconds: a container may be gone the next moment.
const LIFETIME_S: u32 = 1;

const CLASS_INTERNET: u16 = 1;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
    Ptr,
    /// Anything else.
    Other,
}

/// A query with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) id: [u8; 2],
    recursion: bool,
    /// In lower case, without the dot at the end.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The question as it was written.
    question: Vec<u8>,
}

/// How a query ended without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody could be asked (`SERVFAIL`).
    Server = 2,
}

impl Query {
    /// Reads a query; `None` for what is none, or not of this kind.
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let header = message.first_chunk::<HEADER_BYTES>()?;
        let (is_answer, operation) = (header[2] & 0x80 != 0, header[2] >> 3 & 0xf);
        if is_answer || operation != 0 || header[4..6] != [0, 1] {
            return None;
        }
        let (name, after) = parse_name(message, HEADER_BYTES)?;
        let [kind, kind_low, class, class_low] = *message.get(after..)?.first_chunk()?;
        if u16::from_be_bytes([class, class_low]) != CLASS_INTERNET {
            return None;
        }
        let kind = match u16::from_be_bytes([kind, kind_low]) {
            1 => Kind::A,
            28 => Kind::Aaaa,
            12 => Kind::Ptr,
            _ => Kind::Other,
        };
        let question = message[HEADER_BYTES..after + 4].to_vec();
        Some(Self { id: [header[0], header[1]], recursion: header[2] & 1 != 0, name, kind, question })
    }

    /// An answer with addresses, of which those count that are asked for; none is an answer, too.
    pub(super) fn addresses(&self, addresses: &[IpAddr]) -> Vec<u8> {
        let wanted = |address: &&IpAddr| match self.kind {
            Kind::A => address.is_ipv4(),
            Kind::Aaaa => address.is_ipv6(),
            Kind::Ptr | Kind::Other => false,
        };
        let data = |address: &IpAddr| match address {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (28, address.octets().to_vec()),
        };
        self.answer(0, &addresses.iter().filter(wanted).map(data).collect::<Vec<_>>())
    }

    /// An answer with a name.
    pub(super) fn pointer(&self, name: &str) -> Vec<u8> {
        let mut data = Vec::new();
        // A label has 63 bytes at most; containers' names may have more.
        for label in name.split('.').filter(|label| !label.is_empty() && label.len() < 64) {
            data.push(label.len() as u8);
            data.extend(label.as_bytes());
        }
        data.push(0);
        self.answer(0, &[(12, data)])
    }

    /// That there is none.
    pub(super) fn failure(&self, failure: Failure) -> Vec<u8> {
        self.answer(failure as u8, &[])
    }

    fn answer(&self, code: u8, records: &[(u16, Vec<u8>)]) -> Vec<u8> {
        // An answer, with what was asked for of recursion, which there is.
        let flags = [0x80 | u8::from(self.recursion), 0x80 | code];
        let count = (records.len() as u16).to_be_bytes();
        let mut message = [&self.id[..], &flags, &[0, 1], &count, &[0; 4], &self.question].concat();
        for (kind, data) in records {
            // The name is the question's, which begins behind the header.
            message.extend([0xc0, HEADER_BYTES as u8]);
            message.extend(kind.to_be_bytes());
            message.extend(CLASS_INTERNET.to_be_bytes());
            message.extend(LIFETIME_S.to_be_bytes());
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(data);
        }
        message
    }

    /// The address whose name is asked for.
    pub(super) fn reverse(&self) -> Option<IpAddr> {
        if let Some(text) = self.name.strip_suffix(".in-addr.arpa") {
            let address: Ipv4Addr = text.parse().ok()?;
            let [a, b, c, d] = address.octets();
            return Some(Ipv4Addr::new(d, c, b, a).into());
        }
        let text = self.name.strip_suffix(".ip6.arpa")?;
        let mut bits = 0_u128;
        let mut digits = 0;
        for part in text.split('.') {
            let digit = u128::from_str_radix(part, 16).ok().filter(|_| part.len() == 1)?;
            bits = bits >> 4 | digit << 124;
            digits += 1;
        }
        (digits == 32).then(|| Ipv6Addr::from(bits).into())
    }
}

/// A name without compression, which a question has no use for, and what is behind it.
fn parse_name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut name, mut at) = (String::new(), start);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        // The two highest bits would say that the rest of the name is elsewhere.
        let label = message.get(at..at + length).filter(|_| length < 64)?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        // What no container is called is not told apart.
        name.extend(label.iter().map(|byte| if byte.is_ascii_graphic() { byte.to_ascii_lowercase() as char } else { '?' }));
        if name.len() > NAME_LIMIT_BYTES {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            message.push(label.len() as u8);
            message.extend(label.as_bytes());
        }
        message.extend([0, (kind >> 8) as u8, kind as u8, 0, 1]);
        // What resolvers put behind it: a record of EDNS.
        message.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        message
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let asked = Query::parse(&query("DB.example", 1)).unwrap();
        assert_eq!((asked.name.as_str(), asked.kind, asked.id), ("db.example", Kind::A, [0xab, 0xcd]));
        let answer = asked.addresses(&["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
        assert_eq!(answer[..12], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..28], query("DB.example", 1)[12..28], "the question is as it was written");
        assert!(answer.ends_with(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 0, 0, 1]));
        let asked = Query::parse(&query("db", 28)).unwrap();
        let none = asked.addresses(&["10.0.0.1".parse().unwrap()]);
        assert_eq!((none[3], none[7]), (0x80, 0), "that there is no such address is no error");
        assert_eq!(asked.failure(Failure::Server)[3], 0x82);
    }

    #[test]
    fn addresses_are_read_backwards() {
        let asked = Query::parse(&query("4.3.2.10.in-addr.arpa", 12)).unwrap();
        assert_eq!(asked.reverse(), Some("10.2.3.4".parse().unwrap()));
        assert!(asked.pointer("db.net").ends_with(b"\x02db\x03net\0"));
        let digits = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(Query::parse(&query(digits, 12)).unwrap().reverse(), Some("fd00::1".parse().unwrap()));
        assert_eq!(Query::parse(&query("1.2.ip6.arpa", 12)).unwrap().reverse(), None);
    }

    #[test]
    fn what_is_no_question_is_left_alone() {
        let good = query("db", 1);
        let with = |at: usize, byte: u8| {
            let mut message = good.clone();
            message[at] = byte;
            Query::parse(&message)
        };
        assert!(Query::parse(&good[..14]).is_none() && Query::parse(&[]).is_none());
        assert!(with(2, 0x80).is_none(), "an answer");
        assert!(with(5, 2).is_none(), "two questions");
        assert!(with(12, 0xc0).is_none(), "a compressed name");
        assert!(with(19, 3).is_none(), "another class");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_query_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(query) = Query::parse(&bytes) {
                prop_assert!(query.name.len() <= NAME_LIMIT_BYTES && query.name.is_ascii());
                query.reverse();
                query.addresses(&[]);
            }
        }

        #[test]
        fn what_is_behind_a_header_is_a_query_or_none(rest in proptest::collection::vec(any::<u8>(), 0..80)) {
            let message = [&[1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &rest].concat();
            if let Some(query) = Query::parse(&message) {
                prop_assert!(message.ends_with(&rest) && query.id == [1, 2]);
            }
        }
    }
}
