//! Contents of issued certificates, plugged-in authorities of several sorts, bad ones.

use super::*;
use crate::key::Algorithm;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const NOW: i64 = 1_790_000_000;

fn domain() -> TrustDomain {
    TrustDomain::new("cluster.local").unwrap()
}

fn id() -> SpiffeId {
    "spiffe://cluster.local/ns/a/sa/b".parse().unwrap()
}

/// Makes a CA certificate signed by `parent` (or by itself).
fn ca(name: &str, key: &Key, parent: Option<(&str, &Key)>, is_ca: bool) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = if is_ca {
        IsCa::Ca(BasicConstraints::Unconstrained)
    } else {
        IsCa::ExplicitNoCa
    };
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    set_validity(&mut params, at(NOW), at(NOW + 1_000_000)).unwrap();
    let der = match parent {
        None => params.self_signed(&key.pair).unwrap(),
        Some((parent, parent_key)) => {
            let issuer = Issuer::from_ca_cert_pem(parent, &parent_key.pair).unwrap();
            params.signed_by(&key.pair, &issuer).unwrap()
        }
    };
    pem::encode_certificate(der.der())
}

#[test]
fn a_leaf_is_what_istio_would_issue() {
    let authority = Authority::create(&domain(), at(NOW)).unwrap();
    let key = Key::generate().unwrap();
    let request = csr::create(&key, &"spiffe://evil/ns/x/sa/y".parse().unwrap()).unwrap();
    let answer = authority
        .sign(&request, &[id()], Duration::ZERO, at(NOW))
        .unwrap();
    assert_eq!(answer.len(), 2, "leaf and root");
    assert_eq!(answer[1], authority.roots_pem());
    let der = pem::certificates(&answer[0]).unwrap().remove(0);
    let leaf = Certificate::parse(&der).unwrap();
    assert_eq!(
        leaf.spiffe_id(),
        Some(id()),
        "the identity is the caller's, not the request's"
    );
    assert_eq!(leaf.not_before, at(NOW - 120));
    assert_eq!(leaf.not_after, at(NOW + 86_400));
    assert_eq!((leaf.subject.as_str(), leaf.is_ca), ("", false));
    assert!(
        (30..=34).contains(&leaf.serial.len()),
        "128 bits: {}",
        leaf.serial
    );
    let x509 = certificate::parse_x509(&der).unwrap();
    let usage = x509.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let extended = x509.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert!(
        x509.subject_alternative_name().unwrap().unwrap().critical,
        "critical SAN"
    );
    assert!(
        x509.basic_constraints().unwrap().is_some(),
        "basic constraints are present"
    );
    assert_eq!(x509.public_key().raw, key.public_key_info());
    let root = Certificate::parse_pem(authority.roots_pem()).unwrap();
    assert_eq!(
        (root.subject.as_str(), root.is_ca),
        ("O=cluster.local", true)
    );
}

#[test]
fn lives_are_limited() {
    let authority = Authority::create(&domain(), at(NOW)).unwrap();
    let request = csr::create(&Key::generate().unwrap(), &id()).unwrap();
    let sign = |ttl, now| authority.sign(&request, &[id()], Duration::from_secs(ttl), at(now));
    assert!(matches!(
        sign(90 * 86_400 + 1, NOW),
        Err(AuthorityError::Ttl { .. })
    ));
    let end = authority.not_after().as_second();
    let leaf = Certificate::parse_pem(&sign(86_400, end - 60).unwrap()[0]).unwrap();
    assert_eq!(leaf.not_after.as_second(), end, "clamped to the signer's");
    assert!(matches!(sign(60, end), Err(AuthorityError::Expired(_))));
    let nobody = authority.sign(&request, &[], Duration::ZERO, at(NOW));
    assert!(
        matches!(nobody, Err(AuthorityError::Request(_))),
        "no identity"
    );
}

#[test]
fn plugged_in_authorities() {
    for algorithm in [
        Algorithm::Rsa2048,
        Algorithm::EcdsaP384,
        Algorithm::EcdsaP256,
    ] {
        let (root_key, middle_key, key) = (
            Key::generate_for(algorithm).unwrap(),
            Key::generate_for(algorithm).unwrap(),
            Key::generate_for(algorithm).unwrap(),
        );
        let root = ca("root", &root_key, None, true);
        let middle = ca("middle", &middle_key, Some((&root, &root_key)), true);
        let signer = ca("signer", &key, Some((&middle, &middle_key)), true);
        let key_pem = key.to_pem();
        let chain = format!("{signer}{middle}{root}");
        let authority = Authority::load(&chain, key_pem.expose(), &root).unwrap();
        let request = csr::create(&Key::generate().unwrap(), &id()).unwrap();
        let answer = authority
            .sign(&request, &[id()], Duration::ZERO, at(NOW))
            .unwrap();
        assert_eq!(
            answer[1..],
            [signer.clone(), middle.clone(), root.clone()],
            "{algorithm:?}"
        );
        assert!(answer.iter().all(|element| element.ends_with('\n')));
        for (chain, key, roots, why) in [
            (&chain, root_key.to_pem(), &root, "another key"),
            (&middle, middle_key.to_pem(), &signer, "not a root of it"),
            (
                &format!("{signer}{root}"),
                key.to_pem(),
                &root,
                "a gap in the chain",
            ),
            (&ca("x", &key, None, false), key.to_pem(), &root, "not a CA"),
            (&String::new(), key.to_pem(), &root, "no certificate"),
        ] {
            let got = Authority::load(chain, key.expose(), roots);
            assert!(
                matches!(got, Err(AuthorityError::Load(_))),
                "{why}: {got:?}"
            );
        }
    }
}
