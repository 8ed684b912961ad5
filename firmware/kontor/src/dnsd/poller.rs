//! epoll with typed marks: which descriptor of the daemon is ready.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What a ready descriptor is. Numbers are never used twice, so that an event for something closed in the
/// same turn finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Signals,
    NetStatus,
    NamesListener,
    NamesClient(u64),
    UdpListener(u64),
    TcpListener(u64),
    TcpClient(u64),
    Upstream(u64),
}

const NUMBER_BITS: u32 = 56;

impl Mark {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Signals => (0, 0),
            Self::NetStatus => (1, 0),
            Self::NamesListener => (2, 0),
            Self::NamesClient(number) => (3, number),
            Self::UdpListener(number) => (4, number),
            Self::TcpListener(number) => (5, number),
            Self::TcpClient(number) => (6, number),
            Self::Upstream(number) => (7, number),
        };
        kind << NUMBER_BITS | number
    }

    fn decode(data: u64) -> Self {
        let number = data & ((1 << NUMBER_BITS) - 1);
        match data >> NUMBER_BITS {
            0 => Self::Signals,
            1 => Self::NetStatus,
            2 => Self::NamesListener,
            3 => Self::NamesClient(number),
            4 => Self::UdpListener(number),
            5 => Self::TcpListener(number),
            6 => Self::TcpClient(number),
            _ => Self::Upstream(number),
        }
    }
}

/// The descriptors of the daemon.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poller {
    pub(crate) fn new() -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); 256] })
    }

    /// Watches `fd`; closing it ends that.
    pub(crate) fn add(&self, fd: impl AsFd, mark: Mark, interest: Interest) -> nix::Result<()> {
        self.epoll.add(fd, EpollEvent::new(interest.flags(), mark.encode()))
    }

    pub(crate) fn change(&self, fd: impl AsFd, mark: Mark, interest: Interest) -> nix::Result<()> {
        self.epoll.modify(fd, &mut EpollEvent::new(interest.flags(), mark.encode()))
    }

    /// Waits at most `limit` and appends what is ready, be it for reading, writing or its end: the next call
    /// on it tells.
    pub(crate) fn wait(&mut self, limit: Duration, ready: &mut Vec<Mark>) -> nix::Result<()> {
        // Rounded up: waking just before a deadline would spin.
        let millis = u16::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let timeout = EpollTimeout::from(millis);
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error),
        };
        ready.extend(self.events[..count].iter().map(|event| Mark::decode(event.data())));
        Ok(())
    }
}

/// What to wait for on a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Interest {
    pub(crate) const READ: Self = Self { read: true, write: false };
    pub(crate) const NONE: Self = Self { read: false, write: false };
    pub(crate) const BOTH: Self = Self { read: true, write: true };

    fn flags(self) -> EpollFlags {
        let read = if self.read { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
        let write = if self.write { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        read | write
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_survive_the_kernel() {
        for mark in [
            Mark::Signals,
            Mark::NetStatus,
            Mark::NamesListener,
            Mark::NamesClient(1),
            Mark::UdpListener(2),
            Mark::TcpListener(3),
            Mark::TcpClient(4),
            Mark::Upstream((1 << NUMBER_BITS) - 1),
        ] {
            assert_eq!(Mark::decode(mark.encode()), mark);
        }
    }
}
