//! The kernel's announcements of devices: netlink, NETLINK_KOBJECT_UEVENT.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket,
    sockopt::RcvBufForce,
};

/// The multicast group of the kernel itself (not udev's).
const KERNEL_GROUP: u32 = 1;
/// Room for the burst of a USB hub with everything on it.
const RECEIVE_BUFFER: usize = 4 << 20;

/// An open socket.
#[derive(Debug)]
pub struct UeventSocket(OwnedFd);

/// One announcement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uevent {
    /// `add`, `remove`, `change`, …
    pub action: String,
    /// `block`, `net`, `pci`, …
    pub subsystem: String,
    /// What a driver's alias is matched against, when there is one.
    pub modalias: Option<String>,
    /// Name of the device node, when there is one.
    pub device_name: Option<String>,
}

impl UeventSocket {
    /// Subscribes to the kernel's announcements; reading does not block.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd =
            socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
        // Best effort: without CAP_NET_ADMIN the default buffer has to do.
        let _ = setsockopt(&fd, RcvBufForce, &RECEIVE_BUFFER);
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(fd))
    }

    /// The next announcement; nothing when none is waiting.
    ///
    /// # Errors
    /// `ENOBUFS` when some were lost: look at everything again.
    pub fn next(&self) -> io::Result<Option<Uevent>> {
        let mut buffer = [0; 8192];
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                // Only the kernel sends with port 0; anyone else is ignored.
                Ok((length, Some(from))) if from.pid() == 0 => {
                    return Ok(Some(Uevent::parse(&buffer[..length])));
                }
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for UeventSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Uevent {
    /// From a datagram: `action@path`, then `KEY=value`, each ended by a zero byte.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Self {
        let mut event = Self::default();
        for field in datagram.split(|byte| *byte == 0).filter_map(|field| str::from_utf8(field).ok()) {
            match field.split_once('=') {
                Some(("ACTION", value)) => value.clone_into(&mut event.action),
                Some(("SUBSYSTEM", value)) => value.clone_into(&mut event.subsystem),
                Some(("MODALIAS", value)) => event.modalias = Some(value.to_owned()),
                Some(("DEVNAME", value)) => event.device_name = Some(value.to_owned()),
                _ => {}
            }
        }
        event
    }
}

/// Waits until `fd` is readable; false when `timeout_ms` passed before.
///
/// # Errors
/// The kernel's.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout_ms: u16) -> io::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(timeout_ms)) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::Error::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let bytes = b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=block\0DEVNAME=vda\0MODALIAS=virtio:d2v1\0";
        let expected = Uevent {
            action: "add".into(),
            subsystem: "block".into(),
            modalias: Some("virtio:d2v1".into()),
            device_name: Some("vda".into()),
        };
        assert_eq!(Uevent::parse(bytes), expected);
        assert_eq!(Uevent::parse(b"\xff\0=\0\0"), Uevent::default());
    }

    #[test]
    fn an_open_socket_is_silent() {
        // User namespaces see no events; opening and reading must still work.
        let socket = UeventSocket::open().unwrap();
        while socket.next().unwrap().is_some() {}
    }
}
