//! The URL of a webhook.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::model::InvalidValue;

/// The URL of a webhook, in the form `https://host:port/path?query`. It has no user name, no password and no fragment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WebhookUrl {
    text: Arc<str>,
    is_https: bool,
    host: WebhookHost,
    port: u16,
    /// Where the path begins in `text`.
    target_at: usize,
}

/// The host of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WebhookHost {
    /// An address.
    Address(IpAddr),
    /// A name, in lower case.
    Name(String),
}

impl WebhookHost {
    /// Whether this is the loopback interface: `localhost`, 127.0.0.0/8 or `::1`.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name == "localhost",
        }
    }
}

impl fmt::Display for WebhookHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

const fn invalid(rule: &'static str) -> InvalidValue {
    InvalidValue { what: "url", rule }
}

const FORM: InvalidValue = invalid("must have the form https://host/path");

impl WebhookUrl {
    /// The maximum length, in bytes.
    pub const MAX_BYTES: usize = 2048;

    /// Parses a URL strictly.
    ///
    /// # Errors
    /// It is not of the form above. The error does not contain the URL, because it may contain a secret.
    pub fn new(text: &str) -> Result<Self, InvalidValue> {
        if text.len() > Self::MAX_BYTES || !text.bytes().all(|b| b.is_ascii_graphic()) {
            let rule = "must be at most 2048 printable ASCII characters without spaces";
            return Err(invalid(rule));
        }
        // Parsers disagree about these: some take a backslash for a slash.
        if text.contains(['\\', '"', '<', '>', '^', '`', '{', '|', '}']) {
            let rule = "must not contain characters that have to be percent-encoded";
            return Err(invalid(rule));
        }
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(invalid("must begin with https://")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            let rule = "must not contain a user name or a password; verify the signature instead";
            return Err(invalid(rule));
        }
        if target.contains('#') {
            return Err(invalid("must not contain a fragment (#)"));
        }
        let (host, port) = split_port(authority)?;
        let default_port = if is_https { 443 } else { 80 };
        Ok(Self {
            host: parse_host(host)?,
            port: port.unwrap_or(default_port),
            is_https,
            target_at: text.len() - target.len(),
            text: text.into(),
        })
    }

    /// The URL as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether its scheme is `https`. The other one is `http`.
    pub const fn is_https(&self) -> bool {
        self.is_https
    }

    /// The host.
    pub const fn host(&self) -> &WebhookHost {
        &self.host
    }

    /// The port, or that of the scheme.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as in the header `Host` (RFC 9110, section 7.2).
    pub fn authority(&self) -> String {
        match (self.is_https, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }

    /// Path and query: the target of a request.
    pub fn target(&self) -> String {
        match &self.text[self.target_at..] {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            target => target.to_owned(),
        }
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for WebhookUrl {
    /// Only the host: path and query may contain a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({}:{})", self.host, self.port)
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), InvalidValue> {
    let port_at = match authority.rfind(']') {
        Some(end) => end + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(port_at);
    if rest.is_empty() {
        return Ok((host, None));
    }
    let digits = rest.strip_prefix(':').unwrap_or_default();
    let port = digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits);
    let port = port.and_then(|digits| digits.parse().ok());
    let port = port.filter(|port| *port != 0);
    let port = port.ok_or(invalid("must have a port from 1 to 65535, or none"))?;
    Ok((host, Some(port)))
}

fn parse_host(host: &str) -> Result<WebhookHost, InvalidValue> {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').and_then(|a| a.parse().ok());
        let address: Ipv6Addr = address.ok_or(FORM)?;
        return Ok(WebhookHost::Address(address.into()));
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(WebhookHost::Address(address));
    }
    let is_label = |label: &str| {
        let is_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_char)
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    // Such as 127.1, 0x7f000001 or 2130706433, which some resolvers take for addresses.
    let is_number = last.starts_with(|c: char| c.is_ascii_digit());
    if name.len() > 253 || is_number || !name.split('.').all(is_label) {
        let rule = "must have a name or an address as its host, such as https://app.example/hook";
        return Err(invalid(rule));
    }
    Ok(WebhookHost::Name(host.to_ascii_lowercase()))
}
