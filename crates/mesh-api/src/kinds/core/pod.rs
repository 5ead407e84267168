//! Pod: containers that share a network. Every field of Kubernetes' PodSpec is known; those that
//! are `Opaque` are not performed.

use std::collections::BTreeMap;

use super::Opaque;
use super::container::Container;
use super::volume::Volume;

message! {
    pub struct PodSpec {
        containers: Vec<Container>,
        init_containers: Vec<Container>,
        volumes: Vec<Volume>,
        service_account_name: String,
        /// Deprecated name of `service_account_name`.
        service_account: String,
        automount_service_account_token: Option<bool>,
        hostname: String,
        subdomain: String,
        /// `Always` (also when empty), `OnFailure`, `Never`.
        restart_policy: String,
        /// Unset: 30.
        termination_grace_period_seconds: Option<i64>,
        active_deadline_seconds: Option<i64>,
        security_context: Option<PodSecurityContext>,
        dns_policy: String,
        dns_config: Opaque,
        host_aliases: Opaque,
        enable_service_links: Option<bool>,
        share_process_namespace: Option<bool>,
        host_network: bool,
        host_pid = "hostPID": bool,
        host_ipc = "hostIPC": bool,
        host_users: Option<bool>,
        hostname_override: String,
        set_hostname_as_fqdn = "setHostnameAsFQDN": Option<bool>,
        ephemeral_containers: Opaque,
        image_pull_secrets: Opaque,
        node_selector: BTreeMap<String, String>,
        node_name: String,
        affinity: Opaque,
        tolerations: Opaque,
        topology_spread_constraints: Opaque,
        scheduler_name: String,
        scheduling_gates: Opaque,
        priority_class_name: String,
        priority: Option<i32>,
        preemption_policy: String,
        overhead: Opaque,
        readiness_gates: Opaque,
        runtime_class_name: String,
        os: Opaque,
        resource_claims: Opaque,
        resources: Opaque,
    }
}

message! {
    pub struct PodSecurityContext {
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        run_as_non_root: Option<bool>,
        fs_group: Option<i64>,
        fs_group_change_policy: String,
        supplemental_groups: Vec<i64>,
        supplemental_groups_policy: String,
        sysctls: Opaque,
        se_linux_options: Opaque,
        se_linux_change_policy: String,
        seccomp_profile: Opaque,
        app_armor_profile: Opaque,
        windows_options: Opaque,
    }
}
