//! Folders of manifests: what they mean, and what is refused, with file, line and field.
#![allow(clippy::unwrap_used)] // the helpers are no test functions to clippy

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use local::LocalError;
use local::manifest::template::{Identity, ProxyRole};
use local::manifest::{DesiredMesh, read};

const SETTINGS: &str = "apiVersion: local.stolos.dev/v1alpha1\nkind: LocalMesh\n\
    metadata: {name: test}\nspec:\n  images:\n\
    \x20 - match: 'registry/app:*'\n    command: [./run, serve]\n    args: ['80']\n\
    \x20   env: {LEVEL: info, WHO: image}\n";

fn mesh(manifests: &str) -> Result<DesiredMesh, LocalError> {
    mesh_with(SETTINGS, manifests)
}

fn mesh_with(settings: &str, manifests: &str) -> Result<DesiredMesh, LocalError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stolos.yaml"), settings).unwrap();
    std::fs::write(folder.path().join("app.yaml"), manifests).unwrap();
    read(folder.path(), None)
}

/// A Pod whose container has these fields; they begin on line 7.
fn pod(fields: &str) -> String {
    let fields: String = fields.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  - \
         name: c\n{fields}"
    )
}

fn process(manifests: &str) -> (Vec<String>, Vec<(String, String)>) {
    let mesh = mesh(manifests).unwrap_or_else(|error| panic!("{error}\n{manifests}"));
    let template = &mesh.workloads[0].template;
    let ip = Ipv4Addr::new(10, 244, 0, 9);
    let identity = Identity {
        name: "p".to_owned(),
        uid: "u".to_owned(),
        ip,
    };
    let process = template.process(&template.containers[0], &identity);
    (process.command, process.env)
}

#[test]
fn commands_follow_kubernetes() {
    for (fields, want, why) in [
        (
            "image: registry/app:1",
            &["run", "serve", "80"][..],
            "the image's own",
        ),
        (
            "image: registry/app:1\nargs: ['81', x]",
            &["run", "serve", "81", "x"],
            "args replace",
        ),
        (
            "image: other\ncommand: [/bin/x]",
            &["/bin/x"],
            "a command needs no image",
        ),
        (
            "image: registry/app:1\ncommand: [/bin/x]\nargs: [z]",
            &["/bin/x", "z"],
            "a command replaces the image's arguments too",
        ),
        (
            "image: x\ncommand: [/bin/x, $(A), $$(A), $(B)]\nenv:\n- {name: A, value: a}",
            &["/bin/x", "a", "$(A)", "$(B)"],
            "variables",
        ),
    ] {
        let (mut command, _) = process(&pod(fields));
        if let Some(name) = command[0].strip_suffix("/./run").map(|_| "run".to_owned()) {
            command[0] = name;
        }
        assert_eq!(command, want, "{why}");
    }
}

#[test]
fn environments_follow_kubernetes() {
    let config = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {K: from-map}\n\
                  ---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {P: w}\n";
    let fields = "image: registry/app:1\nenvFrom:\n- {configMapRef: {name: m}, prefix: M_}\nenv:\n\
        - {name: WHO, value: container}\n\
        - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n\
        - {name: BOTH, value: $(WHO)-$(IP)}\n\
        - {name: SECRET, valueFrom: {secretKeyRef: {name: s, key: P}}}\n\
        - {name: NONE, valueFrom: {secretKeyRef: {name: s, key: Q, optional: true}}}\n";
    let (_, env) = process(&format!("{}{config}", pod(fields)));
    let value = |name: &str| {
        env.iter()
            .find(|(key, _)| key == name)
            .map(|(_, v)| v.as_str())
    };
    for (name, want, why) in [
        ("LEVEL", Some("info"), "from the image"),
        ("WHO", Some("container"), "the container's own wins"),
        ("IP", Some("10.244.0.9"), "fieldRef"),
        ("BOTH", Some("container-10.244.0.9"), "$(VAR) over both"),
        ("M_K", Some("from-map"), "envFrom with a prefix"),
        ("SECRET", Some("w"), "a Secret's key"),
        ("NONE", None, "optional and not there"),
        ("HOSTNAME", Some("p"), "given to every container"),
    ] {
        assert_eq!(value(name), want, "{name}: {why}");
    }
}

#[test]
fn what_cannot_be_is_refused_by_name_and_place() {
    let two = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n---\n\
               apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n";
    for (manifests, want, why) in [
        (
            pod("image: nobody/knows:1"),
            "app.yaml:7:5: error: spec.containers[0].image: no entry of `images` in stolos.yaml \
             matches nobody/knows:1",
            "an image with no command",
        ),
        (
            pod("image: registry/app:1\nimagee: x"),
            "app.yaml:8:5: error: spec.containers[0].imagee: unknown field",
            "an unknown field",
        ),
        (
            pod("image: registry/app:1\nvolumeMounts: [{name: v, mountPath: /v}]"),
            "spec.containers[0].volumeMounts[0].name: there is no volume v",
            "a mount of nothing",
        ),
        (
            pod("image: registry/app:1\nreadinessProbe: {httpGet: {port: web}}"),
            "readinessProbe.httpGet.port: is neither a port nor the name of one",
            "a probe of no port",
        ),
        (
            pod("image: registry/app:1\nenvFrom: [{secretRef: {name: s}}]"),
            "spec.containers[0].envFrom[0].secretRef.name: there is no s",
            "an environment from nothing",
        ),
        (
            format!("{}  hostNetwork: true\n", pod("image: registry/app:1")),
            "app.yaml:8:3: error: spec.hostNetwork: is not supported on the local platform",
            "the host's network",
        ),
        (
            format!("{}  serviceAccountName: sa\n", pod("image: registry/app:1")),
            "spec.serviceAccountName: there is no ServiceAccount sa in namespace default",
            "an identity that is not declared",
        ),
        (
            format!(
                "{}  volumes: [{{name: v, hostPath: {{path: /}}}}]\n",
                pod("image: registry/app:1")
            ),
            "spec.volumes[0].hostPath: is not supported on the local platform (allowed: emptyDir",
            "a volume of the host's",
        ),
        (
            pod("image: registry/app:1").replace("name: p}", "name: p, namespace: far}"),
            "there is no Namespace far in the folder",
            "a namespace that is not declared",
        ),
        (
            two.to_owned(),
            "app.yaml:7:",
            "defined twice: the second's place",
        ),
        (
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d}\n".to_owned(),
            "app.yaml:2:7: error: kind: the kind DaemonSet of apps/v1 is not supported",
            "a kind that we do not run",
        ),
    ] {
        let error = mesh(&manifests).expect_err(why).to_string();
        assert!(error.contains(want), "{why}\nwant {want}\ngot  {error}");
    }
}

#[test]
fn a_folder_without_settings_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let error = read(folder.path(), None)
        .expect_err("no stolos.yaml")
        .to_string();
    assert!(error.contains("stolos.yaml"), "{error}");
}

#[test]
fn bookinfo_is_complete() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bookinfo");
    let mesh = read(&folder, None).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<&str> = mesh.workloads.iter().map(|one| one.name.as_str()).collect();
    let want = [
        "details-v1",
        "productpage-v1",
        "ratings-v1",
        "reviews-v1",
        "reviews-v2",
        "reviews-v3",
    ];
    assert_eq!(names, want);
    assert!(mesh.warnings.is_empty(), "{:?}", mesh.warnings);
    for workload in &mesh.workloads {
        assert!(
            matches!(workload.template.proxy, ProxyRole::Sidecar(_)),
            "{}",
            workload.name
        );
        let labels = &workload.template.labels;
        assert_eq!(
            labels.get("security.istio.io/tlsMode").map(String::as_str),
            Some("istio")
        );
    }
}

#[test]
fn bookinfo_has_more_versions_to_include() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bookinfo");
    let settings = std::fs::read_to_string(folder.join("stolos.yaml")).unwrap();
    let versions = folder.join("versions").canonicalize().unwrap();
    let accounts = std::fs::read_to_string(folder.join("details.yaml")).unwrap();
    let more = std::fs::read_to_string(folder.join("ratings.yaml")).unwrap();
    let include = format!("include: ['{}']", versions.display());
    let settings = settings.replace("include: []", &include);
    let mesh = mesh_with(&settings, &format!("{accounts}---\n{more}"));
    let mesh = mesh.unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<&str> = mesh.workloads.iter().map(|one| one.name.as_str()).collect();
    for want in [
        "details-v2",
        "ratings-v2",
        "ratings-v2-mysql",
        "ratings-v2-mysql-vm",
    ] {
        assert!(names.contains(&want), "{want} in {names:?}");
    }
}

#[test]
fn istios_own_bookinfo_runs_with_our_settings() {
    let data = std::env::var_os("STOLOS_TESTDATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/testdata"),
        PathBuf::from,
    );
    let platform = data.join("istio/samples/bookinfo/platform/kube");
    if !platform.is_dir() {
        assert!(
            std::env::var_os("CI").is_none(),
            "{} is missing",
            platform.display()
        );
        println!(
            "not run: istios_own_bookinfo ({} is missing)",
            platform.display()
        );
        return;
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bookinfo/stolos.yaml");
    let settings = std::fs::read_to_string(own).unwrap();
    let manifests = std::fs::read_to_string(platform.join("bookinfo.yaml")).unwrap();
    let mesh = mesh_with(&settings, &manifests).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(mesh.workloads.len(), 6);
}
