//! Each of Istio's own rule files for Bookinfo is applied as it is and has the effect that its name
//! says, measured on traffic.

use crate::Scenario;
use crate::bookinfo::{reviewer, versions};
use anyhow::{Result, bail, ensure};
use mesh_tests::holds;
use mesh_tests::mesh::{Mesh, SOON};
use mesh_tests::programs;
use mesh_tests::wait::wait_until;
use std::time::Duration;

const COUNT: u32 = 1000;
const SORRY: &str = "Sorry, product reviews are currently unavailable for this book.";

pub fn scenarios() -> Vec<Scenario> {
    if programs::testdata().is_none() {
        eprintln!("not run: Istio's sample rules: no test data");
        assert!(!programs::in_ci(), "CI needs STOLOS_TESTDATA");
        return vec![("our own mirroring file copies requests", mirror)];
    }
    vec![
        ("virtual-service-all-v1", all_v1),
        ("virtual-service-reviews-v3", reviews_v3),
        ("virtual-service-reviews-50-v3", fifty),
        ("virtual-service-reviews-80-20", eighty),
        ("virtual-service-reviews-90-10", ninety),
        ("virtual-service-reviews-v2-v3", v2_v3),
        ("virtual-service-reviews-test-v2", test_v2),
        ("virtual-service-reviews-jason-v2-v3", jason_v2_v3),
        ("virtual-service-ratings-test-delay", delay),
        ("virtual-service-ratings-test-abort", abort),
        ("fault-injection-details-v1", details_555),
        ("virtual-service-details-v2", details_v2),
        ("virtual-service-ratings-db", ratings_db),
        ("virtual-service-ratings-mysql", ratings_mysql),
        ("virtual-service-ratings-mysql-vm", ratings_mysql_vm),
        ("destination-rule-all-mtls", mutual_tls),
        ("destination-rule-reviews", random),
        ("bookinfo-gateway", gateway),
        ("certmanager-gateway", certmanager),
        ("our own mirroring file copies requests", mirror),
    ]
}

/// One of each: weights, users, delay, abort, versions, copies.
pub fn essentials() -> Vec<Scenario> {
    let essential = [
        "virtual-service-reviews-80-20",
        "virtual-service-reviews-jason-v2-v3",
        "virtual-service-ratings-test-delay",
        "virtual-service-ratings-test-abort",
        "fault-injection-details-v1",
        "virtual-service-details-v2",
        "destination-rule-all-mtls",
        "our own mirroring file copies requests",
    ];
    let mut all = scenarios();
    all.retain(|(name, _)| essential.contains(name));
    all
}

fn sample(name: &str) -> Result<String> {
    let Some(data) = programs::testdata() else {
        bail!("no test data")
    };
    let path = data
        .join("istio/samples/bookinfo/networking")
        .join(format!("{name}.yaml"));
    Ok(std::fs::read_to_string(path)?)
}

/// With the subsets, then the rule, for the time of `check`.
fn with_rule(mesh: &Mesh, rule: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    let (subsets, rule) = (sample("destination-rule-all")?, sample(rule)?);
    mesh.with(&subsets, || mesh.with(&rule, check))
}

/// Every share within five standard deviations of its weight.
fn shares(mesh: &Mesh, weights: &[(&str, f64)]) -> Result<()> {
    let seen = versions(mesh, COUNT)?;
    let total: u32 = weights
        .iter()
        .map(|(name, _)| seen.get(*name).copied().unwrap_or(0))
        .sum();
    ensure!(total == COUNT, "only the named versions answer: {seen:?}");
    for (name, weight) in weights {
        let count = f64::from(COUNT);
        let bound = 5.0 * (count * weight * (1.0 - weight)).sqrt();
        let got = f64::from(seen.get(*name).copied().unwrap_or(0));
        let fair = (got - count * weight).abs() <= bound;
        ensure!(fair, "{name}: {got} of {count}, weight {weight}");
    }
    Ok(())
}

fn all_v1(mesh: &Mesh) -> Result<()> {
    with_rule(mesh, "virtual-service-all-v1", || {
        shares(mesh, &[("v1", 1.0)])
    })
}

fn reviews_v3(mesh: &Mesh) -> Result<()> {
    with_rule(mesh, "virtual-service-reviews-v3", || {
        shares(mesh, &[("v3", 1.0)])
    })
}

fn fifty(mesh: &Mesh) -> Result<()> {
    let rule = "virtual-service-reviews-50-v3";
    with_rule(mesh, rule, || shares(mesh, &[("v1", 0.5), ("v3", 0.5)]))
}

fn eighty(mesh: &Mesh) -> Result<()> {
    let rule = "virtual-service-reviews-80-20";
    with_rule(mesh, rule, || shares(mesh, &[("v1", 0.8), ("v2", 0.2)]))
}

fn ninety(mesh: &Mesh) -> Result<()> {
    let rule = "virtual-service-reviews-90-10";
    with_rule(mesh, rule, || shares(mesh, &[("v1", 0.9), ("v2", 0.1)]))
}

fn v2_v3(mesh: &Mesh) -> Result<()> {
    let rule = "virtual-service-reviews-v2-v3";
    with_rule(mesh, rule, || shares(mesh, &[("v2", 0.5), ("v3", 0.5)]))
}

/// The named user goes to one version, everybody else to another.
fn by_user(mesh: &Mesh, jason: &str, others: &str) -> Result<()> {
    for _ in 0..20 {
        let seen = (reviewer(mesh, Some("jason"))?, reviewer(mesh, None)?);
        let seen = (
            seen.0.as_str(),
            seen.1.as_str(),
            &*reviewer(mesh, Some("eve"))?.to_owned(),
        );
        ensure!(
            seen == (jason, others, others),
            "jason, nobody, eve: {seen:?}"
        );
    }
    Ok(())
}

fn test_v2(mesh: &Mesh) -> Result<()> {
    with_rule(mesh, "virtual-service-reviews-test-v2", || {
        by_user(mesh, "v2", "v1")
    })
}

fn jason_v2_v3(mesh: &Mesh) -> Result<()> {
    with_rule(mesh, "virtual-service-reviews-jason-v2-v3", || {
        by_user(mesh, "v2", "v3")
    })
}

/// jason waits six seconds (two tries of three) and reads the apology; others do not.
fn delay(mesh: &Mesh) -> Result<()> {
    let route = sample("virtual-service-reviews-test-v2")?;
    with_rule(mesh, "virtual-service-ratings-test-delay", || {
        mesh.with(&route, || {
            let slow = mesh.get_as("/productpage", "jason");
            ensure!(slow.status == 200 && slow.body.contains(SORRY), "{slow:?}");
            let took = slow.took.as_millis();
            ensure!((5_900..7_900).contains(&took), "jason waited {took} ms");
            let quick = mesh.get("/productpage");
            ensure!(quick.took < Duration::from_secs(3) && !quick.body.contains(SORRY));
            Ok(())
        })
    })
}

fn abort(mesh: &Mesh) -> Result<()> {
    let route = sample("virtual-service-reviews-test-v2")?;
    with_rule(mesh, "virtual-service-ratings-test-abort", || {
        mesh.with(&route, || {
            let page = mesh.get_as("/productpage", "jason");
            let said = page
                .body
                .contains("Ratings service is currently unavailable");
            ensure!(page.status == 200 && said, "{page:?}");
            let status = mesh.get_as("/api/v1/products/0/ratings", "jason").status;
            ensure!(status == 500, "the file says 500, got {status}");
            holds!(
                mesh.get("/api/v1/products/0/ratings").status == 200,
                "others"
            )
        })
    })
}

fn details_555(mesh: &Mesh) -> Result<()> {
    mesh.with(&sample("fault-injection-details-v1")?, || {
        let status = mesh.get("/api/v1/products/0").status;
        ensure!(status == 555, "the file says 555, got {status}");
        let page = mesh.get("/productpage");
        let sorry = "Sorry, product details are currently unavailable for this book.";
        holds!(page.status == 200 && page.body.contains(sorry), "{page:?}")
    })
}

fn details_v2(mesh: &Mesh) -> Result<()> {
    with_rule(mesh, "virtual-service-details-v2", || {
        for _ in 0..20 {
            let answer = mesh.get("/api/v1/products/0");
            let pod = answer.header("x-answered-by").unwrap_or_default();
            ensure!(pod.starts_with("details-v2"), "{answer:?}");
        }
        Ok(())
    })
}

/// Reviews v3 with the stars of that version of ratings.
fn stars(mesh: &Mesh, rule: &str, want: u64) -> Result<()> {
    with_rule(mesh, rule, || {
        for _ in 0..20 {
            let reviews = mesh.get("/api/v1/products/0/reviews").json();
            let rating = &reviews["reviews"][0]["rating"];
            ensure!(
                rating["stars"] == want && rating["color"] == "red",
                "{reviews}"
            );
        }
        Ok(())
    })
}

fn ratings_db(mesh: &Mesh) -> Result<()> {
    stars(mesh, "virtual-service-ratings-db", 1)
}

fn ratings_mysql(mesh: &Mesh) -> Result<()> {
    stars(mesh, "virtual-service-ratings-mysql", 2)
}

fn ratings_mysql_vm(mesh: &Mesh) -> Result<()> {
    stars(mesh, "virtual-service-ratings-mysql-vm", 3)
}

fn mutual_tls(mesh: &Mesh) -> Result<()> {
    mesh.with(&sample("destination-rule-all-mtls")?, || {
        let seen = versions(mesh, 60)?;
        holds!(seen.len() == 3, "all versions over mTLS: {seen:?}")
    })
}

fn random(mesh: &Mesh) -> Result<()> {
    mesh.with(&sample("destination-rule-reviews")?, || {
        let third = 1.0 / 3.0;
        shares(mesh, &[("v1", third), ("v2", third), ("v3", third)])
    })
}

fn gateway(mesh: &Mesh) -> Result<()> {
    mesh.apply(&sample("bookinfo-gateway")?)?;
    for (path, want) in [
        ("/productpage", 200),
        ("/api/v1/products", 200),
        ("/health", 404),
    ] {
        let status = mesh.get(path).status;
        ensure!(status == want, "{path}: {status}");
    }
    Ok(())
}

/// A gateway on another port of the same pods; its service is not there: 503.
fn certmanager(mesh: &Mesh) -> Result<()> {
    mesh.with(&sample("certmanager-gateway")?, || {
        wait_until("the first gateway still serves", SOON, || {
            holds!(mesh.get("/productpage").status == 200)
        })
    })
}

/// v1 answers, v3's pod gets a copy: its log counts.
fn mirror(mesh: &Mesh) -> Result<()> {
    let own = |name: &str| {
        let folder = programs::workspace().join("examples/bookinfo/networking");
        std::fs::read_to_string(folder.join(name))
    };
    let pod = mesh.pod_name("reviews-v3")?;
    let logged = || -> Result<usize> {
        Ok(mesh
            .ok(&["logs", &pod])?
            .lines()
            .filter(|line| line.contains("/reviews/0"))
            .count())
    };
    mesh.with(&own("subsets.yaml")?, || {
        mesh.with(&own("mirror.yaml")?, || {
            let before = logged()?;
            shares(mesh, &[("v1", 1.0)])?;
            wait_until("copies arrive", SOON, || {
                let copies = logged()? - before;
                holds!(copies >= COUNT as usize * 95 / 100, "{copies} of {COUNT}")
            })
        })
    })
}
