//! A container of a pod: what runs, with which environment, and how its health is asked.

use super::Opaque;
use super::probe::Probe;
use super::volume::VolumeMount;

message! {
    pub struct Container {
        name: String,
        image: String,
        image_pull_policy: String,
        command: Vec<String>,
        args: Vec<String>,
        working_dir: String,
        env: Vec<EnvVar>,
        env_from: Vec<EnvFromSource>,
        ports: Vec<ContainerPort>,
        volume_mounts: Vec<VolumeMount>,
        volume_devices: Opaque,
        liveness_probe: Option<Probe>,
        readiness_probe: Option<Probe>,
        startup_probe: Option<Probe>,
        lifecycle: Opaque,
        resources: Opaque,
        resize_policy: Opaque,
        restart_policy: String,
        restart_policy_rules: Opaque,
        security_context: Option<SecurityContext>,
        stdin: bool,
        stdin_once: bool,
        tty: bool,
        termination_message_path: String,
        termination_message_policy: String,
    }
}

message! {
    pub struct ContainerPort {
        name: String,
        container_port: i32,
        /// `TCP` (also when empty), `UDP` or `SCTP`.
        protocol: String,
        host_port: i32,
        host_ip = "hostIP": String,
    }
}

message! {
    pub struct EnvVar {
        name: String,
        value: String,
        value_from: Option<EnvVarSource>,
    }
}

message! {
    pub struct EnvVarSource {
    } oneof {
        source: EnvSource,
    }
}

oneof! {
    pub enum EnvSource {
        FieldRef(FieldRef) = "fieldRef",
        ResourceFieldRef(ResourceFieldRef) = "resourceFieldRef",
        ConfigMapKeyRef(KeyRef) = "configMapKeyRef",
        SecretKeyRef(KeyRef) = "secretKeyRef",
        FileKeyRef(serde_json::Value) = "fileKeyRef",
    }
}

message! {
    pub struct FieldRef {
        api_version: String,
        field_path: String,
    }
}

message! {
    pub struct ResourceFieldRef {
        container_name: String,
        resource: String,
        divisor: Opaque,
    }
}

message! {
    pub struct KeyRef {
        name: String,
        key: String,
        optional: Option<bool>,
    }
}

message! {
    pub struct EnvFromSource {
        prefix: String,
        config_map_ref: Option<NameRef>,
        secret_ref: Option<NameRef>,
    }
}

message! {
    pub struct NameRef {
        name: String,
        optional: Option<bool>,
    }
}

message! {
    pub struct SecurityContext {
        run_as_user: Option<i64>,
        run_as_group: Option<i64>,
        run_as_non_root: Option<bool>,
        privileged: Option<bool>,
        allow_privilege_escalation: Option<bool>,
        read_only_root_filesystem: Option<bool>,
        capabilities: Opaque,
        proc_mount: String,
        se_linux_options: Opaque,
        seccomp_profile: Opaque,
        app_armor_profile: Opaque,
        windows_options: Opaque,
    }
}
