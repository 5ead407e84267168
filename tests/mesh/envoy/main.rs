//! The differential harness: every case folder beside this file runs on real Envoy and on our
//! proxy; the results must be equal but for `deviations.yaml`.
//! `cargo test -p mesh-tests --test differential -- PART_OF_NAME`; `STOLOS_ONLY=envoy` leaves ours
//! out.

use anyhow::Result;
use mesh_tests::bootstrap;
use mesh_tests::call::Call;
use mesh_tests::case::Case;
use mesh_tests::certificates::Certificates;
use mesh_tests::compare::{Deviations, contains, differences, matches};
use mesh_tests::programs;
use mesh_tests::proxy_process::{Kind, validate};
use mesh_tests::run::{Outcome, Setting};
use mesh_tests::upstream::Upstreams;
use serde_json::Value;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const BUDGET_MINUTES: f64 = 6.0;
const THREADS: usize = 3;

struct Harness {
    cases: Vec<Case>,
    next: AtomicUsize,
    failed: Mutex<Vec<String>>,
    calls: AtomicUsize,
    rejects: AtomicUsize,
    deviations: Deviations,
    certificates: Arc<Certificates>,
    folder: tempfile::TempDir,
    ours: bool,
    print: bool,
}

fn main() -> ExitCode {
    let begun = Instant::now();
    if programs::envoy().is_none() {
        eprintln!("not run: differential cases: no Envoy (`cargo xtask test` installs it)");
        return if programs::in_ci() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    match prepare().and_then(|harness| run(harness, begun)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("differential: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn prepare() -> Result<Harness> {
    let here = programs::workspace().join("tests/mesh/envoy");
    let folder = tempfile::tempdir()?;
    let certificates = Arc::new(Certificates::create(&folder.path().join("certs"))?);
    let only = std::env::var("STOLOS_ONLY").unwrap_or_default();
    let ours = only != "envoy";
    if ours {
        programs::built("cli", "stolos")?;
    }
    Ok(Harness {
        cases: Case::load_all(&here)?,
        next: AtomicUsize::new(0),
        failed: Mutex::default(),
        calls: AtomicUsize::new(0),
        rejects: AtomicUsize::new(0),
        deviations: Deviations::load(&here.join("deviations.yaml"))?,
        certificates,
        folder,
        ours,
        print: std::env::var_os("STOLOS_PRINT").is_some(),
    })
}

fn run(mut harness: Harness, begun: Instant) -> Result<bool> {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    if !filters.is_empty() {
        harness
            .cases
            .retain(|case| filters.iter().any(|part| case.name.contains(part.as_str())));
    }
    let whole = filters.is_empty() && harness.ours;
    let harness = Arc::new(harness);
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let harness = harness.clone();
            std::thread::spawn(move || harness.work())
        })
        .collect();
    for thread in threads {
        if thread.join().is_err() {
            harness.fail("a worker of the harness panicked".to_owned());
        }
    }
    if whole {
        for stale in harness.deviations.unused() {
            harness.fail(format!(
                "deviations.yaml: {} {} no longer occurs: remove it",
                stale.case,
                stale.at.as_deref().unwrap_or("(whole case)")
            ));
        }
    }
    let failed = harness
        .failed
        .lock()
        .map(|failed| failed.len())
        .unwrap_or(1);
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!(
        "differential: {} cases, {} calls, {} refusals on Envoy{}; {} known deviations; {failed} \
         failed; {minutes:.1} min of {BUDGET_MINUTES}",
        harness.cases.len(),
        harness.calls.load(Ordering::Relaxed),
        harness.rejects.load(Ordering::Relaxed),
        if harness.ours { " and ours" } else { " only" },
        harness.deviations.len(),
    );
    Ok(failed == 0)
}

impl Harness {
    fn fail(&self, text: String) {
        eprintln!("FAILED {text}");
        if let Ok(mut failed) = self.failed.lock() {
            failed.push(text);
        }
    }

    fn work(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else {
            return self.fail("no runtime".to_owned());
        };
        while let Some(case) = self.cases.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let begun = Instant::now();
            match runtime.block_on(self.case(case)) {
                Ok(problems) if problems.is_empty() => {
                    println!(
                        "ok     {} ({:.1} s)",
                        case.name,
                        begun.elapsed().as_secs_f64()
                    );
                }
                Ok(problems) => {
                    self.fail(format!("{}\n    {}", case.name, problems.join("\n    ")));
                }
                Err(error) => self.fail(format!("{}: {error:#}", case.name)),
            }
        }
    }

    async fn case(&self, case: &Case) -> Result<Vec<String>> {
        let folder = self.folder.path().join(&case.name);
        std::fs::create_dir_all(&folder)?;
        let upstreams = Upstreams::start(&case.calls.upstreams, &self.certificates).await?;
        let certificates = &self.certificates;
        let setting = Setting {
            case,
            upstreams: &upstreams,
            certificates,
            folder: &folder,
        };
        let mut problems = Vec::new();
        let envoy = setting.run(Kind::Envoy).await?;
        for (call, result) in case.calls.calls.iter().zip(&envoy.results) {
            self.calls.fetch_add(1, Ordering::Relaxed);
            if self.print {
                println!("{} | {}: {result:#}", case.name, call.name);
            }
            if !call.want.is_null() && !contains(result, &call.want) {
                problems.push(format!(
                    "{}: Envoy's result is not the wanted one\n      want {}\n      have {result}",
                    call.name, call.want
                ));
            }
        }
        problems.extend(envoy.faults.iter().map(|fault| format!("envoy: {fault}")));
        self.rejects(&setting, &mut problems).await?;
        if !self.ours || self.deviations.covers_case(&case.name) {
            return Ok(problems);
        }
        let ours = match setting.run(Kind::Stolos).await {
            Ok(ours) => ours,
            Err(error) => {
                problems.push(format!("ours: {error:#}"));
                return Ok(problems);
            }
        };
        self.compare(case, &envoy, &ours, &mut problems);
        Ok(problems)
    }

    fn compare(&self, case: &Case, envoy: &Outcome, ours: &Outcome, problems: &mut Vec<String>) {
        for fault in &ours.faults {
            let call = fault.split(':').next().unwrap_or_default();
            if !self.deviations.covers(&case.name, call, "/fault") {
                problems.push(format!("ours: {fault}"));
            }
        }
        let results = envoy.results.iter().zip(&ours.results);
        for (call, (envoy, ours)) in case.calls.calls.iter().zip(results) {
            if call.record == mesh_tests::call::Record::Counts && !call.exact {
                continue;
            }
            for difference in differences(envoy, ours) {
                let at = &difference.at;
                let known = ignored(call, at) || self.deviations.covers(&case.name, &call.name, at);
                if !known {
                    problems.push(format!(
                        "{}: {at}: Envoy {} ours {}",
                        call.name,
                        short(&difference.envoy),
                        short(&difference.ours)
                    ));
                }
            }
        }
    }

    /// Every variant in `rejects.yaml` is refused by both, and ours names the field.
    async fn rejects(&self, setting: &Setting<'_>, problems: &mut Vec<String>) -> Result<()> {
        for reject in &setting.case.rejects {
            self.rejects.fetch_add(1, Ordering::Relaxed);
            let mut config = setting.case.config.clone();
            bootstrap::merge(&mut config, &reject.merge);
            let places = setting.places(Kind::Envoy)?;
            let bootstrap = bootstrap::expand(&config, &places)?;
            let envoy = validate(Kind::Envoy, &bootstrap, setting.folder).await?;
            if envoy.is_ok() != reject.envoy_accepts.is_some() {
                let text = if envoy.is_ok() { "accepts" } else { "refuses" };
                let said = envoy.err().unwrap_or_default();
                problems.push(format!("reject {}: Envoy {text} it: {said}", reject.name));
            }
            if !self.ours {
                continue;
            }
            let said = match validate(Kind::Stolos, &bootstrap, setting.folder).await? {
                Ok(()) => "ours accepts it".to_owned(),
                Err(said) if said.contains(&reject.field) => continue,
                Err(said) => format!("ours does not name {:?}: {said}", reject.field),
            };
            if !self
                .deviations
                .covers(&setting.case.name, &reject.name, "/reject")
            {
                problems.push(format!("reject {}: {said}", reject.name));
            }
        }
        Ok(())
    }
}

fn ignored(call: &Call, at: &str) -> bool {
    call.ignore.iter().any(|pattern| matches(pattern, at))
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
