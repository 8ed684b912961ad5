//! Speaks with a server: HTTP or HTTPS, names from the box's own name service, bounded in time at every step.
//!
//! What a server sends is never trusted here. A redirection may lead to another place, never from HTTPS to plain HTTP.

use std::fmt;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Response, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body};

use crate::resolver;

/// The authorities that HTTPS servers are checked by.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const MAX_REDIRECTS: usize = 4;
/// A line that is this silent is dead: the next attempt goes on where this one ended.
const SILENCE: Duration = Duration::from_secs(30);
/// The same in the middle of a file: a provider that has forgotten a connection says nothing, and whoever only receives never learns of
/// it. To ask again costs a second, so it is asked early.
const STALLED: Duration = Duration::from_secs(10);

/// Why a file could not be had.
#[derive(Debug)]
pub(super) enum HttpError {
    /// The server says that there is no such file.
    NotFound(String),
    /// An answer that is no file.
    Status(String, u16),
    /// All of it, when a part was asked for.
    NoRanges(String),
    /// A redirection that is not followed.
    Redirect(String, String),
    /// No answer, or one that broke off.
    Transport(String, Box<ureq::Error>),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(url) => write!(f, "{url}: the server has no such file"),
            Self::Status(url, status) => write!(f, "{url}: the server answers with status {status}"),
            Self::NoRanges(url) => write!(f, "{url}: the server knows no ranges"),
            Self::Redirect(url, why) => write!(f, "rule redirection: {url}: {why}"),
            Self::Transport(url, error) => write!(f, "{url}: {error}"),
        }
    }
}

impl std::error::Error for HttpError {}

/// A client.
#[derive(Debug, Clone)]
pub(super) struct Client(Agent);

/// A file, or the rest of one.
pub(super) struct Answer {
    /// Where in the file it begins: what was asked for, or 0 when the server knows no ranges.
    pub(super) from: u64,
    pub(super) body: Box<dyn Read + Send>,
}

impl Client {
    pub(super) fn new() -> Self {
        let mut tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        // Without them no HTTPS server is believed; plain HTTP works, and signatures count either way.
        let pem = std::fs::read(CERTIFICATES).unwrap_or_default();
        let roots = parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        tls = tls.root_certs(RootCerts::Specific(Arc::new(roots.collect())));
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent("kontor")
            .timeout_resolve(Some(SILENCE))
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(STALLED))
            .build();
        Self(Agent::with_parts(config, DefaultConnector::default(), OwnResolver))
    }

    /// Asks for a file from this byte on.
    ///
    /// # Errors
    /// When there is none, or no answer.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<Answer, HttpError> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let (url, response) = self.answer(url, range.as_deref())?;
        match response.status().as_u16() {
            200 => Ok(Answer { from: 0, body: body(response) }),
            206 if begins_at(&response) == Some(from) => Ok(Answer { from, body: body(response) }),
            status => Err(HttpError::Status(url, status)),
        }
    }

    /// Asks for a part of a file, at least one byte.
    ///
    /// # Errors
    /// When there is no such file, no answer, or more than was asked for: that is never read.
    pub(super) fn get_range(
        &self,
        url: &str,
        from: u64,
        length: u64,
    ) -> Result<Box<dyn Read + Send>, HttpError> {
        let last = from.saturating_add(length).saturating_sub(1);
        let (url, response) = self.answer(url, Some(&format!("bytes={from}-{last}")))?;
        match response.status().as_u16() {
            206 if begins_at(&response) == Some(from) => Ok(Box::new(body(response).take(length))),
            200 | 206 => Err(HttpError::NoRanges(url)),
            status => Err(HttpError::Status(url, status)),
        }
    }

    /// An answer that is no redirection, and from where it came.
    fn answer(&self, url: &str, range: Option<&str>) -> Result<(String, Response<Body>), HttpError> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&url, range)?;
            match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => url = redirected(&url, &response)?,
                404 | 410 => return Err(HttpError::NotFound(url)),
                _ => return Ok((url, response)),
            }
        }
        Err(HttpError::Redirect(url, "it leads from one place to the next".to_owned()))
    }

    /// Sends a document of JSON to where it is asked for; a redirection is not followed.
    ///
    /// # Errors
    /// When the server does not say that it has it.
    pub(super) fn post(&self, url: &str, document: &[u8]) -> Result<(), HttpError> {
        let request = self.0.post(url).header(header::CONTENT_TYPE, "application/json");
        let answer =
            request.send(document).map_err(|error| HttpError::Transport(url.to_owned(), Box::new(error)))?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            404 | 410 => Err(HttpError::NotFound(url.to_owned())),
            status => Err(HttpError::Status(url.to_owned(), status)),
        }
    }

    fn ask(&self, url: &str, range: Option<&str>) -> Result<Response<Body>, HttpError> {
        let mut request = self.0.get(url).header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        request.call().map_err(|error| HttpError::Transport(url.to_owned(), Box::new(error)))
    }
}

fn body(response: Response<Body>) -> Box<dyn Read + Send> {
    Box::new(response.into_body().into_reader())
}

/// The first byte of a partial answer (RFC 9110, section 14.4).
fn begins_at(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

fn redirected(url: &str, response: &Response<Body>) -> Result<String, HttpError> {
    let target = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    follow(url, target.unwrap_or_default()).map_err(|why| HttpError::Redirect(url.to_owned(), why))
}

/// Where a redirection leads.
fn follow(url: &str, target: &str) -> Result<String, String> {
    let from: Uri = url.parse().map_err(|_| "no address".to_owned())?;
    let target = match target.strip_prefix('/') {
        Some(path) if !path.starts_with('/') => {
            let authority = from.authority().map(ToString::to_string).unwrap_or_default();
            format!("{}://{authority}/{path}", from.scheme_str().unwrap_or("http"))
        }
        _ => target.to_owned(),
    };
    match (from.scheme_str(), target.parse::<Uri>().ok().as_ref().and_then(Uri::scheme_str)) {
        (Some("https"), Some("http")) => Err("from HTTPS to plain HTTP is not followed".to_owned()),
        (_, Some("http" | "https")) => Ok(target),
        _ => Err("it leads to no address".to_owned()),
    }
}

/// Names by the box's own name service.
#[derive(Debug)]
struct OwnResolver;

impl Resolver for OwnResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let found = resolver::resolve(host);
        // Whoever shows it shows the top of the chain alone.
        let found = found.map_err(|error| ureq::Error::Other(format!("{error:#}").into()))?;
        let mut addresses = self.empty();
        // The array holds 16 and panics beyond.
        found
            .into_iter()
            .take(8)
            .for_each(|address| addresses.push(SocketAddr::new(IpAddr::V4(address), port)));
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    /// Serves these answers, one connection each; returns its address and what it was asked.
    fn serve(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let lines: Vec<String> =
                    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let range = lines.iter().find(|line| line.to_lowercase().starts_with("range"));
                asked.push(format!("{} {}", lines[0], range.cloned().unwrap_or_default()));
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked
        });
        (base, thread)
    }

    const THERE: &str =
        "HTTP/1.1 302 Found\r\nlocation: /there\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    /// An answer that has nothing but its status.
    fn answer(status: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    }

    fn read(answer: Answer) -> (u64, String) {
        let mut text = String::new();
        let Answer { from, mut body } = answer;
        body.read_to_string(&mut text).unwrap();
        (from, text)
    }

    #[test]
    fn a_file_is_read_and_the_rest_of_one() {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        let rest = "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 2-4/5\r\ncontent-length: 3\r\n\
                    connection: close\r\n\r\nllo";
        let (base, server) = serve(vec![whole.into(), rest.into(), whole.into()]);
        let client = Client::new();
        assert_eq!(read(client.get(&format!("{base}/a"), 0).unwrap()), (0, "hello".into()));
        assert_eq!(read(client.get(&format!("{base}/a"), 2).unwrap()), (2, "llo".into()));
        assert_eq!(
            read(client.get(&format!("{base}/a"), 2).unwrap()),
            (0, "hello".into()),
            "it knows no ranges"
        );
        let asked = server.join().unwrap();
        assert!(
            asked[0].starts_with("GET /a HTTP/1.1") && asked[1].to_lowercase().ends_with("range: bytes=2-")
        );
    }

    #[test]
    fn a_part_is_read_or_nothing() {
        let part = "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 1-3/5\r\ncontent-length: 3\r\n\
                    connection: close\r\n\r\nell";
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
        let (base, server) = serve(vec![part.into(), whole.into()]);
        let client = Client::new();
        let mut text = String::new();
        client.get_range(&base, 1, 3).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "ell");
        assert!(matches!(client.get_range(&base, 1, 3).err().unwrap(), HttpError::NoRanges(_)));
        assert!(server.join().unwrap()[0].to_lowercase().ends_with("range: bytes=1-3"));
    }

    #[test]
    fn redirections_are_followed_and_end() {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        let (base, server) = serve(vec![THERE.into(), whole.into()]);
        assert_eq!(read(Client::new().get(&base, 0).unwrap()), (0, "ok".into()));
        assert!(server.join().unwrap()[1].starts_with("GET /there "));
        let (base, server) = serve(vec![THERE.into(); MAX_REDIRECTS + 1]);
        let error = Client::new().get(&base, 0).err().unwrap().to_string();
        assert!(error.contains("from one place to the next"), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn never_from_https_to_plain_http() {
        assert_eq!(follow("http://a/x", "https://b/y").unwrap(), "https://b/y");
        assert_eq!(follow("https://a:8/x", "/y").unwrap(), "https://a:8/y");
        for (from, to) in
            [("https://a/x", "http://a/x"), ("http://a", "file:///etc/passwd"), ("http://a", "")]
        {
            assert!(follow(from, to).is_err(), "{from} {to}");
        }
        let error = follow("https://a/x", "http://a/x").unwrap_err();
        assert!(error.contains("from HTTPS to plain HTTP"), "{error}");
    }

    #[test]
    fn a_document_is_sent_and_received_or_not() {
        let (base, server) = serve(vec![answer("204 No Content"), THERE.into(), answer("500 Oops")]);
        Client::new().post(&format!("{base}/check-in"), b"").unwrap();
        for status in [302, 500] {
            let refused = Client::new().post(&base, b"");
            assert!(matches!(refused, Err(HttpError::Status(_, found)) if found == status), "{refused:?}");
        }
        assert!(server.join().unwrap()[0].starts_with("POST /check-in HTTP/1.1"));
    }

    #[test]
    fn what_is_not_there_is_told_from_what_went_wrong() {
        let (base, server) = serve(vec![answer("404 Not Found"), answer("500 Oops")]);
        assert!(matches!(Client::new().get(&base, 0), Err(HttpError::NotFound(_))));
        assert!(matches!(Client::new().get(&base, 0), Err(HttpError::Status(_, 500))));
        server.join().unwrap();
    }
}
