//! Mounts what a step sees: its root file system, and what a container runtime puts into it.
//!
//! Runs as pid 1 of the new namespaces, with all capabilities in them. Everything happens in a private mount
//! namespace before `pivot_root`, so nothing has to be undone.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, mount_move, mount_remount, unmount,
};

use super::place::{self, failure, name};
use super::{CA_BUNDLE, Command, Failure, PRIVATE, RootFs, Runner};

/// Hidden from steps, as Docker does: they tell of, or reach, the machine.
const MASKED: &[&str] = &[
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// Shown, but not to be written: they configure the kernel.
const READ_ONLY: &[&str] = &[
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];

/// Those of the host's that a step may have.
pub(super) const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Enters the root file system of a command. The mount namespace has to be new.
pub(super) fn enter(runner: Runner, command: &Command) -> Result<(), Failure> {
    detach_from_host()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let root = root(&command.rootfs)?;
    dev(&root, runner, command)?;
    proc(&root)?;
    sys(&root)?;
    for path in MASKED.iter().map(PathBuf::from).chain(sensors()) {
        mask(&root, &path)?;
    }
    for path in READ_ONLY.iter().map(Path::new) {
        if let Some(fd) = exists(&root, path)? {
            mount_bind_recursive(name(&fd), name(&fd))
                .map_err(|error| failure("mount(MS_BIND)", path, error))?;
            restrict(&root, path, MountFlags::RDONLY)?;
        }
    }
    for (file, target) in [("resolv.conf", "etc/resolv.conf"), ("hosts", "etc/hosts")] {
        let source = place::open(
            &root,
            &Path::new("dev").join(PRIVATE).join(file),
            OFlags::empty(),
        )
        .map_err(|error| failure("open", Path::new(file), error))?;
        let target = Path::new(target);
        mount_bind(name(&source), name(&place::file(&root, target, false)?))
            .map_err(|error| failure("mount(MS_BIND)", target, error))?;
    }
    for tmpfs in &command.tmpfs {
        memory(&root, tmpfs)?;
    }
    for mount in &command.mounts {
        bind(&root, mount)?;
    }
    place::directory(&root, &place::inside(&command.cwd))?;
    pivot(&root)
}

/// No mount made from here on is seen by the host.
pub(super) fn detach_from_host() -> Result<(), Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(|error| Failure::new("mount(/, MS_REC|MS_PRIVATE)", error))
}

/// Mounts a tmpfs.
pub(super) fn tmpfs(target: impl AsRef<Path>, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = CString::new(options)?;
    Ok(mount(
        "tmpfs",
        target.as_ref(),
        "tmpfs",
        flags,
        options.as_c_str(),
    )?)
}

/// Mounts an overlay upon its upper directory. Nothing of it is to survive a crash of the machine, so nobody waits until it is
/// on the disk: neither a step that calls `fsync`, nor the end of the mount.
///
/// Its options name directories by descriptor: no character in a path has to be escaped, and the kernel's limit
/// of one page is far away.
pub(super) fn overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> Result<(), Failure> {
    let open = |path: &Path| {
        rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(|error| Failure::new(format!("open({})", path.display()), error))
    };
    let lower: Vec<OwnedFd> = lower
        .iter()
        .map(|path| open(path))
        .collect::<Result<_, _>>()?;
    let names: Vec<String> = lower.iter().map(name).collect();
    let (upper_fd, work_fd) = (open(upper)?, open(work)?);
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr",
        names.join(":"),
        name(&upper_fd),
        name(&work_fd)
    );
    // It says that another mount without waiting was here before, which is no harm as long as the machine goes on.
    let _ = fs_err::remove_dir_all(work.join("work/incompat/volatile"));
    let mount = |options: String| {
        mount(
            "overlay",
            name(&upper_fd),
            "overlay",
            // A step may make device nodes, and nothing but this keeps it from opening them.
            MountFlags::NODEV,
            CString::new(options)?.as_c_str(),
        )
        .map_err(io::Error::from)
    };
    // Kernels before 5.10 do not know it.
    mount(format!("{options},volatile"))
        .or_else(|_| mount(options))
        .map_err(|error| Failure::new(format!("mount(overlay, {})", upper.display()), error))
}

fn root(rootfs: &RootFs) -> Result<OwnedFd, Failure> {
    let path = match rootfs {
        RootFs::Overlay { lower, upper, work } => {
            overlay(lower, upper, work)?;
            upper
        }
        RootFs::Directory(path) => {
            mount_bind_recursive(path, path).map_err(|error| {
                Failure::new(format!("mount({}, MS_BIND)", path.display()), error)
            })?;
            path
        }
    };
    let opened = rustix::fs::open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| Failure::new(format!("open({})", path.display()), error))?;
    if matches!(rootfs, RootFs::Directory(_)) {
        restrict(&opened, Path::new(""), MountFlags::NODEV)?;
    }
    Ok(opened)
}

/// A /dev of the step's own. A directory in it keeps copies of the host's files that the step may have: it may
/// write to them, as in a container, and the host's stay as they are.
fn dev(root: &OwnedFd, runner: Runner, command: &Command) -> Result<(), Failure> {
    let path = Path::new("dev");
    let place = place::plain_directory(root, path)?;
    tmpfs(
        name(&place),
        MountFlags::NOSUID | MountFlags::NODEV,
        "mode=755,size=65536k",
    )
    .map_err(|error| failure("mount(tmpfs)", path, error))?;
    let dev =
        place::open(root, path, OFlags::DIRECTORY).map_err(|error| failure("open", path, error))?;
    for device in DEVICES {
        let node = place::file(&dev, Path::new(device), false)?;
        mount_bind(format!("/dev/{device}"), name(&node))
            .map_err(|error| failure("mount(MS_BIND)", &path.join(device), error))?;
    }
    for (link, target) in LINKS {
        rustix::fs::symlinkat(*target, &dev, *link)
            .map_err(|error| failure("symlink", &path.join(link), error))?;
    }
    let pts = place::directory(&dev, Path::new("pts"))?;
    // The group of terminals, tty, exists where more than one id does.
    let group = if runner == Runner::UsernsSingle {
        c"newinstance,ptmxmode=0666,mode=0620"
    } else {
        c"newinstance,ptmxmode=0666,mode=0620,gid=5"
    };
    mount(
        "devpts",
        name(&pts),
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        group,
    )
    .map_err(|error| failure("mount(devpts)", &path.join("pts"), error))?;
    let shm = place::directory(&dev, Path::new("shm"))?;
    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    tmpfs(name(&shm), inert, "mode=1777,size=65536k")
        .map_err(|error| failure("mount(tmpfs)", &path.join("shm"), error))?;

    let private = place::directory(&dev, Path::new(PRIVATE))?;
    let copy = |source: &Path, file: &str| -> io::Result<()> {
        let bytes = match fs_err::read(source) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && file != CA_BUNDLE => vec![],
            result => result?,
        };
        fs_err::write(Path::new(&name(&private)).join(file), bytes)
    };
    let call = |file: &str| format!("copy({file})");
    for file in ["resolv.conf", "hosts"] {
        copy(&Path::new("/etc").join(file), file).map_err(|e| Failure::new(call(file), e))?;
    }
    if let Some(bundle) = &command.ca_bundle {
        copy(bundle, CA_BUNDLE)
            .map_err(|error| Failure::new(call(&bundle.display().to_string()), error))?;
    }
    Ok(())
}

/// A fresh procfs, or the outer one where parts of that are hidden and the kernel so refuses a fresh one.
fn proc(root: &OwnedFd) -> Result<(), Failure> {
    let path = Path::new("proc");
    let place = place::plain_directory(root, path)?;
    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("proc", name(&place), "proc", inert, None) {
        Err(Errno::PERM) => mount_bind_recursive("/proc", name(&place)),
        result => result,
    }
    .map_err(|error| failure("mount(proc)", path, error))
}

/// The host's, without what the host has mounted below it: debugfs, tracefs, other groups' control files. In a user
/// namespace those come along and cannot be taken off, so they are covered.
fn sys(root: &OwnedFd) -> Result<(), Failure> {
    let path = Path::new("sys");
    let place = place::plain_directory(root, path)?;
    mount_bind_recursive("/sys", name(&place))
        .map_err(|error| failure("mount(MS_BIND|MS_REC)", path, error))?;
    let top = full(root, path)?;
    let mut below = mounts_below(&top).map_err(|error| Failure::new("open(mountinfo)", error))?;
    below.sort();
    let mut covered: Vec<PathBuf> = Vec::new();
    for mount in below {
        let Ok(inside) = mount.strip_prefix(&top) else {
            continue;
        };
        if inside != Path::new("") && !covered.iter().any(|over| inside.starts_with(over)) {
            mask(root, &path.join(inside))?;
            covered.push(inside.to_owned());
        }
    }
    control_group(root)?;
    restrict(root, path, MountFlags::RDONLY)
}

/// The step's own control group, by which programs learn of limits, where there is a namespace for it.
fn control_group(root: &OwnedFd) -> Result<(), Failure> {
    let path = Path::new("sys/fs/cgroup");
    let Some(place) = exists(root, path)? else {
        return Ok(());
    };
    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    if mount("cgroup2", name(&place), "cgroup2", inert, None).is_err() {
        return Ok(());
    }
    // The root of all groups, which alone has no such file, tells of the whole machine.
    if exists(root, &path.join("cgroup.type"))?.is_none() {
        unmount(full(root, path)?, UnmountFlags::DETACH)
            .map_err(|error| failure("umount2", path, error))?;
    }
    Ok(())
}

/// What Docker hides of each processor.
fn sensors() -> Vec<PathBuf> {
    let folder = Path::new("sys/devices/system/cpu");
    let processors = fs_err::read_dir(Path::new("/").join(folder));
    let names = processors.into_iter().flatten().flatten();
    names
        .map(|entry| folder.join(entry.file_name()).join("thermal_throttle"))
        .collect()
}

fn mask(root: &OwnedFd, path: &Path) -> Result<(), Failure> {
    let Some(fd) = exists(root, path)? else {
        return Ok(());
    };
    let directory = place::is_directory(&fd).map_err(|error| failure("stat", path, error))?;
    if directory {
        tmpfs(name(&fd), MountFlags::RDONLY, "size=4k,mode=555")
    } else {
        mount_bind("/dev/null", name(&fd)).map_err(io::Error::from)
    }
    .map_err(|error| failure("mount", path, error))
}

fn memory(root: &OwnedFd, wanted: &super::Tmpfs) -> Result<(), Failure> {
    let path = place::inside(&wanted.target);
    let target = place::directory(root, &path)?;
    let size = wanted
        .size
        .map_or(String::new(), |size| format!(",size={size}"));
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    tmpfs(name(&target), flags, &format!("mode=1777{size}"))
        .map_err(|error| failure("mount(tmpfs)", &path, error))
}

fn bind(root: &OwnedFd, mount: &super::Mount) -> Result<(), Failure> {
    let call = |call: &str| format!("{call}({})", mount.source.display());
    let source = rustix::fs::open(&mount.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Failure::new(call("open"), error))?;
    let source = place::below(source, &mount.below)?;
    let directory =
        place::is_directory(&source).map_err(|error| Failure::new(call("stat"), error))?;
    let path = place::inside(&mount.target);
    let target = if directory {
        place::directory(root, &path)?
    } else {
        place::file(root, &path, true)?
    };
    mount_bind_recursive(name(&source), name(&target))
        .map_err(|error| failure("mount(MS_BIND)", &path, error))?;
    let read_only = if mount.read_only {
        MountFlags::RDONLY
    } else {
        MountFlags::empty()
    };
    // Set-id programs of the host's, or of a cache that all builds share, are none of the image's.
    let inert = MountFlags::NODEV | MountFlags::NOSUID;
    restrict(root, &path, inert | read_only)
}

/// Adds flags, such as read-only, to a mount and all below it.
fn restrict(root: &OwnedFd, path: &Path, flags: MountFlags) -> Result<(), Failure> {
    add_flags(&full(root, path)?, flags)
}

/// Where a path of the root file system is now.
fn full(root: &OwnedFd, path: &Path) -> Result<PathBuf, Failure> {
    let there =
        place::open(root, path, OFlags::empty()).map_err(|error| failure("open", path, error))?;
    fs_err::read_link(name(&there)).map_err(|error| failure("readlink", path, error))
}

/// A remount has to repeat the flags that are there: in a user namespace those of the host's mounts are locked.
fn add_flags(top: &Path, flags: MountFlags) -> Result<(), Failure> {
    for mount in mounts_below(top).map_err(|error| Failure::new("open(mountinfo)", error))? {
        let present = match rustix::fs::statvfs(&mount) {
            Ok(state) => state.f_flag,
            // Below a directory that is closed to this user (such as debugfs), and so to the step.
            Err(Errno::ACCESS | Errno::NOENT) => continue,
            Err(error) => return Err(failure("statvfs", &mount, error)),
        };
        mount_remount(&mount, MountFlags::BIND | flags | kept(present), "")
            .map_err(|error| failure("mount(MS_REMOUNT)", &mount, error))?;
    }
    Ok(())
}

fn kept(flags: StatVfsMountFlags) -> MountFlags {
    [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ]
    .into_iter()
    .filter(|(present, _)| flags.contains(*present))
    .map(|(_, kept)| kept)
    .collect()
}

/// The mount points at and below a path, from proc(5)'s mountinfo, where a blank is written as `\040`.
fn mounts_below(top: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs_err::read("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(std::ffi::OsString::from_vec(unescape(field))))
        .filter(|path| path.starts_with(top))
        .collect();
    found.dedup();
    Ok(found)
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = vec![];
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| first == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    bytes
}

/// Opens a path that need not exist.
fn exists(root: &OwnedFd, path: &Path) -> Result<Option<OwnedFd>, Failure> {
    match place::open(root, path, OFlags::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(failure("open", path, error)),
    }
}

/// Makes the root file system the root, and lets go of the host's.
fn pivot(root: &OwnedFd) -> Result<(), Failure> {
    rustix::process::fchdir(root).map_err(|error| Failure::new("fchdir", error))?;
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => unmount(".", UnmountFlags::DETACH)
            .map_err(|error| Failure::new("umount2(., MNT_DETACH)", error))?,
        // The root of an early boot environment cannot be pivoted away from; it is covered instead.
        Err(Errno::INVAL | Errno::PERM) => mount_move(".", "/")
            .map_err(|error| Failure::new("mount(., /, MS_MOVE)", error))
            .and_then(|()| {
                rustix::process::chroot(".").map_err(|error| Failure::new("chroot", error))
            })?,
        Err(error) => return Err(Failure::new("pivot_root", error)),
    }
    rustix::process::chdir("/").map_err(|error| Failure::new("chdir(/)", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_unescaped() {
        assert_eq!(unescape(br"/a\040b\134c\0"), br"/a b\c\0");
    }

    #[test]
    fn the_mounts_below_the_root_are_all_mounts() {
        let all = mounts_below(Path::new("/")).unwrap();
        assert!(all.contains(&PathBuf::from("/proc")), "{all:?}");
        let proc = mounts_below(Path::new("/proc")).unwrap();
        assert!(proc.iter().all(|path| path.starts_with("/proc")));
    }
}
