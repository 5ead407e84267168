//! Applications that run under the proxy's user: their traffic would not be captured.

use super::Report;
use super::mesh::Mesh;
use crate::kinds::Spec;
use crate::kinds::core::PodSpec;

const PROXY_UID: i64 = 1337;

pub fn run(mesh: &Mesh<'_>, report: &mut Report) {
    for workload in &mesh.workloads {
        let (pod, base) = match &workload.object.spec {
            Spec::Pod(spec) => (Some(&**spec), "spec"),
            Spec::Deployment(spec) => {
                let template = spec.template.as_ref();
                (template.and_then(|t| t.spec.as_ref()), "spec.template.spec")
            }
            _ => (None, ""),
        };
        if pod.is_some_and(uses_proxy_uid) {
            let message = format!("the user id {PROXY_UID} is reserved for the proxy");
            report.add("IST0144", workload.object, base, message);
        }
    }
}

fn uses_proxy_uid(pod: &PodSpec) -> bool {
    let of_pod = pod
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_user);
    let applications = || pod.containers.iter().filter(|c| c.name != "istio-proxy");
    let own = |uid: Option<i64>| uid == Some(PROXY_UID);
    own(of_pod) && applications().next().is_some()
        || applications().any(|c| own(c.security_context.as_ref().and_then(|s| s.run_as_user)))
}
