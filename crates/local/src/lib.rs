//! The embedded platform: Kubernetes-shaped manifests run as processes in network namespaces.
