//! Scripted streams: what the server writes after each request and generation.

mod convergence;

use super::*;
use envoy_api::cluster::Cluster;
use envoy_api::cluster::cluster::ClusterDiscoveryType;
use envoy_api::google::rpc::Status;
use prost::Message;

const CDS: ResourceType = ResourceType::Cluster;
const EDS: ResourceType = ResourceType::Endpoint;
const LDS: ResourceType = ResourceType::Listener;
const RDS: ResourceType = ResourceType::Route;

#[derive(Default)]
struct World {
    generation: u64,
    resources: BTreeMap<ResourceType, BTreeMap<String, Resource>>,
    calls: usize,
}

impl World {
    /// A new generation in which the types hold these `name@version`.
    fn set(&mut self, kind: ResourceType, resources: &[&str]) {
        self.generation += 1;
        let cluster_type = (kind == CDS).then_some(ClusterDiscoveryType::Type(3));
        let resources = resources.iter().map(|text| {
            let (name, version) = text.split_once('@').unwrap_or((text, "1"));
            let body = Cluster {
                name: name.into(),
                alt_stat_name: version.into(),
                cluster_discovery_type: cluster_type.clone(),
                ..Default::default()
            };
            let body = body.encode_to_vec().into();
            let resource = Resource {
                kind,
                name: name.into(),
                version: version.into(),
                body,
            };
            (name.to_owned(), resource)
        });
        self.resources.insert(kind, resources.collect());
    }
}

impl Source for World {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn generate(&mut self, kind: ResourceType, names: Option<&BTreeSet<String>>) -> Vec<Resource> {
        self.calls += 1;
        let all = self
            .resources
            .get(&kind)
            .into_iter()
            .flat_map(BTreeMap::values);
        all.filter(|r| names.is_none_or(|names| names.contains(&r.name)))
            .cloned()
            .collect()
    }
}

struct Script {
    world: World,
    stream: Stream,
    now: Instant,
    nonces: BTreeMap<ResourceType, String>,
}

impl Script {
    fn new(mode: Mode) -> Script {
        let stream = Stream::new(mode, "s");
        Script {
            world: World::default(),
            stream,
            now: Instant::now(),
            nonces: BTreeMap::new(),
        }
    }

    fn set(&mut self, kind: ResourceType, resources: &[&str]) {
        self.world.set(kind, resources);
        let concerned = BTreeMap::from([(kind, Scope::All)]);
        self.stream.changed(self.world.generation, &concerned);
    }

    /// `TYPE +name@version,… -removed` for all that is written now.
    fn written(&mut self) -> String {
        let mut lines = Vec::new();
        while let Some(response) = self.stream.next_response(&mut self.world, self.now) {
            let resources = response
                .resources
                .iter()
                .map(|r| format!("{}@{}", r.name, r.version));
            let mut line = response.kind.to_string();
            let resources = resources.collect::<Vec<_>>().join(",");
            if !resources.is_empty() {
                line += &format!(" +{resources}");
            }
            if !response.removed.is_empty() {
                line += &format!(" -{}", response.removed.join(","));
            }
            lines.push(line);
            self.nonces.insert(response.kind, response.nonce);
        }
        lines.join("; ")
    }

    fn delta(&mut self, request: DeltaDiscoveryRequest) -> String {
        self.stream.delta_request(&request, self.now);
        self.written()
    }

    fn open(&mut self, kind: ResourceType, names: &[&str], held: &[(&str, &str)]) -> String {
        let held = held
            .iter()
            .map(|(name, version)| ((*name).into(), (*version).into()));
        self.delta(DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: strings(names),
            initial_resource_versions: held.collect(),
            ..Default::default()
        })
    }

    fn names(&mut self, kind: ResourceType, add: &[&str], remove: &[&str]) -> String {
        self.delta(DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names_subscribe: strings(add),
            resource_names_unsubscribe: strings(remove),
            ..Default::default()
        })
    }

    fn answer(&mut self, kind: ResourceType, error: Option<&str>) -> String {
        self.delta(DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            response_nonce: self.nonces[&kind].clone(),
            error_detail: error.map(status),
            ..Default::default()
        })
    }

    fn ack(&mut self, kind: ResourceType) -> String {
        self.answer(kind, None)
    }

    fn nack(&mut self, kind: ResourceType, message: &str) -> String {
        self.answer(kind, Some(message))
    }

    fn full(
        &mut self,
        kind: ResourceType,
        names: &[&str],
        nonce: &str,
        error: Option<&str>,
    ) -> String {
        let request = DiscoveryRequest {
            type_url: kind.type_url().into(),
            resource_names: strings(names),
            response_nonce: nonce.into(),
            error_detail: error.map(status),
            ..Default::default()
        };
        self.stream.full_request(&request, self.now);
        self.written()
    }

    fn full_ack(&mut self, kind: ResourceType, names: &[&str]) -> String {
        let nonce = self.nonces[&kind].clone();
        self.full(kind, names, &nonce, None)
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn status(message: &str) -> Status {
    Status {
        code: 13,
        message: message.into(),
        ..Default::default()
    }
}

/// A delta stream that holds one cluster, its endpoints, a listener and a route, all synced.
fn settled() -> Script {
    let mut s = Script::new(Mode::Delta);
    for (kind, name) in [(CDS, "a"), (EDS, "a"), (LDS, "l"), (RDS, "r")] {
        s.world.set(kind, &[name]);
    }
    assert_eq!(s.open(CDS, &[], &[]), "CDS +a@1");
    assert_eq!(
        s.open(EDS, &["a"], &[]),
        "EDS +a@1",
        "asked for by name: not held back"
    );
    assert_eq!(
        s.open(LDS, &[], &[]),
        "",
        "listeners wait for clusters and endpoints"
    );
    assert_eq!(s.ack(CDS), "");
    assert_eq!(s.ack(EDS), "LDS +l@1");
    assert_eq!(s.stream.synced(), 0, "LDS is not acknowledged");
    assert_eq!(s.open(RDS, &["r"], &[]), "RDS +r@1");
    assert_eq!(s.ack(RDS), "");
    assert_eq!(s.ack(LDS), "");
    assert_eq!(s.stream.synced(), 4);
    s
}

#[test]
fn makes_before_it_breaks() {
    let mut s = settled();
    s.world.set(CDS, &["b"]);
    s.world.set(EDS, &["b"]);
    s.world.set(RDS, &["r@2"]);
    let concerned = [CDS, EDS, RDS].map(|kind| (kind, Scope::All)).into();
    s.stream.changed(s.world.generation, &concerned);
    assert_eq!(
        s.written(),
        "CDS +b@1",
        "the new cluster alone; a is not removed yet"
    );
    assert_eq!(s.ack(CDS), "", "routes wait until b has endpoints");
    assert_eq!(s.names(EDS, &["b"], &[]), "EDS +b@1");
    assert_eq!(s.ack(EDS), "RDS +r@2");
    assert_eq!(s.stream.synced(), 4, "held by the routes");
    assert_eq!(s.ack(RDS), "CDS -a; EDS -a", "removals come last");
    assert_eq!(s.names(EDS, &[], &["a"]), "");
    assert_eq!(s.ack(CDS), "");
    assert_eq!(s.ack(EDS), "");
    assert_eq!(s.stream.synced(), s.world.generation);
}

#[test]
fn endpoints_follow_a_replaced_cluster_unasked() {
    let mut s = settled();
    s.set(CDS, &["a@2"]);
    assert_eq!(
        s.written(),
        "CDS +a@2; EDS +a@1",
        "Envoy acknowledges CDS only when the cluster has warmed, which takes its endpoints"
    );
    assert_eq!(s.ack(EDS), "");
    assert_eq!(s.ack(CDS), "");
    assert_eq!(s.stream.synced(), s.world.generation);
}

#[test]
fn endpoints_held_from_before_follow_a_cluster_that_was_sent_first() {
    let mut s = Script::new(Mode::Delta);
    s.world.set(CDS, &["a@2"]);
    s.world.set(EDS, &["a"]);
    assert_eq!(
        s.open(CDS, &[], &[("a", "1")]),
        "CDS +a@2",
        "changed meanwhile"
    );
    let why = "equal to what is held, and yet what the replaced cluster waits for";
    assert_eq!(s.open(EDS, &["a"], &[("a", "1")]), "EDS +a@1", "{why}");
    assert_eq!(s.ack(EDS), "");
    assert_eq!(s.ack(CDS), "");
}

#[test]
fn a_client_without_answers_only_delays_the_order() {
    let mut s = settled();
    s.world.set(CDS, &["a", "b"]);
    s.world.set(RDS, &["r@2"]);
    let concerned = [CDS, RDS].map(|kind| (kind, Scope::All)).into();
    s.stream.changed(s.world.generation, &concerned);
    assert_eq!(s.written(), "CDS +b@1");
    let deadline = s.stream.deadline(s.now).expect("something is in flight");
    s.now = deadline;
    assert_eq!(s.written(), "RDS +r@2", "after the timeout");
    assert_eq!(
        s.stream.deadline(s.now),
        Some(s.now + ORDER_TIMEOUT),
        "RDS is in flight now"
    );
}

#[test]
fn one_response_in_flight_and_the_latest_wins() {
    let mut s = settled();
    s.set(RDS, &["r@2"]);
    assert_eq!(s.written(), "RDS +r@2");
    s.set(RDS, &["r@3"]);
    assert_eq!(s.written(), "");
    s.set(RDS, &["r@4"]);
    assert_eq!(s.written(), "");
    assert_eq!(s.ack(RDS), "RDS +r@4", "3 was never sent");
    s.set(RDS, &["r@4"]);
    assert_eq!(s.ack(RDS), "", "an empty diff");
    assert_eq!(s.stream.synced(), s.world.generation, "advances at once");
    let generation = s.world.generation + 1;
    s.world.generation = generation;
    let calls = s.world.calls;
    s.stream.changed(generation, &BTreeMap::new());
    assert_eq!(
        (s.written().as_str(), s.world.calls),
        ("", calls),
        "no type is concerned"
    );
    assert_eq!(s.stream.synced(), generation);
}

#[test]
fn names_asked_for_are_always_answered() {
    let mut s = settled();
    assert_eq!(
        s.names(EDS, &["a"], &[]),
        "EDS +a@1",
        "unchanged, but asked for"
    );
    assert_eq!(s.names(EDS, &["zzz"], &[]), "", "one in flight");
    assert_eq!(
        s.ack(EDS),
        "EDS -zzz",
        "a name that does not exist is answered too"
    );
    assert_eq!(s.ack(EDS), "");
    s.set(EDS, &["a", "zzz"]);
    assert_eq!(s.written(), "EDS +zzz@1", "it appears");
    s.set(EDS, &["a@2", "zzz@2"]);
    assert_eq!(s.names(EDS, &[], &["zzz"]), "");
    assert_eq!(s.ack(EDS), "EDS +a@2", "zzz is no longer wanted");
}

#[test]
fn endpoints_by_name_only_ask_for_those() {
    let mut s = settled();
    s.world.set(EDS, &["a@2"]);
    let names = |name: &str| Scope::Names(BTreeSet::from([name.to_owned()]));
    s.stream
        .changed(5, &BTreeMap::from([(EDS, names("other"))]));
    let calls = s.world.calls;
    assert_eq!(s.written(), "");
    assert_eq!(
        (s.world.calls, s.stream.synced()),
        (calls, 5),
        "nothing is generated"
    );
    s.stream.changed(5, &BTreeMap::from([(EDS, names("a"))]));
    assert_eq!(s.written(), "EDS +a@2");
}

#[test]
fn a_refused_resource_is_found_pinned_and_tried_again() {
    let mut s = settled();
    s.set(LDS, &["l@2", "bad", "c"]);
    let refused_at = s.world.generation;
    assert_eq!(s.written(), "LDS +bad@1,c@1,l@2");
    assert_eq!(s.nack(LDS, "?"), "LDS +bad@1", "one by one");
    assert_eq!(s.nack(LDS, "bad: no"), "LDS +c@1");
    assert_eq!(s.ack(LDS), "LDS +l@2");
    assert_eq!(s.ack(LDS), "");
    let rejections: Vec<_> = s.stream.rejections().collect();
    assert_eq!(rejections.len(), 1);
    assert_eq!(
        (rejections[0].1, &*rejections[0].2.message),
        ("bad", "bad: no")
    );
    assert_eq!(s.stream.synced(), refused_at - 1, "held below it");
    s.set(LDS, &["l@3", "bad", "c"]);
    assert_eq!(
        s.written(),
        "LDS +l@3",
        "the same bad version is not sent again"
    );
    s.ack(LDS);
    assert_eq!(
        s.stream.synced(),
        refused_at - 1,
        "an unrelated ACK does not clear it"
    );
    s.set(LDS, &["l@3", "bad@2", "c"]);
    assert_eq!(s.written(), "LDS +bad@2");
    s.ack(LDS);
    assert_eq!(s.stream.synced(), s.world.generation, "acknowledged");
    s.set(LDS, &["l@9", "bad@2", "c"]);
    s.written();
    s.nack(LDS, "no");
    s.set(LDS, &["l@3", "bad@2", "c"]);
    assert_eq!(s.written(), "");
    assert_eq!(
        s.stream.synced(),
        s.world.generation,
        "withdrawn: back to what the client has"
    );
}

#[test]
fn reconnect_sends_only_what_differs() {
    let mut s = Script::new(Mode::Delta);
    s.world.set(CDS, &["a@2", "b"]);
    s.world.set(EDS, &["a", "b@2"]);
    s.world.set(LDS, &["l"]);
    assert_eq!(
        s.open(CDS, &[], &[("a", "1"), ("b", "1"), ("gone", "1")]),
        "CDS +a@2"
    );
    assert_eq!(
        s.open(EDS, &["a", "b"], &[("a", "1"), ("b", "1")]),
        "EDS +a@1",
        "for the replaced cluster; b is equal or waits"
    );
    assert_eq!(s.ack(EDS), "");
    assert_eq!(s.open(LDS, &[], &[("l", "1")]), "");
    assert_eq!(
        s.ack(CDS),
        "EDS +b@2",
        "equal versions are not sent, even if named"
    );
    assert_eq!(
        s.ack(EDS),
        "CDS -gone",
        "what vanished meanwhile is removed, last"
    );
    assert_eq!(s.ack(CDS), "");
    assert_eq!(s.stream.synced(), 3, "complete");
}

#[test]
fn an_empty_world_is_answered() {
    let mut s = Script::new(Mode::Delta);
    assert_eq!(s.open(CDS, &[], &[]), "CDS");
    assert_eq!(
        s.open(RDS, &[], &[]),
        "",
        "no name is no wildcard for routes"
    );
    assert_eq!(s.open(EDS, &["*"], &[]), "", "CDS first");
    assert_eq!(s.ack(CDS), "EDS");
}

#[test]
fn stale_and_unknown_requests_change_nothing() {
    let mut s = settled();
    s.set(CDS, &["a@2"]);
    s.written();
    let request = |url: &str, nonce: &str| DeltaDiscoveryRequest {
        type_url: url.into(),
        response_nonce: nonce.into(),
        error_detail: Some(status("late")),
        ..Default::default()
    };
    let meaning = s
        .stream
        .delta_request(&request(CDS.type_url(), "s-1"), s.now);
    assert_eq!(meaning, Meaning::Stale(CDS));
    let meaning = s.stream.delta_request(&request("x/y", ""), s.now);
    assert_eq!(meaning, Meaning::Unknown("x/y".into()));
    assert_eq!(s.stream.rejections().count(), 0);
    s.ack(CDS);
    assert_eq!(s.stream.synced(), s.world.generation);
}

#[test]
fn full_stream_sends_sets_and_removes_last() {
    let mut s = Script::new(Mode::StateOfTheWorld);
    s.world.set(CDS, &["a", "b"]);
    s.world.set(EDS, &["a", "b"]);
    s.world.set(LDS, &["l"]);
    s.world.set(RDS, &["r"]);
    assert_eq!(s.full(CDS, &[], "", None), "CDS +a@1,b@1");
    assert_eq!(s.full_ack(CDS, &[]), "");
    assert_eq!(s.full(EDS, &["a"], "", None), "EDS +a@1");
    assert_eq!(s.full_ack(EDS, &["a", "b"]), "EDS +b@1", "added names only");
    assert_eq!(s.full_ack(EDS, &["a", "b"]), "");
    assert_eq!(s.full(LDS, &[], "", None), "LDS +l@1");
    assert_eq!(s.full(RDS, &["r"], "", None), "RDS +r@1");
    assert_eq!(s.full_ack(LDS, &[]), "");
    assert_eq!(s.full_ack(RDS, &["r"]), "");
    assert_eq!(s.stream.synced(), 4);

    s.world.set(CDS, &["a@2"]);
    s.world.set(RDS, &["r@2"]);
    let concerned = [CDS, RDS].map(|kind| (kind, Scope::All)).into();
    s.stream.changed(s.world.generation, &concerned);
    assert_eq!(
        s.written(),
        "CDS +a@2,b@1",
        "b stays while routes may name it"
    );
    assert_eq!(s.full_ack(CDS, &[]), "RDS +r@2");
    assert_eq!(
        s.full_ack(EDS, &["a", "b"]),
        "EDS +a@1,b@1",
        "asked again after a new cluster"
    );
    assert_eq!(s.full_ack(EDS, &["a", "b"]), "");
    assert_eq!(s.full_ack(RDS, &["r"]), "CDS +a@2", "without b");
    assert_eq!(s.full_ack(EDS, &["a"]), "", "names that go need no answer");
    assert_eq!(s.full_ack(CDS, &[]), "");
    assert_eq!(s.stream.synced(), s.world.generation);
}

#[test]
fn full_stream_isolates_what_is_refused() {
    let mut s = Script::new(Mode::StateOfTheWorld);
    s.world.set(LDS, &["a", "b"]);
    assert_eq!(s.full(LDS, &[], "", None), "LDS +a@1,b@1");
    s.full_ack(LDS, &[]);
    s.set(LDS, &["a@2", "b@2"]);
    assert_eq!(s.written(), "LDS +a@2,b@2");
    let nonce = s.nonces[&LDS].clone();
    assert_eq!(
        s.full(LDS, &[], &nonce, Some("no")),
        "LDS +a@2,b@1",
        "one new at a time"
    );
    assert_eq!(s.full_ack(LDS, &[]), "LDS +a@2,b@2");
    let nonce = s.nonces[&LDS].clone();
    assert_eq!(s.full(LDS, &[], &nonce, Some("b: no")), "");
    s.set(LDS, &["a@3", "b@2"]);
    assert_eq!(
        s.written(),
        "LDS +a@3,b@1",
        "the refused one stays as it was"
    );
    s.full_ack(LDS, &[]);
    let rejections: Vec<_> = s
        .stream
        .rejections()
        .map(|(_, name, r)| (name, &*r.message))
        .collect();
    assert_eq!(rejections, [("b", "b: no")]);
    s.set(LDS, &["a@3"]);
    assert_eq!(s.written(), "LDS +a@3", "gone");
    s.full_ack(LDS, &[]);
    assert_eq!(s.stream.rejections().count(), 0);
}

#[test]
fn full_stream_decides_as_istio_does() {
    let mut s = Script::new(Mode::StateOfTheWorld);
    s.world.set(EDS, &["a", "b"]);
    s.full(EDS, &["a"], "", None);
    s.full_ack(EDS, &["a"]);
    let nonce = s.nonces[&EDS].clone();
    for (names, nonce, error, want, why) in [
        (vec!["a"], &*nonce, None, "", "nothing new"),
        (vec!["a", "b"], "s-0", None, "", "an expired nonce"),
        (vec!["a", "b"], &*nonce, None, "EDS +b@1", "added"),
        (vec!["a", "b"], "", None, "", "one is on its way"),
    ] {
        assert_eq!(s.full(EDS, &names, nonce, error), want, "{why}");
    }
    s.full_ack(EDS, &["a", "b"]);
    assert_eq!(
        s.full(EDS, &["a", "b"], "", None),
        "EDS +a@1,b@1",
        "no nonce: subscribe again"
    );
    assert_eq!(s.full_ack(EDS, &["b"]), "", "removed only");
    assert_eq!(s.full_ack(EDS, &[]), "", "no name: unsubscribed");
    s.set(EDS, &["a@2", "b@2"]);
    assert_eq!(s.written(), "");
}

#[test]
fn a_listener_counts_once_its_routes_are_there() {
    use envoy_api::hcm::http_connection_manager::RouteSpecifier;
    use envoy_api::hcm::{HttpConnectionManager, Rds};
    use envoy_api::listener::filter::ConfigType;
    use envoy_api::listener::{Filter, FilterChain, Listener};
    let mut s = settled();
    let rds = Rds {
        route_config_name: "new".into(),
        ..Default::default()
    };
    let route_specifier = Some(RouteSpecifier::Rds(rds));
    let manager = HttpConnectionManager {
        route_specifier,
        ..Default::default()
    };
    let config = Some(ConfigType::TypedConfig(envoy_api::any::pack(&manager)));
    let filters = vec![Filter {
        config_type: config,
        ..Default::default()
    }];
    let chain = FilterChain {
        filters,
        ..Default::default()
    };
    let listener = Listener {
        filter_chains: vec![chain],
        ..Default::default()
    };
    s.world.set(RDS, &["r", "new"]);
    s.world.set(LDS, &["l@2"]);
    let listeners = s.world.resources.get_mut(&LDS).expect("there");
    listeners.get_mut("l").expect("there").body = listener.encode_to_vec().into();
    s.stream
        .changed(s.world.generation, &BTreeMap::from([(LDS, Scope::All)]));
    assert_eq!(s.written(), "LDS +l@2");
    assert_eq!(s.ack(LDS), "");
    assert_eq!(
        s.stream.synced(),
        4,
        "accepted, but its routes are not there"
    );
    assert!(!s.stream.is_idle());
    assert_eq!(s.names(RDS, &["new"], &[]), "RDS +new@1");
    assert_eq!(s.stream.synced(), 4, "on their way");
    assert_eq!(s.ack(RDS), "");
    assert_eq!(s.stream.synced(), s.world.generation);
}
