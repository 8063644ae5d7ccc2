//! The cursors of the feed. For clients they are opaque texts.

use keywright_domain::model::Position;

const DIGITS: usize = 16;

/// The text of a position: 16 hexadecimal digits.
pub(super) fn text(position: Position) -> String {
    format!("{:016x}", position.0)
}

/// Reads what [`text`] has written. `None`: the text is no cursor.
pub(super) fn parse(text: &str) -> Option<Position> {
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let is_cursor = text.len() == DIGITS && text.bytes().all(is_digit);
    let number = is_cursor.then(|| u64::from_str_radix(text, 16).ok())?;
    number.map(Position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_every_cursor_and_nothing_else() {
        for position in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            let position = Position(position);
            assert_eq!(parse(&text(position)), Some(position));
        }
        for text in [
            "",
            "1",
            "+00000000000000f",
            "000000000000000G",
            "00000000000000001",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
