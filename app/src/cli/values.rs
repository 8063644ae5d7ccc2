//! The values of options, each refused with what is allowed.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use keywright_adapters::auth::Algorithm;
#[cfg(feature = "sandbox")]
use keywright_sandbox::Behaviour;

use crate::settings::{CorsOrigins, LogFormat};

/// What is logged, and how.
#[derive(Args)]
pub(crate) struct LogLines {
    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log: LogFormat,
    /// The least important lines that are logged: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: tracing::Level,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

impl Switch {
    pub(super) fn is_on(self) -> bool {
        self == Self::On
    }
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write times as in 500ms, 10s or 48h"))
}

#[cfg(feature = "sandbox")]
pub(crate) fn behaviour(text: &str) -> Result<(Option<u64>, Behaviour), String> {
    let (lock, list) = text
        .split_once(':')
        .ok_or("write it as LOCK:LIST, such as 123:offline=5s or all:twice")?;
    let lock = match lock {
        "all" => None,
        id => Some(id.parse().map_err(|_| "LOCK is a number or all")?),
    };
    if list.trim().is_empty() {
        return Err("say how it behaves, such as 123:offline=5s".into());
    }
    Ok((lock, list.parse().map_err(|e| format!("{e}"))?))
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "write it as an IP address and a port, such as 127.0.0.1:8787")
}

#[cfg(feature = "sandbox")]
pub(crate) fn count(text: &str) -> Result<u64, &'static str> {
    let number = text.parse().ok().filter(|n| *n <= 1_000_000);
    number.ok_or("it is a number from 0 to 1000000")
}

pub(super) fn cors_origins(text: &str) -> Result<CorsOrigins, String> {
    let (mut origins, mut is_none) = (CorsOrigins::default(), false);
    for origin in text.split(',').map(str::trim) {
        match origin {
            "none" => is_none = true,
            "*" => origins.any = true,
            "loopback" => origins.loopback = true,
            origin => origins.listed.push(serialized_origin(origin)?),
        }
    }
    match is_none && !origins.is_empty() {
        true => Err("none goes with no other origin".into()),
        false => Ok(origins),
    }
}

/// An origin as browsers send it: in lower case, without the scheme's own port and without a path.
fn serialized_origin(text: &str) -> Result<String, String> {
    let wrong = || {
        format!("`{text}` is no origin; write it as https://app.example or http://localhost:3000")
    };
    let uri: hyper::Uri = text.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
        return Err(wrong());
    };
    if uri.path_and_query().is_some_and(|path| path != "/")
        || text.ends_with('/')
        || text.contains('@')
    {
        return Err(wrong());
    }
    let own_port = match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let port = uri.port_u16().filter(|port| Some(*port) != own_port);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{scheme}://{}{port}", host.to_ascii_lowercase()))
}

pub(super) fn claim(name: &str) -> Result<String, &'static str> {
    match name {
        "" | "iss" | "sub" | "aud" | "exp" | "nbf" | "iat" | "jti" => {
            Err("name a claim of the issuer's own, such as org or tenant")
        }
        name => Ok(name.to_owned()),
    }
}

pub(super) fn algorithm(name: &str) -> Result<Algorithm, String> {
    name.parse().map_err(|_| {
        let names: Vec<&str> = Algorithm::names().collect();
        format!("known are {}", names.join(", "))
    })
}

pub(super) fn positive(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|n| (1..=1_000_000).contains(n));
    number.ok_or("it is a number from 1 to 1000000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_send_them() {
        let listed = |text| cors_origins(text).map(|origins| origins.listed);
        let both = listed("https://App.example:443, http://localhost:3000");
        assert_eq!(
            both,
            Ok(vec![
                "https://app.example".into(),
                "http://localhost:3000".into()
            ])
        );
        assert_eq!(cors_origins("none"), Ok(CorsOrigins::default()));
        let named = listed("https://nonesuch.example");
        assert_eq!(named, Ok(vec!["https://nonesuch.example".into()]));
        for wrong in [
            "",
            "app.example",
            "https://app.example/",
            "https://a/b",
            "https://me@a",
            "none,*",
        ] {
            assert!(cors_origins(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn loopback_means_every_port_of_this_machine() {
        let loopback = cors_origins("loopback").expect("origins");
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[::1]:8443",
            "http://127.9.9.9:1",
        ] {
            assert!(loopback.allows(origin), "{origin}");
        }
        for origin in [
            "null",
            "http://localhost.example",
            "http://10.0.0.1",
            "localhost",
            "",
        ] {
            assert!(!loopback.allows(origin), "{origin}");
        }
        assert!(!CorsOrigins::default().allows("http://localhost"));
        assert!(
            cors_origins("*")
                .expect("origins")
                .allows("https://anything.example")
        );
    }
}
