//! The wall clock: whether it is known to be right.

/// Whether a time daemon has synchronised the clock since boot (adjtimex(2), `STA_UNSYNC`).
#[must_use]
pub fn is_synchronised() -> bool {
    // SAFETY: all-zero is a valid timex that only asks (`modes` 0); the kernel fills it in.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_answers() {
        // Whatever the answer is on this machine, it is the same twice.
        assert_eq!(super::is_synchronised(), super::is_synchronised());
    }
}
