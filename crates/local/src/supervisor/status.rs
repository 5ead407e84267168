//! What the supervisor says of its mesh.

use crate::board::PodRecord;
use crate::manifest::WorkloadKind;
use crate::supervisor::Supervisor;
use crate::supervisor::api::{MeshStatus, WorkloadStatus};
use crate::supervisor::control_process::ControlProcess;

impl Supervisor {
    pub async fn status(&self) -> MeshStatus {
        let trust_domain = self.platform.trust_domain();
        let records = self.platform.board.pods();
        let workloads: Vec<WorkloadStatus> = self
            .workloads
            .progress()
            .into_iter()
            .map(|(workload, replicas, up_to_date)| {
                let of = |pod: &&PodRecord| {
                    pod.namespace == workload.namespace && pod.workload == workload.name
                };
                let ready = records.iter().filter(of).filter(|pod| pod.ready).count();
                WorkloadStatus {
                    namespace: workload.namespace.clone(),
                    name: workload.name.clone(),
                    kind: if workload.kind == WorkloadKind::Pod {
                        "Pod"
                    } else {
                        "Deployment"
                    }
                    .to_owned(),
                    replicas,
                    ready: u32::try_from(ready).unwrap_or(u32::MAX),
                    up_to_date,
                }
            })
            .collect();
        let problems = self.gateways.problems();
        let control_pid = self
            .control
            .lock()
            .await
            .as_ref()
            .map(ControlProcess::pid)
            .unwrap_or_default();
        let desired = self.desired();
        let ready = |one: &WorkloadStatus| one.up_to_date && one.ready >= one.replicas;
        MeshStatus {
            mesh: desired.name,
            folder: desired.folder,
            ready: control_pid != 0 && problems.is_empty() && workloads.iter().all(ready),
            control_pid,
            supervisor_pid: std::process::id(),
            pods: records
                .iter()
                .map(|record| record.status(&trust_domain))
                .collect(),
            workloads,
            published: self.gateways.published().await,
            problems,
            notes: vec![self.outside.note()],
        }
    }
}
