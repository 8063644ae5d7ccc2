//! What is wrong with a request before anyone looks at what it asks for (RFC 9112).

use hyper::header::{HOST, HeaderMap, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{Request, Version};

use super::failure::Failure;

/// # Errors
/// 400 that says what to change.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Failure> {
    let bad = |text: &'static str| Err(Failure::Unframed(text.into()));
    let target = request.uri();
    if target.authority().is_some() || !target.path().starts_with('/') {
        return bad("The request target must be a path such as /locks/123/WriteKey");
    }
    if request.headers().contains_key(TRANSFER_ENCODING) {
        return bad("The body is small; send it with Content-Length and without Transfer-Encoding");
    }
    check_host(request.headers(), request.version())
}

/// Whoever asks by HTTP/1.1 names the host, once.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Failure> {
    let mut hosts = headers.get_all(HOST).iter();
    let valid = match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    };
    if valid {
        return Ok(());
    }
    let text = "The header Host must be sent once, as a name or address with or without a port";
    Err(Failure::Unframed(text.into()))
}

fn is_host(host: &[u8]) -> bool {
    let authority = Authority::try_from(host);
    authority.is_ok_and(|a| {
        let port = a.as_str().len() - a.host().len();
        // Neither credentials before the name, nor a colon without a port behind it.
        !a.as_str().contains('@') && !a.host().is_empty() && (port == 0 || a.port_u16().is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for host in [
            "a",
            "localhost:8787",
            "127.0.0.1",
            "[::1]:80",
            "locks.example.",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", " ", "a b", "a/c", "me@a", "a:", "a:b", "a:99999", "http://a", ":80", "a?",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
