//! What must be there before a control plane runs: clock, metrics, mesh configuration, authority,
//! store; and the services that are built on it.

use std::sync::Arc;

use daemon::clock::Clock;
use daemon::drain::DrainWatch;
use mesh_api::mesh_config::MeshConfig;
use pki::TrustDomain;
use tokio::sync::Semaphore;

use crate::ca_service::CertificateService;
use crate::metrics::Metrics;
use crate::pipeline::PublishedWatch;
use crate::serve::authenticate::{Authenticator, Tokens};
use crate::serve::connection::Services;
use crate::serve::discovery::Discovery;
use crate::serve::proxies::Proxies;
use crate::store::mesh_config;
use crate::store::objects::ObjectStore;
use crate::{ControlError, Options};

/// What must be there before anything runs.
pub(crate) struct Foundation {
    pub clock: Clock,
    pub metrics: Metrics,
    pub mesh: Arc<MeshConfig>,
    pub trust_domain: TrustDomain,
    pub authority: Arc<pki::Authority>,
}

impl Foundation {
    /// Reads or makes what the state directory holds.
    pub async fn lay(options: &Options) -> Result<(Foundation, ObjectStore), ControlError> {
        std::fs::create_dir_all(&options.state_dir)
            .map_err(ControlError::io(options.state_dir.display()))?;
        let clock = Clock::system();
        let metrics = Metrics::new();
        let mesh = Arc::new(mesh_config::read(options.mesh_config.as_deref())?);
        let trust_domain = TrustDomain::new(&mesh.trust_domain)
            .map_err(|error| ControlError::MeshConfig(error.to_string()))?;
        let authority = crate::authority::load(options, &trust_domain, clock.now())?;
        crate::authority::measure(&authority, &metrics);
        let path = options.state_dir.join("objects.redb");
        let opened = tokio::task::spawn_blocking(move || ObjectStore::open(&path)).await;
        let store = opened.map_err(|error| ControlError::io("objects")(error.into()))??;
        let foundation = Foundation {
            clock,
            metrics,
            mesh,
            trust_domain,
            authority: Arc::new(authority),
        };
        Ok((foundation, store))
    }

    /// What answers the calls of agents and proxies.
    pub fn services(
        &self,
        published: PublishedWatch,
        tokens: Tokens,
        proxies: &Proxies,
        drain: &DrainWatch,
    ) -> Services {
        let trust_domain = self.trust_domain.clone();
        let authenticator = Authenticator {
            tokens,
            trust_domain,
        };
        let certificates = CertificateService {
            authority: self.authority.clone(),
            authenticator: authenticator.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
        };
        let discovery = Discovery {
            published,
            authenticator,
            proxies: proxies.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            translations: Arc::new(Semaphore::new(processors())),
            drain: drain.clone(),
            process: format!("{:x}", self.clock.now().as_microsecond()),
        };
        Services {
            discovery: Arc::new(discovery),
            certificates: Arc::new(certificates),
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}
