//! Volumes of a pod and where containers see them. emptyDir, configMap and secret are performed;
//! the other sources are known so that they can be refused by name.

use serde_json::Value as Json;

use super::Opaque;

message! {
    pub struct Volume {
        name: String,
    } oneof {
        source: VolumeSource,
    }
}

oneof! {
    pub enum VolumeSource {
        EmptyDir(EmptyDirVolume) = "emptyDir",
        ConfigMap(ConfigMapVolume) = "configMap",
        Secret(SecretVolume) = "secret",
        Projected(Json) = "projected",
        DownwardApi(Json) = "downwardAPI",
        HostPath(Json) = "hostPath",
        PersistentVolumeClaim(Json) = "persistentVolumeClaim",
        Ephemeral(Json) = "ephemeral",
        Csi(Json) = "csi",
        Nfs(Json) = "nfs",
        Image(Json) = "image",
    }
}

message! {
    pub struct EmptyDirVolume {
        medium: String,
        size_limit: Opaque,
    }
}

message! {
    pub struct ConfigMapVolume {
        name: String,
        items: Vec<KeyToPath>,
        default_mode: Option<i32>,
        optional: Option<bool>,
    }
}

message! {
    pub struct SecretVolume {
        secret_name: String,
        items: Vec<KeyToPath>,
        default_mode: Option<i32>,
        optional: Option<bool>,
    }
}

message! {
    pub struct KeyToPath {
        key: String,
        path: String,
        mode: Option<i32>,
    }
}

message! {
    pub struct VolumeMount {
        name: String,
        mount_path: String,
        sub_path: String,
        sub_path_expr: String,
        read_only: bool,
        recursive_read_only: String,
        mount_propagation: String,
    }
}
