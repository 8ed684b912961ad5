//! Any bytes as an upstream's answer to a fixed question.

#![no_main]

use kontor_dns::answer::{Asked, TtlLimits, check_answer};
use libfuzzer_sys::fuzz_target;

const QUESTION: &[u8] = b"\x03www\x07example\x03com\0\0\x01\0\x01";

fuzz_target!(|rest: &[u8]| {
    // Related to the question, so that the walk over the records is what gets fuzzed.
    let Some((counts, records)) = rest.split_first_chunk::<8>() else { return };
    let message = [&[0, 7, counts[0] | 0x80, counts[1], 0, 1], &counts[2..], QUESTION, records].concat();
    let asked = Asked { id: 7, question: QUESTION, exact_case: false };
    if let Ok(answer) = check_answer(&message, asked, TtlLimits::default()) {
        for &at in &answer.ttl_at {
            assert!(usize::from(at) + 4 <= answer.wire.len());
        }
        if let Some(lifetime_s) = answer.lifetime_s {
            assert!(lifetime_s > 0 && lifetime_s <= 86_400);
        }
    }
});
