//! The supervisor's end of sd_notify(3): datagrams with the sender's process id, attested by the kernel.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind,
    recvmsg, setsockopt, socket, sockopt::PassCred,
};

/// The bound socket.
#[derive(Debug)]
pub struct NotifySocket(OwnedFd);

impl NotifySocket {
    /// Binds `path` (replacing it) so that every service can write to it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(path: &Path) -> io::Result<Self> {
        crate::file::remove(path)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        setsockopt(&fd, PassCred, &true)?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
        Ok(Self(fd))
    }

    /// The next datagram and its sender; nothing when none is waiting. Longer ones than 4 KiB are cut.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next(&self) -> io::Result<Option<(i32, Vec<u8>)>> {
        loop {
            let mut buffer = [0; 4096];
            let mut control = nix::cmsg_space!(UnixCredentials);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let received = recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags);
            let (length, sender) = match received {
                Ok(message) => (message.bytes, message.cmsgs().ok().and_then(|mut all| all.find_map(sender))),
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(pid) = sender {
                return Ok(Some((pid, buffer[..length].to_vec())));
            }
        }
    }
}

fn sender(message: ControlMessageOwned) -> Option<i32> {
    match message {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
        _ => None,
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_datagram_comes_with_its_sender() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = NotifySocket::bind(&path).unwrap();
        assert_eq!(socket.next().unwrap(), None);
        UnixDatagram::unbound().unwrap().send_to(b"READY=1", &path).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(socket.next().unwrap(), Some((own, b"READY=1".to_vec())));
        NotifySocket::bind(&path).unwrap();
    }
}
