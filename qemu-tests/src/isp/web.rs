//! The Internet's web server: pages from memory, and a folder of files; whole, from a byte on, or a part (RFC 9110, section 14).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use smoltcp::wire::IpEndpoint;

use super::tcp::{Listeners, Reply};
use crate::stack::Stack;

/// One page fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebRequest {
    /// Who asked, as the server saw it.
    pub peer: IpEndpoint,
    /// Path asked for.
    pub path: String,
    /// First byte asked for.
    pub from: u64,
    /// Bytes of the body sent back.
    pub bytes: usize,
}

/// Serves pages over HTTP/1.0 on port 80.
#[derive(Debug)]
pub struct WebServer {
    /// Pages by path.
    pub pages: HashMap<String, Vec<u8>>,
    /// A folder whose files are pages, too.
    pub folder: Option<PathBuf>,
    /// Every request it got, in order.
    pub requests: Vec<WebRequest>,
    /// Every document it was sent by POST: where to, and what.
    pub documents: Vec<(String, Vec<u8>)>,
    listeners: Listeners,
}

impl WebServer {
    pub(super) fn new(address: Ipv4Addr, stack: &mut Stack) -> Result<Self> {
        let listeners = Listeners::new(address, 80, 4, stack)?;
        let pages = HashMap::from([("/".to_owned(), b"hello from the Internet\n".to_vec())]);
        Ok(Self { pages, folder: None, requests: Vec::new(), documents: Vec::new(), listeners })
    }

    /// Ends every connection; see [`Listeners::cut`].
    pub(super) fn cut(&mut self, stack: &mut Stack, told: bool) -> Result<()> {
        self.listeners.cut(stack, told)
    }

    pub(super) fn serve(&mut self, stack: &mut Stack) -> Result<bool> {
        let Self { pages, folder, requests, documents, listeners } = self;
        listeners.serve(stack, |peer, received| {
            let end = received.windows(4).position(|window| window == b"\r\n\r\n")?;
            let head = String::from_utf8_lossy(&received[..end]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
            if head.starts_with("POST ") {
                let length =
                    header(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
                let document = received.get(end + 4..)?.get(..length)?.to_vec();
                received.drain(..end + 4 + length);
                documents.push((path, document));
                return Some(Reply { bytes: b"HTTP/1.0 204 No Content\r\n\r\n".to_vec(), close: true });
            }
            received.drain(..end + 4);
            let (from, last) = range(&head);
            let page = pages.get(&path).cloned().or_else(|| file(folder.as_deref()?, &path));
            let (bytes, body) = response(page.as_deref(), from, last);
            requests.push(WebRequest { peer, path, from, bytes: body });
            Some(Reply { bytes, close: true })
        })
    }
}

/// A file below the folder; nothing that leads out of it.
fn file(folder: &Path, path: &str) -> Option<Vec<u8>> {
    let parts = path.trim_start_matches('/');
    let plain = parts.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    std::fs::read(folder.join(parts)).ok().filter(|_| plain)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// `Range: bytes=N-` or `bytes=N-M`: first and last byte.
fn range(head: &str) -> (u64, Option<u64>) {
    let parts = header(head, "range").and_then(|value| value.strip_prefix("bytes=")?.split_once('-'));
    let (from, last) = parts.unwrap_or_default();
    (from.parse().unwrap_or(0), last.parse().ok())
}

/// The answer, and the length of its body.
fn response(page: Option<&[u8]>, from: u64, last: Option<u64>) -> (Vec<u8>, usize) {
    let place = |byte| usize::try_from(byte).unwrap_or(usize::MAX);
    let (from, end) = (place(from), last.map_or(usize::MAX, |last| place(last).saturating_add(1)));
    let (status, body, range) = match page {
        Some(body) if from == 0 && last.is_none() => ("200 OK", body, String::new()),
        Some(body) => match body.get(from..end.min(body.len())).filter(|part| !part.is_empty()) {
            Some(part) => {
                let (last, whole) = (from + part.len() - 1, body.len());
                ("206 Partial Content", part, format!("Content-Range: bytes {from}-{last}/{whole}\r\n"))
            }
            None => ("416 Range Not Satisfiable", &b""[..], String::new()),
        },
        None => ("404 Not Found", &b"no such page\n"[..], String::new()),
    };
    let head = format!("HTTP/1.0 {status}\r\n{range}Content-Length: {}\r\n\r\n", body.len());
    ([head.as_bytes(), body].concat(), body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_page_is_served() {
        let text = |from| String::from_utf8(response(Some(b"hello"), from, None).0).unwrap();
        assert!(text(0).starts_with("HTTP/1.0 200 OK\r\n") && text(0).ends_with("\r\n\r\nhello"));
        assert!(text(2).contains("206 Partial") && text(2).contains("bytes 2-4/5\r\n"));
        assert!(text(2).ends_with("\r\n\r\nllo"));
        assert!(text(5).contains("416"));
        let part = |from, last| String::from_utf8(response(Some(b"hello"), from, Some(last)).0).unwrap();
        assert!(part(1, 3).contains("206 Partial") && part(1, 3).contains("bytes 1-3/5\r\n"));
        assert!(part(1, 3).ends_with("\r\n\r\nell") && part(0, 0).ends_with("\r\n\r\nh"));
        assert!(part(3, 99).ends_with("bytes 3-4/5\r\nContent-Length: 2\r\n\r\nlo"));
        assert!(part(5, 9).contains("416"));
        assert_eq!(range("GET / HTTP/1.1\r\nRange: bytes=17-"), (17, None));
        assert_eq!(range("GET / HTTP/1.1\r\nRange: bytes=17-20"), (17, Some(20)));
        assert_eq!(range("GET / HTTP/1.1"), (0, None));
        assert_eq!(file(Path::new("/etc"), "/../etc/passwd"), None);
    }
}
