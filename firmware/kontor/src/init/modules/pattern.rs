//! Matching a device's modalias against the patterns of modules.alias: the shell globs of fnmatch(3).

/// Whether `pattern` (with `*`, `?`, `[…]`) matches all of `text`.
///
/// Linear in practice and never recursive: after a mismatch only the last `*` is tried again.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
        } else if let Some(length) = one(&pattern[p..], text[t]) {
            p += length;
            t += 1;
        } else if let Some((after_star, from)) = retry {
            (p, t) = (after_star, from + 1);
            retry = Some((after_star, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// Length of the pattern's first element if it matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => bracket(pattern, byte),
        first => (*first == byte).then_some(1),
    }
}

fn bracket(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = pattern.iter().position(|b| *b == b']')?;
    let (negated, mut set) = match pattern[1..end].strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, &pattern[1..end]),
    };
    let mut found = false;
    while let Some((first, rest)) = set.split_first() {
        let (last, rest) = match rest {
            [b'-', last, rest @ ..] => (last, rest),
            _ => (first, rest),
        };
        found |= (*first..=*last).contains(&byte);
        set = rest;
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
    }

    #[test]
    fn globs_match_as_fnmatch_does() {
        check("virtio:d00000001v*", "virtio:d00000001v00001AF4", true);
        check("virtio:d00000001v*", "virtio:d00000002v00001AF4", false);
        check(
            "pci:v00008086d000010D3sv*sd*bc*sc*i*",
            "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00",
            true,
        );
        check("pci:v*d*sv*sd*bc0Csc03i30*", "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30", true);
        check(
            "cpu:type:x86,ven*fam*mod*:feature:*0081*",
            "cpu:type:x86,ven0fam6mod6:feature:,0000,0081,",
            true,
        );
        check("usb:v*p*d*dc*dsc*dp*ic08isc06ip[45]0in*", "usb:v1p2d3dc4dsc5dp6ic08isc06ip50in00", true);
        check("usb:ip[!0-4]0", "usb:ip50", true);
        check("usb:ip[!0-4]0", "usb:ip30", false);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("*", "", true);
        check("", "", true);
        check("", "x", false);
        check("a[", "a[", false);
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        check(&"*a".repeat(30), &"b".repeat(5000), false);
    }
}
