//! A small HTTP server for trying: static files, `Range`, nothing else. For real use any web server is better.
//!
//! It gives nothing but ordinary files below its folder, follows no links, and lists nothing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use camino::{Utf8Path, Utf8PathBuf};

/// Who says nothing for so long is hung up on.
const PATIENCE: Duration = Duration::from_secs(30);
/// A request's head: nobody has a reason for more.
const MAX_HEAD: u64 = 16 * 1024;

/// A folder, and where it is served.
#[derive(Debug)]
pub struct Server {
    folder: Utf8PathBuf,
    listener: TcpListener,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    /// `HEAD` has no body.
    head: bool,
    path: String,
    /// The first byte, and the last if it is said.
    range: Option<(u64, Option<u64>)>,
    close: bool,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// When the folder is not there, or the address is in use.
    pub fn bind(folder: &Utf8Path, address: &str) -> Result<Self> {
        let folder = folder.canonicalize_utf8().with_context(|| format!("cannot open {folder}"))?;
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        Ok(Self { folder, listener })
    }

    /// Where.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn address(&self) -> Result<std::net::SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves for ever, each connection in a thread; `tell` hears of each answer.
    ///
    /// # Errors
    /// When no connection can be taken any more.
    pub fn run(&self, tell: impl Fn(&str) + Send + Sync) -> Result<()> {
        let tell = &tell;
        std::thread::scope(|scope| {
            for stream in self.listener.incoming() {
                let stream = stream.context("taking a connection")?;
                // A client that goes away, or sends garbage, is its own problem.
                scope.spawn(move || self.connection(&stream, tell).ok());
            }
            Ok(())
        })
    }

    fn connection(&self, stream: &TcpStream, tell: &(impl Fn(&str) + Sync)) -> Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        while let Some(head) = read_head(&mut reader)? {
            let Some(request) = parse(&head) else {
                return answer(stream, "400 Bad Request", &[], 0);
            };
            let status = self.respond(stream, &request)?;
            tell(&format!("{status} {}", request.path));
            if request.close {
                break;
            }
        }
        Ok(())
    }

    fn respond(&self, mut stream: &TcpStream, request: &Request) -> Result<&'static str> {
        let Some((mut file, length)) = self.file(&request.path) else {
            answer(stream, "404 Not Found", &[], 0)?;
            return Ok("404");
        };
        let (first, last, status) = match request.range {
            Some((first, _)) if first >= length => {
                let range = format!("Content-Range: bytes */{length}");
                answer(stream, "416 Range Not Satisfiable", &[range], 0)?;
                return Ok("416");
            }
            Some((first, last)) => {
                (first, last.unwrap_or(length).min(length.saturating_sub(1)), "206 Partial Content")
            }
            None => (0, length.saturating_sub(1), "200 OK"),
        };
        let count = if length == 0 { 0 } else { last - first + 1 };
        let mut headers = vec!["Accept-Ranges: bytes".to_owned()];
        if request.range.is_some() {
            headers.push(format!("Content-Range: bytes {first}-{last}/{length}"));
        }
        answer(stream, status, &headers, count)?;
        if !request.head {
            file.seek(SeekFrom::Start(first))?;
            std::io::copy(&mut file.take(count), &mut stream)?;
        }
        Ok(&status[..3])
    }

    fn file(&self, path: &str) -> Option<(File, u64)> {
        let name = path.strip_prefix('/')?;
        let plain = |part: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(known)
        };
        if !name.split('/').all(plain) {
            return None;
        }
        let path = self.folder.join(name);
        // The same path again, or something on the way was a link.
        let real = path.canonicalize_utf8().ok().filter(|real| *real == path)?;
        let length = real.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?.len();
        Some((File::open(real).ok()?, length))
    }
}

fn read_head(reader: &mut impl BufRead) -> Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    let mut limited = reader.take(MAX_HEAD);
    loop {
        let mut line = String::new();
        if limited.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" if lines.is_empty() => {}
            "" => return Ok(Some(lines)),
            line => lines.push(line.to_owned()),
        }
    }
}

fn parse(head: &[String]) -> Option<Request> {
    let (first, headers) = head.split_first()?;
    let mut words = first.split(' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    if !matches!(method, "GET" | "HEAD") || !version.starts_with("HTTP/1.") {
        return None;
    }
    let header = |wanted: &str| {
        let mut pairs = headers.iter().filter_map(|line| line.split_once(':'));
        pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let close =
        version == "HTTP/1.0" || header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    // What is not one plain range is ignored, and the whole file sent (RFC 9110, section 14.2).
    let range = header("range").and_then(|text| {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let first: u64 = first.parse().ok()?;
        let last =
            if last.is_empty() { None } else { Some(last.parse().ok().filter(|last| *last >= first)?) };
        Some((first, last))
    });
    Some(Request { head: method == "HEAD", path: path.to_owned(), range, close })
}

fn answer(mut stream: &TcpStream, status: &str, headers: &[String], length: u64) -> Result<()> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    Ok(stream.write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("{request}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn files_and_ranges_are_served_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(scratch.path()).unwrap();
        let served = root.join("served");
        std::fs::create_dir_all(served.join("metadata")).unwrap();
        std::fs::write(served.join("metadata/a.json"), "0123456789").unwrap();
        std::fs::write(served.join("empty"), "").unwrap();
        std::fs::write(root.join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../secret", served.join("link")).unwrap();
        let server: &'static Server = Box::leak(Box::new(Server::bind(&served, "127.0.0.1:0").unwrap()));
        let address = server.address().unwrap();
        std::thread::spawn(|| server.run(|_| ()));
        let check = |request: &str, status: &str, body: &str| {
            let answer = ask(address, request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{request}: {answer}");
        };
        check("GET /metadata/a.json HTTP/1.1", "200", "0123456789");
        check("HEAD /metadata/a.json HTTP/1.1", "200", "");
        check("GET /empty HTTP/1.1", "200", "");
        check("GET /metadata/a.json HTTP/1.1\r\nRange: bytes=2-4", "206", "234");
        check("GET /metadata/a.json HTTP/1.1\r\nRange: bytes=7-", "206", "789");
        check("GET /metadata/a.json HTTP/1.1\r\nRange: bytes=7-99", "206", "789");
        check("GET /metadata/a.json HTTP/1.1\r\nRange: bytes=10-", "416", "");
        check("GET /metadata/a.json HTTP/1.1\r\nRange: bytes=4-2", "200", "0123456789");
        for path in [
            "/../secret",
            "/metadata/../../secret",
            "/%2e%2e/secret",
            "/link",
            "/metadata",
            "/",
            "//empty",
            "/none",
        ] {
            check(&format!("GET {path} HTTP/1.1"), "404", "");
        }
        check("POST /empty HTTP/1.1", "400", "");
        check("garbage", "400", "");
    }
}
