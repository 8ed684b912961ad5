//! Whether a disk answers, and what room is on it: a thread asks it, and may hang in the place of the daemon.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use kontor_boot::health::Answer;
use kontor_status::paths;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::is_mounted;
use super::space::Room;

/// Between two reads: often enough to tell people soon, rarely enough not to matter to any disk.
const PAUSE: Duration = Duration::from_secs(10);
/// A disk that wakes from standby or retries a bad sector may take several seconds.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Prober {
    questions: Sender<PathBuf>,
    answers: Receiver<(io::Result<()>, Option<Room>)>,
    /// When the question was put that has not been answered yet.
    waiting: Option<Instant>,
    last: Answer,
    room: Option<Room>,
    next: Instant,
}

impl Prober {
    pub(super) fn start() -> io::Result<Self> {
        let (questions, to_ask) = channel::<PathBuf>();
        let (to_answer, answers) = channel();
        std::thread::Builder::new().name("prober".into()).spawn(move || {
            for device in to_ask {
                let answer = read(&device);
                // Where nothing is mounted, it would be the root's, which has no room.
                let room = is_mounted(paths::DATA).then(|| Room::on(Path::new(paths::DATA))).flatten();
                if to_answer.send((answer, room)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers, waiting: None, last: Answer::Good, room: None, next: Instant::now() })
    }

    /// What is known of `device`; asks it again when it is time. Never waits.
    pub(super) fn ask(&mut self, device: Option<PathBuf>) -> Answer {
        match self.answers.try_recv() {
            Ok((answer, room)) => {
                self.waiting = None;
                self.room = room;
                self.last = if answer.is_ok() { Answer::Good } else { Answer::Error };
            }
            Err(TryRecvError::Empty) if self.waiting.is_some_and(|since| since.elapsed() > PATIENCE) => {
                self.last = Answer::Silent;
            }
            Err(_) => {}
        }
        if let Some(device) = device.filter(|_| self.waiting.is_none() && Instant::now() >= self.next) {
            self.next = Instant::now() + PAUSE;
            self.waiting = self.questions.send(device).is_ok().then(Instant::now);
        }
        self.last
    }

    /// Where `data` is, when the disk answered last; without one it is somebody else's.
    pub(super) fn room(&self) -> Option<Room> {
        self.room
    }
}

/// What the kernel remembers of the disk says nothing: it is forgotten first.
fn read(device: &Path) -> io::Result<()> {
    let mut sector = [0; 512];
    let file = File::open(device)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    file.read_exact_at(&mut sector, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_hangs_never_blocks_the_caller() {
        let scratch = tempfile::tempdir().unwrap();
        let fifo = scratch.path().join("disk");
        // Opening a FIFO waits for a writer, as a dying disk may wait for ever.
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut prober = Prober::start().unwrap();
        let begun = Instant::now();
        assert_eq!(prober.ask(Some(fifo.clone())), Answer::Good, "nothing bad is known yet");
        prober.waiting = Some(Instant::now().checked_sub(PATIENCE * 2).unwrap());
        assert_eq!(prober.ask(Some(fifo.clone())), Answer::Silent);
        assert!(begun.elapsed() < PATIENCE);
        // Whoever writes wakes it; a FIFO has no positions to read from, so the answer is an error.
        drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
        while prober.ask(None) == Answer::Silent {
            std::thread::yield_now();
        }
        assert_eq!(prober.ask(None), Answer::Error);
    }
}
