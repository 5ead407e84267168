//! TLS as a client (DestinationRule) and as a server (Gateway, Sidecar ingress).

message! {
    pub struct ClientTlsSettings {
        mode: ClientTlsMode,
        client_certificate: String,
        private_key: String,
        ca_certificates: String,
        subject_alt_names: Vec<String>,
        sni: String,
        credential_name: String,
        insecure_skip_verify: Option<bool>,
        ca_crl: String,
    }
}

enumeration! {
    pub enum ClientTlsMode {
        Disable = "DISABLE",
        Simple = "SIMPLE",
        Mutual = "MUTUAL",
        IstioMutual = "ISTIO_MUTUAL",
    }
}

message! {
    pub struct ServerTlsSettings {
        https_redirect: bool,
        mode: ServerTlsMode,
        server_certificate: String,
        private_key: String,
        ca_certificates: String,
        subject_alt_names: Vec<String>,
        min_protocol_version: TlsProtocol,
        max_protocol_version: TlsProtocol,
        cipher_suites: Vec<String>,
        ecdh_curves: Vec<String>,
        credential_name: String,
        credential_names: Vec<String>,
        ca_cert_credential_name: String,
        verify_certificate_spki: Vec<String>,
        verify_certificate_hash: Vec<String>,
        ca_crl: String,
        tls_certificates: Vec<TlsCertificate>,
        insecure_skip_verify: Option<bool>,
    }
}

message! {
    pub struct TlsCertificate {
        server_certificate: String,
        private_key: String,
        ca_certificates: String,
    }
}

enumeration! {
    pub enum ServerTlsMode {
        Passthrough = "PASSTHROUGH",
        Simple = "SIMPLE",
        Mutual = "MUTUAL",
        AutoPassthrough = "AUTO_PASSTHROUGH",
        IstioMutual = "ISTIO_MUTUAL",
        OptionalMutual = "OPTIONAL_MUTUAL",
    }
}

enumeration! {
    /// `TLS_AUTO` means TLS 1.2 at least.
    pub enum TlsProtocol {
        Auto = "TLS_AUTO",
        V1_0 = "TLSV1_0",
        V1_1 = "TLSV1_1",
        V1_2 = "TLSV1_2",
        V1_3 = "TLSV1_3",
    }
}
