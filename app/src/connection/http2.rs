//! The refusal of HTTP/2 to a client that begins with it without asking (RFC 9113, section 3.4).

/// The first bytes of such a connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// An empty SETTINGS frame, and a GOAWAY frame with the error HTTP_1_1_REQUIRED.
pub(super) const REFUSAL: &[u8] = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\
    \x00\x00\x19\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0dHTTP/1.1 required";

/// Whether these bytes, the first of a connection, begin with the preface. `None`: more bytes are needed.
pub(super) fn is_http2<'a>(first: impl Iterator<Item = &'a u8>) -> Option<bool> {
    let mut matched = 0;
    for byte in first.take(PREFACE.len()) {
        if *byte != PREFACE[matched] {
            return Some(false);
        }
        matched += 1;
    }
    (matched == PREFACE.len()).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_the_preface() {
        assert_eq!(is_http2(b"".iter()), None);
        assert_eq!(is_http2(b"P".iter()), None);
        assert_eq!(is_http2(b"POST /".iter()), Some(false));
        assert_eq!(is_http2(b"PRI * HTTP/2.0\r".iter()), None);
        assert_eq!(is_http2(b"PRI * HTTP/2.0\r\n\r\nSM".iter()), Some(true));
    }

    #[test]
    fn the_refusal_has_frames_of_the_stated_lengths() {
        let (settings, goaway) = REFUSAL.split_at(9);
        assert_eq!(settings, b"\0\0\0\x04\0\0\0\0\0");
        let length = usize::from(goaway[2]);
        assert_eq!(goaway.len(), 9 + length);
    }
}
