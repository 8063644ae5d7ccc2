//! The address of a broker, and the TLS configuration and credentials for connecting to it.

use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// AWS IoT accepts MQTT on port 443 from clients that offer this protocol in the TLS handshake (ALPN).
const AWS_ALPN: (u16, &[u8]) = (443, b"x-amzn-mqtt-ca");

/// The ports of addresses without a port.
const PLAIN_PORT: NonZeroU16 = NonZeroU16::new(1883).expect("1883 is not 0");
const TLS_PORT: NonZeroU16 = NonZeroU16::new(8883).expect("8883 is not 0");

/// The address of a broker: `mqtt://host:1883` for plain TCP, `mqtts://host:8883` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// A host name or an IP address; IPv6 without brackets.
    host: String,
    port: u16,
    tls: bool,
}

/// The address or a file of a broker cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBroker {
    /// The text is not an address.
    #[error("write it as mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS")]
    Url,
    /// The address contains credentials, which would appear in logs and process lists.
    #[error("leave user and password out of the broker's address")]
    LoginInUrl,
    /// TLS files are given for an address without TLS.
    #[error("certificates need a broker's address with mqtts://, and it says mqtt://")]
    TlsFilesWithoutTls,
    /// A client certificate is given without its key, or the other way round.
    #[error("a client certificate and its key go together")]
    HalfAnIdentity,
    /// A file cannot be used.
    #[error("cannot use {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl FromStr for BrokerUrl {
    type Err = InvalidBroker;

    fn from_str(text: &str) -> Result<Self, InvalidBroker> {
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err(InvalidBroker::Url),
        };
        if rest.contains('@') {
            return Err(InvalidBroker::LoginInUrl);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or(InvalidBroker::Url)?;
                let _: Ipv6Addr = address.parse().map_err(|_| InvalidBroker::Url)?;
                (address, port)
            }
            None => {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                let (host, port) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
                if host.is_empty() || !host.chars().all(allowed) {
                    return Err(InvalidBroker::Url);
                }
                (host, port)
            }
        };
        let port: NonZeroU16 = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| InvalidBroker::Url)?,
            None if port.is_empty() && tls => TLS_PORT,
            None if port.is_empty() => PLAIN_PORT,
            None => return Err(InvalidBroker::Url),
        };
        let port = port.get();
        let host = host.to_owned();
        Ok(Self { host, port, tls })
    }
}

impl BrokerUrl {
    /// The host name or IP address; IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn parts(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// The files of a broker's TLS configuration and login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The trusted root certificates (PEM); `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The client certificate, followed by its intermediate certificates (PEM).
    pub certificate: Option<PathBuf>,
    /// The private key of the client certificate (PEM).
    pub key: Option<PathBuf>,
    /// The user name, and the file with the password.
    pub login: Option<(String, PathBuf)>,
}

/// A broker with everything that is needed to connect to it. Clones share the TLS configuration.
#[derive(Clone)]
pub struct Broker {
    pub(crate) url: BrokerUrl,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) login: Option<(String, String)>,
}

impl Broker {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be used, or does not match the others; the text names it.
    pub fn new(url: BrokerUrl, files: &TlsFiles) -> Result<Self, InvalidBroker> {
        let identity = match (&files.certificate, &files.key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(InvalidBroker::HalfAnIdentity),
        };
        if !url.tls && (files.ca.is_some() || identity.is_some()) {
            return Err(InvalidBroker::TlsFilesWithoutTls);
        }
        let tls = url
            .tls
            .then(|| client_config(&url, files.ca.as_deref(), identity))
            .transpose()?;
        let login = match &files.login {
            Some((user, path)) => {
                let password = std::fs::read_to_string(path).map_err(|e| unusable(path, &e))?;
                let password = password.trim_end_matches(['\r', '\n']).to_owned();
                Some((user.clone(), password))
            }
            None => None,
        };
        Ok(Self {
            url,
            tls: tls.map(Arc::new),
            login,
        })
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({})", self.url)
    }
}

fn unusable(path: &Path, reason: &dyn fmt::Display) -> InvalidBroker {
    InvalidBroker::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn client_config(
    url: &BrokerUrl,
    ca: Option<&Path>,
    identity: Option<(&PathBuf, &PathBuf)>,
) -> Result<ClientConfig, InvalidBroker> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| unusable(path, &e))?;
            }
        }
        // Some of the system's certificates may be unreadable; the others are used.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| invalid_pem(key, e, "it must hold a private key in PEM"))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|e| unusable_identity(certificate, key, &e))?
        }
    };
    if url.port == AWS_ALPN.0 {
        config.alpn_protocols = vec![AWS_ALPN.1.to_vec()];
    }
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, InvalidBroker> {
    let none = "it must hold certificates in PEM";
    let invalid = |error| invalid_pem(path, error, none);
    let read = CertificateDer::pem_file_iter(path).map_err(invalid)?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(invalid)?;
    match all.is_empty() {
        true => Err(unusable(path, &none)),
        false => Ok(all),
    }
}

/// Distinguishes a file that cannot be read from one with the wrong content.
fn invalid_pem(path: &Path, error: pem::Error, content: &str) -> InvalidBroker {
    match error {
        pem::Error::Io(error) => unusable(path, &error),
        _ => unusable(path, &content),
    }
}

/// An error that names the file which the operator has to replace.
fn unusable_identity(certificate: &Path, key: &Path, error: &rustls::Error) -> InvalidBroker {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            let reason = format!("it is not the key of {}", certificate.display());
            unusable(key, &reason)
        }
        rustls::Error::InvalidCertificate(_) => {
            let reason = format!("it must be a certificate of X.509 version 3 ({error})");
            unusable(certificate, &reason)
        }
        _ => unusable(key, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints_addresses() {
        for (text, printed) in [
            ("mqtt://localhost", "mqtt://localhost:1883"),
            (
                "mqtts://broker.example.com",
                "mqtts://broker.example.com:8883",
            ),
            ("mqtt://127.0.0.1:18830/", "mqtt://127.0.0.1:18830"),
            ("mqtt://[::1]:1884", "mqtt://[::1]:1884"),
            ("mqtt://[::1]", "mqtt://[::1]:1883"),
            ("mqtts://[fe80::1]:1", "mqtts://[fe80::1]:1"),
        ] {
            assert_eq!(text.parse::<BrokerUrl>().expect(text).to_string(), printed);
        }
        for text in [
            "localhost:1883",
            "http://localhost",
            "mqtt://",
            "mqtt://a b",
            "mqtt://a:0",
            "mqtt://a:b",
            "mqtt://a:1:2",
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://[::1]1883",
            "mqtt://[localhost]",
        ] {
            assert_eq!(text.parse::<BrokerUrl>(), Err(InvalidBroker::Url), "{text}");
        }
        let login = "mqtt://user:password@localhost".parse::<BrokerUrl>();
        assert_eq!(login, Err(InvalidBroker::LoginInUrl));
    }

    #[test]
    fn rejects_files_that_do_not_match() {
        let url = |text: &str| text.parse::<BrokerUrl>().expect("an address");
        let file = || Some(PathBuf::from("/nowhere/file.pem"));
        let half = TlsFiles {
            certificate: file(),
            ..TlsFiles::default()
        };
        let rejection = |url, files| Broker::new(url, &files).expect_err("rejected");
        assert_eq!(
            rejection(url("mqtts://a"), half),
            InvalidBroker::HalfAnIdentity
        );
        let ca = TlsFiles {
            ca: file(),
            ..TlsFiles::default()
        };
        assert_eq!(
            rejection(url("mqtt://a"), ca.clone()),
            InvalidBroker::TlsFilesWithoutTls
        );
        let missing = rejection(url("mqtts://a"), ca).to_string();
        assert!(missing.contains("/nowhere/file.pem"), "{missing}");
    }
}
