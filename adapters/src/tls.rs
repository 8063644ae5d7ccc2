//! TLS client configuration with certificate checks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};

/// A file of trusted certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCaFile {
    /// It cannot be read, or is not PEM.
    #[error("{} cannot be used: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: pem::Error,
    },
    /// A certificate in it is invalid.
    #[error("{} cannot be used: {error}", path.display())]
    InvalidCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
    /// It has no certificate.
    #[error("{} cannot be used: it has no certificate in PEM", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
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
    let unreadable = |error| InvalidCaFile::Unreadable {
        path: path.to_owned(),
        error,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let added = roots.add(certificate.map_err(unreadable)?);
        added.map_err(|error| InvalidCaFile::InvalidCertificate {
            path: path.to_owned(),
            error,
        })?;
    }
    match roots.is_empty() {
        true => Err(InvalidCaFile::Empty {
            path: path.to_owned(),
        }),
        false => Ok(roots),
    }
}
