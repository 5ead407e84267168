//! What users write: Istio kinds and the Kubernetes kinds we read; parse, validate, analyze.
