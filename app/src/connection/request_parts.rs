//! Finds the ends of heads and bodies in the bytes of a connection.
//!
//! The parser gets the bytes of one part at a time. So it never buffers the beginning of another request, and each header line
//! is attributed to its request.

use memchr::memchr;

/// Maximum number of hexadecimal digits of a chunk size, leading zeros included: those of 64 bits.
const MAX_SIZE_DIGITS: u8 = 16;

/// The position in the requests of one connection.
#[derive(Default)]
pub(super) struct RequestParts {
    part: Part,
    /// The number of `Content-Length` lines in the current head.
    content_lengths: u32,
}

/// The part of a request to which the next byte belongs.
enum Part {
    Head {
        line: Line,
        /// A non-empty line has ended. Empty lines before it do not end the head (RFC 9112, section 2.2).
        has_text: bool,
    },
    /// A body of known length, with this number of bytes left.
    Length(u64),
    Chunked(Chunked),
}

impl Default for Part {
    fn default() -> Self {
        Self::Head {
            line: Line::default(),
            has_text: false,
        }
    }
}

/// A position in a chunked body (RFC 9112, section 7.1).
enum Chunked {
    Size {
        digits: u8,
        size: u64,
    },
    /// The rest of a line with a chunk size.
    SizeEnd(u64),
    Data(u64),
    /// The line end after the data.
    DataEnd,
    Trailer(Line),
    End,
}

/// The current line, as far as it has arrived.
#[derive(Default)]
struct Line {
    /// The number of bytes so far, at most [`u8::MAX`].
    length: u8,
    last: u8,
    /// How many bytes of [`CONTENT_LENGTH`] the line begins with.
    matched: u8,
}

const CONTENT_LENGTH: &[u8] = b"content-length:";

/// A chunked body breaks a rule that the parser does not enforce.
#[derive(Debug)]
pub(super) struct InvalidChunk(pub(super) &'static str);

impl RequestParts {
    /// The next byte is the first of a head.
    pub(super) fn begin_head(&mut self) {
        *self = Self::default();
    }

    /// The head has ended. `length`: the length of the body in bytes. `None`: the body is chunked.
    ///
    /// Returns the number of `Content-Length` lines in the head.
    pub(super) fn begin_body(&mut self, length: Option<u64>) -> u32 {
        self.part = match length {
            Some(length) => Part::Length(length),
            None => Part::Chunked(Chunked::Size { digits: 0, size: 0 }),
        };
        self.content_lengths
    }

    /// Whether the body of the current request has not ended.
    pub(super) const fn is_in_body(&self) -> bool {
        match &self.part {
            Part::Head { .. } => false,
            Part::Length(left) => *left > 0,
            Part::Chunked(chunked) => !matches!(chunked, Chunked::End),
        }
    }

    /// Returns how many of these bytes the parser gets: those of the current part, at least one unless `bytes` is empty. If a
    /// body has ended and the parser still reads, it gets all bytes, so that it never waits for bytes that have arrived. After a
    /// head, it gets the bytes up to the next empty line.
    ///
    /// # Errors
    /// The bytes break a rule that the parser does not enforce. It must not get them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, InvalidChunk> {
        match &mut self.part {
            Part::Head { line, has_text } => {
                let mut taken = 0;
                while taken < bytes.len() {
                    let (length, end) = line.read(&bytes[taken..]);
                    taken += length;
                    let Some(end) = end else { break };
                    self.content_lengths += u32::from(end.is_content_length);
                    if end.is_empty && *has_text {
                        break;
                    }
                    *has_text |= !end.is_empty;
                }
                Ok(taken)
            }
            Part::Length(left) => {
                let all = bytes.len() as u64;
                let taken = if *left == 0 { all } else { all.min(*left) };
                *left = left.saturating_sub(taken);
                Ok(usize::try_from(taken).unwrap_or(bytes.len()))
            }
            Part::Chunked(chunked) => chunked.take(bytes),
        }
    }
}

impl Chunked {
    fn take(&mut self, bytes: &[u8]) -> Result<usize, InvalidChunk> {
        let mut taken = 0;
        while taken < bytes.len() {
            let rest = &bytes[taken..];
            taken += match self {
                Self::Size { digits, size } => match char::from(rest[0]).to_digit(16) {
                    Some(_) if *digits == MAX_SIZE_DIGITS => {
                        return Err(InvalidChunk("a chunk size has more than 16 digits"));
                    }
                    Some(digit) => {
                        *digits += 1;
                        *size = *size << 4 | u64::from(digit);
                        1
                    }
                    None => {
                        *self = Self::SizeEnd(*size);
                        0
                    }
                },
                Self::SizeEnd(size) => {
                    let (length, has_ended) = through_line_feed(rest);
                    if has_ended {
                        *self = match *size {
                            0 => Self::Trailer(Line::default()),
                            size => Self::Data(size),
                        };
                    }
                    length
                }
                Self::Data(left) => {
                    let length = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= length as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    length
                }
                Self::DataEnd => {
                    let (length, has_ended) = through_line_feed(rest);
                    if has_ended {
                        *self = Self::Size { digits: 0, size: 0 };
                    }
                    length
                }
                Self::Trailer(line) => {
                    let (length, end) = line.read(rest);
                    match end {
                        Some(end) if !end.has_carriage_return => {
                            return Err(InvalidChunk("a trailer line ends without CR"));
                        }
                        Some(end) if end.is_empty => {
                            *self = Self::End;
                            return Ok(taken + length);
                        }
                        _ => length,
                    }
                }
                Self::End => rest.len(),
            };
        }
        Ok(taken)
    }
}

fn through_line_feed(bytes: &[u8]) -> (usize, bool) {
    match memchr(b'\n', bytes) {
        Some(end) => (end + 1, true),
        None => (bytes.len(), false),
    }
}

struct EndedLine {
    is_empty: bool,
    is_content_length: bool,
    has_carriage_return: bool,
}

impl Line {
    /// Reads up to the end of the line. Returns the number of bytes, and the line if it has ended.
    fn read(&mut self, bytes: &[u8]) -> (usize, Option<EndedLine>) {
        let (length, has_ended) = through_line_feed(bytes);
        let text = &bytes[..length - usize::from(has_ended)];
        let matched = usize::from(self.matched);
        if matched == usize::from(self.length) {
            let name = &CONTENT_LENGTH[matched..];
            let equal = { text.iter().zip(name) }.take_while(|(a, b)| a.eq_ignore_ascii_case(b));
            self.matched += u8::try_from(equal.count()).unwrap_or_default();
        }
        let total = usize::from(self.length).saturating_add(text.len());
        self.length = u8::try_from(total).unwrap_or(u8::MAX);
        self.last = text.last().copied().unwrap_or(self.last);
        if !has_ended {
            return (length, None);
        }
        let line = std::mem::take(self);
        let has_carriage_return = line.last == b'\r';
        let ended = EndedLine {
            is_empty: line.length == u8::from(has_carriage_return),
            is_content_length: usize::from(line.matched) == CONTENT_LENGTH.len(),
            has_carriage_return,
        };
        (length, Some(ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 3\r\n\r\n";

    /// Takes `part` from the front of `text`, which arrives in pieces of `piece` bytes.
    fn take_part(parts: &mut RequestParts, text: &mut &[u8], part: &str, piece: usize) {
        let mut left = part.len();
        while left > 0 {
            let arrived = &text[..piece.min(text.len())];
            let taken = parts.take(arrived).expect("valid");
            assert!((1..=left).contains(&taken), "{part:?} in pieces of {piece}");
            *text = &text[taken..];
            left -= taken;
        }
    }

    #[test]
    fn finds_the_ends_of_parts_in_pieces_of_any_size() {
        let chunked = "5;a=\"\r\"\r\n\n\r\n\r\n\r\n0c \r\n{\n\nHost: b\n}\r\n000\r\nX: y\r\nContent-Length: 1\r\n\r\n";
        let requests = [
            (HEAD, Some(3), "\n\r\n", 1),
            ("\r\n\nGET / HTTP/1.1\nHost: a\n\n", Some(0), "", 0),
            (
                "POST / HTTP/1.1\r\nX-Content-Length: 1\r\nContent-Lengths: 2\r\n\r\n",
                None,
                chunked,
                0,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length:7\r\nContent-Length : 7\r\nContent-Length:\r\n\r\n",
                Some(1),
                "x",
                2,
            ),
            (HEAD, None, "0\r\n\r\n", 1),
        ];
        let text: String = requests
            .iter()
            .flat_map(|(head, _, body, _)| [*head, *body])
            .collect();
        for piece in 1..=text.len() {
            let (mut parts, mut left) = (RequestParts::default(), text.as_bytes());
            for (head, length, body, lines) in requests {
                parts.begin_head();
                take_part(&mut parts, &mut left, head, piece);
                assert_eq!(
                    parts.begin_body(length),
                    lines,
                    "{head} in pieces of {piece}"
                );
                take_part(&mut parts, &mut left, body, piece);
            }
        }
    }

    #[test]
    fn a_parser_that_reads_beyond_a_part_gets_more_bytes() {
        let mut parts = RequestParts::default();
        for length in [Some(0), Some(1), None] {
            parts.begin_body(length);
            let body = if length.is_none() { "0\r\n\r\n" } else { "x" };
            assert_eq!(parts.take(body.as_bytes()).expect("valid"), body.len());
            assert_eq!(parts.take(b"GET / HTTP/1.1\r\n\r\n").expect("valid"), 18);
        }
        parts.begin_head();
        assert_eq!(parts.take(b"A\r\n\r\nB").expect("valid"), 5);
        assert_eq!(parts.take(b"B\r\n\r\nC").expect("valid"), 5);
    }

    #[test]
    fn rejects_invalid_chunks_that_the_parser_accepts() {
        for (body, is_valid) in [
            ("0000000000000001\r\nx\r\n0000000000000000\r\n\r\n", true),
            ("00000000000000001\r\nx\r\n0\r\n\r\n", false),
            ("1\r\nx\r\n00000000000000000\r\n\r\n", false),
            ("0\r\nX: y\r\n\r\n", true),
            ("0\r\nX: y\n\r\n", false),
            ("0\r\nX: y\r\n\n", false),
            ("0\r\n\n", false),
        ] {
            for piece in 1..=body.len() {
                let mut parts = RequestParts::default();
                parts.begin_body(None);
                let taken: Result<Vec<usize>, _> = { body.as_bytes().chunks(piece) }
                    .map(|bytes| parts.take(bytes))
                    .collect();
                assert_eq!(taken.is_ok(), is_valid, "{body:?} in pieces of {piece}");
            }
        }
    }
}
