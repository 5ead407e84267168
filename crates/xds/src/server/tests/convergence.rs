//! Our client against our server through thousands of random histories: whatever happens in
//! between, once all is good and quiet the client has what there is, and the server knows it.

use std::collections::VecDeque;

use super::*;
use crate::client::{Client, Request, Update};
use crate::{Interest, Service};
use envoy_api::core::Node;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const BY_NAME: [ResourceType; 2] = [EDS, RDS];

/// Small, and the same on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn names(&mut self) -> Vec<&'static str> {
        NAMES.into_iter().filter(|_| self.below(2) == 0).collect()
    }
}

struct History {
    random: Random,
    mode: Mode,
    world: World,
    stream: Stream,
    client: Client,
    now: Instant,
    interests: BTreeMap<ResourceType, BTreeSet<String>>,
    to_client: VecDeque<Bytes>,
    unanswered: VecDeque<Update>,
    applied: BTreeMap<(ResourceType, String), Bytes>,
    in_flight: BTreeMap<ResourceType, usize>,
    log: Vec<String>,
}

impl History {
    fn new(mode: Mode, seed: u64) -> History {
        let mut history = History {
            random: Random(seed),
            mode,
            world: World::default(),
            stream: Stream::new(mode, "0"),
            client: Client::new(Node::default(), mode, Service::Aggregated),
            now: Instant::now(),
            interests: BTreeMap::new(),
            to_client: VecDeque::new(),
            unanswered: VecDeque::new(),
            applied: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            log: Vec::new(),
        };
        for kind in [CDS, LDS] {
            history.client.subscribe(kind, Interest::Wildcard);
        }
        history.client.connected();
        history
    }

    fn step(&mut self) {
        match self.random.below(12) {
            0 | 1 => self.change_world(true),
            2 => self.change_interest(),
            3 if self.random.below(8) == 0 => self.reconnect(),
            4 => self.now += ORDER_TIMEOUT / 4,
            5 | 6 => drop(self.write_to_client()),
            7 | 8 => drop(self.read()),
            9 => drop(self.answer()),
            _ => drop(self.write_to_server()),
        }
    }

    /// A version with an 8 in it is bad: the client refuses whatever comes with it.
    fn change_world(&mut self, may_be_bad: bool) {
        let kinds = [CDS, EDS, LDS, RDS];
        let kind = kinds[self.random.below(4) as usize];
        let mut resources = Vec::new();
        for name in self.random.names() {
            let version = self.random.below(if may_be_bad { 9 } else { 8 });
            resources.push(format!("{name}@{version}"));
        }
        self.set(kind, &resources);
    }

    fn set(&mut self, kind: ResourceType, resources: &[String]) {
        self.log.push(format!("set {kind} {resources:?}"));
        let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
        self.world.set(kind, &resources);
        let concerned = BTreeMap::from([(kind, Scope::All)]);
        self.stream.changed(self.world.generation, &concerned);
    }

    fn change_interest(&mut self) {
        let kind = BY_NAME[self.random.below(2) as usize];
        let names: BTreeSet<String> = self.random.names().into_iter().map(str::to_owned).collect();
        self.log.push(format!("want {kind} {names:?}"));
        self.applied
            .retain(|(known, name), _| *known != kind || names.contains(name));
        self.interests.insert(kind, names.clone());
        self.client.subscribe(kind, Interest::Names(names));
    }

    fn reconnect(&mut self) {
        self.log.push("reconnect".into());
        self.client.disconnected();
        self.client.connected();
        self.stream = Stream::new(self.mode, self.log.len().to_string());
        self.to_client.clear();
        self.in_flight.clear();
    }

    fn write_to_client(&mut self) -> bool {
        let response = self.stream.next_response(&mut self.world, self.now);
        let Some(response) = response else {
            return false;
        };
        self.log.push(format!(
            "sent {} +{:?} -{:?} {}",
            response.kind,
            response
                .resources
                .iter()
                .map(|r| format!("{}@{}", r.name, r.version))
                .collect::<Vec<_>>(),
            response.removed,
            response.nonce
        ));
        let in_flight = self.in_flight.entry(response.kind).or_default();
        *in_flight += 1;
        assert_eq!(*in_flight, 1, "one at a time: {:#?}", self.log);
        self.to_client.push_back(response.encode().concat().into());
        true
    }

    fn read(&mut self) -> bool {
        let Some(message) = self.to_client.pop_front() else {
            return false;
        };
        let update = self.client.received(message).expect("well formed");
        self.unanswered.push_back(update);
        true
    }

    fn answer(&mut self) -> bool {
        let Some(update) = self.unanswered.pop_front() else {
            return false;
        };
        let is_bad = |body: &Bytes| {
            Cluster::decode(body.clone()).is_ok_and(|cluster| cluster.alt_stat_name == "8")
        };
        if update.added.iter().any(|resource| is_bad(&resource.body)) {
            self.log.push(format!("refused {}", update.nonce));
            self.client.reject(&update, "bad".into());
            return true;
        }
        self.log.push(format!("accepted {}", update.nonce));
        let covers = |name: &String| {
            self.interests
                .get(&update.kind)
                .is_none_or(|names| names.contains(name))
        };
        for resource in update
            .added
            .iter()
            .filter(|resource| covers(&resource.name))
        {
            let key = (update.kind, resource.name.clone());
            self.applied.insert(key, resource.body.clone());
        }
        for name in &update.removed {
            self.applied.remove(&(update.kind, name.clone()));
        }
        self.client.accept(&update);
        true
    }

    fn write_to_server(&mut self) -> bool {
        let Some(request) = self.client.next_request() else {
            return false;
        };
        let meaning = match &request {
            Request::Delta(request) => self.stream.delta_request(request, self.now),
            Request::Full(request) => self.stream.full_request(request, self.now),
        };
        if let Meaning::Acknowledged(kind) | Meaning::Rejected(kind, _) = meaning {
            self.in_flight.insert(kind, 0);
        }
        true
    }

    fn settle(&mut self) {
        for _ in 0..2000 {
            let moved =
                self.write_to_server() | self.write_to_client() | self.read() | self.answer();
            if !moved {
                match self.stream.deadline(self.now) {
                    Some(deadline) => self.now = deadline,
                    None => return,
                }
            }
        }
        panic!("never quiet: {:#?}", &self.log[self.log.len() - 40..]);
    }

    fn check(&mut self) {
        for kind in [CDS, EDS, LDS, RDS] {
            let version = self.random.below(8);
            let mut resources: Vec<String> = self
                .random
                .names()
                .iter()
                .map(|name| format!("{name}@{version}"))
                .collect();
            // State of the world has no word for "this name is gone".
            if self.mode == Mode::StateOfTheWorld && BY_NAME.contains(&kind) {
                resources = NAMES
                    .iter()
                    .map(|name| format!("{name}@{version}"))
                    .collect();
            }
            self.set(kind, &resources);
        }
        self.settle();
        let mut want = BTreeMap::new();
        for (kind, resources) in &self.world.resources {
            let names = match BY_NAME.contains(kind) {
                true => self.interests.get(kind).cloned().unwrap_or_default(),
                false => NAMES.iter().map(|name| (*name).to_owned()).collect(),
            };
            for resource in resources.values().filter(|r| names.contains(&r.name)) {
                want.insert((*kind, resource.name.clone()), resource.body.clone());
            }
        }
        let tail = &self.log[self.log.len().saturating_sub(60)..];
        assert_eq!(self.applied, want, "{tail:#?}");
        assert_eq!(self.stream.rejections().count(), 0, "{tail:#?}");
        assert!(self.stream.is_idle(), "{tail:#?}");
        assert_eq!(self.stream.synced(), self.world.generation, "{tail:#?}");
    }
}

#[test]
fn every_history_ends_well() {
    for mode in [Mode::Delta, Mode::StateOfTheWorld] {
        for seed in 1..=500 {
            let mut history = History::new(mode, u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
            for _ in 0..200 {
                history.step();
            }
            history.check();
        }
    }
}
