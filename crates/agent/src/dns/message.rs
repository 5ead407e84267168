//! From the bytes of a query to the bytes of its answer, or to the decision to ask elsewhere.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::forward::Transport;
use super::zone::{Answer, Zone};

/// Seconds.
pub const TTL: u32 = 30;
/// Without EDNS a client takes this much over UDP.
const PLAIN_UDP: u16 = 512;
/// What we take over UDP ourselves; larger ones are fragmented on the way.
const OWN_UDP: u16 = 1_232;
const HEADER: usize = 12;

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Reply(Vec<u8>),
    Forward,
    /// Not worth an answer: too short to hold a header, or itself an answer.
    Ignore,
}

pub fn step(bytes: &[u8], zone: Option<&Zone>, transport: Transport) -> Step {
    if bytes.len() < HEADER || bytes[2] & 0x80 != 0 {
        return Step::Ignore;
    }
    let Ok(query) = Message::from_vec(bytes) else {
        return Step::Reply(failure(bytes, ResponseCode::FormErr));
    };
    if query.metadata.op_code != OpCode::Query {
        return Step::Reply(failure(bytes, ResponseCode::NotImp));
    }
    let [question] = &query.queries[..] else {
        return Step::Reply(failure(bytes, ResponseCode::FormErr));
    };
    // Answering "unknown" before the names are known would be cached by the application.
    let Some(zone) = zone else {
        return Step::Reply(failure(bytes, ResponseCode::ServFail));
    };
    let name = question
        .name
        .to_ascii()
        .trim_end_matches('.')
        .to_ascii_lowercase();
    if question.query_class != DNSClass::IN {
        return Step::Forward;
    }
    let is_address = matches!(question.query_type, RecordType::A | RecordType::AAAA);
    match zone.lookup(&name) {
        Answer::Unknown => Step::Forward,
        Answer::Absent => reply(&query, ResponseCode::NXDomain, Vec::new(), transport),
        // Other types of a mesh host live with its real servers.
        Answer::Found { .. } if !is_address => Step::Forward,
        Answer::Found {
            alias_of,
            addresses,
        } => {
            let answers = records(question, alias_of, addresses);
            reply(&query, ResponseCode::NoError, answers, transport)
        }
    }
}

/// The answer when nobody else answers.
pub fn server_failure(query: &[u8]) -> Vec<u8> {
    failure(query, ResponseCode::ServFail)
}

/// Header and nothing else: also for queries that cannot be read.
fn failure(query: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    let Some(header) = query.get(..HEADER) else {
        return reply;
    };
    reply[..2].copy_from_slice(&header[..2]);
    // QR, the same operation, recursion desired as asked; recursion available.
    reply[2] = 0x80 | header[2] & 0x79;
    reply[3] = 0x80 | code.low();
    // The question belongs to an answer, where it could be read.
    if let Ok(message) = Message::from_vec(query)
        && let [question] = &message.queries[..]
    {
        let mut whole = Message::response(message.metadata.id, message.metadata.op_code);
        whole.metadata.recursion_desired = message.metadata.recursion_desired;
        whole.metadata.recursion_available = true;
        whole.metadata.response_code = code;
        whole.add_query(question.clone());
        return whole.to_vec().unwrap_or(reply);
    }
    reply
}

fn records(question: &Query, alias_of: Option<&str>, addresses: &[IpAddr]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut owner = question.name.clone();
    if let Some(target) = alias_of
        && let Ok(target) = Name::from_ascii(format!("{target}."))
    {
        records.push(Record::from_rdata(
            owner,
            TTL,
            RData::CNAME(CNAME(target.clone())),
        ));
        owner = target;
    }
    let mut wanted: Vec<RData> = addresses
        .iter()
        .filter_map(|address| match (address, question.query_type) {
            (IpAddr::V4(address), RecordType::A) => Some(RData::A(A(*address))),
            (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(AAAA(*address))),
            _ => None,
        })
        .collect();
    shuffle(&mut wanted);
    records.extend(
        wanted
            .into_iter()
            .map(|data| Record::from_rdata(owner.clone(), TTL, data)),
    );
    records
}

fn reply(query: &Message, code: ResponseCode, answers: Vec<Record>, transport: Transport) -> Step {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.authoritative = true;
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = code;
    reply.add_queries(query.queries.iter().cloned());
    reply.add_answers(answers);
    let mut limit = PLAIN_UDP;
    if let Some(edns) = &query.edns {
        limit = edns.max_payload().max(PLAIN_UDP);
        let mut own = Edns::new();
        own.set_max_payload(OWN_UDP).set_version(0);
        reply.set_edns(own);
    }
    let Ok(bytes) = reply.to_vec() else {
        return Step::Reply(server_failure(&query.to_vec().unwrap_or_default()));
    };
    if transport == Transport::Udp && bytes.len() > usize::from(limit) {
        let short = reply.truncate().to_vec();
        return Step::Reply(short.unwrap_or(bytes));
    }
    Step::Reply(bytes)
}

/// Clients that take the first address are spread over all of them.
fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let random = RandomState::new().build_hasher().finish();
        items.swap(last, (random % (last as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let mut zone = Zone::new(vec!["ns1.svc.cluster.local".into()], vec!["mesh".into()]);
        let many: Vec<IpAddr> = (1..=100).map(|last| [10, 0, 0, last].into()).collect();
        zone.insert("many.test", &many);
        zone.insert("v4.test", &["1.2.3.4".parse().unwrap()]);
        zone
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn ask(message: &Message, transport: Transport) -> Message {
        match step(&message.to_vec().unwrap(), Some(&zone()), transport) {
            Step::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answers() {
        let reply = ask(&query("V4.Test.", RecordType::A), Transport::Udp);
        assert!(reply.metadata.authoritative && reply.metadata.recursion_available);
        assert_eq!(reply.answers.len(), 1);
        assert_eq!(
            (reply.answers[0].ttl, reply.answers[0].name.to_ascii()),
            (30, "V4.Test.".into())
        );
        let reply = ask(&query("v4.test.", RecordType::AAAA), Transport::Udp);
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::NoError,
            "no such family"
        );
        assert!(reply.answers.is_empty());
        let reply = ask(
            &query("v4.test.ns1.svc.cluster.local.", RecordType::A),
            Transport::Udp,
        );
        let kinds: Vec<_> = reply
            .answers
            .iter()
            .map(|record| record.record_type())
            .collect();
        assert_eq!(
            kinds,
            [RecordType::CNAME, RecordType::A],
            "a chain in one answer"
        );
        let reply = ask(&query("x.mesh.", RecordType::A), Transport::Udp);
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn long_answers_are_cut_to_what_the_client_takes() {
        let mut message = query("many.test.", RecordType::A);
        assert!(
            ask(&message, Transport::Udp).metadata.truncation,
            "512 bytes without EDNS"
        );
        let whole = ask(&message, Transport::Tcp);
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 100);
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        message.set_edns(edns);
        assert_eq!(
            ask(&message, Transport::Udp).answers.len(),
            100,
            "EDNS size"
        );
        let first = |reply: Message| reply.answers[0].clone();
        let firsts: Vec<_> = (0..20)
            .map(|_| first(ask(&message, Transport::Udp)))
            .collect();
        assert!(
            firsts.iter().any(|other| *other != firsts[0]),
            "the order changes"
        );
    }

    #[test]
    fn what_is_not_answered_here() {
        let zone = zone();
        let step = |message: &Message, zone| step(&message.to_vec().unwrap(), zone, Transport::Udp);
        assert_eq!(
            step(&query("other.test.", RecordType::A), Some(&zone)),
            Step::Forward
        );
        assert_eq!(
            step(&query("v4.test.", RecordType::MX), Some(&zone)),
            Step::Forward
        );
        let Step::Reply(bytes) = step(&query("v4.test.", RecordType::A), None) else {
            panic!()
        };
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::ServFail,
            "names not known yet"
        );
        assert_eq!(reply.queries.len(), 1);
    }

    #[test]
    fn hostile_bytes() {
        let good = query("v4.test.", RecordType::A).to_vec().unwrap();
        let zone = zone();
        for length in 0..good.len() {
            let got = step(&good[..length], Some(&zone), Transport::Udp);
            match got {
                Step::Ignore => assert!(length < HEADER),
                Step::Reply(reply) => assert_eq!(reply[3] & 0xf, 1, "FORMERR at {length}"),
                Step::Forward => panic!("forwarded at {length}"),
            }
        }
        for position in 0..good.len() {
            for change in [0xff, 0xc0, 0x01] {
                let mut bytes = good.clone();
                bytes[position] ^= change;
                step(&bytes, Some(&zone), Transport::Udp);
            }
        }
        // A name that points at itself.
        let mut looped = good[..HEADER].to_vec();
        looped.extend([0xc0, 12, 0, 1, 0, 1]);
        assert!(matches!(
            step(&looped, Some(&zone), Transport::Udp),
            Step::Reply(_)
        ));
    }
}
