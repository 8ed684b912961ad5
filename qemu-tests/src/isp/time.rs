//! The Internet's time server: it says what a test wants it to be (RFC 5905, client and server modes only).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;

use crate::stack::Stack;

const PORT: u16 = 123;
const PACKET: usize = 48;
/// From 1900, where NTP begins, to 1970.
const ERA: u64 = 2_208_988_800;
/// Leap indicator 0, version 4, mode 4 (server); stratum 2; a second between polls; a microsecond's precision.
const HEADER: [u8; 4] = [0x24, 2, 0, 0xec];

/// The Internet's time server.
#[derive(Debug)]
pub struct TimeServer {
    /// Whether it answers at all.
    pub enabled: bool,
    /// Requests answered.
    pub answers: usize,
    base: SystemTime,
    since: Instant,
    socket: SocketHandle,
}

impl TimeServer {
    pub(super) fn new(stack: &mut Stack) -> Result<Self> {
        let socket = stack.udp(Some(PORT))?;
        Ok(Self { enabled: true, answers: 0, base: SystemTime::now(), since: Instant::now(), socket })
    }

    /// It is `time` now, and goes on from there.
    pub fn set(&mut self, time: SystemTime) {
        (self.base, self.since) = (time, Instant::now());
    }

    /// What it says.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.base + self.since.elapsed()
    }

    pub(super) fn serve(&mut self, stack: &mut Stack) -> Result<bool> {
        let mut busy = false;
        let socket = stack.sockets.get_mut::<udp::Socket>(self.socket);
        while let Ok((message, from)) = socket.recv() {
            busy = true;
            if self.enabled
                && let Some(answer) = reply(message, self.base + self.since.elapsed())
            {
                self.answers += 1;
                socket.send_slice(&answer, from).map_err(|e| anyhow!("send the time: {e}"))?;
            }
        }
        Ok(busy)
    }
}

/// The answer to a client's request.
fn reply(request: &[u8], now: SystemTime) -> Option<[u8; PACKET]> {
    let is_client = request.len() >= PACKET && request[0] & 7 == 3;
    let now = timestamp(now)?.to_be_bytes();
    let mut answer = [0; PACKET];
    answer[..4].copy_from_slice(&HEADER);
    answer[12..16].copy_from_slice(b"TEST");
    answer[16..24].copy_from_slice(&now);
    answer[24..32].copy_from_slice(request.get(40..PACKET)?);
    answer[32..40].copy_from_slice(&now);
    answer[40..].copy_from_slice(&now);
    is_client.then_some(answer)
}

/// 32 bits of seconds, 32 bits of fraction.
fn timestamp(time: SystemTime) -> Option<u64> {
    let since: Duration = time.duration_since(UNIX_EPOCH).ok()?;
    let seconds = (since.as_secs() + ERA) & 0xffff_ffff;
    Some((seconds << 32) | ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_repeats_the_question_s_time_stamp() {
        let mut request = [0; PACKET];
        request[0] = 0x23;
        request[40..].copy_from_slice(&[7; 8]);
        let now = UNIX_EPOCH + Duration::from_millis(1_500);
        let answer = reply(&request, now).unwrap();
        assert_eq!(answer[24..32], [7; 8]);
        assert_eq!(answer[40..44], (ERA as u32 + 1).to_be_bytes());
        assert_eq!(answer[44..], [0x80, 0, 0, 0]);
        request[0] = 0x24;
        assert_eq!(reply(&request, now), None, "servers do not answer servers");
        assert_eq!(reply(&request[..40], now), None);
    }
}
