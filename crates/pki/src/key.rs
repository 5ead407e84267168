//! A private key: ECDSA P-256 where we make it, RSA and other curves where we are given it.

use std::fmt;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData};
use rustls_pki_types::PrivateKeyDer;

use crate::{PkiError, pem};

pub struct Key {
    pub(crate) pair: KeyPair,
    der: PrivateKeyDer<'static>,
}

/// Text that is overwritten when it is dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    EcdsaP256,
    EcdsaP384,
    Rsa2048,
}

impl Key {
    /// A new P-256 key: what workloads use.
    pub fn generate() -> Result<Key, PkiError> {
        Key::generate_for(Algorithm::EcdsaP256)
    }

    pub fn generate_for(algorithm: Algorithm) -> Result<Key, PkiError> {
        let pair = match algorithm {
            Algorithm::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Algorithm::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            Algorithm::Rsa2048 => {
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            }
        };
        let pair = pair.map_err(|error| PkiError::Key(error.to_string()))?;
        let der = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
        Ok(Key { pair, der })
    }

    /// Reads PKCS#8, PKCS#1 (RSA) or SEC1 (EC).
    pub fn from_pem(text: &str) -> Result<Key, PkiError> {
        let der = pem::private_key(text)?;
        let pair = KeyPair::try_from(&der).map_err(|error| PkiError::Key(error.to_string()))?;
        Ok(Key { pair, der })
    }

    pub fn to_pem(&self) -> Secret {
        let label = match &self.der {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        Secret(pem::encode(label, self.der.secret_der()))
    }

    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        self.der.clone_key()
    }

    /// The DER of the public half (SubjectPublicKeyInfo).
    pub fn public_key_info(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

impl Secret {
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.0).into_bytes();
        bytes.fill(0);
        // Seen as used, so that the overwrite is not removed as dead.
        std::hint::black_box(&bytes);
    }
}

/// Random bytes from the system's generator.
pub fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0; N];
    let error = |_| PkiError::Key("the system gives no random bytes".to_string());
    SystemRandom::new().fill(&mut bytes).map_err(error)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_keys_are_read_back() {
        for algorithm in [
            Algorithm::EcdsaP256,
            Algorithm::EcdsaP384,
            Algorithm::Rsa2048,
        ] {
            let key = Key::generate_for(algorithm).unwrap();
            let again = Key::from_pem(key.to_pem().expose()).unwrap();
            assert_eq!(
                key.public_key_info(),
                again.public_key_info(),
                "{algorithm:?}"
            );
            assert_eq!(format!("{key:?} {:?}", key.to_pem()), "Key(..) Secret(..)");
        }
    }

    #[test]
    fn hostile_keys() {
        for (input, why) in [
            ("", "nothing"),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "no key",
            ),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n\
                 -----END ENCRYPTED PRIVATE KEY-----\n",
                "encrypted",
            ),
            (
                "-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n",
                "empty",
            ),
        ] {
            assert!(Key::from_pem(input).is_err(), "{why}");
        }
    }
}
