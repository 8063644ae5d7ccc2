//! Where a broker is, and how it is to be trusted.

use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// AWS IoT takes MQTT on the port of HTTPS from who says so in the handshake.
const AWS_ALPN: (u16, &[u8]) = (443, b"x-amzn-mqtt-ca");

/// The ports of an address that names none.
const PLAIN_PORT: NonZeroU16 = NonZeroU16::new(1883).expect("it is not 0");
const TLS_PORT: NonZeroU16 = NonZeroU16::new(8883).expect("it is not 0");

/// The address of a broker: `mqtt://host:1883` for plain TCP, `mqtts://host:8883` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// A name or an address; one of IPv6 without its brackets.
    host: String,
    port: u16,
    tls: bool,
}

/// A broker that cannot be used as it is described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBroker {
    /// Not an address.
    #[error("write it as mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS")]
    Url,
    /// Credentials in an address end up in logs and lists of processes.
    #[error("leave user and password out of the broker's address")]
    LoginInUrl,
    /// Files about TLS for a connection without it.
    #[error("certificates need a broker's address with mqtts://, and it says mqtt://")]
    TlsFilesWithoutTls,
    /// Half of a pair.
    #[error("a client certificate and its key go together")]
    HalfAnIdentity,
    /// A file that cannot be used.
    #[error("cannot use {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
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
    /// The host: a name, or an address without brackets.
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

/// The files that a connection needs besides the address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates that broker certificates are traced back to (PEM); those of the system without it.
    pub ca: Option<PathBuf>,
    /// The certificate that the broker is shown, with those between it and its root (PEM).
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
    /// A user's name, and the file with the password.
    pub login: Option<(String, PathBuf)>,
}

/// A broker, ready to be connected to. Clones share what was read.
#[derive(Clone)]
pub struct Broker {
    pub(crate) url: BrokerUrl,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) login: Option<(String, String)>,
}

impl Broker {
    /// # Errors
    /// A file cannot be used, or does not go with the others; the text names it.
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

fn unusable(path: &Path, why: &dyn fmt::Display) -> InvalidBroker {
    InvalidBroker::File {
        path: path.to_owned(),
        why: why.to_string(),
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
        // Some of a system's certificates may be unreadable; what is left has to do.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|e| invalid_pem(key, e, "it must hold a private key in PEM"))?;
            let both = builder.with_client_auth_cert(chain, private);
            both.map_err(|e| unusable_identity(certificate, key, &e))?
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

/// A file that cannot be read is another fault than one with the wrong content.
fn invalid_pem(path: &Path, error: pem::Error, content: &str) -> InvalidBroker {
    match error {
        pem::Error::Io(error) => unusable(path, &error),
        _ => unusable(path, &content),
    }
}

/// Names the file that has to be changed.
fn unusable_identity(certificate: &Path, key: &Path, error: &rustls::Error) -> InvalidBroker {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            let why = format!("it is not the key of {}", certificate.display());
            unusable(key, &why)
        }
        rustls::Error::InvalidCertificate(_) => {
            let why = format!("it must be a certificate of X.509 version 3 ({error})");
            unusable(certificate, &why)
        }
        _ => unusable(key, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (text, shown) in [
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
            assert_eq!(text.parse::<BrokerUrl>().expect(text).to_string(), shown);
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
    fn files_that_do_not_go_together_are_refused() {
        let url = |text: &str| text.parse::<BrokerUrl>().expect("an address");
        let file = || Some(PathBuf::from("/nowhere/file.pem"));
        let half = TlsFiles {
            certificate: file(),
            ..TlsFiles::default()
        };
        let refused = |url, files| Broker::new(url, &files).expect_err("it is refused");
        assert_eq!(
            refused(url("mqtts://a"), half),
            InvalidBroker::HalfAnIdentity
        );
        let ca = TlsFiles {
            ca: file(),
            ..TlsFiles::default()
        };
        assert_eq!(
            refused(url("mqtt://a"), ca.clone()),
            InvalidBroker::TlsFilesWithoutTls
        );
        let missing = refused(url("mqtts://a"), ca).to_string();
        assert!(missing.contains("/nowhere/file.pem"), "{missing}");
    }
}
