//! ProxyConfig, the custom resource.

use super::{Check, selector};
use crate::kinds::proxy_config::ProxyConfig;

pub fn check(c: &mut Check<'_>, spec: &ProxyConfig) {
    c.some(
        "selector",
        spec.selector.as_ref(),
        selector::check_workload_selector,
    );
    if spec.concurrency.is_some_and(|concurrency| concurrency < 0) {
        c.error("concurrency", "must not be negative");
    }
    let image = spec
        .image
        .as_ref()
        .map_or("", |image| image.image_type.as_str());
    if !matches!(image, "" | "default" | "debug" | "distroless") {
        c.warn(
            "image.imageType",
            "is not one of default, debug and distroless",
        );
    }
}
