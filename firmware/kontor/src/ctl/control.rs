//! PID 1's control socket, client side: one line of text in, the answer until end of file.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// PID 1 answers from memory; silence this long means it is not the PID 1 we know. Less than the 5 s of the
/// watchdog of the console, which asks too.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer read: the bounded log of one service is far below.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;

/// Why PID 1 could not be asked.
#[derive(Debug)]
pub(crate) struct Error {
    socket: PathBuf,
    source: io::Error,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.source.kind() {
            io::ErrorKind::NotFound => "this command works only on a running Kontor box",
            io::ErrorKind::PermissionDenied => "only root may use it: log in at the console",
            io::ErrorKind::ConnectionRefused => "PID 1 does not listen: the box is starting or shutting down",
            _ => "try again; if it stays so, restart the box with its power button",
        };
        write!(f, "cannot talk to PID 1 over {} ({advice})", self.socket.display())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Sends one request line and returns the whole answer.
pub(crate) fn ask(socket: &Path, request: &str) -> Result<String, Error> {
    exchange(socket, request).map_err(|source| Error { socket: socket.to_owned(), source })
}

fn exchange(socket: &Path, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn one_line_in_everything_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            stream.write_all(format!("heard {line}").as_bytes()).unwrap();
        });
        assert_eq!(ask(&path, "logs netd 5").unwrap(), "heard logs netd 5\n");
        server.join().unwrap();
    }

    #[test]
    fn a_missing_socket_says_where_the_command_works() {
        let error = ask(Path::new("/nonexistent/control.sock"), "status").unwrap_err();
        assert!(error.to_string().contains("only on a running Kontor box"), "{error}");
    }
}
