//! Which pod a command is about: `NAME`, `NAME.NAMESPACE`, `deployment/NAME`, `pod/NAME`.

use local::board::PodStatus;
use serde_json::Value;

use crate::exit::CliError;
use crate::mesh::{Mesh, expect};

/// The one pod that the words name.
pub async fn find(mesh: &Mesh, namespace: &str, word: &str) -> Result<PodStatus, CliError> {
    let status = mesh.status().await?;
    choose(&status.pods, namespace, word)
}

/// The supervisor's record of a pod: containers, environment, where the logs are.
pub async fn record(mesh: &Mesh, pod: &PodStatus) -> Result<Value, CliError> {
    let path = format!("/v1/pods/{}/{}", pod.namespace, pod.name);
    expect(mesh.supervisor.get(&path).await?)
}

fn choose(pods: &[PodStatus], namespace: &str, word: &str) -> Result<PodStatus, CliError> {
    let (kind, name) = word.split_once('/').unwrap_or(("pod", word));
    let is_workload = match kind {
        "pod" | "pods" | "po" => false,
        "deployment" | "deployments" | "deploy" => true,
        other => {
            return Err(CliError::usage(format!(
                "{word}: {other} is neither pod nor deployment"
            )));
        }
    };
    let named = |pod: &PodStatus, name: &str, namespace: &str| {
        let own = if is_workload {
            &pod.workload
        } else {
            &pod.name
        };
        own == name && pod.namespace == namespace
    };
    let found = pods
        .iter()
        .find(|pod| named(pod, name, namespace))
        .or_else(|| {
            // istioctl's form NAME.NAMESPACE
            let (name, namespace) = name.rsplit_once('.')?;
            pods.iter().find(|pod| named(pod, name, namespace))
        });
    found.cloned().ok_or_else(|| {
        let near: Vec<&str> = pods
            .iter()
            .filter(|pod| pod.name.starts_with(name) || pod.workload == name)
            .map(|pod| pod.name.as_str())
            .collect();
        let hint = match near.as_slice() {
            [] => "see `stolos get pods -A`".to_owned(),
            some => format!("did you mean {}?", some.join(", ")),
        };
        CliError::failed(format!(
            "there is no {kind} {name} in namespace {namespace}: {hint}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use local::board::Phase;

    fn pod(namespace: &str, name: &str, workload: &str) -> PodStatus {
        PodStatus {
            namespace: namespace.into(),
            name: name.into(),
            ready: true,
            terminating: false,
            phase: Phase::Running,
            status: "Running".into(),
            message: String::new(),
            ip: [10, 0, 0, 1].into(),
            pid: 1,
            workload: workload.into(),
            proxy: "stolos".into(),
            identity: String::new(),
            labels: Default::default(),
            containers: Default::default(),
            created_at: 0,
        }
    }

    #[test]
    fn finds_a_pod_by_each_form() {
        let pods = [
            pod("default", "reviews-v1-a", "reviews-v1"),
            pod("test", "x", "x"),
        ];
        for (word, want, why) in [
            ("reviews-v1-a", Some("reviews-v1-a"), "by name"),
            ("pod/reviews-v1-a", Some("reviews-v1-a"), "with its kind"),
            ("deploy/reviews-v1", Some("reviews-v1-a"), "by workload"),
            ("x.test", Some("x"), "istioctl's form"),
            ("x", None, "another namespace"),
            ("service/x", None, "no kind of ours"),
        ] {
            let found = choose(&pods, "default", word).ok().map(|pod| pod.name);
            assert_eq!(found.as_deref(), want, "{why}");
        }
        let error = choose(&pods, "default", "reviews").expect_err("a prefix is no name");
        assert!(
            error.to_string().contains("did you mean reviews-v1-a?"),
            "{error}"
        );
    }
}
