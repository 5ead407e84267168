//! The Bookinfo sample application: `bookinfo productpage|details|reviews|ratings PORT`.
//! Plain HTTP/1.1 without a mesh library: everything else is the sidecar's work.

mod call;
mod details;
mod forward;
mod page;
mod productpage;
mod ratings;
mod reply;
mod reviews;
mod server;
mod settings;

use settings::Settings;
use std::process::ExitCode;
use std::sync::Arc;

const USAGE: &str = "usage: bookinfo productpage|details|reviews|ratings PORT";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [service, port] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let Ok(port) = port.parse::<u16>() else {
        eprintln!("bookinfo: PORT must be 0 to 65535, got {port:?}\n{USAGE}");
        return ExitCode::from(2);
    };
    let settings = Arc::new(Settings::from_environment(|name| std::env::var(name).ok()));
    let Some(app) = server::App::named(service, settings) else {
        eprintln!("bookinfo: no service {service:?}\n{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime.map(|runtime| runtime.block_on(server::run(app, port))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) | Err(error) => {
            eprintln!("bookinfo {service}: {error}");
            ExitCode::FAILURE
        }
    }
}
