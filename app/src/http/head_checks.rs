//! Checks of the head of every request: target, framing of the body, and `Host` (RFC 9112).

use hyper::header::{CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Version};

use super::api_error::ApiError;

/// `hides_length`: the request has a `Content-Length` that the parser does not show.
///
/// # Errors
/// 400 or 501 with a message that says what to change. The connection is closed.
pub(super) fn check<B>(request: &Request<B>, hides_length: bool) -> Result<(), ApiError> {
    let headers = request.headers();
    check_framing(headers, hides_length)?;
    check_host(headers, request.version())?;
    check_target(request)
}

fn malformed(text: &'static str) -> Result<(), ApiError> {
    Err(ApiError::Malformed(text.into()))
}

/// The target is a path, a URL (absolute form, section 3.2.2), or `*` with `OPTIONS`. A URL must have the host of the header
/// `Host`: otherwise the service would respond in place of another host.
fn check_target<B>(request: &Request<B>) -> Result<(), ApiError> {
    let target = request.uri();
    let is_options_for_server = target.path() == "*" && *request.method() == Method::OPTIONS;
    if !target.path().starts_with('/') && !is_options_for_server {
        return malformed("The request target must be a path such as /locks/123/WriteKey");
    }
    let Some(authority) = target.authority() else {
        return Ok(());
    };
    let host = request.headers().get(HOST).map(|host| host.as_bytes());
    let is_same = |host: &[u8]| host.eq_ignore_ascii_case(authority.as_str().as_bytes());
    let is_http = matches!(target.scheme_str(), Some("http" | "https"));
    if !is_http || !host.is_some_and(is_same) {
        return malformed(
            "A request target in absolute form must name the same host as the header Host",
        );
    }
    Ok(())
}

/// A body has either `Content-Length` or `Transfer-Encoding: chunked` (section 6.3). If a proxy and the service could disagree
/// about the end of a body, a client could smuggle another request past the proxy.
fn check_framing(headers: &HeaderMap, hides_length: bool) -> Result<(), ApiError> {
    let mut codings = headers
        .get_all(TRANSFER_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .peekable();
    if codings.peek().is_none() {
        return Ok(());
    }
    if hides_length || headers.contains_key(CONTENT_LENGTH) {
        return malformed(
            "Send the body with Content-Length or with Transfer-Encoding: chunked, not with both",
        );
    }
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let (chunked, others): (Vec<&[u8]>, Vec<&[u8]>) = codings.partition(is_chunked);
    match (chunked.len(), others.is_empty()) {
        (1, true) => Ok(()),
        (_, true) => malformed("The transfer coding chunked must be named once"),
        _ => Err(ApiError::UnknownTransferCoding),
    }
}

/// An HTTP/1.1 request has one `Host`. An HTTP/1.0 request may have none.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), ApiError> {
    let mut hosts = headers.get_all(HOST).iter();
    let valid = match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    };
    match valid {
        true => Ok(()),
        false => malformed(
            "The header Host must be sent once, as a name or address with or without a port",
        ),
    }
}

fn is_host(host: &[u8]) -> bool {
    let authority = Authority::try_from(host);
    authority.is_ok_and(|a| {
        let port = a.as_str().len() - a.host().len();
        // `user@host`, and `host:` without a port, are invalid.
        !a.as_str().contains('@') && !a.host().is_empty() && (port == 0 || a.port_u16().is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_hosts_with_and_without_a_port() {
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

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn rejects_ambiguous_framing() {
        let framed = |codings: &[&str], hides_length| {
            let mut headers = vec![("Host", "a")];
            headers.extend(codings.iter().map(|coding| ("Transfer-Encoding", *coding)));
            check(&request("POST", "/", &headers), hides_length)
        };
        assert!(framed(&[], false).is_ok());
        assert!(framed(&["chunked"], false).is_ok());
        assert!(framed(&["Chunked"], false).is_ok());
        assert!(matches!(
            framed(&["chunked"], true),
            Err(ApiError::Malformed(_))
        ));
        for repeated in [&["chunked, chunked"][..], &["chunked", "chunked"]] {
            assert!(matches!(
                framed(repeated, false),
                Err(ApiError::Malformed(_))
            ));
        }
        for other in [
            &["gzip, chunked"][..],
            &["gzip", "chunked"],
            &["identity"],
            &["xchunked"],
            &[""],
        ] {
            let refused = framed(other, false);
            assert!(
                matches!(refused, Err(ApiError::UnknownTransferCoding)),
                "{other:?}"
            );
        }
    }

    #[test]
    fn a_target_is_a_path_or_a_url_with_the_host_of_the_request() {
        let accepted = |method, target, host| {
            check(&request(method, target, &[("Host", host)]), false).is_ok()
        };
        assert!(accepted("GET", "/healthz", "a"));
        assert!(accepted("GET", "http://a:8787/healthz", "A:8787"));
        assert!(accepted("GET", "https://a/healthz", "a"));
        assert!(accepted("OPTIONS", "*", "a"));
        assert!(!accepted("GET", "*", "a"));
        assert!(!accepted("GET", "http://b/healthz", "a"));
        assert!(!accepted("GET", "ftp://a/healthz", "a"));
        assert!(!accepted("CONNECT", "a:80", "a:80"));
    }
}
