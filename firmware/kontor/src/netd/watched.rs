//! A packet socket as tokio wants it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use kontor_sys::packet::{PacketSocket, Traffic};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A packet socket that wakes us when something has arrived.
pub(super) struct Watched(AsyncFd<Inner>);

struct Inner(PacketSocket);

impl AsRawFd for Inner {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watched {
    // The successor of `with_interest` is unsafe, and unsafe code lives in kontor-sys only. What it asks for
    // holds: `Inner` owns its descriptor and always names the same one.
    #[allow(deprecated, reason = "see above")]
    pub(super) fn open(interface: &str, traffic: Traffic) -> io::Result<Self> {
        AsyncFd::with_interest(Inner(PacketSocket::open(interface, traffic)?), Interest::READABLE).map(Self)
    }

    pub(super) fn socket(&self) -> &PacketSocket {
        &self.0.get_ref().0
    }

    /// Waits until something may be there.
    pub(super) async fn readable(&self) {
        // On an error (the interface is going away) netlink tells; spinning here would help nobody.
        match self.0.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => std::future::pending().await,
        }
    }
}
