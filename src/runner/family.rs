//! The processes of a command that has no namespace of its own: all that descend from this process.
//!
//! This process takes in their orphans (`PR_SET_CHILD_SUBREAPER`), so none gets away, however often it forks and
//! whatever session it starts. They are found in /proc, whose numbers may mean another process a moment later:
//! a descriptor holds the one that was found (`pidfd_open(2)`), where the kernel has such.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use super::Failure;

/// Between two looks at processes that were killed and have not ended.
const PAUSE: Duration = Duration::from_millis(2);
/// After so many looks at which none had ended those that are left are looked for anew.
const LOOKS: u32 = 50;
/// Who ends while it is looked for, and leaves another one, could keep a search going for ever.
const ROUNDS: u32 = 20;

/// Takes in the orphans of all descendants from here on.
pub(super) fn adopt() -> Result<(), Failure> {
    rustix::process::set_child_subreaper(Some(Pid::INIT))
        .map_err(|error| Failure::new("prctl(PR_SET_CHILD_SUBREAPER)", error))?;
    descendants().map(drop)
}

/// Sends a signal to all of them.
pub(super) fn signal(signal: Signal) -> Result<(), Failure> {
    for process in descendants()? {
        send(process, signal);
    }
    Ok(())
}

/// Kills all of them.
pub(super) fn kill() -> Result<(), Failure> {
    // What is stopped begins nothing more: once nobody new is found, all are known.
    let mut known = BTreeSet::new();
    for _ in 0..ROUNDS {
        let found: BTreeSet<_> = descendants()?.into_iter().collect();
        let new: Vec<_> = found.difference(&known).copied().collect();
        if new.is_empty() {
            break;
        }
        for process in new {
            send(process, Signal::STOP);
            known.insert(process);
        }
    }
    for process in known {
        send(process, Signal::KILL);
    }
    Ok(())
}

/// Kills all of them, and returns when none is left.
///
/// Orphans arrive here, and a child keeps its number until it is waited for: so children are killed at once, which ends
/// whoever forks and ends again and again.
pub(super) fn end() -> Result<(), Failure> {
    loop {
        kill()?;
        let mut looks = 0;
        while looks < LOOKS {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => {
                    looks += 1;
                    for child in children()? {
                        let _ = rustix::process::kill_process(child, Signal::KILL);
                    }
                    if looks > LOOKS / 2 {
                        std::thread::sleep(PAUSE);
                    }
                }
                Err(Errno::CHILD) => return Ok(()),
                Err(error) => return Err(Failure::new("wait", error)),
            }
        }
    }
}

/// The children of this process, ended ones included.
fn children() -> Result<Vec<Pid>, Failure> {
    // Not all kernels have it.
    let ids: Vec<i32> = if let Ok(text) = fs_err::read_to_string("/proc/thread-self/children") {
        text.split(' ').filter_map(|id| id.parse().ok()).collect()
    } else {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let mut found = descendants()?;
        found.retain(|process| process.parent == own);
        found.into_iter().map(|process| process.id).collect()
    };
    Ok(ids.into_iter().filter_map(Pid::from_raw).collect())
}

/// A process, and the one that began it or took it in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Process {
    id: i32,
    parent: i32,
}

/// Those that have not been waited for. One whose first thread has ended may have others, so all count.
fn descendants() -> Result<Vec<Process>, Failure> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for id in processes()? {
        if let Some(parent) = parent(id) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![rustix::process::getpid().as_raw_nonzero().get()];
    while let Some(parent) = open.pop() {
        for id in children.remove(&parent).unwrap_or_default() {
            found.push(Process { id, parent });
            open.push(id);
        }
    }
    Ok(found)
}

/// The parent of a process.
fn parent(id: i32) -> Option<i32> {
    stat(id).map(|(parent, _)| parent)
}

/// The group of a process or thread.
pub(super) fn group_of(id: i32) -> Option<i32> {
    stat(id).map(|(_, group)| group)
}

/// The parent and the group of a process, by `proc_pid_stat(5)`: what follows the name, which may hold anything.
fn stat(id: i32) -> Option<(i32, i32)> {
    let stat = fs_err::read(format!("/proc/{id}/stat")).ok()?;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Whether two threads are of one process.
pub(super) fn is_same_process(one: i32, other: i32) -> bool {
    Path::new(&format!("/proc/{one}/task/{other}")).exists()
}

/// Whether a process or thread is one of them.
pub(super) fn has(id: i32) -> bool {
    for _ in 0..ROUNDS {
        // A parent that ends on the way up leaves its number to somebody else, and its children to another parent: the
        // same way twice is one on which nobody ended.
        let ways = [way_up(id), way_up(id)];
        if ways[0] == ways[1] {
            return ways[0].is_some();
        }
    }
    false
}

/// The process of a thread, and those between that and this process; `None` if it does not descend from this process.
fn way_up(id: i32) -> Option<Vec<i32>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let status = fs_err::read_to_string(format!("/proc/{id}/status")).ok()?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    let mut way = vec![process.trim().parse().ok()?];
    loop {
        match parent(*way.last()?)? {
            found if found == own => return Some(way),
            0 => return None,
            found if way.contains(&found) => return None,
            found => way.push(found),
        }
    }
}

/// Whether a group has members, all of which are of them.
pub(super) fn has_group(group: i32) -> bool {
    let Ok(processes) = processes() else {
        return false;
    };
    let members: Vec<i32> = processes
        .into_iter()
        .filter(|id| group_of(*id) == Some(group))
        .collect();
    !members.is_empty() && members.into_iter().all(has)
}

/// All processes that there are.
fn processes() -> Result<Vec<i32>, Failure> {
    let entries = fs_err::read_dir("/proc").map_err(|error| Failure::new("open(/proc)", error))?;
    let id =
        |entry: std::io::Result<fs_err::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    Ok(entries.filter_map(id).collect())
}

fn send(process: Process, signal: Signal) {
    let Some(id) = Pid::from_raw(process.id) else {
        return;
    };
    match rustix::process::pidfd_open(id, PidfdFlags::empty()) {
        Ok(held) => {
            // Whoever has the number now, its parent tells: orphans change theirs, and are found the next time.
            if parent(process.id) == Some(process.parent) {
                let _ = rustix::process::pidfd_send_signal(&held, signal);
            }
        }
        Err(Errno::NOSYS | Errno::PERM) => {
            let _ = rustix::process::kill_process(id, signal);
        }
        // It is gone.
        Err(_) => {}
    }
}
