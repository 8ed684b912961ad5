//! What GRUB does with a boot state, after `xtask/src/image/grub.cfg` line by line: written independently of the firmware's
//! own model, and compared with the real one in QEMU.

use kontor_boot::Slot;

const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";
const LENGTH: usize = 512;

/// The sector in which GRUB keeps its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(Vec<u8>);

/// What one boot does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The slot that is started.
    pub slot: Slot,
    /// Whether it was one of its tries, or nobody had one left.
    pub is_try: bool,
}

impl Environment {
    /// From the first sector of `bootstate`.
    #[must_use]
    pub fn new(sector: &[u8]) -> Self {
        Self(sector[..LENGTH].to_vec())
    }

    /// The sector as it is now.
    #[must_use]
    pub fn sector(&self) -> &[u8] {
        &self.0
    }

    /// `load_env`: the last assignment counts, lines that begin with `#` do not.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let body = self.0.strip_prefix(SIGNATURE)?;
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"#"));
        let mut values = lines.filter_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        values.next_back().map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// `save_env` of a variable of one character that is there already; in any other case GRUB could fail to save, too.
    fn set(&mut self, name: &str, value: u8) {
        if !self.0.starts_with(SIGNATURE) {
            return;
        }
        let pattern = format!("\n{name}=");
        let found = self.0.windows(pattern.len()).position(|window| window == pattern.as_bytes());
        if let Some(at) = found.map(|at| at + pattern.len()).filter(|at| self.0.get(at + 1) == Some(&b'\n')) {
            self.0[at] = value;
        }
    }

    fn slot(&self, name: &str) -> Slot {
        if self.get(name).as_deref() == Some("b") { Slot::B } else { Slot::A }
    }

    /// One boot: which slot is started first. A slot that loads never returns.
    pub fn boot(&mut self) -> Decision {
        let active = self.slot("active");
        for slot in [active, active.other()] {
            let name = format!("{slot}_tries");
            let left = match self.get(&name).as_deref() {
                Some("3") | None => b'2',
                Some("2") => b'1',
                Some("1") => b'0',
                Some(_) => continue,
            };
            self.set(&name, left);
            return Decision { slot, is_try: true };
        }
        Decision { slot: self.slot("last_good"), is_try: false }
    }

    /// The slots that boots start one after the other while none of them comes far enough to change the boot state; each once.
    #[must_use]
    pub fn without_success(&self) -> Vec<Slot> {
        // Three tries of each, and then the last good one for ever.
        const ENOUGH: usize = 7;
        let (mut now, mut seen) = (self.clone(), Vec::new());
        for _ in 0..ENOUGH {
            let slot = now.boot().slot;
            if !seen.contains(&slot) {
                seen.push(slot);
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use kontor_boot::slots::{Boot, BootState};

    use super::*;

    #[test]
    fn it_decides_as_the_firmware_expects() {
        let slots = [Slot::A, Slot::B];
        let all = |tries| slots.map(|active| slots.map(|last_good| (active, last_good, tries)));
        let tries = (0..4).flat_map(|a| (0..4).map(move |b| [a, b]));
        for (active, last_good, tries) in tries.flat_map(all).flatten() {
            let mut state = BootState { active, last_good, tries, good: [true, false], installed: None };
            let mut environment = Environment::new(&state.encode());
            for _ in 0..8 {
                let expect = match state.take_try([true; 2]) {
                    Boot::Try(slot) => Decision { slot, is_try: true },
                    Boot::LastGood(slot) => Decision { slot, is_try: false },
                    Boot::Nothing => unreachable!(),
                };
                assert_eq!(environment.boot(), expect);
                assert_eq!(environment.sector(), state.encode());
            }
        }
    }

    #[test]
    fn what_counts_when_the_boot_state_is_garbage() {
        let mut environment = Environment::new(&[0; 512]);
        for _ in 0..9 {
            assert_eq!(environment.boot(), Decision { slot: Slot::A, is_try: true });
        }
        assert_eq!(environment.without_success(), [Slot::A]);
    }

    #[test]
    fn a_release_on_trial_is_followed_by_the_old_one() {
        let mut state = BootState::fresh();
        state.mark_good(Slot::A);
        state.activate(Slot::B);
        assert_eq!(Environment::new(&state.encode()).without_success(), [Slot::B, Slot::A]);
        state.invalidate(Slot::B);
        assert_eq!(Environment::new(&state.encode()).without_success(), [Slot::A]);
    }
}
