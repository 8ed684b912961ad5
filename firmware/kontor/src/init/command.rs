//! What PID 1 can be asked over its control socket: one line each.

/// Lines of a log at most; the ring's bytes bound it further.
const MAX_LOG_LINES: usize = 2000;

/// What a client may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// `status`
    Status,
    /// `logs NAME N`
    Logs(String, usize),
    /// `reload`
    Reload,
    /// `restart NAME`
    Restart(String),
    /// `reboot`
    Reboot,
    /// `power-off`
    PowerOff,
}

impl Command {
    /// From a line.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["status"] => Ok(Self::Status),
            ["logs", name] => Ok(Self::Logs(name.to_owned(), 50)),
            ["logs", name, count] => {
                let count = count.parse().map_err(|_| format!("`{count}` is not a number of lines"))?;
                Ok(Self::Logs(name.to_owned(), usize::min(count, MAX_LOG_LINES)))
            }
            ["reload"] => Ok(Self::Reload),
            ["restart", name] => Ok(Self::Restart(name.to_owned())),
            ["reboot"] => Ok(Self::Reboot),
            ["power-off"] => Ok(Self::PowerOff),
            _ => {
                Err("expected: status | logs NAME [N] | reload | restart NAME | reboot | power-off"
                    .to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        assert_eq!(Command::parse("logs dnsd 10\r"), Ok(Command::Logs("dnsd".into(), 10)));
        assert_eq!(Command::parse("power-off"), Ok(Command::PowerOff));
        assert_eq!(Command::parse("logs dnsd 99999999"), Ok(Command::Logs("dnsd".into(), MAX_LOG_LINES)));
        assert!(Command::parse("").is_err());
        assert!(Command::parse("logs dnsd -1").is_err());
        assert!(Command::parse("reboot now").is_err());
    }
}
