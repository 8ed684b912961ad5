//! A mirror on loopback that misbehaves on request.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One way to answer badly.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This status and no file.
    Status(u16),
    /// The head of the whole file, but only half of it.
    Half,
    /// Other bytes.
    Instead(Vec<u8>),
    /// The whole file, whatever range was asked for.
    IgnoreRange,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    /// Faults used up one per request; the last one stays when `for_ever`.
    faults: HashMap<String, VecDeque<Fault>>,
    for_ever: HashMap<String, Fault>,
    /// Path and range of every request.
    requests: Vec<(String, Option<u64>)>,
}

/// The running mirror. Its thread ends with the test process.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    address: std::net::SocketAddr,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server { state: Arc::default(), address: listener.local_addr().unwrap() };
        let state = server.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                // A client that goes away is no failure of the mirror.
                std::thread::spawn(move || answer(stream, &state).ok());
            }
        });
        server
    }

    pub(crate) fn url(&self, folder: &str) -> String {
        format!("http://{}/{folder}", self.address)
    }

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().files.insert(path.to_owned(), bytes);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(path);
    }

    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        self.state.lock().unwrap().files[path].clone()
    }

    /// The next requests for a path get these answers.
    pub(crate) fn fail(&self, path: &str, faults: &[Fault]) {
        self.state.lock().unwrap().faults.insert(path.to_owned(), faults.iter().cloned().collect());
    }

    pub(crate) fn fail_always(&self, path: &str, fault: Fault) {
        self.state.lock().unwrap().for_ever.insert(path.to_owned(), fault);
    }

    /// The requests since the last call, for paths with this end.
    pub(crate) fn requests(&self, end: &str) -> Vec<Option<u64>> {
        let requests = std::mem::take(&mut self.state.lock().unwrap().requests);
        requests.into_iter().filter(|(path, _)| path.ends_with(end)).map(|(_, range)| range).collect()
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = None;
    for line in lines.by_ref() {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        let start = line.strip_prefix("range: bytes=").and_then(|range| range.strip_suffix('-'));
        range = start.and_then(|start| start.parse().ok()).or(range);
    }
    let (file, fault) = {
        let mut state = state.lock().unwrap();
        state.requests.push((path.clone(), range));
        let once = state.faults.get_mut(&path).and_then(VecDeque::pop_front);
        let fault = once.or_else(|| state.for_ever.get(&path).cloned());
        (state.files.get(&path).cloned(), fault)
    };
    reply(stream, file, range, fault)
}

fn reply(
    mut stream: TcpStream,
    file: Option<Vec<u8>>,
    range: Option<u64>,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let (mut status, mut body, mut start) = match file {
        Some(file) => (200, file, 0),
        None => (404, Vec::new(), 0),
    };
    match &fault {
        Some(Fault::Status(code)) => (status, body) = (*code, Vec::new()),
        Some(Fault::Instead(bytes)) => body = bytes.clone(),
        _ => {}
    }
    let total = body.len();
    if let (200, Some(from), false) = (status, range, matches!(fault, Some(Fault::IgnoreRange))) {
        start = from as usize;
        status = if start < total { 206 } else { 416 };
        body = body.split_off(start.min(total));
    }
    let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    if status == 206 {
        head += &format!("Content-Range: bytes {start}-{}/{total}\r\n", total - 1);
    }
    stream.write_all((head + "\r\n").as_bytes())?;
    let sent = if matches!(fault, Some(Fault::Half)) { body.len() / 2 } else { body.len() };
    stream.write_all(&body[..sent])
}
