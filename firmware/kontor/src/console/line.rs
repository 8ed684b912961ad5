//! One line of input, typed or pasted, byte by byte.

/// Longest typed line; commands are far shorter.
const LINE_MAX: usize = 1024;

/// What a byte did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// Nothing yet; these bytes are to be echoed.
    Echo(Vec<u8>),
    /// The line is complete.
    Line(String),
    /// Ctrl-C.
    Cancel,
    /// Ctrl-D on an empty line.
    End,
}

/// A line being typed: backspace, ^U, ^C, ^D; escape sequences (arrow keys) are swallowed.
#[derive(Debug, Default)]
pub(super) struct Editor {
    bytes: Vec<u8>,
    escape: Escape,
    after_return: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    No,
    Started,
    Sequence,
}

impl Editor {
    pub(super) fn feed(&mut self, byte: u8) -> Edit {
        let newline_of_return = std::mem::take(&mut self.after_return) && byte == b'\n';
        if newline_of_return || self.swallow_escape(byte) {
            return Edit::Echo(Vec::new());
        }
        match byte {
            b'\r' | b'\n' => {
                self.after_return = byte == b'\r';
                Edit::Line(String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned())
            }
            0x03 => {
                self.bytes.clear();
                Edit::Cancel
            }
            0x04 if self.bytes.is_empty() => Edit::End,
            0x08 | 0x7f => Edit::Echo(self.rub_out(1)),
            0x15 => Edit::Echo(self.rub_out(usize::MAX)),
            0x1b => {
                self.escape = Escape::Started;
                Edit::Echo(Vec::new())
            }
            0x00..=0x1f => Edit::Echo(Vec::new()),
            _ if self.bytes.len() >= LINE_MAX => Edit::Echo(vec![0x07]),
            _ => {
                self.bytes.push(byte);
                Edit::Echo(vec![byte])
            }
        }
    }

    fn swallow_escape(&mut self, byte: u8) -> bool {
        self.escape = match (&self.escape, byte) {
            (Escape::No, _) => return false,
            // CSI and SS3 begin a sequence; any other byte was a lone Alt key.
            (Escape::Started, b'[' | b'O') => Escape::Sequence,
            (Escape::Sequence, 0x20..=0x3f) => Escape::Sequence,
            _ => Escape::No,
        };
        true
    }

    /// Removes up to `count` characters and returns what removes them on the screen.
    fn rub_out(&mut self, count: usize) -> Vec<u8> {
        let mut echo = Vec::new();
        for _ in 0..count {
            // A UTF-8 character ends with its first byte when read backwards.
            while let Some(byte) = self.bytes.pop() {
                if byte & 0xc0 != 0x80 {
                    echo.extend_from_slice(b"\x08 \x08");
                    break;
                }
            }
            if self.bytes.is_empty() {
                break;
            }
        }
        echo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> (Vec<String>, Vec<u8>) {
        let mut editor = Editor::default();
        let (mut lines, mut echo) = (Vec::new(), Vec::new());
        for byte in input {
            match editor.feed(*byte) {
                Edit::Line(line) => lines.push(line),
                Edit::Echo(bytes) => echo.extend(bytes),
                Edit::Cancel => lines.push("^C".into()),
                Edit::End => lines.push("^D".into()),
            }
        }
        (lines, echo)
    }

    #[track_caller]
    fn check(input: &[u8], expect: &[&str]) {
        assert_eq!(lines(input).0, expect);
    }

    #[test]
    fn ends_of_line_of_every_kind() {
        check(b"a\rb\r\nc\nd\n\n", &["a", "b", "c", "d", ""]);
    }

    #[test]
    fn editing() {
        check(b"statsu\x7f\x7fus\r", &["status"]);
        check(b"\x7f\x7fok\r", &["ok"]);
        check(b"wrong\x15right\r", &["right"]);
        check("ä\u{7f}x\r".as_bytes(), &["x"]);
        check(b"half\x03\x04", &["^C", "^D"]);
        check(b"\x1b[A\x1b[3~up\x1bOP\r", &["up"]);
        assert_eq!(lines(b"ab\x7f").1, b"ab\x08 \x08");
        assert_eq!(lines("ä\u{7f}".as_bytes()).1, "ä\u{8} \u{8}".as_bytes());
    }

    #[test]
    fn a_line_cannot_grow_without_end() {
        let (got, echo) = lines(&[vec![b'x'; 5000], b"\r".to_vec()].concat());
        assert_eq!(got[0].len(), LINE_MAX);
        assert_eq!(echo.last(), Some(&0x07));
    }
}
