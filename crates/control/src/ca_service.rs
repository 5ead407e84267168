//! `istio.v1.auth.IstioCertificateService`: a certificate for the caller's own identity, never
//! for another one. Names in the request are claims and are not looked at (istio.md 3.1).

use std::sync::Arc;
use std::time::Duration;

use daemon::clock::Clock;
use envoy_api::istio::{IstioCertificateRequest, IstioCertificateResponse};
use pki::{Authority, AuthorityError};
use prost_types::value::Kind;
use xds::grpc::server::Call;
use xds::grpc::{Code, Status};

use crate::metrics::Metrics;
use crate::serve::authenticate::Authenticator;
use crate::serve::connection::Peer;

/// The unary method's path.
pub const PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// Answers the service's calls.
pub(crate) struct CertificateService {
    pub authority: Arc<Authority>,
    pub authenticator: Authenticator,
    pub clock: Clock,
    pub metrics: Metrics,
}

impl CertificateService {
    pub async fn answer(&self, call: Call, peer: &Peer) -> Result<(), Status> {
        let Call {
            headers,
            mut requests,
            responses,
            ..
        } = call;
        self.metrics.authority.requests.increment();
        let caller = self.authenticator.caller(peer, &headers).map_err(|error| {
            self.metrics.authority.authentication_failures.increment();
            tracing::info!(%error, peer = %peer.address, "certificate request refused");
            Status::new(Code::Unauthenticated, "request authenticate failure")
        })?;
        let request: IstioCertificateRequest = requests
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("the call ended without a request"))?;
        if impersonates(&request) {
            let message = "request impersonation authentication failure";
            return Err(Status::new(Code::Unauthenticated, message));
        }
        let ttl = u64::try_from(request.validity_duration).unwrap_or(0);
        let ttl = Duration::from_secs(ttl);
        let ids = std::slice::from_ref(&caller.id);
        let cert_chain = self
            .authority
            .sign(&request.csr, ids, ttl, self.clock.now())
            .map_err(|error| self.refusal(&error))?;
        self.metrics.authority.issued.increment();
        tracing::debug!(id = %caller.id, pod = ?caller.pod, "issued a certificate");
        responses
            .message(&IstioCertificateResponse { cert_chain })
            .await
    }

    fn refusal(&self, error: &AuthorityError) -> Status {
        let (code, name) = match error {
            AuthorityError::Request(_) => {
                self.metrics.authority.parse_errors.increment();
                (Code::InvalidArgument, "CSR_ERROR")
            }
            AuthorityError::Ttl { .. } => (Code::InvalidArgument, "TTL_ERROR"),
            AuthorityError::Expired(_) | AuthorityError::Load(_) => {
                (Code::Internal, "CA_NOT_READY")
            }
            AuthorityError::Generate(_) => (Code::Internal, "CERT_GEN_ERROR"),
        };
        self.metrics.authority.sign_errors.with(&[name]).increment();
        Status::new(code, format!("CSR signing error ({error})"))
    }
}

/// Certificates for other workloads are for node proxies, which there are none of.
fn impersonates(request: &IstioCertificateRequest) -> bool {
    let value = request
        .metadata
        .as_ref()
        .and_then(|m| m.fields.get("ImpersonatedIdentity"));
    match value.and_then(|value| value.kind.as_ref()) {
        None | Some(Kind::NullValue(_)) => false,
        Some(Kind::StringValue(text)) => !text.is_empty(),
        Some(_) => true,
    }
}
