//! Which ids a user namespace has: the caller's own as 0, and the caller's subordinate ids from 1 on.
//!
//! See subuid(5), newuidmap(1) and `user_namespaces(7)`. The user database is read as files, since a static
//! binary has no name service; `getsubids` is asked where the files say nothing.

use std::fmt::Write as _;
use std::io;
use std::process::{Command, Stdio};

use super::Failure;

/// How the maps get written.
#[derive(Debug)]
pub(super) enum Maps {
    /// By newuidmap and newgidmap, which are privileged, with these ranges.
    Programs { uids: Vec<Range>, gids: Vec<Range> },
    /// By this process, which is root: every id stays what it is.
    Identity,
}

/// First id and number of ids, outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    first: u32,
    count: u32,
}

/// The maps for a range of ids.
pub(super) fn plan() -> Result<Maps, Failure> {
    let uid = rustix::process::geteuid().as_raw();
    let names = names(uid);
    let uids = subordinate("/etc/subuid", &[], uid, &names);
    let gids = subordinate("/etc/subgid", &["-g"], uid, &names);
    let programs = ["newuidmap", "newgidmap"];
    let missing = programs.into_iter().find(|program| !on_path(program));
    match missing {
        None if are_enough(&uids) && are_enough(&gids) => Ok(Maps::Programs { uids, gids }),
        _ if uid == 0 => Ok(Maps::Identity),
        Some(program) => Err(Failure::said(program, "the program is not installed")),
        None => {
            let (file, ranges) = if are_enough(&uids) {
                ("/etc/subgid", gids)
            } else {
                ("/etc/subuid", uids)
            };
            let user = names.first().cloned().unwrap_or_else(|| uid.to_string());
            let reason = if ranges.is_empty() {
                format!("it has no range of ids for `{user}`")
            } else {
                let count = count(&ranges);
                format!("it has {count} ids for `{user}`, and images have owners up to {NOBODY}")
            };
            Err(Failure::said(file, reason))
        }
    }
}

/// The highest id that every Linux system has: files and processes of nobody.
const NOBODY: u64 = 65534;

fn are_enough(ranges: &[Range]) -> bool {
    count(ranges) >= NOBODY
}

fn count(ranges: &[Range]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count)).sum()
}

/// Writes the maps of a process that has just entered its user namespace.
pub(super) fn write(maps: &Maps, pid: u32) -> Result<(), Failure> {
    match maps {
        Maps::Programs { uids, gids } => {
            let (uid, gid) = (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            );
            program("newuidmap", pid, uid, uids)?;
            program("newgidmap", pid, gid, gids)
        }
        Maps::Identity => {
            for (kind, file) in [("uid", "uid_map"), ("gid", "gid_map")] {
                let call = || format!("write({file})");
                let ours = fs_err::read_to_string(format!("/proc/self/{file}"))
                    .map_err(|error| Failure::new(format!("read({kind} map)"), error))?;
                fs_err::write(format!("/proc/{pid}/{file}"), identity(&ours))
                    .map_err(|error| Failure::new(call(), error))?;
            }
            Ok(())
        }
    }
}

/// Maps this process's ids, `uid` and `gid` before it entered its user namespace, to 0 and nothing else.
pub(super) fn write_single(uid: u32, gid: u32) -> Result<(), Failure> {
    let write = |file: &str, text: String| {
        fs_err::write(format!("/proc/self/{file}"), text)
            .map_err(|error| Failure::new(format!("write({file})"), error))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))
}

/// A map with the inner ids of another, each as itself.
fn identity(map: &str) -> String {
    map.lines().fold(String::new(), |mut lines, line| {
        let mut fields = line.split_whitespace();
        if let (Some(first), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next()) {
            let _ = writeln!(lines, "{first} {first} {count}");
        }
        lines
    })
}

fn program(program: &str, pid: u32, own: u32, ranges: &[Range]) -> Result<(), Failure> {
    let mut command = Command::new(program);
    command
        .arg(pid.to_string())
        .args(["0", &own.to_string(), "1"]);
    let mut inside = 1;
    for range in ranges {
        command.args([inside, range.first, range.count].map(|number| number.to_string()));
        inside += range.count;
    }
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(format!("execve({program})"), error))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Failure::said(program, words.trim()))
}

/// The names of a user: by /etc/passwd, else what the environment claims (newuidmap checks it).
fn names(uid: u32) -> Vec<String> {
    let passwd = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    let mut names: Vec<String> = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .collect();
    if names.is_empty() {
        names.extend(std::env::var("USER").ok());
    }
    names
}

fn subordinate(file: &str, flags: &[&str], uid: u32, names: &[String]) -> Vec<Range> {
    let text = fs_err::read_to_string(file).unwrap_or_default();
    let ranges = parse(&text, uid, names);
    if !ranges.is_empty() {
        return ranges;
    }
    let Some(name) = names.first() else {
        return vec![];
    };
    match Command::new("getsubids")
        .args(flags)
        .arg(name)
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) if output.status.success() => listed(&String::from_utf8_lossy(&output.stdout)),
        _ => vec![],
    }
}

/// The ranges of a user in the text of a subuid(5) file, where users go by name or number.
fn parse(text: &str, uid: u32, names: &[String]) -> Vec<Range> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let user = fields.next()?;
            let ours = names.iter().any(|name| name == user) || user.parse() == Ok(uid);
            if ours {
                range(fields.next()?, fields.next()?)
            } else {
                None
            }
        })
        .collect()
}

/// The ranges that getsubids(1) prints: `0: user 100000 65536`.
fn listed(text: &str) -> Vec<Range> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(2);
            range(fields.next()?, fields.next()?)
        })
        .collect()
}

fn range(first: &str, count: &str) -> Option<Range> {
    let range = Range {
        first: first.parse().ok()?,
        count: count.parse().ok()?,
    };
    (range.count > 0).then_some(range)
}

fn on_path(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let executable = |error: io::Result<()>| error.is_ok();
    std::env::split_paths(&paths).any(|directory| {
        let access = rustix::fs::access(directory.join(program), rustix::fs::Access::EXEC_OK);
        executable(access.map_err(io::Error::from))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "# comment\nada:100000:65536\nbob:1:2\n1000:300000:10\nada:x:1\nada:5:0\n";
        let names = ["ada".to_owned()];
        let expected = [
            Range {
                first: 100_000,
                count: 65536,
            },
            Range {
                first: 300_000,
                count: 10,
            },
        ];
        assert_eq!(parse(text, 1000, &names), expected);
        assert_eq!(parse(text, 7, &[]), []);
    }

    #[test]
    fn the_answer_of_getsubids_is_understood() {
        assert_eq!(
            listed("0: ada 100000 65536\n"),
            [Range {
                first: 100_000,
                count: 65536
            }]
        );
        assert_eq!(listed("Error fetching ranges\n"), []);
    }

    #[test]
    fn an_identity_map_has_the_inner_ids() {
        assert_eq!(
            identity("  0  1000 1\n  1 100000 65536\n"),
            "0 0 1\n1 1 65536\n"
        );
    }
}
