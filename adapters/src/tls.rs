//! TLS to servers whose certificates are checked.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Trusts whom the certificates in this PEM file name, or whom the system trusts.
///
/// # Errors
/// The file cannot be read, or holds no certificate; the text names it.
pub(crate) fn client_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let unusable =
                |why: &dyn std::fmt::Display| format!("{} cannot be used: {why}", path.display());
            let file = CertificateDer::pem_file_iter(path).map_err(|e| unusable(&e))?;
            for certificate in file {
                let certificate = certificate.map_err(|e| unusable(&e))?;
                roots.add(certificate).map_err(|e| unusable(&e))?;
            }
            if roots.is_empty() {
                return Err(unusable(&"it holds no certificate in PEM"));
            }
        }
        // Some of a system's certificates may be unreadable; what is left has to do.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3");
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
