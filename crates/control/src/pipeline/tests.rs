//! The gate, the coalescing, who wins between sources, and what a stream that is behind learns.

use super::*;
use mesh_api::Kind;
use mesh_api::parse::{ParseOptions, parse};
use pilot::model::{Registry, Resolution, Service};

fn rule(name: &str, host: &str) -> Event {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: {name}, namespace: default}}\nspec: {{host: {host}}}\n"
    );
    let parsed = parse("x.yaml", &text, &ParseOptions::default());
    Event::Object(Arc::new(parsed.objects.into_iter().next().expect("parses")))
}

fn service(name: &str) -> Event {
    let key = ServiceKey::new(format!("{name}.default.svc.cluster.local"), "default");
    Event::Service(Arc::new(Service::new(
        key,
        Registry::Kubernetes,
        Resolution::ClientSide,
    )))
}

fn start() -> (Sources, PublishedWatch) {
    let wanted = [Source::Registry, Source::Applied];
    let mesh = Arc::new(MeshConfig::default());
    let (pipeline, sources, published) =
        Pipeline::new(mesh, "cluster.local", wanted, Metrics::new());
    std::thread::spawn(move || pipeline.run());
    (sources, published)
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(Kind::DestinationRule, "default", name)
}

fn host(published: &PublishedWatch, name: &str) -> Option<String> {
    let published = published.borrow().clone()?;
    let (object, _) = published.objects.get(&key(name))?;
    object.spec.to_json()["host"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn nothing_is_published_before_every_source_has_reported() {
    let (sources, published) = start();
    let generation = sources
        .send_and_wait(Source::Registry, vec![service("a")])
        .await;
    assert_eq!((generation, published.borrow().is_none()), (Some(0), true));
    let generation = sources.send_and_wait(Source::Applied, Vec::new()).await;
    assert_eq!(generation, Some(1), "an empty source has reported too");
    assert_eq!(published.borrow().as_ref().map(|p| p.generation()), Some(1));
    let again = sources
        .send_and_wait(Source::Registry, vec![service("a")])
        .await;
    assert_eq!(again, Some(1), "the same again is no generation");
}

#[tokio::test]
async fn the_first_source_wins_and_the_next_takes_over() {
    let (sources, published) = start();
    sources.send(Source::Registry, Vec::new()).await;
    for (source, event, want, why) in [
        (
            Source::Applied,
            rule("r", "applied"),
            Some("applied"),
            "the only one",
        ),
        (
            Source::Directory,
            rule("r", "file"),
            Some("file"),
            "the directory wins",
        ),
        (Source::Applied, rule("r", "again"), Some("file"), "still"),
        (
            Source::Directory,
            Event::ObjectRemoved(key("r")),
            Some("again"),
            "the other is left",
        ),
        (
            Source::Applied,
            Event::ObjectRemoved(key("r")),
            None,
            "none",
        ),
    ] {
        sources
            .send_and_wait(source, vec![event])
            .await
            .expect("answers");
        assert_eq!(host(&published, "r").as_deref(), want, "{why}");
    }
}

#[tokio::test]
async fn a_stream_learns_what_changed_since_its_generation() {
    let (sources, published) = start();
    sources.send(Source::Registry, Vec::new()).await;
    let first = sources
        .send_and_wait(Source::Applied, Vec::new())
        .await
        .expect("answers");
    for number in 0..HISTORY + 10 {
        let event = rule("r", &format!("host-{number}"));
        sources
            .send_and_wait(Source::Applied, vec![event])
            .await
            .expect("answers");
    }
    let now = published.borrow().clone().expect("published");
    assert!(now.changes_since(first).is_none(), "too far behind");
    let last = now.changes_since(now.generation() - 2).expect("known");
    let objects: Vec<_> = last.flat_map(|changes| changes.objects.iter()).collect();
    assert_eq!(objects, [&key("r"), &key("r")]);
    assert_eq!(
        now.changes_since(now.generation()).expect("known").count(),
        0
    );
    assert_eq!(
        now.objects[&key("r")].1,
        now.generation(),
        "when it last changed"
    );
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let (sources, published) = start();
    sources.send(Source::Registry, vec![service("a")]).await;
    sources
        .send_and_wait(Source::Applied, vec![rule("one", "a")])
        .await
        .expect("answers");
    let problems = sources
        .dry_run(vec![rule("two", "nowhere")])
        .await
        .expect("answers");
    assert!(
        problems.iter().any(|(object, _)| *object == key("two")),
        "{problems:?}"
    );
    let generation = published.borrow().as_ref().map(|p| p.generation());
    assert_eq!((generation, host(&published, "two")), (Some(1), None));
}
