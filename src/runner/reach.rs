//! Which processes the calls of a step may name: the step's own.
//!
//! With a process table of its own a step cannot name others, except for pid 1, whose number a filter knows. Without
//! one, a filter stops every call that names anyone but the caller, and the process that looks after the step looks
//! up whether that one descends from it. The calls of [`CALLS`] pass ids in registers, which no other thread can
//! change after they were looked at. To the step everybody else does not exist (`ESRCH`), as with a table of its own.
//!
//! The kernel looks an id up again once the call goes on. It would name another process only if the one that was
//! found ended in those microseconds, and its number came round in the same time.

use std::io;
use std::os::fd::OwnedFd;

use libc::c_long;
use rustix::io::Errno;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Cmp, SeccompRule,
};

use super::seccomp::{Rules, compile, condition, errno, notify, rule};
use super::sys::{self, Answer, Notice};
use super::{Failure, family};

/// What the arguments of a call name.
#[derive(Debug, Clone, Copy)]
enum Names {
    /// A process or thread, by this argument; 0 is the caller.
    Process(u8),
    /// A process, or by a negative number a group; 0 is the caller's group.
    ProcessOrGroup,
    /// What the first argument says: a process if it is this number, a group if it is the next, else a user. The
    /// second argument is the id; 0 is the caller's.
    ByKind(u8),
    /// A process that changes its group, and the group, by one of its processes; 0 is the caller.
    Member,
    /// With `F_SETOWN` whom a file's signals go to, as with [`Names::ProcessOrGroup`]; 0 is nobody.
    FileOwner,
    /// A clock, which may be a process's.
    Clock,
    /// A process, by this argument, in a way that is allowed for nobody.
    Refused(u8),
    /// A process by a descriptor, which nobody gets.
    Descriptor,
}

/// All calls that take the id of a process or thread. What else takes one passes it in memory, where it could change
/// after a look: [`refused`] has those that act on the process.
const CALLS: &[(c_long, Names)] = &[
    (libc::SYS_kill, Names::ProcessOrGroup),
    (libc::SYS_tkill, Names::Process(0)),
    // The kernel wants the first argument to be the process of this thread.
    (libc::SYS_tgkill, Names::Process(1)),
    (libc::SYS_rt_sigqueueinfo, Names::Process(0)),
    (libc::SYS_rt_tgsigqueueinfo, Names::Process(1)),
    (libc::SYS_fcntl, Names::FileOwner),
    (libc::SYS_prlimit64, Names::Process(0)),
    (libc::SYS_setpriority, Names::ByKind(0)),
    (libc::SYS_getpriority, Names::ByKind(0)),
    (libc::SYS_ioprio_set, Names::ByKind(1)),
    (libc::SYS_ioprio_get, Names::ByKind(1)),
    (libc::SYS_sched_setaffinity, Names::Process(0)),
    (libc::SYS_sched_getaffinity, Names::Process(0)),
    (libc::SYS_sched_setattr, Names::Process(0)),
    (libc::SYS_sched_getattr, Names::Process(0)),
    (libc::SYS_sched_setparam, Names::Process(0)),
    (libc::SYS_sched_getparam, Names::Process(0)),
    (libc::SYS_sched_setscheduler, Names::Process(0)),
    (libc::SYS_sched_getscheduler, Names::Process(0)),
    (libc::SYS_sched_rr_get_interval, Names::Process(0)),
    (libc::SYS_setpgid, Names::Member),
    (libc::SYS_getpgid, Names::Process(0)),
    (libc::SYS_getsid, Names::Process(0)),
    (libc::SYS_get_robust_list, Names::Process(0)),
    (libc::SYS_clock_gettime, Names::Clock),
    (libc::SYS_clock_getres, Names::Clock),
    (libc::SYS_clock_nanosleep, Names::Clock),
    (libc::SYS_timer_create, Names::Clock),
    (libc::SYS_ptrace, Names::Refused(1)),
    (libc::SYS_process_vm_readv, Names::Refused(0)),
    (libc::SYS_process_vm_writev, Names::Refused(0)),
    (libc::SYS_kcmp, Names::Refused(0)),
    (libc::SYS_migrate_pages, Names::Refused(0)),
    (libc::SYS_move_pages, Names::Refused(0)),
    (libc::SYS_perf_event_open, Names::Refused(1)),
    (libc::SYS_pidfd_open, Names::Refused(0)),
    (libc::SYS_pidfd_getfd, Names::Descriptor),
    (libc::SYS_pidfd_send_signal, Names::Descriptor),
    (libc::SYS_process_madvise, Names::Descriptor),
    (libc::SYS_process_mrelease, Names::Descriptor),
];

const F_SETOWN: u64 = 8;
const F_SETOWN_EX: u64 = 15;
const FIOSETOWN: u64 = 0x8901;
const SIOCSPGRP: u64 = 0x8902;
const PR_SCHED_CORE: u64 = 62;
/// Set in the number of a clock that is a process's or a descriptor's.
const DYNAMIC_CLOCK: u64 = 1 << 31;

/// Calls about processes that are refused whoever is meant.
pub(super) fn refused() -> io::Result<Rules> {
    let mut rules: Rules = CALLS
        .iter()
        .filter(|(_, names)| matches!(names, Names::Refused(_) | Names::Descriptor))
        .map(|(call, _)| (*call, vec![]))
        .collect();
    let is = |argument, value| rule(argument, Len::Dword, Cmp::Eq, value);
    rules.insert(libc::SYS_fcntl, vec![is(1, F_SETOWN_EX)?]);
    rules.insert(libc::SYS_ioctl, vec![is(1, FIOSETOWN)?, is(1, SIOCSPGRP)?]);
    rules.insert(libc::SYS_prctl, vec![is(0, PR_SCHED_CORE)?]);
    Ok(rules)
}

/// Tells the listener of calls that may name somebody else than the caller.
pub(super) fn tell() -> io::Result<BpfProgram> {
    let mut rules = Rules::new();
    for (call, names) in CALLS {
        if let Some(told) = names.told()? {
            rules.insert(*call, told);
        }
    }
    notify(rules)
}

/// Refuses calls that name pid 1, which looks after the step in a process table of the step's own.
pub(super) fn spare_first_process() -> io::Result<BpfProgram> {
    let mut rules = Rules::new();
    for (call, names) in CALLS {
        if let Some(first) = names.first_process()? {
            rules.insert(*call, vec![first]);
        }
    }
    compile(rules, SeccompAction::Allow, errno(libc::EPERM))
}

impl Names {
    /// The arguments of which the listener is told; `None` for a call of which it is not.
    fn told(self) -> io::Result<Option<Vec<SeccompRule>>> {
        let not = |argument, value: u64| rule(argument, Len::Dword, Cmp::Ne, value);
        Ok(Some(match self {
            Self::Process(argument) => vec![not(argument, 0)?],
            Self::ProcessOrGroup => vec![],
            Self::ByKind(process) => vec![not(0, process.into())?, not(1, 0)?],
            Self::Member => vec![not(0, 0)?, not(1, 0)?],
            Self::FileOwner => vec![all(&[(1, Cmp::Eq, F_SETOWN), (2, Cmp::Ne, 0)])?],
            Self::Clock => {
                let dynamic = Cmp::MaskedEq(DYNAMIC_CLOCK);
                vec![rule(0, Len::Dword, dynamic, DYNAMIC_CLOCK)?]
            }
            Self::Refused(_) | Self::Descriptor => return Ok(None),
        }))
    }

    /// The arguments that name pid 1.
    fn first_process(self) -> io::Result<Option<SeccompRule>> {
        Ok(Some(match self {
            Self::Process(argument) | Self::Refused(argument) => all(&[(argument, Cmp::Eq, 1)])?,
            Self::ProcessOrGroup => all(&[(0, Cmp::Eq, 1)])?,
            Self::ByKind(process) => all(&[(0, Cmp::Eq, process.into()), (1, Cmp::Eq, 1)])?,
            Self::FileOwner => all(&[(1, Cmp::Eq, F_SETOWN), (2, Cmp::Eq, 1)])?,
            // The kernel refuses it to whoever is not its parent; its time is no secret; nobody has its descriptor.
            Self::Member | Self::Clock | Self::Descriptor => return Ok(None),
        }))
    }
}

fn all(conditions: &[(u8, Cmp, u64)]) -> io::Result<SeccompRule> {
    let conditions = conditions
        .iter()
        .map(|(argument, compare, value)| condition(*argument, Len::Dword, compare.clone(), *value))
        .collect::<io::Result<_>>()?;
    SeccompRule::new(conditions).map_err(io::Error::other)
}

/// Answers the calls that [`tell`] tells of, in the process that the step descends from.
pub(super) struct Gate(OwnedFd);

impl Gate {
    pub(super) fn new(listener: OwnedFd) -> Self {
        sys::answer_on_same_processor(&listener);
        Self(listener)
    }

    /// Becomes readable when a call waits.
    pub(super) fn listener(&self) -> &OwnedFd {
        &self.0
    }

    /// Answers one call, if one waits.
    pub(super) fn serve(&self) -> Result<(), Failure> {
        let notice = sys::receive_notice(&self.0)
            .map_err(|error| Failure::new("ioctl(SECCOMP_IOCTL_NOTIF_RECV)", error))?;
        if let Some(notice) = notice {
            let answer = match permit(&notice) {
                Ok(()) => Answer::Continue,
                Err(error) => Answer::Error(error),
            };
            sys::answer_notice(&self.0, notice.id, answer);
        }
        Ok(())
    }
}

/// An error unless all that a call names is the step's.
fn permit(notice: &Notice) -> Result<(), Errno> {
    // All of these are an `int` to the kernel.
    let arguments = notice.arguments.map(int);
    let [first, second, third, ..] = arguments;
    let names = CALLS.iter().find(|(call, _)| *call == notice.number);
    match names.map(|(_, names)| *names) {
        Some(Names::Process(argument)) => process(notice, arguments[usize::from(argument)]),
        Some(Names::ProcessOrGroup) => process_or_group(notice, first),
        Some(Names::FileOwner) => process_or_group(notice, third),
        Some(Names::ByKind(kind)) => match first.wrapping_sub(kind.into()) {
            0 => process(notice, second),
            1 => group(notice, second),
            // A user has processes that are not the step's.
            _ => Err(Errno::PERM),
        },
        Some(Names::Member) => {
            process(notice, first)?;
            process(notice, second).or_else(|_| group(notice, second))
        }
        Some(Names::Clock) => match (first & 7, !(first >> 3)) {
            // Of a descriptor.
            (3, _) => Ok(()),
            (_, owner) => process(notice, owner),
        },
        Some(Names::Refused(_) | Names::Descriptor) | None => Err(Errno::PERM),
    }
}

fn process_or_group(notice: &Notice, id: i32) -> Result<(), Errno> {
    match id {
        // Of all processes that there are the step's are the least.
        -1 => Err(Errno::PERM),
        1.. => process(notice, id),
        _ => group(notice, id.checked_neg().ok_or(Errno::SRCH)?),
    }
}

fn process(notice: &Notice, id: i32) -> Result<(), Errno> {
    // Some programs signal their own threads very often, and this is answered soonest.
    is_own(id == 0 || family::is_same_process(notice.thread, id) || family::has(id))
}

fn group(notice: &Notice, id: i32) -> Result<(), Errno> {
    let id = match id {
        0 => family::group_of(notice.thread).ok_or(Errno::SRCH)?,
        id => id,
    };
    is_own(family::has_group(id))
}

fn is_own(is_own: bool) -> Result<(), Errno> {
    if is_own { Ok(()) } else { Err(Errno::SRCH) }
}

/// The lower half of a register.
fn int(argument: u64) -> i32 {
    u32::try_from(argument & u64::from(u32::MAX))
        .unwrap_or(0)
        .cast_signed()
}
