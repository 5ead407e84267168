//! The verifiers in real handshakes, in memory.

use std::time::Duration;

use jiff::Timestamp;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConnection, ServerConnection};

use super::*;
use crate::tls::{Identity, client_config, server_config};
use crate::{Authority, TrustDomain};

struct Mesh {
    authority: Authority,
    domain: TrustDomain,
}

impl Mesh {
    fn new(domain: &str) -> Mesh {
        let domain = TrustDomain::new(domain).unwrap();
        Mesh {
            authority: Authority::create(&domain, Timestamp::now()).unwrap(),
            domain,
        }
    }

    fn roots(&self) -> TrustBundle {
        TrustBundle::from_pem(self.authority.roots_pem()).unwrap()
    }

    fn id(&self, account: &str) -> SpiffeId {
        SpiffeId::new(self.domain.clone(), "ns", account).unwrap()
    }

    fn identity(&self, account: &str, age: i64) -> Identity {
        let now = Timestamp::from_second(Timestamp::now().as_second() - age).unwrap();
        let ttl = Duration::from_secs(3600);
        self.authority
            .issue_server(&["a.example"], &[self.id(account)], ttl, now)
            .unwrap()
    }
}

/// Ok with the client's identity as the server saw it.
fn handshake(
    client: Arc<MeshServerVerifier>,
    server: Arc<MeshClientVerifier>,
    client_identity: Option<&Identity>,
    server_identity: &Identity,
) -> Result<Option<SpiffeId>, rustls::Error> {
    let key = server_identity.certified_key().unwrap();
    let resolver = Arc::new(SingleCertAndKey::from((*key).clone()));
    let config = server_config(server, resolver, &[b"h2"]).unwrap();
    let mut server = ServerConnection::new(config).unwrap();
    let config = client_config(client, client_identity, &[b"h2"]).unwrap();
    let name = "a.example".try_into().unwrap();
    let mut client = ClientConnection::new(config, name).unwrap();
    while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(server
        .peer_certificates()
        .and_then(crate::certificate::peer_identity))
}

#[test]
fn clients_choose_servers_by_identity() {
    let (mesh, other) = (Mesh::new("td"), Mesh::new("td"));
    let server = mesh.identity("server", 0);
    let prefix = |text: &str| Expected::Names(vec![NameMatch::Prefix(text.to_string())]);
    for (roots, expected, works, why) in [
        (mesh.roots(), Expected::Any, true, "any of the roots"),
        (
            mesh.roots(),
            Expected::ids([&mesh.id("server")]),
            true,
            "the expected id",
        ),
        (
            mesh.roots(),
            Expected::ids([&mesh.id("other")]),
            false,
            "another id",
        ),
        (
            mesh.roots(),
            Expected::ids([]),
            false,
            "no id is expected: none is right",
        ),
        (
            mesh.roots(),
            prefix("spiffe://td/"),
            true,
            "any id of the trust domain",
        ),
        (
            mesh.roots(),
            prefix("spiffe://alias/"),
            false,
            "another trust domain",
        ),
        (mesh.roots(), Expected::ServerName, true, "the DNS name"),
        (
            mesh.roots(),
            Expected::Check(Arc::new(|_| false)),
            false,
            "a check that says no",
        ),
        (
            other.roots(),
            Expected::Any,
            false,
            "roots of another authority",
        ),
    ] {
        let client = MeshServerVerifier::new(roots, expected);
        let accept = MeshClientVerifier::optional(mesh.roots(), Expected::Any);
        let got = handshake(client, accept, None, &server);
        assert_eq!(got.is_ok(), works, "{why}: {got:?}");
    }
}

#[test]
fn servers_learn_who_the_client_is() {
    let (mesh, other) = (Mesh::new("td"), Mesh::new("other"));
    let server = mesh.identity("server", 0);
    let (good, foreign, expired) = (
        mesh.identity("client", 0),
        other.identity("client", 0),
        mesh.identity("client", 7200),
    );
    let both = mesh
        .roots()
        .with_trust_domain(other.domain.clone(), other.authority.roots_pem())
        .unwrap();
    let swapped = mesh
        .roots()
        .with_trust_domain(mesh.domain.clone(), other.authority.roots_pem())
        .unwrap();
    for (verifier, identity, want, why) in [
        (
            MeshClientVerifier::required(mesh.roots(), Expected::Any),
            Some(&good),
            Ok(Some(mesh.id("client"))),
            "a good certificate",
        ),
        (
            MeshClientVerifier::required(mesh.roots(), Expected::Any),
            None,
            Err(()),
            "none given",
        ),
        (
            MeshClientVerifier::optional(mesh.roots(), Expected::Any),
            None,
            Ok(None),
            "optional",
        ),
        (
            MeshClientVerifier::optional(mesh.roots(), Expected::Any),
            Some(&foreign),
            Err(()),
            "a bad one is refused though it is optional",
        ),
        (
            MeshClientVerifier::optional(both, Expected::Any),
            Some(&foreign),
            Ok(Some(other.id("client"))),
            "another trust domain by its own roots",
        ),
        (
            MeshClientVerifier::optional(swapped, Expected::Any),
            Some(&good),
            Err(()),
            "an id is tied to the roots of its trust domain",
        ),
        (
            MeshClientVerifier::required(mesh.roots(), Expected::Any),
            Some(&expired),
            Err(()),
            "expired",
        ),
        (
            MeshClientVerifier::required(mesh.roots(), Expected::ids([&mesh.id("x")])),
            Some(&good),
            Err(()),
            "not on the list",
        ),
    ] {
        let client = MeshServerVerifier::new(mesh.roots(), Expected::Any);
        let got = handshake(client, verifier, identity, &server);
        assert_eq!(got.map_err(|_| ()), want, "{why}");
    }
}

#[test]
fn the_reason_is_named() {
    let mesh = Mesh::new("td");
    let client = MeshServerVerifier::new(mesh.roots(), Expected::ids([&mesh.id("x")]));
    let accept = MeshClientVerifier::optional(mesh.roots(), Expected::Any);
    let error = handshake(client, accept, None, &mesh.identity("server", 0)).unwrap_err();
    assert!(
        error.to_string().contains("spiffe://td/ns/ns/sa/server"),
        "{error}"
    );
}
