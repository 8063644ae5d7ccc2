//! Reads the output of `strace -f -y -xx`.

use std::collections::HashMap;

/// A system call. The numbers are those of lines of the trace, counted through all its parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// The text of the arguments. Strings and paths in it are hexadecimal.
    pub(super) arguments: String,
    /// What it returned; `None` if that is not a number or the process was killed before.
    pub(super) result: Option<i64>,
    pub(super) span: Span,
}

/// When a call was entered and when it returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Joins the two lines of calls during which other threads did something.
#[derive(Default)]
pub(super) struct CallReader {
    /// By thread: name, arguments and line of the call that has not returned.
    entered: HashMap<String, (String, String, usize)>,
}

impl CallReader {
    /// Reads a line. `None`: no call has returned.
    ///
    /// # Errors
    /// The line has an unknown form.
    pub(super) fn read(&mut self, line: &str, number: usize) -> Result<Option<Call>, String> {
        let unknown = || {
            let beginning: String = line.chars().take(200).collect();
            format!("line {number} of the trace has an unknown form: {beginning}")
        };
        let (thread, text) = line.split_once(' ').ok_or_else(unknown)?;
        let text = text.trim_start();
        // The end of a thread, or a signal.
        if text.starts_with("+++") || text.starts_with("---") {
            return Ok(None);
        }
        if let Some(resumed) = text.strip_prefix("<... ") {
            let (name, rest) = resumed.split_once(" resumed>").ok_or_else(unknown)?;
            let (rest, result) = rest.rsplit_once(" = ").ok_or_else(unknown)?;
            let (entered, mut arguments, start) =
                self.entered.remove(thread).ok_or_else(unknown)?;
            if entered != name {
                return Err(unknown());
            }
            let rest = rest.trim_end();
            arguments.push_str(rest.strip_suffix(')').unwrap_or(rest));
            let span = Span { start, end: number };
            return Ok(Some(call(entered, arguments, result, span)));
        }
        let (name, rest) = text.split_once('(').ok_or_else(unknown)?;
        let name = name.to_owned();
        if let Some(arguments) = rest.strip_suffix("<unfinished ...>") {
            let arguments = arguments.trim_end().to_owned();
            self.entered
                .insert(thread.to_owned(), (name, arguments, number));
            return Ok(None);
        }
        let (arguments, result) = rest.rsplit_once(" = ").ok_or_else(unknown)?;
        let arguments = arguments.trim_end();
        let arguments = arguments.strip_suffix(')').ok_or_else(unknown)?;
        let span = Span {
            start: number,
            end: number,
        };
        Ok(Some(call(name, arguments.to_owned(), result, span)))
    }

    /// The calls that have not returned: thread, name and arguments.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let entered = self.entered.iter();
        entered.map(|(thread, (name, arguments, _))| (&**thread, &**name, &**arguments))
    }
}

fn call(name: String, arguments: String, result: &str, span: Span) -> Call {
    let digits = result.split([' ', '<']).next().unwrap_or_default();
    Call {
        name,
        arguments,
        // Addresses are hexadecimal.
        result: match digits.strip_prefix("0x") {
            Some(digits) => i64::from_str_radix(digits, 16).ok(),
            None => digits.parse().ok(),
        },
        span,
    }
}

/// The arguments one by one.
pub(super) fn split(arguments: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut first) = (Vec::new(), 0_usize, 0);
    for (at, byte) in arguments.bytes().enumerate() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(arguments[first..at].trim());
                first = at + 1;
            }
            _ => {}
        }
    }
    parts.push(arguments[first..].trim());
    parts
}

/// The bytes of all strings in an argument.
pub(super) fn strings(argument: &str) -> Vec<u8> {
    let quoted = argument.split('"').skip(1).step_by(2);
    quoted.flat_map(decode).collect()
}

/// The number and the path of a descriptor: `5<PATH>`.
pub(super) fn descriptor(argument: &str) -> Option<(&str, String)> {
    let (number, rest) = argument.split_once('<')?;
    let path = decode(rest.split_once('>')?.0);
    Some((number, String::from_utf8_lossy(&path).into_owned()))
}

/// Text in which some or all bytes have the form `\x2f`.
fn decode(text: &str) -> Vec<u8> {
    let (mut bytes, text) = (Vec::with_capacity(text.len() / 4), text.as_bytes());
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut at = 0;
    while at < text.len() {
        let escaped = match text[at..] {
            [b'\\', b'x', high, low, ..] => digit(high).zip(digit(low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                bytes.push(u8::try_from(16 * high + low).expect("two digits are a byte"));
                at += 4;
            }
            None => {
                bytes.push(text[at]);
                at += 1;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Result<Vec<Call>, String> {
        let mut reader = CallReader::default();
        let read = |(at, line): (usize, &&str)| reader.read(line, at + 1).transpose();
        lines.iter().enumerate().filter_map(read).collect()
    }

    #[test]
    fn calls_of_threads_are_told_apart() {
        let calls = read(&[
            r#"7   pwrite64(3<\x2f\x61>, "\x41\x42", 2, 512 <unfinished ...>"#,
            r"8   fsync(4<\x2f\x62>)                     = 0",
            r"7   <... pwrite64 resumed>)              = 2",
            r"7   +++ killed by SIGKILL +++",
        ]);
        let calls = calls.expect("calls");
        assert_eq!(
            (calls[0].name.as_str(), calls[0].result),
            ("fsync", Some(0))
        );
        assert_eq!(calls[1].span, Span { start: 1, end: 3 });
        let arguments = split(&calls[1].arguments);
        assert_eq!(descriptor(arguments[0]), Some(("3", "/a".to_owned())));
        assert_eq!(strings(arguments[1]), b"AB");
        assert_eq!(arguments[3], "512");
    }

    #[test]
    fn failed_and_killed_calls_have_no_result_of_success() {
        let calls = read(&[
            r#"7 openat(AT_FDCWD</>, "\x61", O_RDONLY) = -1 ENOENT (No such file or directory)"#,
            r#"7 openat(AT_FDCWD</>, "\x61", O_RDONLY) = 12<\x2f\x61>"#,
            r"7 fsync(3</a>) = ?",
        ]);
        let results: Vec<_> = calls.expect("calls").iter().map(|c| c.result).collect();
        assert_eq!(results, [Some(-1), Some(12), None]);
    }

    #[test]
    fn parts_of_a_vector_are_joined() {
        let arguments =
            r#"9<\x73>, [{iov_base="\x41", iov_len=1}, {iov_base="\x42", iov_len=1}], 2"#;
        let parts = split(arguments);
        assert_eq!(parts.len(), 3);
        assert_eq!(strings(parts[1]), b"AB");
    }

    #[test]
    fn a_line_of_another_form_is_an_error() {
        assert!(read(&["strace: Process 7 attached"]).is_err());
        assert!(read(&["7 <... fsync resumed>) = 0"]).is_err());
    }
}
