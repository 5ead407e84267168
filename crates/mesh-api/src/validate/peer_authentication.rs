//! PeerAuthentication.

use super::{Check, selector, values};
use crate::kinds::peer_authentication::PeerAuthentication;

pub fn check(c: &mut Check<'_>, spec: &PeerAuthentication) {
    super::authorization_policy::refuse_dry_run(c);
    c.some(
        "selector",
        spec.selector.as_ref(),
        selector::check_workload_selector,
    );
    let selects = spec
        .selector
        .as_ref()
        .is_some_and(|s| !s.match_labels.is_empty());
    if !spec.port_level_mtls.is_empty() && !selects {
        c.error("portLevelMtls", "needs a selector");
    }
    for port in spec.port_level_mtls.keys() {
        c.verify(&format!("portLevelMtls.{port}"), values::port(*port));
    }
}
