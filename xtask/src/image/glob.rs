//! Path patterns of the declarations: `*` and `?` stay within one name, `**` crosses directories.
//!
//! A trailing `/**` matches the directory itself too, so that dropping it leaves nothing behind.

/// Whether any of `patterns` matches `path` (both without a leading slash).
#[must_use]
pub fn any_matches(patterns: &[String], path: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, path))
}

/// Whether `pattern` matches the whole of `path`.
#[must_use]
pub fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.trim_start_matches('/').split('/').collect();
    let path: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    names_match(&pattern, &path)
}

fn names_match(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|skipped| names_match(rest, &path[skipped..])),
        (Some((name, rest)), Some((first, tail))) => {
            name_matches(name.as_bytes(), first.as_bytes()) && names_match(rest, tail)
        }
        _ => false,
    }
}

/// Wild cards within one name, with the usual single point of backtracking.
pub(crate) fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star_p, star_n)) = star else { return false };
                star = Some((star_p, star_n + 1));
                p = star_p + 1;
                n = star_n + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("usr/share/doc/**", "usr/share/doc", true),
            ("/usr/share/doc/**", "usr/share/doc/nft/copyright", true),
            ("usr/share/doc/**", "usr/share/docs", false),
            ("**/*.a", "usr/lib/x86_64-linux-gnu/libc.a", true),
            ("**/*.a", "libc.a", true),
            ("**/*.a", "usr/lib/liba.so", false),
            ("usr/bin/*", "usr/bin/x/y", false),
            ("usr/bin/b*t*r", "usr/bin/btrfs-filter", true),
            ("usr/bin/?ft", "usr/bin/nft", true),
            ("usr/bin/?ft", "usr/bin/ft", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b/c/y", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }
}
