//! Addresses of pods and services, and the links between pods and the node. A pod has a /32 and
//! a default route over its link; the node routes each pod's address to its link, so that every
//! packet between pods passes the node's rules with its source address intact.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::error::LocalError;
use crate::init::protocol::LINK_GATEWAY;
use crate::node::Node;

/// The node's own address: control listens on it, published ports connect from it.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// Where pods find the name server, as in Kubernetes.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub const POD_RANGE: &str = "10.244.0.0/16";
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
const POD_BASE: u32 = 0x0AF4_0000;
const SERVICE_BASE: u32 = 0x0A60_0000;
const RANGE_SIZE: u32 = 0x1_0000;

/// Who has which address; written to the state directory, so that a name keeps its address.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Addresses {
    pods: BTreeMap<String, Ipv4Addr>,
    services: BTreeMap<String, Ipv4Addr>,
    /// Where to look next: an address is used again as late as possible, because a proxy may
    /// know the old owner for a moment longer.
    next_pod: u32,
}

impl Addresses {
    /// The pod's address (`namespace/name`), a new one if it has none.
    pub fn pod(&mut self, key: &str) -> Result<Ipv4Addr, LocalError> {
        if let Some(found) = self.pods.get(key) {
            return Ok(*found);
        }
        let taken: BTreeSet<Ipv4Addr> = self.pods.values().copied().collect();
        let (offset, address) = (0..RANGE_SIZE)
            .map(|step| 2 + (self.next_pod + step) % (RANGE_SIZE - 3))
            .map(|offset| (offset, Ipv4Addr::from(POD_BASE + offset)))
            .find(|(_, address)| !taken.contains(address))
            .ok_or_else(|| LocalError::refused("all pod addresses of 10.244.0.0/16 are in use"))?;
        self.next_pod = offset - 1;
        self.pods.insert(key.to_owned(), address);
        Ok(address)
    }

    pub fn release_pod(&mut self, key: &str) {
        self.pods.remove(key);
    }

    /// The service's virtual IP; `wanted` is what its manifest asks for.
    pub fn service(&mut self, key: &str, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, LocalError> {
        if let Some(wanted) = wanted {
            let owner = self
                .services
                .iter()
                .find(|(name, ip)| **ip == wanted && *name != key);
            if let Some((owner, _)) = owner {
                return Err(LocalError::refused(format!(
                    "Service {key}: clusterIP {wanted} belongs to Service {owner}"
                )));
            }
            self.services.insert(key.to_owned(), wanted);
            return Ok(wanted);
        }
        if let Some(found) = self.services.get(key) {
            return Ok(*found);
        }
        let taken: BTreeSet<Ipv4Addr> = self.services.values().copied().collect();
        let address = (20..RANGE_SIZE - 1)
            .map(|offset| Ipv4Addr::from(SERVICE_BASE + offset))
            .find(|address| !taken.contains(address))
            .ok_or_else(|| {
                LocalError::refused("all service addresses of 10.96.0.0/16 are in use")
            })?;
        self.services.insert(key.to_owned(), address);
        Ok(address)
    }

    /// Forgets services that are gone.
    pub fn keep_services(&mut self, keys: &BTreeSet<String>) {
        self.services.retain(|key, _| keys.contains(key));
    }
}

/// Gives the node its addresses and makes it a router. Nothing here leaves its namespace.
pub async fn set_up_node(node: &Node) -> Result<(), LocalError> {
    let settings = node
        .run(|| {
            [
                ("ip_forward", "1"),
                ("conf/all/send_redirects", "0"),
                ("conf/default/send_redirects", "0"),
                ("conf/all/rp_filter", "0"),
                ("conf/default/rp_filter", "0"),
            ]
            .iter()
            .try_for_each(|(name, value)| {
                std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
            })
        })
        .await?;
    settings.map_err(|error| LocalError::system("make the node's namespace a router", error))?;
    let batch = format!(
        "link set lo up\naddress add {NODE_ADDRESS}/32 dev lo\n\
         address add {DNS_ADDRESS}/32 dev lo\n"
    );
    node.feed(&["ip", "-batch", "-"], batch).await
}

/// The node end's name for a pod with this address; at most 15 characters.
pub fn link_name(pod: Ipv4Addr) -> String {
    let [_, _, high, low] = pod.octets();
    format!("pod-{high}-{low}")
}

/// Links the pod whose first process is `pid` to the node; its end is `eth0` in its namespace.
pub async fn link_pod(node: &Node, pod: Ipv4Addr, pid: u32) -> Result<(), LocalError> {
    let link = link_name(pod);
    let batch = format!(
        "link add {link} type veth peer name eth0 netns {pid}\n\
         address add {LINK_GATEWAY}/32 dev {link} scope link\nlink set {link} up\n\
         route add {pod}/32 dev {link} src {NODE_ADDRESS}\n"
    );
    node.feed(&["ip", "-batch", "-"], batch).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_stable_and_used_again_late() {
        let mut addresses = Addresses::default();
        let first = addresses.pod("default/a").unwrap();
        assert_eq!(first, Ipv4Addr::new(10, 244, 0, 2), "after the node's own");
        assert_eq!(
            addresses.pod("default/a").unwrap(),
            first,
            "a name keeps its address"
        );
        addresses.release_pod("default/a");
        let second = addresses.pod("default/b").unwrap();
        assert_ne!(first, second, "a released address rests");
        let text = serde_json::to_string(&addresses).unwrap();
        let mut again: Addresses = serde_json::from_str(&text).unwrap();
        assert_eq!(
            again.pod("default/b").unwrap(),
            second,
            "also over a restart"
        );
    }

    #[test]
    fn services_get_what_they_ask_for() {
        let mut addresses = Addresses::default();
        let wanted = Ipv4Addr::new(10, 96, 0, 21);
        assert_eq!(addresses.service("d/a", Some(wanted)).unwrap(), wanted);
        assert!(addresses.service("d/b", Some(wanted)).is_err(), "taken");
        assert_eq!(
            addresses.service("d/b", None).unwrap(),
            Ipv4Addr::new(10, 96, 0, 20)
        );
        assert_ne!(
            addresses.service("d/c", None).unwrap(),
            wanted,
            "skips what is taken"
        );
    }

    #[test]
    fn link_names_fit_the_kernel() {
        assert_eq!(link_name(Ipv4Addr::new(10, 244, 255, 254)), "pod-255-254");
    }
}
