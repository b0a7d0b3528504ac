//! Which system calls a step may make: Docker's default list for a container without extra capabilities, and
//! the filter that answers identity changes with success where only one id exists.
//!
//! Filters stack; of two that refuse, the one installed last gives the errno. Each architecture's numbers come
//! from `libc`; calls from Linux 5.0 on have one number everywhere.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Cmp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::reach;

#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;
#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;

pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Docker's default list, in the order of installation.
pub(super) fn docker() -> io::Result<[BpfProgram; 2]> {
    let mut allowed: Rules = ALLOWED
        .iter()
        .chain(ALLOWED_HERE)
        .map(|nr| (*nr, vec![]))
        .collect();
    // Never a new namespace. clone3 hides its flags in memory where no filter sees them, so it does not exist,
    // and the C library falls back to clone.
    let namespaces = 0x7e02_0000;
    allowed.insert(
        libc::SYS_clone,
        vec![rule(0, Len::Qword, Cmp::MaskedEq(namespaces), 0)?],
    );
    allowed.insert(libc::SYS_clone3, vec![]);
    // PER_LINUX, PER_LINUX32, UNAME26, both, and the question which it is.
    let personalities = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    let personalities = personalities.map(|value| rule(0, Len::Dword, Cmp::Eq, value));
    allowed.insert(
        libc::SYS_personality,
        personalities.into_iter().collect::<io::Result<_>>()?,
    );
    // A virtual machine's host listens on AF_VSOCK and knows no namespaces.
    let vsock = u64::try_from(libc::AF_VSOCK).map_err(io::Error::other)?;
    allowed.insert(libc::SYS_socket, vec![rule(0, Len::Dword, Cmp::Ne, vsock)?]);
    // Only the lower half of the request counts for the kernel, so only that is compared.
    allowed.insert(
        libc::SYS_ioctl,
        vec![
            SeccompRule::new(vec![
                condition(1, Len::Dword, Cmp::Ne, 0x5412)?, // TIOCSTI types into the caller's terminal,
                condition(1, Len::Dword, Cmp::Ne, 0x541c)?, // TIOCLINUX pastes into it.
            ])
            .map_err(io::Error::other)?,
        ],
    );

    // Programs try a call and fall back to an older one when it does not exist; "not permitted" ends them.
    let unknown: Rules = std::iter::once(libc::SYS_clone3)
        .chain(FIRST_UNKNOWN..FIRST_UNKNOWN + 128)
        .map(|nr| (nr, vec![]))
        .collect();
    Ok([
        compile(allowed, errno(libc::EPERM), SeccompAction::Allow)?,
        compile(unknown, SeccompAction::Allow, errno(libc::ENOSYS))?,
    ])
}

/// What is told of rather than answered with 0 where only one id exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// Changes of owners.
    Owners,
    /// Changes of owners and identity, questions for both, and what makes files.
    Everything,
}

/// Answers 0 to calls that change identity or owners, and to the making of device nodes, but for what is told.
pub(super) fn fake(told: Told) -> io::Result<BpfProgram> {
    let owners = [CHOWN, CHOWN_HERE].concat();
    let mut faked: Rules = [libc::SYS_capset].map(|nr| (nr, vec![])).into();
    if told == Told::Nothing {
        faked.extend(owners.iter().map(|nr| (*nr, vec![])));
    }
    if told != Told::Everything {
        faked.extend(SET_IDS.iter().map(|nr| (*nr, vec![])));
    }
    faked.extend(devices()?);
    compile(faked, SeccompAction::Allow, errno(0))
}

/// Calls that make device nodes.
fn devices() -> io::Result<Rules> {
    let device = |argument| -> io::Result<Vec<SeccompRule>> {
        let format = Cmp::MaskedEq(u64::from(libc::S_IFMT));
        [libc::S_IFCHR, libc::S_IFBLK]
            .map(|kind| rule(argument, Len::Dword, format.clone(), u64::from(kind)))
            .into_iter()
            .collect()
    };
    Ok([
        (libc::SYS_mknodat, device(2)?),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_mknod, device(1)?),
    ]
    .into())
}

/// Tells the recorder of calls, and lets it answer.
pub(super) fn tell(told: Told) -> io::Result<BpfProgram> {
    let mut rules: Rules = CHOWN
        .iter()
        .chain(CHOWN_HERE)
        .map(|nr| (*nr, vec![]))
        .collect();
    if told == Told::Everything {
        let whole = [SET_IDS, GET, GET_HERE, CREATE, CREATE_HERE].concat();
        rules.extend(whole.into_iter().map(|nr| (nr, vec![])));
        let create = u64::try_from(libc::O_CREAT).map_err(io::Error::other)?;
        let creates = |argument| rule(argument, Len::Dword, Cmp::MaskedEq(create), create);
        rules.insert(libc::SYS_openat, vec![creates(2)?]);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_open, vec![creates(1)?]);
    }
    notify(rules)
}

/// Tells a listener of these calls, and lets it answer; to be installed by [`super::sys::install_listener`].
pub(super) fn notify(rules: Rules) -> io::Result<BpfProgram> {
    // The crate knows of no notifications: another result, which no filter here has, stands for them.
    let mut program = compile(rules, SeccompAction::Allow, SeccompAction::Trace(0))?;
    let returns = u16::try_from(libc::BPF_RET | libc::BPF_K).map_err(io::Error::other)?;
    for instruction in &mut program {
        if instruction.code == returns && instruction.k == libc::SECCOMP_RET_TRACE {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF;
        }
    }
    Ok(program)
}

/// What a command may not that has no namespaces: leave its root, look into other processes, or share memory, queues and
/// semaphores with them; nor make device nodes, unless something guards the devices.
pub(super) fn confine(devices_are_guarded: bool) -> io::Result<[BpfProgram; 2]> {
    let mut refused = reach::refused()?;
    refused.insert(libc::SYS_chroot, vec![]);
    if !devices_are_guarded {
        refused.extend(devices()?);
    }
    let missing = IPC.iter().map(|nr| (*nr, vec![])).collect();
    Ok([
        compile(refused, SeccompAction::Allow, errno(libc::EPERM))?,
        compile(missing, SeccompAction::Allow, errno(libc::ENOSYS))?,
    ])
}

/// Makes no sockets that hear what others say on the same network, whoever they are meant for.
///
/// Without `CAP_NET_RAW` there would be none either, but no program that has it as a file capability, such as
/// `ping`, could be executed then.
pub(super) fn without_raw_sockets() -> io::Result<BpfProgram> {
    const SOCK_PACKET: u64 = 10;
    let family = |compare, family: i32| -> io::Result<SeccompCondition> {
        let family = u64::try_from(family).map_err(io::Error::other)?;
        condition(0, Len::Dword, compare, family)
    };
    // Above these bits are flags.
    let kind = |kind| condition(1, Len::Dword, Cmp::MaskedEq(0xf), kind);
    let raw = u64::try_from(libc::SOCK_RAW).map_err(io::Error::other)?;
    let refused = [
        vec![family(Cmp::Eq, libc::AF_PACKET)?],
        vec![family(Cmp::Eq, libc::AF_XDP)?],
        vec![kind(SOCK_PACKET)?],
        // For these a raw socket is an ordinary one.
        vec![
            kind(raw)?,
            family(Cmp::Ne, libc::AF_NETLINK)?,
            family(Cmp::Ne, libc::AF_UNIX)?,
        ],
    ];
    let refused = refused.map(|conditions| SeccompRule::new(conditions).map_err(io::Error::other));
    let refused = refused.into_iter().collect::<io::Result<_>>()?;
    let refused = [(libc::SYS_socket, refused)].into();
    compile(refused, SeccompAction::Allow, errno(libc::EPERM))
}

/// Makes no sockets but those of this machine, for a command without a network that has no namespace of one.
pub(super) fn offline() -> io::Result<BpfProgram> {
    let is_not = |family: i32| {
        let family = u64::try_from(family).map_err(io::Error::other)?;
        condition(0, Len::Dword, Cmp::Ne, family)
    };
    let others = SeccompRule::new(vec![is_not(libc::AF_UNIX)?, is_not(libc::AF_NETLINK)?]);
    let refused = [(libc::SYS_socket, vec![others.map_err(io::Error::other)?])].into();
    compile(refused, SeccompAction::Allow, errno(libc::EAFNOSUPPORT))
}

/// Answers that clone3 does not exist, where an outer container's profile from before that call forbids it: only then
/// does the C library start processes and threads by clone.
pub(super) fn without_clone3() -> io::Result<BpfProgram> {
    let missing = [(libc::SYS_clone3, vec![])].into();
    compile(missing, SeccompAction::Allow, errno(libc::ENOSYS))
}

pub(super) fn rule(argument: u8, len: Len, compare: Cmp, value: u64) -> io::Result<SeccompRule> {
    SeccompRule::new(vec![condition(argument, len, compare, value)?]).map_err(io::Error::other)
}

pub(super) fn condition(
    argument: u8,
    len: Len,
    compare: Cmp,
    value: u64,
) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, len, compare, value).map_err(io::Error::other)
}

pub(super) fn errno(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno.unsigned_abs())
}

/// A program of another architecture, such as a 32-bit one, is killed: its numbers mean other calls.
pub(super) fn compile(
    rules: Rules,
    others: SeccompAction,
    these: SeccompAction,
) -> io::Result<BpfProgram> {
    SeccompFilter::new(rules, others, these, ARCH)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

/// What System V and POSIX queues, semaphores and shared memory are had by, which all of one IPC namespace can reach.
#[rustfmt::skip]
const IPC: &[c_long] = &[
    libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_shmdt, libc::SYS_semget, libc::SYS_semop,
    libc::SYS_semtimedop, libc::SYS_semctl, libc::SYS_msgget, libc::SYS_msgsnd, libc::SYS_msgrcv,
    libc::SYS_msgctl, libc::SYS_mq_open, libc::SYS_mq_unlink, libc::SYS_mq_timedsend,
    libc::SYS_mq_timedreceive, libc::SYS_mq_notify, libc::SYS_mq_getsetattr,
];

/// The first number that [`ALLOWED`]'s authors had not seen.
const FIRST_UNKNOWN: c_long = 463;

const CHOWN: &[c_long] = &[libc::SYS_fchown, libc::SYS_fchownat];
#[cfg(target_arch = "x86_64")]
const CHOWN_HERE: &[c_long] = &[libc::SYS_chown, libc::SYS_lchown];
#[cfg(target_arch = "aarch64")]
const CHOWN_HERE: &[c_long] = &[];

#[rustfmt::skip]
const SET_IDS: &[c_long] = &[
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_setgroups,
];

#[rustfmt::skip]
const GET: &[c_long] = &[
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid,
    libc::SYS_getresgid, libc::SYS_getgroups, libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx,
];
#[cfg(target_arch = "x86_64")]
const GET_HERE: &[c_long] = &[libc::SYS_stat, libc::SYS_lstat];
#[cfg(target_arch = "aarch64")]
const GET_HERE: &[c_long] = &[];

/// `open` and `openat` make files by a flag.
const CREATE: &[c_long] = &[libc::SYS_mkdirat, libc::SYS_symlinkat, libc::SYS_mknodat];
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const CREATE_HERE: &[c_long] = &[
    libc::SYS_creat, libc::SYS_mkdir, libc::SYS_symlink, libc::SYS_mknod,
];
#[cfg(target_arch = "aarch64")]
const CREATE_HERE: &[c_long] = &[];

/// Docker's list, without the calls that it allows by their arguments ([`docker`]) or for capabilities that a
/// step has not; `chroot` is here because a step has `CAP_SYS_CHROOT`.
#[rustfmt::skip]
const ALLOWED: &[c_long] = &[
    libc::SYS_accept, libc::SYS_accept4, libc::SYS_adjtimex, libc::SYS_bind, libc::SYS_brk, libc::SYS_capget,
    libc::SYS_capset, libc::SYS_chdir, libc::SYS_chroot, libc::SYS_clock_adjtime, libc::SYS_clock_getres,
    libc::SYS_clock_gettime, libc::SYS_clock_nanosleep, libc::SYS_close, libc::SYS_close_range,
    libc::SYS_connect, libc::SYS_copy_file_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2, libc::SYS_execve,
    libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_faccessat, libc::SYS_faccessat2,
    libc::SYS_fallocate, libc::SYS_fanotify_mark, libc::SYS_fchdir, libc::SYS_fchmod,
    libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_fcntl, libc::SYS_fdatasync,
    libc::SYS_fgetxattr, libc::SYS_flistxattr, libc::SYS_flock, libc::SYS_fremovexattr, libc::SYS_fsetxattr,
    libc::SYS_fstat, libc::SYS_fstatfs, libc::SYS_fsync, libc::SYS_ftruncate, libc::SYS_futex,
    libc::SYS_futex_waitv, libc::SYS_get_robust_list, libc::SYS_getcpu, libc::SYS_getcwd,
    libc::SYS_getdents64, libc::SYS_getegid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getgroups,
    libc::SYS_getitimer, libc::SYS_getpeername, libc::SYS_getpgid, libc::SYS_getpid, libc::SYS_getppid,
    libc::SYS_getpriority, libc::SYS_getrandom, libc::SYS_getresgid, libc::SYS_getresuid, libc::SYS_getrlimit,
    libc::SYS_getrusage, libc::SYS_getsid, libc::SYS_getsockname, libc::SYS_getsockopt, libc::SYS_gettid,
    libc::SYS_gettimeofday, libc::SYS_getuid, libc::SYS_getxattr, libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1, libc::SYS_inotify_rm_watch, libc::SYS_io_cancel, libc::SYS_io_destroy,
    libc::SYS_io_getevents, libc::SYS_io_setup, libc::SYS_io_submit,
    libc::SYS_ioprio_get, libc::SYS_ioprio_set, libc::SYS_kill, libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset, libc::SYS_landlock_restrict_self, libc::SYS_lgetxattr,
    libc::SYS_linkat, libc::SYS_listen, libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_lremovexattr,
    libc::SYS_lseek, libc::SYS_lsetxattr, libc::SYS_madvise, libc::SYS_membarrier, libc::SYS_memfd_create,
    libc::SYS_memfd_secret, libc::SYS_mincore, libc::SYS_mkdirat, libc::SYS_mknodat, libc::SYS_mlock,
    libc::SYS_mlock2, libc::SYS_mlockall, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_mq_getsetattr,
    libc::SYS_mq_notify, libc::SYS_mq_open, libc::SYS_mq_timedreceive, libc::SYS_mq_timedsend,
    libc::SYS_mq_unlink, libc::SYS_mremap, libc::SYS_msgctl, libc::SYS_msgget, libc::SYS_msgrcv,
    libc::SYS_msgsnd, libc::SYS_msync, libc::SYS_munlock, libc::SYS_munlockall, libc::SYS_munmap,
    libc::SYS_name_to_handle_at, libc::SYS_nanosleep, libc::SYS_newfstatat, libc::SYS_openat,
    libc::SYS_openat2, libc::SYS_pidfd_getfd, libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2, libc::SYS_pkey_alloc, libc::SYS_pkey_free, libc::SYS_pkey_mprotect, libc::SYS_ppoll,
    libc::SYS_prctl, libc::SYS_pread64, libc::SYS_preadv, libc::SYS_preadv2, libc::SYS_prlimit64,
    libc::SYS_process_mrelease, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_pselect6,
    libc::SYS_ptrace, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_pwritev2, libc::SYS_read,
    libc::SYS_readahead, libc::SYS_readlinkat, libc::SYS_readv, libc::SYS_recvfrom, libc::SYS_recvmmsg,
    libc::SYS_recvmsg, libc::SYS_remap_file_pages, libc::SYS_removexattr, libc::SYS_renameat,
    libc::SYS_renameat2, libc::SYS_restart_syscall, libc::SYS_rseq, libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait, libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min, libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler,
    libc::SYS_sched_rr_get_interval, libc::SYS_sched_setaffinity, libc::SYS_sched_setattr,
    libc::SYS_sched_setparam, libc::SYS_sched_setscheduler, libc::SYS_sched_yield, libc::SYS_seccomp,
    libc::SYS_semctl, libc::SYS_semget, libc::SYS_semop, libc::SYS_semtimedop,
    libc::SYS_sendmmsg, libc::SYS_sendmsg, libc::SYS_sendto, libc::SYS_set_robust_list,
    libc::SYS_set_tid_address, libc::SYS_setfsgid, libc::SYS_setfsuid, libc::SYS_setgid, libc::SYS_setgroups,
    libc::SYS_setitimer, libc::SYS_setpgid, libc::SYS_setpriority, libc::SYS_setregid, libc::SYS_setresgid,
    libc::SYS_setresuid, libc::SYS_setreuid, libc::SYS_setrlimit, libc::SYS_setsid, libc::SYS_setsockopt,
    libc::SYS_setuid, libc::SYS_setxattr, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_shmdt,
    libc::SYS_shmget, libc::SYS_shutdown, libc::SYS_sigaltstack, libc::SYS_signalfd4, libc::SYS_socketpair,
    libc::SYS_splice, libc::SYS_statfs, libc::SYS_statx, libc::SYS_symlinkat, libc::SYS_sync,
    libc::SYS_sync_file_range, libc::SYS_syncfs, libc::SYS_sysinfo, libc::SYS_tee, libc::SYS_tgkill,
    libc::SYS_timer_create, libc::SYS_timer_delete, libc::SYS_timer_getoverrun, libc::SYS_timer_gettime,
    libc::SYS_timer_settime, libc::SYS_timerfd_create, libc::SYS_timerfd_gettime, libc::SYS_timerfd_settime,
    libc::SYS_times, libc::SYS_tkill, libc::SYS_truncate, libc::SYS_umask, libc::SYS_uname,
    libc::SYS_unlinkat, libc::SYS_utimensat, libc::SYS_vmsplice, libc::SYS_wait4, libc::SYS_waitid,
    libc::SYS_write, libc::SYS_writev,
    // Younger than the C library's headers.
    451, /* cachestat */ 452, /* fchmodat2 */ 453, /* map_shadow_stack */ 454, /* futex_wake */
    455, /* futex_wait */ 456, /* futex_requeue */ 462, /* mseal */
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_access, libc::SYS_alarm, libc::SYS_arch_prctl, libc::SYS_chmod, libc::SYS_chown,
    libc::SYS_creat, libc::SYS_dup2, libc::SYS_epoll_create, libc::SYS_epoll_ctl_old, libc::SYS_epoll_wait,
    libc::SYS_epoll_wait_old, libc::SYS_eventfd, libc::SYS_fork, libc::SYS_futimesat,
    libc::SYS_get_thread_area, libc::SYS_getdents, libc::SYS_getpgrp, libc::SYS_inotify_init,
    libc::SYS_lchown, libc::SYS_link, libc::SYS_lstat, libc::SYS_mkdir, libc::SYS_mknod, libc::SYS_modify_ldt,
    libc::SYS_open, libc::SYS_pause, libc::SYS_pipe, libc::SYS_poll, libc::SYS_readlink, libc::SYS_rename,
    libc::SYS_rmdir, libc::SYS_select, libc::SYS_set_thread_area, libc::SYS_signalfd, libc::SYS_stat,
    libc::SYS_symlink, libc::SYS_time, libc::SYS_unlink, libc::SYS_utime, libc::SYS_utimes, libc::SYS_vfork,
    333, /* io_pgetevents */ libc::SYS_fadvise64, libc::SYS_sendfile,
];
#[cfg(target_arch = "aarch64")]
const ALLOWED_HERE: &[c_long] = &[
    292, /* io_pgetevents */
    223, /* fadvise64 */
    71,  /* sendfile */
];
