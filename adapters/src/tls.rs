//! TLS client configuration with certificate checks.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// A file of trusted certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used: {problem}", path.display())]
pub struct InvalidCaFile {
    path: PathBuf,
    problem: String,
}

/// Trusts the certificate authorities in the PEM file `ca`, or those of the system.
pub(crate) fn client_config(ca: Option<&Path>) -> Result<ClientConfig, InvalidCaFile> {
    let roots = match ca {
        Some(path) => read_roots(path)?,
        // Some certificates of a system may be unreadable. The others are used.
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3");
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn read_roots(path: &Path) -> Result<RootCertStore, InvalidCaFile> {
    let invalid = |problem: &dyn Display| InvalidCaFile {
        path: path.to_owned(),
        problem: problem.to_string(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| invalid(&e))? {
        let added = roots.add(certificate.map_err(|e| invalid(&e))?);
        added.map_err(|e| invalid(&e))?;
    }
    match roots.is_empty() {
        true => Err(invalid(&"it has no certificate in PEM")),
        false => Ok(roots),
    }
}
