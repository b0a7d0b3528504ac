//! Who a process seems to be: what it set by setuid(2) and its kin, and what getuid(2) and its kin give back.
//!
//! The kernel keeps it for us. Every process has a limit of its resident memory, which has no effect, which
//! children and executed programs inherit, and which pid 1 may set: its number stands for an identity in a
//! table. So nothing has to be known of forks, and nothing is left of a process that ended. A step that sets
//! this limit itself is root again, as it really is.
//!
//! Follows credentials(7), with `CAP_SETUID` and `CAP_SETGID` held by those whose effective user is root.

use std::collections::HashMap;

use rustix::io::Errno;

use super::super::sys::{self, Notice};
use super::caller::Caller;
use super::{Owner, id, low, number};

/// Limits from here on stand for identities: `pib` as the first bytes.
const FIRST: u64 = 0x7069_6200_0000_0000;
/// Identities, and groups of all of them together, that are kept.
const MAX_IDENTITIES: usize = 1 << 16;
const MAX_GROUPS: usize = 1 << 22;
/// The kernel's limit of one process's groups.
const NGROUPS_MAX: u32 = 65536;

/// The ids of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    user: Ids,
    group: Ids,
    groups: Vec<u32>,
}

/// One kind of ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Ids {
    real: u32,
    effective: u32,
    saved: u32,
    file: u32,
}

impl Ids {
    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// setuid(2)
    fn set(&mut self, id: Option<u32>, privileged: bool) -> Result<(), Errno> {
        let id = id.ok_or(Errno::INVAL)?;
        if privileged {
            (self.real, self.saved) = (id, id);
        } else if id != self.real && id != self.saved {
            return Err(Errno::PERM);
        }
        (self.effective, self.file) = (id, id);
        Ok(())
    }

    /// setreuid(2)
    fn set_two(
        &mut self,
        real: Option<u32>,
        effective: Option<u32>,
        privileged: bool,
    ) -> Result<(), Errno> {
        let old = *self;
        if !privileged {
            let real_fits = real.is_none_or(|id| id == old.real || id == old.effective);
            if !real_fits || !effective.is_none_or(|id| old.has(id)) {
                return Err(Errno::PERM);
            }
        }
        self.real = real.unwrap_or(old.real);
        self.effective = effective.unwrap_or(old.effective);
        if real.is_some() || effective.is_some_and(|id| id != old.real) {
            self.saved = self.effective;
        }
        self.file = self.effective;
        Ok(())
    }

    /// setresuid(2)
    fn set_three(&mut self, ids: [Option<u32>; 3], privileged: bool) -> Result<(), Errno> {
        let old = *self;
        if !privileged && ids.iter().flatten().any(|id| !old.has(*id)) {
            return Err(Errno::PERM);
        }
        self.real = ids[0].unwrap_or(old.real);
        self.effective = ids[1].unwrap_or(old.effective);
        self.saved = ids[2].unwrap_or(old.saved);
        self.file = self.effective;
        Ok(())
    }

    /// setfsuid(2), which tells of no error.
    fn set_file(&mut self, id: Option<u32>, privileged: bool) -> u32 {
        let old = self.file;
        if let Some(id) = id.filter(|id| privileged || self.has(*id) || *id == old) {
            self.file = id;
        }
        old
    }
}

impl Identity {
    fn is_root(&self) -> bool {
        self.user.effective == 0
    }

    /// Whose files are that this one makes.
    pub(super) fn owner(&self) -> Owner {
        (self.user.file, self.group.file)
    }

    /// chown(2): root may do everything; an owner may change the group to one of his own.
    pub(super) fn may_chown(&self, owner: Owner, uid: Option<u32>, gid: Option<u32>) -> bool {
        self.user.file == 0
            || (owner.0 == self.user.file
                && uid.is_none_or(|uid| uid == owner.0)
                && gid.is_none_or(|gid| gid == owner.1 || self.is_in(gid)))
    }

    /// Whether the mode of a file gives the bits of `wanted` (4 to read, 2 to write, 1 to search), see
    /// `path_resolution(7)`.
    pub(super) fn may(&self, wanted: u32, owner: Owner, mode: u32) -> bool {
        let shift = match owner {
            (uid, _) if uid == self.user.file => 6,
            (_, gid) if self.is_in(gid) => 3,
            _ => 0,
        };
        self.user.file == 0 || (mode >> shift) & wanted == wanted
    }

    fn is_in(&self, gid: u32) -> bool {
        gid == self.group.file || self.groups.contains(&gid)
    }
}

/// All identities that processes of the step have, or had.
#[derive(Default)]
pub(super) struct Identities {
    table: Vec<Identity>,
    numbers: HashMap<Identity, usize>,
    groups: usize,
}

impl Identities {
    /// Who a process is, unless it is root and was nothing else.
    pub(super) fn of(&self, process: i32) -> Option<&Identity> {
        if self.table.is_empty() {
            return None;
        }
        let (limit, _) = sys::resident_limit(process).ok()?;
        let number = usize::try_from(limit.checked_sub(FIRST)?).ok()?;
        self.table.get(number)
    }

    fn assign(&mut self, process: i32, identity: Identity) -> Result<(), Errno> {
        let known = self.numbers.get(&identity).copied();
        let number = match known {
            Some(number) => number,
            None if identity == Identity::default() && self.table.is_empty() => return Ok(()),
            None => {
                self.groups += identity.groups.len();
                if self.table.len() >= MAX_IDENTITIES || self.groups > MAX_GROUPS {
                    return Err(Errno::NOMEM);
                }
                self.table.push(identity.clone());
                self.numbers.insert(identity, self.table.len() - 1);
                self.table.len() - 1
            }
        };
        let limit = FIRST + u64::try_from(number).map_err(|_| Errno::NOMEM)?;
        let (_, hard) = sys::resident_limit(process).map_err(|error| super::errno(&error))?;
        // Where an administrator has set a hard limit this fails, and the change stays a pretence.
        let _ = sys::set_resident_limit(process, limit, hard);
        Ok(())
    }

    /// The answer to a call that sets or gets ids; `None` if it is another call.
    pub(super) fn answer(
        &mut self,
        notice: &Notice,
        caller: &Caller<'_>,
    ) -> Option<Result<i64, Errno>> {
        let process = notice.thread;
        if !SETTERS.contains(&notice.number) {
            return get(notice, caller, || {
                self.of(process).cloned().unwrap_or_default()
            });
        }
        let mut identity = self.of(process).cloned().unwrap_or_default();
        let result = set(notice, caller, &mut identity).and_then(|value| {
            caller.check()?;
            self.assign(process, identity)?;
            Ok(value)
        });
        Some(result)
    }
}

const SETTERS: [libc::c_long; 9] = [
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
];

fn set(notice: &Notice, caller: &Caller<'_>, who: &mut Identity) -> Result<i64, Errno> {
    let root = who.is_root();
    let [a, b, c, ..] = notice.arguments;
    match notice.number {
        libc::SYS_setuid => who.user.set(id(a), root)?,
        libc::SYS_setgid => who.group.set(id(a), root)?,
        libc::SYS_setreuid => who.user.set_two(id(a), id(b), root)?,
        libc::SYS_setregid => who.group.set_two(id(a), id(b), root)?,
        libc::SYS_setresuid => who.user.set_three([a, b, c].map(id), root)?,
        libc::SYS_setresgid => who.group.set_three([a, b, c].map(id), root)?,
        libc::SYS_setfsuid => return Ok(who.user.set_file(id(a), root).into()),
        libc::SYS_setfsgid => return Ok(who.group.set_file(id(a), root).into()),
        libc::SYS_setgroups => {
            if !root {
                return Err(Errno::PERM);
            }
            let count = low(a);
            if count > NGROUPS_MAX {
                return Err(Errno::INVAL);
            }
            let mut bytes = vec![0; 4 * usize::try_from(count).unwrap_or(0)];
            if count > 0 {
                caller.read(b, &mut bytes)?;
            }
            let (groups, _) = bytes.as_chunks::<4>();
            who.groups = groups.iter().map(|id| u32::from_ne_bytes(*id)).collect();
            who.groups.sort_unstable();
        }
        _ => return Err(Errno::NOSYS),
    }
    Ok(0)
}

fn get(
    notice: &Notice,
    caller: &Caller<'_>,
    who: impl FnOnce() -> Identity,
) -> Option<Result<i64, Errno>> {
    let three = |ids: Ids| {
        caller.check()?;
        let ids = [ids.real, ids.effective, ids.saved];
        for (address, id) in notice.arguments.into_iter().zip(ids) {
            caller.write(address, &id.to_ne_bytes())?;
        }
        Ok(0)
    };
    Some(match notice.number {
        libc::SYS_getuid => Ok(who().user.real.into()),
        libc::SYS_geteuid => Ok(who().user.effective.into()),
        libc::SYS_getgid => Ok(who().group.real.into()),
        libc::SYS_getegid => Ok(who().group.effective.into()),
        libc::SYS_getresuid => three(who().user),
        libc::SYS_getresgid => three(who().group),
        libc::SYS_getgroups => groups(notice, caller, &who().groups),
        _ => return None,
    })
}

/// getgroups(2)
fn groups(notice: &Notice, caller: &Caller<'_>, groups: &[u32]) -> Result<i64, Errno> {
    let [room, address, ..] = notice.arguments;
    let count = i64::try_from(groups.len()).map_err(|_| Errno::INVAL)?;
    let room = i64::from(number(room));
    if room < 0 || (room > 0 && room < count) {
        return Err(Errno::INVAL);
    }
    if room > 0 && count > 0 {
        let bytes: Vec<u8> = groups.iter().flat_map(|id| id.to_ne_bytes()).collect();
        caller.check()?;
        caller.write(address, &bytes)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gave_up_root_for_good_does_not_get_it_back() {
        let mut ids = Ids::default();
        ids.set(Some(7), true).unwrap();
        assert_eq!(ids.set(Some(0), false), Err(Errno::PERM));
        assert_eq!(
            ids.set_three([Some(0), None, None], false),
            Err(Errno::PERM)
        );
        assert_eq!(ids.set_two(None, Some(0), false), Err(Errno::PERM));
        assert_eq!(ids.set(None, true), Err(Errno::INVAL));
    }

    #[test]
    fn who_gave_up_root_for_a_while_gets_it_back() {
        let mut ids = Ids::default();
        ids.set_three([None, Some(7), None], true).unwrap();
        assert_eq!((ids.real, ids.effective, ids.saved, ids.file), (0, 7, 0, 7));
        ids.set_two(None, Some(0), false).unwrap();
        assert_eq!(ids, Ids::default());
        ids.set_two(Some(7), Some(7), true).unwrap();
        assert_eq!((ids.real, ids.effective, ids.saved), (7, 7, 7));
    }

    #[test]
    fn an_owner_may_only_give_a_file_to_a_group_of_his() {
        let who = Identity {
            user: Ids {
                real: 7,
                effective: 7,
                saved: 7,
                file: 7,
            },
            group: Ids::default(),
            groups: vec![9],
        };
        assert!(who.may_chown((7, 3), None, Some(9)));
        assert!(who.may_chown((7, 3), Some(7), Some(3)));
        assert!(!who.may_chown((7, 3), Some(8), None));
        assert!(!who.may_chown((7, 3), None, Some(10)));
        assert!(!who.may_chown((8, 9), None, Some(9)));
        assert!(Identity::default().may_chown((7, 3), Some(8), None));
        // The first class that fits counts, also if another would give more.
        for (owner, mode, expected) in [
            ((7, 3), 0o200, true),
            ((7, 3), 0o022, false),
            ((8, 9), 0o020, true),
            ((8, 0), 0o020, true),
            ((8, 9), 0o202, false),
            ((8, 3), 0o002, true),
            ((8, 3), 0o220, false),
        ] {
            assert_eq!(who.may(2, owner, mode), expected, "{owner:?} {mode:o}");
        }
        assert!(!who.may(3, (7, 3), 0o200));
        assert!(Identity::default().may(7, (7, 3), 0));
    }
}
