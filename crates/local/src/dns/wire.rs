//! The few parts of DNS messages (RFC 1035) that a table of addresses needs.

use std::net::Ipv4Addr;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
const TYPE_ANY: u16 = 255;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
const LIFETIME_SECONDS: u32 = 5;
const PLAIN_UDP: usize = 512;
const MOST_UDP: usize = 1232;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Lower-case, without the last dot.
    pub name: String,
    pub kind: u16,
    /// Where the question ends in the message.
    pub end: usize,
}

impl Question {
    pub fn wants_ipv4(&self) -> bool {
        matches!(self.kind, TYPE_A | TYPE_ANY)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Address(String, Ipv4Addr),
    Alias(String, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Found(Vec<Answer>),
    NoSuchName,
    ServerFailure,
}

/// The one question of a standard query.
pub fn question(query: &[u8]) -> Option<Question> {
    let (flags, count) = (word(query, 2)?, word(query, 4)?);
    let is_standard_query = flags & 0xf800 == 0;
    if !is_standard_query || count != 1 {
        return None;
    }
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => {
                let label = query.get(at..at + length)?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(
                    label
                        .iter()
                        .map(|byte| char::from(byte.to_ascii_lowercase())),
                );
                at += length;
            }
            _ => return None, // compression has no place in a question
        }
        if name.len() > 255 {
            return None;
        }
    }
    let kind = word(query, at)?;
    (word(query, at + 2)? == CLASS_IN).then_some(Question {
        name,
        kind,
        end: at + 4,
    })
}

/// What fits into a datagram for this client: more than 512 bytes only if it says so (EDNS).
pub fn udp_limit(query: &[u8]) -> usize {
    let opt = question(query).and_then(|question| {
        let rest = query.get(question.end..)?;
        let is_opt = rest.first() == Some(&0) && word(rest, 1) == Some(TYPE_OPT);
        is_opt.then(|| word(rest, 3)).flatten()
    });
    opt.map_or(PLAIN_UDP, |size| {
        usize::from(size).clamp(PLAIN_UDP, MOST_UDP)
    })
}

/// The response; answers that do not fit are left out and the message says so.
pub fn response(query: &[u8], question: &Question, outcome: &Outcome, limit: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(PLAIN_UDP);
    let (answers, code): (&[Answer], u8) = match outcome {
        Outcome::Found(answers) => (answers, 0),
        Outcome::ServerFailure => (&[], 2),
        Outcome::NoSuchName => (&[], 3),
    };
    let recursion_desired = query[2] & 1;
    out.extend_from_slice(&query[..2]);
    out.push(0x84 | recursion_desired); // a response, authoritative
    out.push(0x80 | code);
    out.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&query[HEADER..question.end]);
    let mut count = 0u16;
    for answer in answers {
        let before = out.len();
        record(&mut out, answer);
        if out.len() > limit {
            out.truncate(before);
            out[2] |= 2; // truncated: ask again over TCP
            break;
        }
        count += 1;
    }
    out[6..8].copy_from_slice(&count.to_be_bytes());
    out
}

fn record(out: &mut Vec<u8>, answer: &Answer) {
    let (name, kind, content) = match answer {
        Answer::Address(name, address) => (name, TYPE_A, address.octets().to_vec()),
        Answer::Alias(name, target) => {
            let mut content = Vec::new();
            put_name(&mut content, target);
            (name, TYPE_CNAME, content)
        }
    };
    put_name(out, name);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&LIFETIME_SECONDS.to_be_bytes());
    out.extend_from_slice(&u16::try_from(content.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&content);
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        out.push(label.len() as u8);
        out.extend_from_slice(label);
    }
    out.push(0);
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        put_name(&mut out, name);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out
    }

    #[test]
    fn reads_and_answers() {
        let query = query("Reviews.default.SVC.cluster.local", TYPE_A);
        let question = question(&query).unwrap();
        assert_eq!(question.name, "reviews.default.svc.cluster.local");
        let answer = Answer::Address(question.name.clone(), Ipv4Addr::new(10, 96, 0, 20));
        let outcome = Outcome::Found(vec![answer; 100]);
        let response = response(&query, &question, &outcome, udp_limit(&query));
        assert_eq!(&response[..2], [0x12, 0x34], "the same id");
        assert!(response.len() <= 512, "no more than a plain client takes");
        assert_eq!(response[2] & 2, 2, "and it says that there is more");
        assert!(response.windows(4).any(|four| four == [10, 96, 0, 20]));
    }

    #[test]
    fn hostile_bytes_are_no_question() {
        for (bytes, why) in [
            (vec![], "empty"),
            (vec![0; 12], "no question"),
            (
                vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12],
                "compression loop",
            ),
            (
                vec![0, 0, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1],
                "a response",
            ),
            (
                vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63, b'a'],
                "cut off",
            ),
        ] {
            assert_eq!(question(&bytes), None, "{why}");
        }
    }
}
