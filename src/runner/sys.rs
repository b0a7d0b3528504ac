//! The system calls that neither the standard library nor `rustix` offers in safe form.
//!
//! All of them are for processes that have one thread: the helper that this module
//! started again, before anything of the program ran in it, and what it forks.
#![expect(
    unsafe_code,
    reason = "fork, execve, unshare, signal dispositions and filters have no safe interface"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use seccompiler::BpfProgram;

/// Forks. `None` is the child. The process has to have one thread.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the process has a single thread, so the child may do whatever the parent may.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid))
}

/// Leaves namespaces for new ones.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: no flag that we pass unshares the table of file descriptors, which is what is unsafe of it.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Executes a program; returns only if that failed.
pub(super) fn execve(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(ptr::null());
        pointers
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both arrays end with a null pointer and live, with their strings, through the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends the process at once, without the handlers of the program whose copy it is.
pub(super) fn exit(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Ignores signals.
pub(super) fn ignore(signals: &[i32]) {
    for signal in signals {
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(*signal, libc::SIG_IGN) };
    }
}

/// Blocks `SIGCHLD` and gives a descriptor that becomes readable when it arrives.
pub(super) fn child_signal() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by `sigemptyset` before it is used; the descriptor is new and ours.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

/// Gives every signal its default disposition and blocks none.
pub(super) fn restore_signals() {
    // The kernel's own structure, with the default for a handler and nothing else: the C library keeps two
    // signals for itself, but the caller's caller may have ignored them.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the default disposition installs no handler, and the structure is no larger than this on the
        // architectures that we know. SIGKILL and SIGSTOP fail, which have it already.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                0,
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: the set lives through the call.
    unsafe {
        let none = 0_u64;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            0,
            size_of::<u64>(),
        )
    };
}

/// Marks all descriptors from `first` on to be closed by `execve`.
pub(super) fn close_on_exec_from(first: u32) {
    // SAFETY: no descriptor is closed or used; by number, since the C library's wrapper is younger than the
    // systems that we run on.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        return;
    }
    // Before Linux 5.11. The limit may be large, but then the list of what is open is there as well.
    let listed: Vec<i32> = match fs_err::read_dir("/proc/self/fd") {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect(),
        Err(_) => (0..4096).collect(),
    };
    for fd in listed
        .into_iter()
        .filter(|fd| u32::try_from(*fd).is_ok_and(|fd| fd >= first))
    {
        // SAFETY: setting the flag of a descriptor that is not open fails with EBADF and does nothing.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Leaves the session's keyring, with whatever the caller keeps in it, for a new one. Kernels without keyrings,
/// or a filter of an outer container, refuse: then there is none to leave.
pub(super) fn leave_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<libc::c_char>(),
        )
    };
}

/// Names the machine, in this UTS namespace.
pub(super) fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of a string that lives through the call.
    let done = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Installs a filter for system calls. Needs `CAP_SYS_ADMIN` or no-new-privileges.
pub(super) fn install_filter(program: &BpfProgram) -> io::Result<()> {
    let mut instructions: Vec<libc::sock_filter> = program
        .iter()
        .map(|i| libc::sock_filter {
            code: i.code,
            jt: i.jt,
            jf: i.jf,
            k: i.k,
        })
        .collect();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(io::Error::other)?,
        filter: instructions.as_mut_ptr(),
    };
    // SAFETY: the program points to `len` instructions that live through the call; the kernel copies them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
