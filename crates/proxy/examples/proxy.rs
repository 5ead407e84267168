//! Runs the proxy from a bootstrap in JSON: `proxy FILE [CONCURRENCY]`.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(file) = arguments.next() else {
        eprintln!("usage: proxy BOOTSTRAP.json [CONCURRENCY]");
        return ExitCode::from(2);
    };
    let concurrency = arguments.next().and_then(|text| text.parse().ok());
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => return fail(format!("{file}: {error}")),
    };
    let bootstrap = serde_json::from_str(&text)
        .map_err(|error| error.to_string())
        .and_then(|json| envoy_api::json::from_json(json).map_err(|error| error.to_string()));
    let bootstrap = match bootstrap {
        Ok(bootstrap) => bootstrap,
        Err(error) => return fail(format!("{file}: {error}")),
    };
    let options = proxy::Options {
        concurrency,
        observer: Some(std::sync::Arc::new(|notice| eprintln!("{notice:?}"))),
        ..proxy::Options::default()
    };
    match proxy::run(bootstrap, options, daemon::drain::DrainWatch::never()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.to_string()),
    }
}

fn fail(message: String) -> ExitCode {
    eprintln!("{message}");
    ExitCode::FAILURE
}
