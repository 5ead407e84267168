//! Generates Envoy's messages from the descriptor set inside the package `envoy-types`.
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Packages that the product speaks; everything they import comes along.
/// What is not here is refused by type URL.
const ROOTS: &[&str] = &[
    "envoy.admin.v3",
    "envoy.config.accesslog.v3",
    "envoy.config.bootstrap.v3",
    "envoy.config.cluster.v3",
    "envoy.config.core.v3",
    "envoy.config.endpoint.v3",
    "envoy.config.listener.v3",
    "envoy.config.metrics.v3",
    "envoy.config.overload.v3",
    "envoy.config.rbac.v3",
    "envoy.config.route.v3",
    "envoy.config.trace.v3",
    "envoy.data.accesslog.v3",
    "envoy.extensions.access_loggers.file.v3",
    "envoy.extensions.access_loggers.stream.v3",
    "envoy.extensions.access_loggers.grpc.v3",
    "envoy.extensions.clusters.aggregate.v3",
    "envoy.extensions.filters.common.fault.v3",
    "envoy.extensions.filters.http.cors.v3",
    "envoy.extensions.filters.http.fault.v3",
    "envoy.extensions.filters.http.grpc_stats.v3",
    "envoy.extensions.filters.http.grpc_web.v3",
    "envoy.extensions.filters.http.header_mutation.v3",
    "envoy.extensions.filters.http.local_ratelimit.v3",
    "envoy.extensions.filters.http.rbac.v3",
    "envoy.extensions.filters.http.router.v3",
    "envoy.extensions.filters.http.set_filter_state.v3",
    "envoy.extensions.filters.listener.http_inspector.v3",
    "envoy.extensions.filters.listener.original_dst.v3",
    "envoy.extensions.filters.listener.original_src.v3",
    "envoy.extensions.filters.listener.proxy_protocol.v3",
    "envoy.extensions.filters.listener.tls_inspector.v3",
    "envoy.extensions.filters.network.connection_limit.v3",
    "envoy.extensions.filters.network.direct_response.v3",
    "envoy.extensions.filters.network.http_connection_manager.v3",
    "envoy.extensions.filters.network.rbac.v3",
    "envoy.extensions.filters.network.set_filter_state.v3",
    "envoy.extensions.filters.network.tcp_proxy.v3",
    "envoy.extensions.formatter.metadata.v3",
    "envoy.extensions.formatter.req_without_query.v3",
    "envoy.extensions.health_checkers.redis.v3",
    "envoy.extensions.load_balancing_policies",
    "envoy.extensions.network.dns_resolver.cares.v3",
    "envoy.extensions.path.match.uri_template.v3",
    "envoy.extensions.path.rewrite.uri_template.v3",
    "envoy.extensions.request_id.uuid.v3",
    "envoy.extensions.retry.host.previous_hosts.v3",
    "envoy.extensions.retry.priority.previous_priorities.v3",
    "envoy.extensions.transport_sockets.proxy_protocol.v3",
    "envoy.extensions.transport_sockets.raw_buffer.v3",
    "envoy.extensions.transport_sockets.tls.v3",
    "envoy.extensions.upstreams.http.v3",
    "envoy.extensions.upstreams.tcp.v3",
    "envoy.service.accesslog.v3",
    "envoy.service.discovery.v3",
    "envoy.service.secret.v3",
    "envoy.service.status.v3",
    "envoy.type.matcher.v3",
    "envoy.type.tracing.v3",
    "envoy.type.v3",
    "google.rpc",
    "xds.core.v3",
    "xds.type.matcher.v3",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.toml");
    println!("cargo:rerun-if-changed=proto");
    let mut set = descriptor_set(&types_bin()?)?;
    add_own(&mut set)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), set.encode_to_vec())?;
    prost_build::Config::new()
        .btree_map(["."])
        .bytes(["."])
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .include_file("messages.rs")
        .compile_fds(set)?;
    Ok(())
}

/// The descriptor set's file inside the locked package.
fn types_bin() -> Result<PathBuf, Box<dyn std::error::Error>> {
    let output = Command::new(std::env::var("CARGO")?)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--manifest-path",
        ])
        .arg(PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("Cargo.toml"))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"]
        .as_array()
        .ok_or("cargo metadata without packages")?;
    let package = packages
        .iter()
        .find(|package| package["name"] == "envoy-types")
        .ok_or("envoy-types is not in the lock file")?;
    let manifest = package["manifest_path"]
        .as_str()
        .ok_or("envoy-types without a manifest")?;
    Ok(PathBuf::from(manifest).with_file_name("src/generated/types.bin"))
}

/// The files of the root packages and all that they import, without source positions.
fn descriptor_set(path: &PathBuf) -> Result<FileDescriptorSet, Box<dyn std::error::Error>> {
    let all = FileDescriptorSet::decode(std::fs::read(path)?.as_slice())?;
    let by_name: BTreeMap<&str, &FileDescriptorProto> =
        all.file.iter().map(|file| (file.name(), file)).collect();
    let is_root = |file: &FileDescriptorProto| {
        let package = file.package();
        ROOTS.iter().any(|root| {
            package == *root
                || package
                    .strip_prefix(root)
                    .is_some_and(|rest| rest.starts_with('.'))
        })
    };
    let mut wanted: BTreeSet<&str> = BTreeSet::new();
    let mut pending: Vec<&str> = all
        .file
        .iter()
        .filter(|file| is_root(file))
        .map(|file| file.name())
        .collect();
    while let Some(name) = pending.pop() {
        if wanted.insert(name) {
            let file = by_name
                .get(name)
                .ok_or_else(|| format!("{name} is not in the set"))?;
            pending.extend(file.dependency.iter().map(String::as_str));
        }
    }
    let mut file: Vec<FileDescriptorProto> = all
        .file
        .iter()
        .filter(|file| wanted.contains(file.name()))
        .cloned()
        .collect();
    for one in &mut file {
        one.source_code_info = None;
    }
    Ok(FileDescriptorSet { file })
}

/// Istio's messages, which no package carries: compiled from our own files in `proto/`.
fn add_own(set: &mut FileDescriptorSet) -> Result<(), Box<dyn std::error::Error>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir("proto")? {
        names.push(entry?.path());
    }
    names.sort();
    let present: BTreeSet<String> = set.file.iter().map(|file| file.name().to_owned()).collect();
    let own = protox::compile(&names, ["proto"])?;
    for mut file in own.file {
        if !present.contains(file.name()) {
            file.source_code_info = None;
            set.file.push(file);
        }
    }
    Ok(())
}
