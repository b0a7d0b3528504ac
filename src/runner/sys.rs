//! The system calls that neither the standard library nor `rustix` offers in safe form.
//!
//! All of them are for processes that have one thread: the helper that this module
//! started again, before anything of the program ran in it, and what it forks.
#![expect(
    unsafe_code,
    reason = "fork, execve, unshare, signal dispositions, filters and other processes' memory have no safe \
              interface"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
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

/// Whether clone3(2) is refused, rather than carried out or not there.
pub(super) fn clone3_is_forbidden() -> bool {
    // SAFETY: no kernel carries out a call with arguments of no size.
    let done = unsafe { libc::syscall(libc::SYS_clone3, ptr::null::<u64>(), 0_usize) };
    outcome(done).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
}

/// Keeps this process, and all that it begins, to the files below a directory, and from signals and abstract sockets of
/// others (`landlock(7)`). Needs no-new-privileges. Gives whether the kernel can do that.
pub(super) fn keep_below(root: &OwnedFd) -> io::Result<bool> {
    /// `struct landlock_ruleset_attr`
    #[repr(C)]
    struct Ruleset {
        files: u64,
        net: u64,
        scoped: u64,
    }
    /// `struct landlock_path_beneath_attr`
    #[repr(C, packed)]
    struct Beneath {
        files: u64,
        directory: libc::c_int,
    }
    const CREATE_RULESET_VERSION: libc::c_ulong = 1;
    const RULE_PATH_BENEATH: libc::c_ulong = 1;
    // SAFETY: without attributes the kernel is only asked for its version.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<Ruleset>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    // Without version 2 nothing could be moved from one directory to another.
    if version < 2 {
        return Ok(false);
    }
    let rights = if version < 3 { 14 } else { 15 };
    let ruleset = Ruleset {
        files: (1 << rights) - 1,
        net: 0,
        // Abstract sockets, and signals.
        scoped: if version < 6 { 0 } else { 0b11 },
    };
    // What came later than the kernel may not be there.
    let size: usize = match version {
        ..4 => 8,
        4..6 => 16,
        _ => 24,
    };
    // SAFETY: the structure is as long as it is said to be, and lives through the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const ruleset,
            size,
            0_usize,
        )
    };
    let fd = i32::try_from(outcome(fd)?).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and ours.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let beneath = Beneath {
        files: ruleset.files,
        directory: root.as_raw_fd(),
    };
    // SAFETY: the structure lives through the call.
    let added = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            fd.as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const beneath,
            0_usize,
        )
    };
    outcome(added)?;
    // SAFETY: it takes no pointers.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0_usize) };
    outcome(done).map(|_| true)
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
    seccomp(program, 0).map(drop)
}

/// Installs a filter whose notices arrive at the descriptor, until the last process under it has ended.
pub(super) fn install_listener(program: &BpfProgram) -> io::Result<OwnedFd> {
    let killable =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let fd = match seccomp(program, killable) {
        // Before Linux 5.19 a signal makes the call start anew, and be told of twice.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            seccomp(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)
        }
        result => result,
    }?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn seccomp(program: &BpfProgram, flags: libc::c_ulong) -> io::Result<libc::c_long> {
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
            flags,
            &raw const program,
        )
    };
    outcome(done)
}

fn outcome(done: libc::c_long) -> io::Result<libc::c_long> {
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(done)
    }
}

/// Sets the loopback interface of this network namespace up.
pub(super) fn raise_loopback() -> io::Result<()> {
    // SAFETY: the structure is valid with all bits zero, and lives through the call; the name is shorter than
    // its place; the descriptor is new and ours.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        let socket = OwnedFd::from_raw_fd(socket);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = from.cast_signed();
        }
        let up = libc::IFF_UP | libc::IFF_RUNNING;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(up).map_err(io::Error::other)?;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Notice {
    /// Names the call as long as it waits.
    pub(super) id: u64,
    /// Who called, in this process's pid namespace.
    pub(super) thread: i32,
    /// Which call.
    pub(super) number: libc::c_long,
    /// As the kernel got them.
    pub(super) arguments: [u64; 6],
}

/// What a call gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// This value.
    Value(i64),
    /// This error.
    Error(rustix::io::Errno),
    /// Whatever the kernel says.
    Continue,
}

/// The next notice; `None` if the call that was told of does not wait any more. Blocks only if none was told.
pub(super) fn receive_notice(listener: &OwnedFd) -> io::Result<Option<Notice>> {
    #[repr(C)]
    struct Padded {
        notice: libc::seccomp_notif,
        // A younger kernel may have more to say.
        room: [u8; 256],
    }
    // SAFETY: all of it is integers, for which zero is a value; the kernel asks for zeros.
    let mut padded: Padded = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a notice, which there is room for.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut padded,
        )
    };
    match outcome(done.into()) {
        Ok(_) => {
            let notice = padded.notice;
            Ok(Some(Notice {
                id: notice.id,
                thread: notice.pid.cast_signed(),
                number: notice.data.nr.into(),
                arguments: notice.data.args,
            }))
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Answers a call. One that does not wait any more needs no answer.
pub(super) fn answer_notice(listener: &OwnedFd, id: u64, answer: Answer) {
    let mut response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: 0,
        flags: 0,
    };
    match answer {
        Answer::Value(value) => response.val = value,
        Answer::Error(error) => response.error = -error.raw_os_error(),
        // The flag is the lowest bit.
        Answer::Continue => response.flags = 1,
    }
    // SAFETY: the kernel reads a response, and writes none.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut response,
        )
    };
    let is_unknown =
        outcome(done.into()).is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL));
    if is_unknown && answer == Answer::Continue {
        // Before Linux 5.5 no call goes on; it may not wait for ever either.
        answer_notice(listener, id, Answer::Error(rustix::io::Errno::NOSYS));
    }
}

/// Whether a call still waits. Only then is what was found by its thread's number that thread's.
pub(super) fn is_waiting(listener: &OwnedFd, id: u64) -> bool {
    // SAFETY: the kernel reads the number.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
            &raw const id,
        )
    };
    done == 0
}

/// Answers a call by a descriptor of its own for what `fd` names.
pub(super) fn answer_descriptor(
    listener: &OwnedFd,
    id: u64,
    fd: &OwnedFd,
    close_on_exec: bool,
) -> io::Result<()> {
    /// Adds the descriptor and answers with its number, or does neither.
    const SECCOMP_ADDFD_FLAG_SEND: u32 = 1 << 1;
    let mut request = libc::seccomp_notif_addfd {
        id,
        flags: SECCOMP_ADDFD_FLAG_SEND,
        srcfd: fd.as_raw_fd().cast_unsigned(),
        newfd: 0,
        newfd_flags: if close_on_exec {
            libc::O_CLOEXEC.cast_unsigned()
        } else {
            0
        },
    };
    // SAFETY: the kernel reads a request.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ADDFD,
            &raw mut request,
        )
    };
    outcome(done.into()).map(drop)
}

/// Wakes those that wait for an answer on the processor that answers, where the kernel can: both then take
/// turns, and neither waits for another processor.
pub(super) fn answer_on_same_processor(listener: &OwnedFd) {
    const SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the flags are a number.
    unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
            SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP,
        )
    };
}

/// Reads another process's memory; gives how much of it is there.
pub(super) fn read_memory(thread: i32, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let ours = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: the kernel writes into the buffer, which is ours and as long as it says.
    unsafe { move_memory(libc::SYS_process_vm_readv, thread, ours, address) }
}

/// Writes all of `bytes` into another process's memory.
pub(super) fn write_memory(thread: i32, address: u64, bytes: &[u8]) -> io::Result<()> {
    let ours = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel reads the bytes.
    let written = unsafe { move_memory(libc::SYS_process_vm_writev, thread, ours, address) }?;
    if written == bytes.len() {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EFAULT))
    }
}

/// Moves memory between this process and another one, in the direction of `call`; gives how much was moved.
///
/// # Safety
///
/// `ours` has to be memory that `call` may read, or write to.
unsafe fn move_memory(
    call: libc::c_long,
    thread: i32,
    ours: libc::iovec,
    address: u64,
) -> io::Result<usize> {
    let address =
        usize::try_from(address).map_err(|_| io::Error::from_raw_os_error(libc::EFAULT))?;
    let theirs = libc::iovec {
        iov_base: ptr::without_provenance_mut(address),
        iov_len: ours.iov_len,
    };
    // The last argument lies on the stack, where a narrow zero is not zero all over.
    // SAFETY: ours is as the caller promises; the other address is only looked at in the other process.
    let done = unsafe {
        libc::syscall(
            call,
            thread,
            &raw const ours,
            1_usize,
            &raw const theirs,
            1_usize,
            0_usize,
        )
    };
    usize::try_from(outcome(done)?).map_err(io::Error::other)
}

/// What the file system calls a file for as long as it exists: unlike the number of its inode, no later file
/// gets the same.
pub(super) fn file_handle(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    /// `MAX_HANDLE_SZ` of linux/exportfs.h.
    const ROOM: u8 = 128;
    #[repr(C)]
    struct Handle {
        length: u32,
        kind: i32,
        bytes: [u8; ROOM as usize],
    }
    let mut handle = Handle {
        length: ROOM.into(),
        kind: 0,
        bytes: [0; ROOM as usize],
    };
    let mut mount: libc::c_int = 0;
    // SAFETY: the kernel writes at most `length` bytes, and the number of the mount.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            fd.as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    outcome(done)?;
    let length = usize::from(u8::try_from(handle.length).unwrap_or(ROOM).min(ROOM));
    let mut name = handle.kind.to_ne_bytes().to_vec();
    name.extend_from_slice(&handle.bytes[..length]);
    Ok(name)
}

/// The soft and hard limit of a process's resident memory, which no kernel since 2.6 heeds.
pub(super) fn resident_limit(process: i32) -> io::Result<(u64, u64)> {
    let mut limit = [0_u64; 2];
    // SAFETY: the kernel writes both numbers.
    let done = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            process,
            libc::RLIMIT_RSS,
            ptr::null::<u64>(),
            &raw mut limit,
        )
    };
    outcome(done).map(|_| (limit[0], limit[1]))
}

/// Sets what [`resident_limit`] gives.
pub(super) fn set_resident_limit(process: i32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = [soft, hard];
    // SAFETY: the kernel reads both numbers.
    let done = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            process,
            libc::RLIMIT_RSS,
            &raw const limit,
            ptr::null_mut::<u64>(),
        )
    };
    outcome(done).map(drop)
}

/// The bytes that `stat` gives of a file, with another owner.
pub(super) fn status(fd: &OwnedFd, (uid, gid): (u32, u32)) -> io::Result<Vec<u8>> {
    // SAFETY: all of it is integers, for which zero is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes the structure that it shares with the C library on the architectures that the
    // filters are made for.
    let done = unsafe {
        libc::syscall(
            libc::SYS_newfstatat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            &raw mut stat,
            libc::AT_EMPTY_PATH,
        )
    };
    outcome(done)?;
    (stat.st_uid, stat.st_gid) = (uid, gid);
    let first = (&raw const stat).cast::<u8>();
    // SAFETY: the structure was zeroed as a whole, so all of its bytes are initialised; they are copied while it
    // lives.
    Ok(unsafe { std::slice::from_raw_parts(first, size_of::<libc::stat>()) }.to_vec())
}

/// The bytes that `statx` gives of a file, with another owner.
pub(super) fn extended_status(
    fd: &OwnedFd,
    flags: libc::c_int,
    mask: u32,
    (uid, gid): (u32, u32),
) -> io::Result<Vec<u8>> {
    /// Where the owner is in the kernel's structure, after the mask, the block size, eight bytes of attributes
    /// and the number of links.
    const OWNER: usize = 20;
    let mut bytes = vec![0_u8; 256];
    // SAFETY: the kernel's structure has 256 bytes.
    let done = unsafe {
        libc::syscall(
            libc::SYS_statx,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags | libc::AT_EMPTY_PATH,
            mask,
            bytes.as_mut_ptr(),
        )
    };
    outcome(done)?;
    bytes[OWNER..OWNER + 4].copy_from_slice(&uid.to_ne_bytes());
    bytes[OWNER + 4..OWNER + 8].copy_from_slice(&gid.to_ne_bytes());
    Ok(bytes)
}
