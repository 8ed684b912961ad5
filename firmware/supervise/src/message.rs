//! What a service says about itself: the datagrams of sd_notify(3).

use std::time::Duration;

/// One who waits says so again.
const LONGEST_EXTENSION: Duration = Duration::from_secs(86_400);
/// Longest STATUS text kept; it is one line on a console.
const STATUS_LIMIT: usize = 160;

/// One assignment of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `READY=1`
    Ready,
    /// `WATCHDOG=1`
    Watchdog,
    /// `EXTEND_TIMEOUT_USEC=…`: its start may take that much longer from now on; a day at most.
    Extend(Duration),
    /// `STATUS=…`, bounded and without control characters.
    Status(String),
}

impl Message {
    /// The messages of a datagram; whatever is unknown is skipped, as sd_notify(3) asks.
    pub fn parse(datagram: &[u8]) -> impl Iterator<Item = Self> {
        datagram.split(|byte| *byte == b'\n').filter_map(Self::parse_line)
    }

    fn parse_line(line: &[u8]) -> Option<Self> {
        match line {
            b"READY=1" => Some(Self::Ready),
            b"WATCHDOG=1" => Some(Self::Watchdog),
            _ => {
                if let Some(micros) = line.strip_prefix(b"EXTEND_TIMEOUT_USEC=") {
                    let micros = std::str::from_utf8(micros).ok()?.parse().ok()?;
                    return Some(Self::Extend(LONGEST_EXTENSION.min(Duration::from_micros(micros))));
                }
                let text = String::from_utf8_lossy(line.strip_prefix(b"STATUS=")?);
                Some(Self::Status(text.chars().filter(|c| !c.is_control()).take(STATUS_LIMIT).collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_are_read_and_others_skipped() {
        let messages: Vec<Message> =
            Message::parse(b"STATUS=up \x1b[2J\nREADY=1\nMAINPID=1\nWATCHDOG=1").collect();
        assert_eq!(messages, [Message::Status("up [2J".into()), Message::Ready, Message::Watchdog]);
        assert_eq!(Message::parse(b"READY=10\nREADY=\nEXTEND_TIMEOUT_USEC=soon").count(), 0);
        let extended: Vec<Message> =
            Message::parse(b"EXTEND_TIMEOUT_USEC=1500000\nEXTEND_TIMEOUT_USEC=999999999999999").collect();
        assert_eq!(
            extended,
            [Message::Extend(Duration::from_millis(1500)), Message::Extend(LONGEST_EXTENSION)]
        );
    }

    #[test]
    fn a_status_is_bounded() {
        let long = [b"STATUS=".as_slice(), &[b'x'; 5000]].concat();
        assert_eq!(Message::parse(&long).next(), Some(Message::Status("x".repeat(STATUS_LIMIT))));
    }
}
