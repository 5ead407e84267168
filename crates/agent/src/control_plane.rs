//! How this pod reaches a server of the control plane: TLS to the pinned roots, and a token or
//! the pod's own certificate. Everything is read anew for each connection.

use std::path::PathBuf;

use pki::TrustBundle;
use pki::tls::{Identity, client_config};
use pki::verify::{Expected, MeshServerVerifier};
use rustls_pki_types::ServerName;
use xds::grpc::Status;
use xds::grpc::transport::Target;

use crate::options::{Options, Server};

/// A token is a few kilobytes; a file that is longer is something else.
const LONGEST_TOKEN: u64 = 64 << 10;

#[derive(Clone, Debug)]
pub struct ControlPlane {
    pub server: Server,
    pub root_certificate: PathBuf,
    pub token: PathBuf,
    /// Sent as `clusterid`, for a control plane of several clusters.
    pub cluster_id: String,
}

/// How the pod shows who it is.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    Token,
    Certificate(&'a Identity),
}

impl ControlPlane {
    pub fn discovery(options: &Options) -> ControlPlane {
        ControlPlane::new(options, options.discovery.clone())
    }

    pub fn authority(options: &Options) -> ControlPlane {
        ControlPlane::new(options, options.authority.clone())
    }

    fn new(options: &Options, server: Server) -> ControlPlane {
        let cluster_id = options
            .metadata
            .get("CLUSTER_ID")
            .and_then(|id| id.as_str());
        ControlPlane {
            server,
            root_certificate: options.paths.root_certificate.clone(),
            token: options.paths.token.clone(),
            cluster_id: cluster_id.unwrap_or("Kubernetes").to_string(),
        }
    }

    pub fn has_token(&self) -> bool {
        self.token.is_file()
    }

    /// Resolves the address and reads roots and token: what one connection needs.
    pub async fn target(&self, credential: Credential<'_>) -> Result<Target, Status> {
        let Server { address, name } = &self.server;
        let unusable = |what: &str, error: &dyn std::fmt::Display| {
            Status::unavailable(format!("{what}: {error}"))
        };
        let mut addresses = tokio::net::lookup_host(address.as_str())
            .await
            .map_err(|error| unusable(address, &error))?;
        let resolved = addresses
            .next()
            .ok_or_else(|| unusable(address, &"resolves to nothing"))?;
        let roots = tokio::fs::read_to_string(&self.root_certificate)
            .await
            .map_err(|error| unusable(&self.root_certificate.display().to_string(), &error))?;
        let roots = TrustBundle::from_pem(&roots)
            .map_err(|error| unusable(&self.root_certificate.display().to_string(), &error))?;
        let verifier = MeshServerVerifier::new(roots, Expected::ServerName);
        let identity = match credential {
            Credential::Certificate(identity) => Some(identity),
            Credential::Token => None,
        };
        let config =
            client_config(verifier, identity, &[b"h2"]).map_err(|e| unusable("TLS", &e))?;
        let name = ServerName::try_from(name.clone()).map_err(|e| unusable(name, &e))?;
        let mut target =
            Target::tls(resolved, name, config).with_metadata("clusterid", &self.cluster_id);
        if let Credential::Token = credential {
            let token = self.read_token().await?;
            target = target.with_metadata("authorization", &format!("Bearer {token}"));
        }
        Ok(target)
    }

    async fn read_token(&self) -> Result<String, Status> {
        let path = self.token.display();
        let unusable =
            |error: &dyn std::fmt::Display| Status::unavailable(format!("token {path}: {error}"));
        let length = tokio::fs::metadata(&self.token)
            .await
            .map_err(|e| unusable(&e))?
            .len();
        if length > LONGEST_TOKEN {
            return Err(unusable(&"is longer than 64 KiB"));
        }
        let token = tokio::fs::read_to_string(&self.token)
            .await
            .map_err(|e| unusable(&e))?;
        Ok(token.trim().to_string())
    }
}

/// Between half and all of a pause that doubles up to `last`.
#[derive(Debug)]
pub struct BackOff {
    next: std::time::Duration,
    first: std::time::Duration,
    last: std::time::Duration,
}

impl BackOff {
    pub fn new(first: std::time::Duration, last: std::time::Duration) -> BackOff {
        BackOff {
            next: first,
            first,
            last,
        }
    }

    pub fn reset(&mut self) {
        self.next = self.first;
    }

    pub fn delay(&mut self) -> std::time::Duration {
        let delay = self.next.mul_f64(0.5 + pki::rotation::random() / 2.0);
        self.next = (self.next * 2).min(self.last);
        delay
    }
}
