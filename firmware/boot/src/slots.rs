//! The boot state: which slot boots, how many tries each has left, which was good last.
//!
//! It lives in sector 0 of `bootstate` as a GRUB environment block of exactly one sector, so that every
//! change is one atomic sector write, whoever makes it: GRUB (`load_env`, `save_env`) before each boot, the
//! box when it is healthy. [`BootState::take_try`] is the model of what GRUB's embedded configuration does.

use std::fmt;

use crate::partition::Guid;

/// Tries a slot gets when it is freshly written or has proved itself.
pub const MAX_TRIES: u8 = 3;
/// Tries of a release that has just been written: one, and another for a power cut. One that cannot boot is given up while an
/// office still takes it for an outage of its provider.
pub const TRIES_ON_TRIAL: u8 = 2;
/// Length of the encoded state: one sector, the unit that a disk writes whole or not at all.
pub const SECTOR: usize = 512;

const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// One of the two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// `slot-a`.
    A,
    /// `slot-b`.
    B,
}

impl Slot {
    /// The one that is not `self`.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its position in arrays: a is 0, b is 1.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// `a` or `b`, as on the kernel command line.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// From `a` or `b`.
    #[must_use]
    pub fn from_letter(letter: &str) -> Option<Self> {
        match letter {
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            _ => None,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letter())
    }
}

/// What the next boot does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// A try of this slot has been taken.
    Try(Slot),
    /// Nobody has tries left: the last good slot (or, if that does not load, the other) boots again.
    LastGood(Slot),
    /// Neither slot loads; GRUB stays in its menu.
    Nothing,
}

/// The whole boot state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootState {
    /// Slot to try first.
    pub active: Slot,
    /// Slot that was healthy last.
    pub last_good: Slot,
    /// Tries left of a and b, 0 to [`MAX_TRIES`].
    pub tries: [u8; 2],
    /// Whether a and b have ever been healthy with their present content.
    pub good: [bool; 2],
    /// The disk that was installed from this one ([`crate::install::identity`]): GRUB starts it instead, as long as it is there.
    pub installed: Option<Guid>,
}

impl BootState {
    /// After flashing: both slots hold the same release, nothing is proved.
    #[must_use]
    pub const fn fresh() -> Self {
        Self { active: Slot::A, last_good: Slot::A, tries: [MAX_TRIES; 2], good: [false; 2], installed: None }
    }

    /// Of a disk that was installed from the one with this state, `booted` being the slot that runs: it comes first, and the other
    /// one second if it could be chosen there. Nothing is proved yet.
    #[must_use]
    pub fn of_installed(&self, booted: Slot) -> Self {
        let other = booted.other();
        let mut tries = [MAX_TRIES; 2];
        if self.tries[other.index()] == 0 && !self.good[other.index()] {
            tries[other.index()] = 0;
        }
        Self { active: booted, last_good: booted, tries, good: [false; 2], installed: None }
    }

    /// What GRUB does before a boot; `loads` says whether kernel and initrd of a and b can be read.
    ///
    /// The try is taken and saved before the files are loaded, so a slot that hangs the loader runs out too.
    pub fn take_try(&mut self, loads: [bool; 2]) -> Boot {
        for slot in [self.active, self.active.other()] {
            if self.tries[slot.index()] > 0 {
                self.tries[slot.index()] -= 1;
                if loads[slot.index()] {
                    return Boot::Try(slot);
                }
            }
        }
        [self.last_good, self.last_good.other()]
            .into_iter()
            .find(|slot| loads[slot.index()])
            .map_or(Boot::Nothing, Boot::LastGood)
    }

    /// The running slot is left in order, by somebody's wish, before it had the time to prove itself: the boot did
    /// not fail, so its try comes back.
    pub fn give_back(&mut self, slot: Slot) {
        // It has been given up meanwhile: it must not come back when the other one is out of tries.
        if self.is_invalid(slot) {
            return;
        }
        let tries = &mut self.tries[slot.index()];
        *tries = tries.saturating_add(1).min(MAX_TRIES);
    }

    /// The running slot has proved itself: full tries, good, active and last good.
    pub fn mark_good(&mut self, slot: Slot) {
        self.tries[slot.index()] = MAX_TRIES;
        self.good[slot.index()] = true;
        self.active = slot;
        self.last_good = slot;
    }

    /// Before a slot is overwritten: it cannot be chosen until it is activated again.
    pub fn invalidate(&mut self, slot: Slot) {
        self.tries[slot.index()] = 0;
        self.good[slot.index()] = false;
        self.active = slot.other();
        self.last_good = slot.other();
    }

    /// Whether the slot cannot be chosen, and is not the one to be chosen.
    #[must_use]
    pub fn is_invalid(&self, slot: Slot) -> bool {
        self.active != slot && self.tries[slot.index()] == 0 && !self.good[slot.index()]
    }

    /// After a slot was written and verified: it is tried first at the next boot.
    pub fn activate(&mut self, slot: Slot) {
        self.tries[slot.index()] = TRIES_ON_TRIAL;
        self.good[slot.index()] = false;
        self.active = slot;
    }

    /// As one sector, a GRUB environment block.
    #[must_use]
    pub fn encode(&self) -> [u8; SECTOR] {
        let mut text = SIGNATURE.to_vec();
        let [a, b] = self.good.map(u8::from);
        text.extend_from_slice(
            format!(
                "active={}\nlast_good={}\na_tries={}\nb_tries={}\na_good={a}\nb_good={b}\n",
                self.active, self.last_good, self.tries[0], self.tries[1]
            )
            .as_bytes(),
        );
        if let Some(disk) = self.installed {
            // As GRUB's `probe --part-uuid` writes it.
            text.extend_from_slice(format!("installed={}\n", disk.to_string().to_lowercase()).as_bytes());
        }
        let mut sector = [b'#'; SECTOR];
        sector[..text.len()].copy_from_slice(&text);
        sector
    }

    /// From the first sector of `bootstate`; more bytes are ignored, unknown variables too.
    ///
    /// # Errors
    /// When the block is not whole or a variable is missing, doubled or out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let sector = bytes.get(..SECTOR).ok_or(StateError::Truncated)?;
        let body = sector.strip_prefix(SIGNATURE).ok_or(StateError::Signature)?;
        let text = str::from_utf8(body).map_err(|_| StateError::Signature)?;
        let [active, last_good] = ["active", "last_good"].map(|key| slot_variable(text, key));
        Ok(Self {
            active: active?,
            last_good: last_good?,
            tries: [number(text, "a_tries", MAX_TRIES)?, number(text, "b_tries", MAX_TRIES)?],
            good: [number(text, "a_good", 1)? == 1, number(text, "b_good", 1)? == 1],
            installed: variable(text, "installed").ok().and_then(Guid::parse),
        })
    }
}

fn variable<'a>(text: &'a str, key: &'static str) -> Result<&'a str, StateError> {
    let mut values = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(StateError::Variable(key)),
    }
}

fn slot_variable(text: &str, key: &'static str) -> Result<Slot, StateError> {
    Slot::from_letter(variable(text, key)?).ok_or(StateError::Variable(key))
}

fn number(text: &str, key: &'static str, max: u8) -> Result<u8, StateError> {
    let value = variable(text, key)?;
    value.parse().ok().filter(|n| *n <= max).ok_or(StateError::Variable(key))
}

/// Why a sector is not a boot state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateError {
    /// Fewer than 512 bytes.
    Truncated,
    /// Not a GRUB environment block.
    Signature,
    /// This variable is missing, doubled or out of range.
    Variable(&'static str),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("boot state is shorter than a sector"),
            Self::Signature => f.write_str("boot state is not a GRUB environment block"),
            Self::Variable(key) => write!(f, "boot state has no valid `{key}`"),
        }
    }
}

impl std::error::Error for StateError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_slot() -> impl Strategy<Value = Slot> {
        prop_oneof![Just(Slot::A), Just(Slot::B)]
    }

    prop_compose! {
        fn any_state()(
            active in any_slot(),
            last_good in any_slot(),
            tries in [0..=MAX_TRIES, 0..=MAX_TRIES],
            good in any::<[bool; 2]>(),
        ) -> BootState {
            BootState { active, last_good, tries, good, installed: None }
        }
    }

    #[test]
    fn boots_that_somebody_ends_in_order_consume_no_tries() {
        let mut state = BootState::fresh();
        for _ in 0..10 {
            assert_eq!(state.take_try([true, true]), Boot::Try(Slot::A));
            state.give_back(Slot::A);
        }
        assert_eq!(state, BootState::fresh());
        state.give_back(Slot::A);
        assert_eq!(state, BootState::fresh(), "never more than there are");
    }

    proptest! {
        #[test]
        fn encoded_states_decode_to_themselves(state in any_state()) {
            prop_assert_eq!(BootState::decode(&state.encode()), Ok(state));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
            let _ = BootState::decode(&bytes);
        }

        #[test]
        fn a_damaged_sector_is_refused_or_in_range(state in any_state(), at in 0..SECTOR, byte: u8) {
            let mut sector = state.encode();
            sector[at] = byte;
            if let Ok(read) = BootState::decode(&sector) {
                prop_assert!(read.tries.iter().all(|tries| *tries <= MAX_TRIES));
            }
        }

        #[test]
        fn something_boots_as_long_as_one_slot_loads(mut state in any_state(), loads: [bool; 2], boots in 1..10) {
            for _ in 0..boots {
                let boot = state.take_try(loads);
                prop_assert_eq!(boot == Boot::Nothing, loads == [false, false]);
            }
        }
    }

    #[test]
    fn a_slot_that_never_proves_itself_falls_back_and_ends_at_last_good() {
        let mut state = BootState::fresh();
        state.mark_good(Slot::B);
        state.activate(Slot::A);
        let boots: Vec<Boot> = (0..6).map(|_| state.take_try([true, true])).collect();
        let expected = [vec![Boot::Try(Slot::A); 2], vec![Boot::Try(Slot::B); 3]].concat();
        assert_eq!(boots[..5], expected);
        assert_eq!(boots[5], Boot::LastGood(Slot::B));
        assert_eq!(state.tries, [0, 0]);
    }

    #[test]
    fn an_invalidated_slot_is_not_tried_even_when_it_was_active() {
        let mut state = BootState::fresh();
        state.mark_good(Slot::A);
        state.invalidate(Slot::A);
        assert_eq!(state.take_try([true, true]), Boot::Try(Slot::B));
        assert_eq!((state.active, state.last_good), (Slot::B, Slot::B));
        state.give_back(Slot::A);
        assert_eq!(state.take_try([true, true]), Boot::Try(Slot::B));
        assert_eq!(state.tries, [0, 1], "leaving it in order does not bring it back");
    }

    #[test]
    fn a_slot_that_does_not_load_costs_its_try_and_the_other_boots() {
        let mut state = BootState::fresh();
        assert_eq!(state.take_try([false, true]), Boot::Try(Slot::B));
        assert_eq!(state.tries, [2, 2]);
    }

    #[test]
    fn grub_may_add_variables_and_change_their_order() {
        let mut sector = [b'#'; SECTOR];
        let text =
            b"# GRUB Environment Block\n# WARNING: do not edit\nb_tries=1\nb_good=0\na_tries=0\na_good=1\n\
            saved_entry=x\nlast_good=a\nactive=b\ninstalled=4b6f6e74-6f72-4001-9b1e-7a3d5c2e8f10\n";
        sector[..text.len()].copy_from_slice(text);
        let expected = BootState {
            active: Slot::B,
            last_good: Slot::A,
            tries: [0, 1],
            good: [true, false],
            installed: Some(Guid::from_u128(0x4B6F6E74_6F72_4001_9B1E_7A3D5C2E8F10)),
        };
        assert_eq!(BootState::decode(&sector), Ok(expected));
        assert_eq!(BootState::decode(&expected.encode()), Ok(expected));
    }

    #[test]
    fn an_installed_disk_begins_with_the_slot_that_runs() {
        let mut stick = BootState::fresh();
        stick.take_try([true; 2]);
        let mut installed = stick.of_installed(Slot::A);
        assert_eq!(installed, BootState::fresh(), "both slots of a stick hold the same release");
        assert_eq!(installed.take_try([true; 2]), Boot::Try(Slot::A));
        stick.mark_good(Slot::B);
        stick.invalidate(Slot::A);
        let mut installed = stick.of_installed(Slot::B);
        let boots: Vec<Boot> = (0..4).map(|_| installed.take_try([true; 2])).collect();
        assert_eq!(boots, [vec![Boot::Try(Slot::B); 3], vec![Boot::LastGood(Slot::B)]].concat());
    }

    #[test]
    fn errors_name_the_variable() {
        let mut sector = BootState::fresh().encode();
        let at = sector.windows(10).position(|window| window == b"a_tries=3\n").unwrap();
        sector[at + 8] = b'4';
        assert_eq!(BootState::decode(&sector), Err(StateError::Variable("a_tries")));
        assert_eq!(BootState::decode(&[0; 512]), Err(StateError::Signature));
        assert_eq!(BootState::decode(b"short"), Err(StateError::Truncated));
    }
}
