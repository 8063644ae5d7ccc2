//! Values of options, and the texts that refuse invalid ones.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use keywright_adapters::auth::Algorithm;
use keywright_shadow::ShadowName;

#[cfg(feature = "sandbox")]
use crate::settings::BehaviourOption;
use crate::settings::{AdminListen, CorsOrigins};

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

/// A duration as operators write it: 500ms, 10s, 48h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeSpan(pub(crate) Duration);

impl From<Duration> for TimeSpan {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for TimeSpan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text);
        let duration = duration.map_err(|e| format!("{e}; write times as in 500ms, 10s or 48h"));
        duration.map(Self)
    }
}

impl Display for TimeSpan {
    /// In one unit: the longest of which there are at least three, so that two days are 48h and a minute is 60s.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let units = [(86_400_000, "days"), (3_600_000, "h"), (60_000, "m")];
        let unit = units
            .iter()
            .find(|(unit, _)| millis.is_multiple_of(*unit) && millis / unit >= 3);
        let (unit, name) = match unit {
            Some(unit) => *unit,
            None if millis.is_multiple_of(1000) => (1000, "s"),
            None => (1, "ms"),
        };
        write!(f, "{}{name}", millis / unit)
    }
}

/// The help text of an option that is not set by default, with the value that the program uses then.
pub(super) fn help_with_default(help: &str, default: impl Display) -> String {
    format!("{help} [default: {default}]")
}

#[cfg(feature = "sandbox")]
pub(crate) fn behaviour(text: &str) -> Result<BehaviourOption, String> {
    let (lock, list) = text
        .split_once(':')
        .ok_or("write it as LOCK:LIST, such as 123:offline=5s or all:twice")?;
    let lock = match lock {
        "all" => None,
        id => Some(id.parse().map_err(|_| "LOCK is a number or all")?),
    };
    if list.trim().is_empty() {
        return Err("LIST is empty; an example is 123:offline=5s".into());
    }
    let behaviour = list.parse().map_err(|e| format!("{e}"))?;
    Ok((lock, behaviour))
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "write it as an IP address and a port, such as 127.0.0.1:8787")
}

pub(super) fn admin_listen(text: &str) -> Result<AdminListen, &'static str> {
    match text {
        "off" => Ok(AdminListen::Off),
        "api" => Ok(AdminListen::WithApi),
        text => text.parse().map(AdminListen::At).map_err(
            |_| "write it as `api`, `off`, or an IP address and a port, such as 127.0.0.1:8788",
        ),
    }
}

#[cfg(feature = "sandbox")]
pub(crate) fn count(text: &str) -> Result<u64, &'static str> {
    let number = text.parse().ok().filter(|n| *n <= 1_000_000);
    number.ok_or("it is a number from 0 to 1000000")
}

pub(super) fn positive(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|n| (1..=1_000_000).contains(n));
    number.ok_or("it is a number from 1 to 1000000")
}

pub(crate) fn shadow_name(name: &str) -> Result<String, String> {
    let named = ShadowName::named(name).map_err(|e| e.to_string());
    named.map(|_| name.to_owned())
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
        true => Err("none cannot be combined with other origins".into()),
        false => Ok(origins),
    }
}

/// An origin as browsers send it: in lower case, without the default port of its scheme and without a path.
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
    let default_port = match scheme {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    };
    let port = uri.port_u16().filter(|port| Some(*port) != default_port);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{scheme}://{}{port}", host.to_ascii_lowercase()))
}

pub(super) fn claim(name: &str) -> Result<String, &'static str> {
    match name {
        "" | "iss" | "sub" | "aud" | "exp" | "nbf" | "iat" | "jti" => {
            Err("it is the name of a private claim, such as org or tenant")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_shown_in_one_unit_and_read_back() {
        for text in [
            "0s", "1ms", "2500ms", "2s", "60s", "75s", "5m", "24h", "48h", "90days",
        ] {
            let span: TimeSpan = text.parse().expect("a time span");
            assert_eq!(span.to_string(), text);
        }
        assert!("soon".parse::<TimeSpan>().is_err());
    }

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
    fn loopback_allows_every_port_of_this_machine() {
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
