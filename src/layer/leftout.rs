//! What a step leaves behind that no image needs, and that would make equal builds differ.

/// Patterns, relative to the root: `DIR/*` is all that is below, `DIR/*-old` are names in it.
const LEFT_OUT: [(&str, &str); 14] = [
    ("var/lib/apt/lists/*", "package lists are downloaded anew, and differ every day"),
    ("var/cache/apt/*", "packages and caches of them, which apt makes anew"),
    ("var/log/apt/*", "times of the build"),
    ("var/log/dpkg.log", "times of the build"),
    ("var/log/alternatives.log", "times of the build"),
    ("var/cache/debconf/*-old", "copies of the state before"),
    ("var/lib/dpkg/*-old", "copies of the state before"),
    ("var/cache/ldconfig/aux-cache", "times and inodes of the machine that built"),
    ("etc/passwd-", "a copy of the state before"),
    ("etc/group-", "a copy of the state before"),
    ("etc/shadow-", "a copy of the state before"),
    ("etc/gshadow-", "a copy of the state before"),
    ("etc/subuid-", "a copy of the state before"),
    ("etc/subgid-", "a copy of the state before"),
];

/// Whether a new or changed path stays out of the layer.
pub(super) fn is_left_out(path: &[u8]) -> bool {
    LEFT_OUT.iter().any(|(pattern, _reason)| matches(pattern.as_bytes(), path))
}

fn matches(pattern: &[u8], path: &[u8]) -> bool {
    let Some(star) = pattern.iter().position(|&byte| byte == b'*') else {
        return pattern == path;
    };
    let (directory, suffix) = (&pattern[..star], &pattern[star + 1..]);
    match path.strip_prefix(directory) {
        None | Some(b"") => false,
        Some(_) if suffix.is_empty() => true,
        Some(name) => name.ends_with(suffix) && !name.contains(&b'/'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_name_and_nothing_beside() {
        for path in [
            "var/lib/apt/lists/partial",
            "var/lib/apt/lists/partial/x",
            "var/cache/apt/pkgcache.bin",
            "var/lib/dpkg/status-old",
            "etc/passwd-",
        ] {
            assert!(is_left_out(path.as_bytes()), "{path}");
        }
        for path in ["var/lib/apt/lists", "var/cache/apt", "var/lib/dpkg/status", "etc/passwd", "var/lib/dpkg/info/x-old", "x/etc/passwd-"] {
            assert!(!is_left_out(path.as_bytes()), "{path}");
        }
    }
}
