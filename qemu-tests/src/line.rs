//! The line between a provider and its customer: so many bits a second, and cut off now and then.
//!
//! Time is an argument. Each direction has a queue, as a modem has; a cut loses what is in it, and everything that comes
//! while it lasts.

use std::collections::VecDeque;
use std::time::Duration;

/// What one direction keeps for later: more than a connection has under way, so that only cuts lose anything.
const QUEUE_BYTES: usize = 256 << 10;

/// What a line is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineOptions {
    /// Bits a second, in each direction, in thousands.
    pub kbit_s: u32,
    /// When it fails.
    pub cuts: Cuts,
}

/// When a line fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    /// It does not.
    Never,
    /// It is down until it is replaced.
    Always,
    /// Again and again.
    Every {
        /// From one cut to the next.
        period: Duration,
        /// How long nothing gets through, at the end of each period.
        silence: Duration,
    },
}

/// A line.
#[derive(Debug)]
pub struct Line {
    options: LineOptions,
    started: Duration,
    is_down: bool,
    cuts: u32,
    to_customer: Direction,
    to_provider: Direction,
}

/// What a line has just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing gets through from now on.
    Cut,
    /// It works again, after so many cuts.
    Back(u32),
}

impl Line {
    /// A line that works from `now` on, unless it never does.
    #[must_use]
    pub fn new(options: LineOptions, now: Duration) -> Self {
        let direction = || Direction::new(options.kbit_s);
        let (to_customer, to_provider) = (direction(), direction());
        Self { options, started: now, is_down: false, cuts: 0, to_customer, to_provider }
    }

    /// Lets it fail or come back when it is time.
    pub fn turn(&mut self, now: Duration) -> Option<Change> {
        let is_down = match self.options.cuts {
            Cuts::Never => false,
            Cuts::Always => true,
            Cuts::Every { period, silence } => self.within(now, period) >= period.saturating_sub(silence),
        };
        if is_down == self.is_down {
            return None;
        }
        self.is_down = is_down;
        if is_down {
            self.cuts += 1;
            self.to_customer.lose_all(now);
            self.to_provider.lose_all(now);
            return Some(Change::Cut);
        }
        Some(Change::Back(self.cuts))
    }

    fn within(&self, now: Duration, period: Duration) -> Duration {
        let elapsed = now.saturating_sub(self.started).as_nanos();
        Duration::from_nanos(u64::try_from(elapsed % period.as_nanos().max(1)).unwrap_or(0))
    }

    /// How often it has failed.
    #[must_use]
    pub fn cuts(&self) -> u32 {
        self.cuts
    }

    /// Bytes of frames that have reached the customer.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.to_customer.delivered
    }

    /// Takes frames from the provider; what is due at the customer's end.
    pub fn down(&mut self, now: Duration, frames: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        self.to_customer.pass(now, frames, self.is_down)
    }

    /// Takes frames from the customer; what is due at the provider's end.
    pub fn up(&mut self, now: Duration, frames: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        self.to_provider.pass(now, frames, self.is_down)
    }

    /// How long nothing happens unless a frame comes.
    #[must_use]
    pub fn delay(&self, now: Duration) -> Option<Duration> {
        let cut = match self.options.cuts {
            Cuts::Every { period, silence } => {
                let (within, up) = (self.within(now, period), period.saturating_sub(silence));
                Some(if within < up { up - within } else { period.saturating_sub(within) })
            }
            Cuts::Never | Cuts::Always => None,
        };
        let due = [&self.to_customer, &self.to_provider].into_iter().filter_map(Direction::next_at);
        due.map(|at| at.saturating_sub(now)).chain(cut).min()
    }
}

/// One direction.
#[derive(Debug)]
struct Direction {
    kbit_s: u32,
    /// When each frame is through.
    queue: VecDeque<(Duration, Vec<u8>)>,
    queued: usize,
    /// When the last of them is.
    free_at: Duration,
    delivered: u64,
}

impl Direction {
    fn new(kbit_s: u32) -> Self {
        Self { kbit_s, queue: VecDeque::new(), queued: 0, free_at: Duration::ZERO, delivered: 0 }
    }

    fn pass(&mut self, now: Duration, frames: impl Iterator<Item = Vec<u8>>, is_down: bool) -> Vec<Vec<u8>> {
        // While it is down they are lost, but have to be taken all the same.
        frames.filter(|_| !is_down).for_each(|frame| self.take(now, frame));
        let mut due = Vec::new();
        while self.next_at().is_some_and(|at| at <= now) {
            due.extend(self.queue.pop_front().map(|(_, frame)| frame));
        }
        let bytes: usize = due.iter().map(Vec::len).sum();
        self.queued -= bytes;
        self.delivered += bytes as u64;
        due
    }

    fn take(&mut self, now: Duration, frame: Vec<u8>) {
        if self.queued + frame.len() > QUEUE_BYTES {
            return;
        }
        let bits = frame.len() as u64 * 8;
        let takes = Duration::from_micros(bits * 1000 / u64::from(self.kbit_s.max(1)));
        self.free_at = self.free_at.max(now) + takes;
        self.queued += frame.len();
        self.queue.push_back((self.free_at, frame));
    }

    fn lose_all(&mut self, now: Duration) {
        self.queue.clear();
        (self.queued, self.free_at) = (0, now);
    }

    fn next_at(&self) -> Option<Duration> {
        self.queue.front().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn none() -> impl Iterator<Item = Vec<u8>> {
        std::iter::empty()
    }

    #[test]
    fn a_frame_takes_its_time() {
        let options = LineOptions { kbit_s: 1000, cuts: Cuts::Never };
        let mut line = Line::new(options, ms(0));
        let frames = || vec![vec![1; 1250], vec![2; 1250]].into_iter();
        assert!(line.down(ms(100), frames()).is_empty());
        assert_eq!(line.delay(ms(100)), Some(ms(10)));
        assert!(line.down(ms(109), none()).is_empty());
        assert_eq!(line.down(ms(110), none()), [vec![1; 1250]]);
        assert_eq!(line.down(ms(500), none()), [vec![2; 1250]]);
        assert_eq!((line.delivered(), line.delay(ms(500))), (2500, None));
        assert!(line.up(ms(500), frames()).is_empty(), "the other direction is another queue");
        assert_eq!(line.up(ms(520), none()).len(), 2);
        assert_eq!(line.delivered(), 2500);
    }

    #[test]
    fn what_a_modem_has_no_room_for_is_lost() {
        let options = LineOptions { kbit_s: 1000, cuts: Cuts::Never };
        let mut line = Line::new(options, ms(0));
        let many = std::iter::repeat_with(|| vec![0; 1024]).take(1000);
        line.down(ms(0), many);
        assert_eq!(line.down(ms(100_000), none()).len(), QUEUE_BYTES / 1024);
    }

    #[test]
    fn a_cut_loses_what_is_under_way() {
        let cuts = Cuts::Every { period: ms(5000), silence: ms(1000) };
        let mut line = Line::new(LineOptions { kbit_s: 1000, cuts }, ms(700));
        let frame = || std::iter::once(vec![1; 12_500]);
        assert_eq!(line.turn(ms(4699)), None);
        assert!(line.down(ms(4690), frame()).is_empty());
        assert_eq!(line.delay(ms(4690)), Some(ms(10)), "the cut comes before the frame is through");
        assert_eq!(line.turn(ms(4700)), Some(Change::Cut));
        assert_eq!(line.delay(ms(4700)), Some(ms(1000)));
        assert!(line.up(ms(5000), frame()).is_empty());
        assert_eq!(line.turn(ms(5699)), None);
        assert_eq!(line.turn(ms(5700)), Some(Change::Back(1)));
        assert!(line.up(ms(9000), none()).is_empty() && line.down(ms(9000), none()).is_empty());
        assert_eq!((line.cuts(), line.delivered()), (1, 0));
        line.down(ms(9000), frame());
        assert_eq!(line.down(ms(9100), none()).len(), 1);
    }

    #[test]
    fn a_dead_line_stays_dead() {
        let mut line = Line::new(LineOptions { kbit_s: 1000, cuts: Cuts::Always }, ms(0));
        assert_eq!(line.turn(ms(0)), Some(Change::Cut));
        assert!(line.down(ms(0), std::iter::once(vec![1])).is_empty());
        assert_eq!((line.turn(ms(99_999)), line.delay(ms(5))), (None, None));
        assert!(line.down(ms(99_999), none()).is_empty());
    }
}
