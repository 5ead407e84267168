//! Puts rules into the kernel by iptables-restore or nft, and takes them away again.
//! Runs in the network namespace of the caller.

use std::io::Write;
use std::process::{Command as Process, Stdio};

use super::flags::{Action, Command, Tool};
use super::options::{Mode, Options};
use super::rules::{Families, rules};
use super::{CaptureError, iptables, nftables};

/// Does what the command says; the text is what was (or would be) given to the tools.
pub fn run(command: &Command) -> Result<String, CaptureError> {
    match (command.action, command.tool) {
        (Action::Nothing, _) => Ok(String::new()),
        (Action::Apply, Tool::Iptables) => apply_iptables(&command.options, command.is_dry_run),
        (Action::Apply, Tool::Nftables) => apply_nft(&command.options, command.is_dry_run),
        (Action::Cleanup, Tool::Iptables) => clean_iptables(&command.options, command.is_dry_run),
        (Action::Cleanup, Tool::Nftables) => clean_nft(&command.options, command.is_dry_run),
    }
}

fn families(options: &Options) -> &'static [(Families, &'static str)] {
    let all = &[(Families::V4, "iptables"), (Families::V6, "ip6tables")];
    if options.ipv6 { all } else { &all[..1] }
}

fn apply_iptables(options: &Options, is_dry_run: bool) -> Result<String, CaptureError> {
    let rules = rules(options);
    let mut all = String::new();
    for (family, program) in families(options) {
        if is_dry_run {
            all += &iptables::restore_text(&rules, *family);
            continue;
        }
        let saved = execute(&format!("{program}-save"), &[], "")?;
        if saved.contains(":ISTIO_") {
            delete_plain_rules(options, *family, program);
        }
        let text = iptables::replace_text(&rules, *family, &saved);
        execute(
            &format!("{program}-restore"),
            &["--noflush", "--wait", "30"],
            &text,
        )?;
        all += &text;
    }
    if !is_dry_run {
        routes(options, "add")?;
    }
    Ok(all)
}

fn clean_iptables(options: &Options, is_dry_run: bool) -> Result<String, CaptureError> {
    let mut all = String::new();
    for (family, program) in families(options) {
        let saved = execute(&format!("{program}-save"), &[], "")?;
        let text = iptables::cleanup_text(&saved);
        if !is_dry_run && !text.is_empty() {
            delete_plain_rules(options, *family, program);
            execute(
                &format!("{program}-restore"),
                &["--noflush", "--wait", "30"],
                &text,
            )?;
        }
        all += &text;
    }
    if !is_dry_run {
        routes(options, "del")?;
    }
    Ok(all)
}

/// Rules of built-in chains that do not name a chain of ours cannot be recognised in a listing;
/// they are deleted by their own text, as often as they are there.
fn delete_plain_rules(options: &Options, family: Families, program: &str) {
    const MOST_COPIES: usize = 8;
    for rule in rules(options) {
        let is_plain = !rule.chain.starts_with("ISTIO_") && !rule.iptables.contains("-j ISTIO_");
        if !is_plain || (rule.families != Families::Both && rule.families != family) {
            continue;
        }
        let mut arguments = vec![
            "-w",
            "30",
            "-t",
            rule.table.iptables_name(),
            "-D",
            rule.chain,
        ];
        arguments.extend(rule.iptables.split(' '));
        let deleted = || execute(program, &arguments, "").is_ok();
        let copies = (0..MOST_COPIES).take_while(|_| deleted()).count();
        tracing::debug!(rule = rule.iptables, copies, "capture: removed");
    }
}

fn apply_nft(options: &Options, is_dry_run: bool) -> Result<String, CaptureError> {
    let text = nftables::transaction(&rules(options), options.ipv6);
    if !is_dry_run {
        // Chains that an earlier set had and this one has not go with the old tables.
        let whole = format!("{}{text}", nftables::cleanup());
        execute("nft", &["-f", "-"], &whole)?;
        routes(options, "add")?;
    }
    Ok(text)
}

fn clean_nft(options: &Options, is_dry_run: bool) -> Result<String, CaptureError> {
    let text = nftables::cleanup();
    if !is_dry_run {
        execute("nft", &["-f", "-"], &text)?;
        routes(options, "del")?;
    }
    Ok(text)
}

/// TPROXY needs captured packets routed to the local machine; IPv6 passthrough needs its source
/// address. Both are no error if they are there (or gone) already.
fn routes(options: &Options, verb: &str) -> Result<(), CaptureError> {
    let mut commands = Vec::new();
    if options.ipv6 {
        commands.push(format!("-6 addr {verb} ::6/128 dev lo"));
    }
    if options.mode == Mode::Tproxy {
        let (mark, table) = (options.tproxy_mark, options.tproxy_route_table);
        for (family, _) in families(options) {
            let (family, all) = if *family == Families::V4 {
                ("-4", "0.0.0.0/0")
            } else {
                ("-6", "::/0")
            };
            commands.push(format!("{family} rule {verb} fwmark {mark} lookup {table}"));
            commands.push(format!(
                "{family} route {verb} local {all} dev lo table {table}"
            ));
        }
    }
    for command in commands {
        let arguments: Vec<&str> = command.split(' ').collect();
        match execute("ip", &arguments, "") {
            Ok(_) => {}
            Err(_) if verb == "del" => {}
            Err(CaptureError::Command { reason, .. }) if reason.contains("File exists") => {}
            Err(CaptureError::Command { reason, .. }) if reason.contains("already assigned") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn execute(program: &str, arguments: &[&str], input: &str) -> Result<String, CaptureError> {
    let error = |reason: String| CaptureError::Command {
        command: format!("{program} {}", arguments.join(" ")),
        reason,
    };
    let mut child = Process::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|reason| error(format!("cannot be started: {reason}")))?;
    // These inputs are small; none of these tools answers before it has read all.
    if let Some(mut stdin) = child.stdin.take() {
        let written = stdin.write_all(input.as_bytes());
        if let Err(reason) = written
            && reason.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(error(reason.to_string()));
        }
    }
    let output = child
        .wait_with_output()
        .map_err(|reason| error(reason.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(error(format!("{}: {text}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
