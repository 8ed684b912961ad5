//! A cable with any number of plugs: simulated hosts and virtual machines.
//!
//! It is a hub: every frame reaches every other plug, so one capture per wire shows all there was. Virtual
//! machines plug in through a Unix stream socket, the way QEMU's `-netdev stream` frames it: a u32 big-endian
//! length before each frame.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::pcap::Pcap;

/// Longest frame QEMU may send; more means the stream is out of step.
const MAX_FRAME: usize = 65_550;
/// How many frames stay in memory for a test to look at.
const HISTORY: usize = 16_384;

/// A plug of a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortId(usize);

/// One frame that was on the wire.
#[derive(Debug, Clone)]
pub struct Captured {
    /// The plug it came from.
    pub from: PortId,
    /// The whole Ethernet frame.
    pub frame: Vec<u8>,
}

/// A wire.
#[derive(Debug)]
pub struct Wire {
    name: String,
    started: Instant,
    ports: Vec<Port>,
    pcap: Pcap,
    history: VecDeque<Captured>,
    /// Frames ever carried; the last [`HISTORY`] of them are in `history`.
    carried: usize,
}

#[derive(Debug)]
enum Port {
    /// A host inside this process: frames wait here until it polls.
    Host(VecDeque<Vec<u8>>),
    /// A virtual machine.
    Stream(Box<StreamPort>),
    /// Nothing any more.
    Empty,
}

#[derive(Debug)]
struct StreamPort {
    path: PathBuf,
    listener: UnixListener,
    stream: Option<UnixStream>,
    received: Vec<u8>,
    unsent: VecDeque<u8>,
}

impl Wire {
    /// A wire whose frames are recorded in `directory`/`name`.pcap.
    ///
    /// # Errors
    /// When the capture cannot be created.
    pub fn new(name: &str, directory: &Path, started: Instant) -> Result<Self> {
        let path = directory.join(format!("{name}.pcap"));
        let pcap = Pcap::create(&path).with_context(|| format!("create {}", path.display()))?;
        let history = VecDeque::new();
        Ok(Self { name: name.into(), started, ports: Vec::new(), pcap, history, carried: 0 })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A plug for a host inside this process.
    pub fn plug_host(&mut self) -> PortId {
        self.ports.push(Port::Host(VecDeque::new()));
        PortId(self.ports.len() - 1)
    }

    /// Pulls a host's plug; what waited for it is lost.
    pub fn unplug_host(&mut self, port: PortId) {
        if let Some(plug @ Port::Host(_)) = self.ports.get_mut(port.0) {
            *plug = Port::Empty;
        }
    }

    /// A plug for a virtual machine, which connects to `path` (again after a power cut).
    ///
    /// # Errors
    /// When `path` cannot be listened on.
    pub fn plug_machine(&mut self, path: &Path) -> Result<PortId> {
        let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        listener.set_nonblocking(true)?;
        self.ports.push(Port::Stream(Box::new(StreamPort {
            path: path.into(),
            listener,
            stream: None,
            received: Vec::new(),
            unsent: VecDeque::new(),
        })));
        Ok(PortId(self.ports.len() - 1))
    }

    /// The socket of a machine's plug.
    #[must_use]
    pub fn socket(&self, port: PortId) -> Option<&Path> {
        match self.ports.get(port.0)? {
            Port::Stream(stream) => Some(&stream.path),
            Port::Host(_) | Port::Empty => None,
        }
    }

    /// Puts a frame on the wire.
    ///
    /// # Errors
    /// When the capture cannot be written.
    pub fn send(&mut self, from: PortId, frame: Vec<u8>) -> io::Result<()> {
        self.pcap.record(self.started.elapsed(), &frame)?;
        for (index, port) in self.ports.iter_mut().enumerate() {
            if index != from.0 {
                port.deliver(&frame);
            }
        }
        self.remember(from, frame);
        Ok(())
    }

    fn remember(&mut self, from: PortId, frame: Vec<u8>) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(Captured { from, frame });
        self.carried += 1;
    }

    /// Puts a frame on the cables of the machines only, as a switch does that knows where they are.
    ///
    /// # Errors
    /// When the capture cannot be written.
    pub fn send_to_machines(&mut self, from: PortId, frame: Vec<u8>) -> io::Result<()> {
        self.pcap.record(self.started.elapsed(), &frame)?;
        let machines = self.ports.iter_mut().filter(|port| matches!(port, Port::Stream(_)));
        machines.for_each(|port| port.deliver(&frame));
        self.remember(from, frame);
        Ok(())
    }

    /// The next frame that waits for a host.
    pub fn receive(&mut self, port: PortId) -> Option<Vec<u8>> {
        match self.ports.get_mut(port.0)? {
            Port::Host(queue) => queue.pop_front(),
            Port::Stream(_) | Port::Empty => None,
        }
    }

    /// A place in the wire's history, for [`Self::since`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.carried
    }

    /// What was carried after `mark` (as far as it is still remembered).
    pub fn since(&self, mark: usize) -> impl Iterator<Item = &Captured> {
        let recent = self.carried.saturating_sub(mark).min(self.history.len());
        self.history.range(self.history.len() - recent..)
    }

    /// What the event loop must watch: descriptor, and whether something waits to be written.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.ports.iter().filter_map(Port::as_stream).flat_map(|port| {
            let stream = port.stream.as_ref().map(|stream| (stream.as_fd(), !port.unsent.is_empty()));
            std::iter::once((port.listener.as_fd(), false)).chain(stream)
        })
    }

    /// Moves what can be moved between the machines' sockets and the wire; whether anything arrived.
    pub(crate) fn exchange(&mut self) -> io::Result<bool> {
        let mut arrived = Vec::new();
        for (index, port) in self.ports.iter_mut().enumerate() {
            if let Port::Stream(stream) = port {
                let frames = stream.exchange()?;
                arrived.extend(frames.into_iter().map(|frame| (PortId(index), frame)));
            }
        }
        let any = !arrived.is_empty();
        for (from, frame) in arrived {
            self.send(from, frame)?;
        }
        Ok(any)
    }
}

impl Port {
    fn as_stream(&self) -> Option<&StreamPort> {
        match self {
            Self::Stream(stream) => Some(stream),
            Self::Host(_) | Self::Empty => None,
        }
    }

    fn deliver(&mut self, frame: &[u8]) {
        match self {
            Self::Host(queue) => queue.push_back(frame.to_vec()),
            Self::Stream(stream) => stream.deliver(frame),
            Self::Empty => {}
        }
    }
}

impl StreamPort {
    /// Queues a frame; without a machine it is lost, as on a cable nobody plugged in.
    fn deliver(&mut self, frame: &[u8]) {
        if self.stream.is_some() {
            let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            self.unsent.extend(length.to_be_bytes());
            self.unsent.extend(frame);
        }
    }

    fn exchange(&mut self) -> io::Result<Vec<Vec<u8>>> {
        if let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            self.stream = Some(stream);
            self.received.clear();
            self.unsent.clear();
        }
        let Some(stream) = &mut self.stream else { return Ok(Vec::new()) };
        let alive = write_some(stream, &mut self.unsent) && read_some(stream, &mut self.received);
        if !alive {
            self.stream = None;
        }
        take_frames(&mut self.received)
    }
}

/// Writes without blocking; false when the peer is gone.
fn write_some(stream: &mut UnixStream, unsent: &mut VecDeque<u8>) -> bool {
    while !unsent.is_empty() {
        let (front, _) = unsent.as_slices();
        match stream.write(front) {
            Ok(count) => drop(unsent.drain(..count)),
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// Reads without blocking; false when the peer is gone.
fn read_some(stream: &mut UnixStream, received: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 65_536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// Cuts whole frames off the front of what was received.
fn take_frames(received: &mut Vec<u8>) -> io::Result<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    let mut rest = received.as_slice();
    while let Some((length, body)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::other(format!("a frame of {length} bytes: the stream is out of step")));
        }
        let Some((frame, next)) = body.split_at_checked(length) else { break };
        frames.push(frame.to_vec());
        rest = next;
    }
    let used = received.len() - rest.len();
    received.drain(..used);
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let stream = [&[0, 0, 0, 2, 1, 2][..], &[0, 0, 0, 0], &[0, 0, 0, 3, 7, 8, 9]].concat();
        for cut in 0..stream.len() {
            let mut received = stream[..cut].to_vec();
            let mut frames = take_frames(&mut received).unwrap();
            received.extend_from_slice(&stream[cut..]);
            frames.extend(take_frames(&mut received).unwrap());
            assert_eq!(frames, [vec![1, 2], vec![], vec![7, 8, 9]]);
            assert!(received.is_empty());
        }
    }

    #[test]
    fn a_stream_out_of_step_is_an_error() {
        assert!(take_frames(&mut vec![0xff; 8]).is_err());
    }

    #[test]
    fn a_machine_and_a_host_share_a_wire() {
        let directory = tempfile::tempdir().unwrap();
        let mut wire = Wire::new("lan", directory.path(), Instant::now()).unwrap();
        let host = wire.plug_host();
        let socket = directory.path().join("s");
        wire.plug_machine(&socket).unwrap();
        let mut machine = UnixStream::connect(&socket).unwrap();
        machine.write_all(&[0, 0, 0, 1, 42]).unwrap();
        assert!(wire.exchange().unwrap());
        assert_eq!(wire.receive(host), Some(vec![42]));

        let mark = wire.mark();
        wire.send(host, vec![5, 6]).unwrap();
        wire.exchange().unwrap();
        let mut answer = [0; 6];
        machine.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0, 0, 0, 2, 5, 6]);
        assert_eq!(wire.since(mark).count(), 1);
    }
}
