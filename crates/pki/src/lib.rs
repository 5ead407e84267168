//! SPIFFE ids, certificates, CSRs, the signing authority, bundles, rotation schedule.
