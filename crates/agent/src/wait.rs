//! `stolos proxy wait`: returns once the proxy of this pod is ready, for containers that must not
//! start before.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode};

use crate::AgentError;
use crate::http_client::Call;

#[derive(Clone, Debug)]
pub struct Wait {
    pub address: SocketAddr,
    pub path: String,
    pub limit: Duration,
    pub period: Duration,
    pub request_timeout: Duration,
}

impl Default for Wait {
    fn default() -> Wait {
        Wait {
            address: SocketAddr::from(([127, 0, 0, 1], 15021)),
            path: "/healthz/ready".to_string(),
            limit: Duration::from_secs(60),
            period: Duration::from_millis(500),
            request_timeout: Duration::from_millis(500),
        }
    }
}

pub async fn until_ready(wait: &Wait) -> Result<(), AgentError> {
    let mut last = "it was not asked".to_string();
    let asking = async {
        loop {
            let call = Call::new(Method::GET, wait.address, &wait.path);
            let call = Call {
                timeout: wait.request_timeout,
                ..call
            };
            match call.send().await {
                Ok(answer) if answer.status == StatusCode::OK => return,
                Ok(answer) => last = format!("status {}", answer.status),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(wait.period).await;
        }
    };
    let done = tokio::time::timeout(wait.limit, asking).await;
    done.map_err(|_| AgentError::Proxy(format!("not ready within {:?}: {last}", wait.limit)))
}
