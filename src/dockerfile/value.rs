//! Values with a grammar of their own: durations, ports, modes, signals, sizes.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::mode::Mode;

/// A duration as Go writes it: `1m30s`, `1.5h`, `300ms`. None if it is none, is negative, or is too long
/// for Go's 63 bits of nanoseconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits =
            |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (whole, behind) = rest.split_at(digits(rest));
        let (fraction, behind) = match behind.strip_prefix('.') {
            Some(behind) => behind.split_at(digits(behind)),
            None => ("", behind),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let length = behind
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(length);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        let mut part = whole.checked_mul(*unit)?;
        let mut place = *unit;
        for digit in fraction.bytes() {
            // What a tenth leaves over is below a nanosecond for all digits that count.
            part = part.checked_add(u64::from(digit - b'0') * place / 10)?;
            place /= 10;
        }
        total = total.checked_add(part)?;
        rest = behind;
    }
    (total <= i64::MAX.unsigned_abs()).then_some(Duration::from_nanos(total))
}

/// The ports of one word of EXPOSE, such as `80`, `53/udp` or `8000-8002/tcp`, and their protocol. An address and ports
/// of the host may stand in front (`127.0.0.1:8080:80`): whoever runs the image says where its ports are, so they are
/// read and have no effect.
pub(super) fn ports(word: &str) -> Option<(RangeInclusive<u16>, &'static str)> {
    let (host, ports) = word.rsplit_once(':').unwrap_or(("", word));
    let (ports, protocol) = ports.split_once('/').unwrap_or((ports, ""));
    let protocol = if protocol.is_empty() { "tcp" } else { protocol };
    let known = ["tcp", "udp", "sctp"];
    let protocol = known
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(protocol))?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(first..=last)
    };
    let ports = range(ports)?;
    let (address, host) = host.rsplit_once(':').unwrap_or(("", host));
    if !host.is_empty() {
        let host = range(host)?;
        // One port may have any of several on the host.
        (ports.len() == 1 || ports.len() == host.len()).then_some(())?;
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|address| address.strip_suffix(']'));
    let is_address = |text: &str| text.parse::<std::net::IpAddr>().is_ok();
    (address.is_empty() || is_address(bare.unwrap_or(address))).then_some((ports, protocol))
}

/// An octal mode up to `07777`.
pub(super) fn mode(text: &str) -> Option<u32> {
    text.parse::<Mode>().ok()?.octal()
}

/// A size in bytes, as `64m`, `1.5GiB` or `4096`: units are powers of 1024.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[number.len()..]
        .trim_end_matches("ib")
        .trim_end_matches('b')
    {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let number = number.trim_end();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let factor = 1024_u64.pow(unit);
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(factor) * fraction.parse::<u128>().ok()? / scale;
    let whole = u128::from(factor) * whole.parse::<u128>().ok().filter(|_| whole.len() < 20)?;
    u64::try_from(whole + part).ok()
}

/// Whether this is a signal of Linux: a number, or a name with or without `SIG`.
pub(super) fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 34] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT",
        "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM",
        "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
    ];
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix: &str, sign: char, most: u32| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            let number = rest
                .strip_prefix(sign)
                .and_then(|rest| rest.parse::<u32>().ok());
            rest.is_empty() || number.is_some_and(|number| (1..=most).contains(&number))
        })
    };
    NAMES.contains(&name) || real_time("RTMIN", '+', 15) || real_time("RTMAX", '-', 14)
}

/// A truth value, as Go reads it.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// `path` as an absolute path in normal form: relative to `directory`, if it is relative.
pub(super) fn absolute(directory: &str, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { directory };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
