//! What a command is shown on the runner `chroot`, where nothing can be mounted: it is put into the root file
//! system, and taken away again when the command has ended.
//!
//! What is there already waits outside of the root file system meanwhile, and comes back. Places are found, by
//! lookups that no link leads out of, before the command runs, and their directories are held: wherever a command
//! moves those, it is there that things are taken away.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::copies::{Back, copy, copy_back, remove, set_mode};
use super::mounts::DEVICES;
use super::place::{self, failure, keep_times, name};
use super::{CA_BUNDLE, Command, Failure, PRIVATE, RootFs};

/// What programs ask of /proc and /sys, as far as it is the same for every process. It is shown as it is when the
/// command begins.
const KERNEL: &[&str] = &[
    "proc/cpuinfo",
    "proc/filesystems",
    "proc/loadavg",
    "proc/meminfo",
    "proc/stat",
    "proc/sys/kernel/cap_last_cap",
    "proc/sys/kernel/osrelease",
    "proc/sys/kernel/ostype",
    "proc/sys/kernel/pid_max",
    "proc/sys/kernel/version",
    "proc/sys/net/core/somaxconn",
    "proc/sys/vm/overcommit_memory",
    "proc/uptime",
    "proc/version",
    "sys/devices/system/cpu/online",
    "sys/devices/system/cpu/possible",
    "sys/devices/system/cpu/present",
    "sys/kernel/mm/transparent_hugepage/enabled",
];

/// All that was put into a root file system.
pub(super) struct Shown {
    root: OwnedFd,
    /// Where that waits which was there, by the number of its change.
    aside: OwnedFd,
    /// Its path, which is outside of the root file system.
    aside_path: PathBuf,
    changes: Vec<Change>,
    taps: Vec<OwnedFd>,
}

/// One thing that was done, to be undone.
struct Change {
    /// The directory that holds it.
    parent: OwnedFd,
    name: OsString,
    kind: Kind,
}

enum Kind {
    /// A directory on the way; it stays if the command put something into it.
    Made,
    /// Something put there.
    Put {
        /// Whether something waits.
        covers: bool,
        /// What changes are copied to when the command has ended.
        back: Option<Back>,
    },
}

impl Shown {
    /// Puts it all there.
    pub(super) fn put(command: &Command) -> Result<Self, Failure> {
        let path = directory(&command.rootfs)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        let open = |path: &Path| open(path, OFlags::DIRECTORY);
        let aside = path.with_extension("aside");
        fs::create_dir_all(&aside)
            .map_err(|error| Failure::new(format!("mkdir({})", aside.display()), error))?;
        let mut shown = Self {
            root: open(path)?,
            aside: open(&aside)?,
            aside_path: aside,
            changes: Vec::new(),
            taps: Vec::new(),
        };
        let put = shown.put_all(command);
        match put {
            Ok(()) => Ok(shown),
            Err(failure) => {
                let _ = shown.take_away(false);
                Err(failure)
            }
        }
    }

    fn put_all(&mut self, command: &Command) -> Result<(), Failure> {
        for target in ["etc/resolv.conf", "etc/hosts"] {
            let bytes = fs::read(Path::new("/").join(target)).unwrap_or_default();
            self.put_at(Path::new(target), |place| fs::write(place, bytes))?;
        }
        self.dev(command)?;
        self.kernel()?;
        for tmpfs in &command.tmpfs {
            let path = self.resolve(&place::inside(&tmpfs.target))?;
            self.put_at(&path, |place| {
                fs::create_dir(place)?;
                set_mode(place, 0o1777)
            })?;
        }
        for mount in &command.mounts {
            let shown = mount.source.display();
            let source = open(&mount.source, OFlags::empty())?;
            let source = fs::read_link(name(&place::below(source, &mount.below)?))
                .map_err(|error| Failure::new(format!("open({shown})"), error))?;
            let root = fs::read_link(name(&self.root))
                .map_err(|error| Failure::new("readlink(root)", error))?;
            if root.starts_with(&source) {
                let reason = "the store lies in it, and nothing can be mounted here: choose another with `--store`";
                return Err(Failure::said(format!("copy({shown})"), reason));
            }
            let path = self.resolve(&place::inside(&mount.target))?;
            self.put_with_back(&path, |place| {
                copy(&source, place)?;
                if mount.read_only {
                    return Ok(None);
                }
                Back::of(place, source).map(Some)
            })?;
        }
        // This one stays, as with other builders.
        place::directory(&self.root, &place::inside(&command.cwd)).map(drop)
    }

    /// `/dev/stdout` and `/dev/stderr`, in this order. Elsewhere they lead to /proc; here they are pipes, to be read
    /// and passed on.
    pub(super) fn taps(&self) -> &[OwnedFd] {
        &self.taps
    }

    /// Makes all as it was, and with `copies_back` what is mounted elsewhere as the command left it. No process may be
    /// left that the command began.
    pub(super) fn take_away(mut self, copies_back: bool) -> Result<(), Failure> {
        let mut result = Ok(());
        while let Some(change) = self.changes.pop() {
            let call = |call: &str| format!("{call}({})", change.name.display());
            let copied = match &change.kind {
                Kind::Put {
                    back: Some(back), ..
                } if copies_back => copy_back(&at(&change.parent, &change.name), back)
                    .map_err(|error| Failure::new(call("copy back"), error)),
                _ => Ok(()),
            };
            let undone = self
                .undo(&change)
                .map_err(|error| Failure::new(call("take away"), error));
            result = result.and(copied).and(undone);
        }
        // What could not be put back is better kept than lost.
        let _ = fs::remove_dir(&self.aside_path);
        result
    }

    fn undo(&self, change: &Change) -> io::Result<()> {
        let Change { parent, name, kind } = change;
        let covers = match kind {
            Kind::Made => {
                // The command may have put something there, or taken it away.
                let _ = keep_times(parent, || {
                    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
                });
                return Ok(());
            }
            Kind::Put { covers, .. } => *covers,
        };
        let there = at(parent, name);
        keep_times(parent, || {
            remove(&there)?;
            if covers {
                let number = self.changes.len().to_string();
                match rustix::fs::renameat(&self.aside, &number, parent, name) {
                    Ok(()) => {}
                    // The command has removed the directory, and with it what was there.
                    Err(Errno::NOENT) => remove(&self.aside_path.join(number))?,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
    }

    /// Puts something at a path of the root file system, whose last name is taken as it is.
    fn put_at(
        &mut self,
        path: &Path,
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), Failure> {
        self.put_with_back(path, |place| make(place).map(|()| None))
    }

    /// The same; `make` gives what changes are copied to.
    fn put_with_back(
        &mut self,
        path: &Path,
        make: impl FnOnce(&Path) -> io::Result<Option<Back>>,
    ) -> Result<(), Failure> {
        let (parent, name) = place::split(path)?;
        let parent = self.directory(parent)?;
        let covers = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if covers {
            let number = self.changes.len().to_string();
            keep_times(&parent, || {
                rustix::fs::renameat(&parent, name, &self.aside, number)
            })
            .map_err(|error| failure("rename", path, error))?;
        }
        let put = keep_times(&parent, || make(&at(&parent, name)));
        // What was put there in part has to go as well.
        let (back, put) = match put {
            Ok(back) => (back, Ok(())),
            Err(error) => (None, Err(failure("create", path, error))),
        };
        self.changes.push(Change {
            name: name.to_owned(),
            parent,
            kind: Kind::Put { covers, back },
        });
        put
    }

    /// Opens a directory, made if it is not there, with those that lead to it.
    fn directory(&mut self, path: &Path) -> Result<OwnedFd, Failure> {
        match place::open(&self.root, path, OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            result => return result.map_err(|error| failure("open", path, error)),
        }
        let (above, name) = place::split(path)?;
        let parent = self.directory(above)?;
        let made = place::directory(&self.root, path)?;
        self.changes.push(Change {
            parent,
            name: name.to_owned(),
            kind: Kind::Made,
        });
        Ok(made)
    }

    /// The path that a path leads to, if something is there.
    fn resolve(&self, path: &Path) -> Result<PathBuf, Failure> {
        match place::open(&self.root, path, OFlags::empty()) {
            Err(Errno::NOENT) => Ok(path.to_owned()),
            Err(error) => Err(failure("open", path, error)),
            Ok(there) => {
                let [there, root] = [&there, &self.root].map(|fd| fs::read_link(name(fd)));
                let (there, root) = there
                    .and_then(|there| Ok((there, root?)))
                    .map_err(|error| failure("readlink", path, error))?;
                Ok(there.strip_prefix(root).unwrap_or(path).to_owned())
            }
        }
    }

    /// A /dev of the command's own, with copies of the host's files that it may have.
    fn dev(&mut self, command: &Command) -> Result<(), Failure> {
        let path = Path::new("dev");
        let mut taps = Vec::new();
        self.put_at(path, |dev| {
            fs::create_dir(dev)?;
            for device in DEVICES {
                let host = rustix::fs::stat(Path::new("/dev").join(device))?;
                let node = dev.join(device);
                let mode = Mode::from_raw_mode(0o666);
                rustix::fs::mknodat(CWD, &node, FileType::CharacterDevice, mode, host.st_rdev)?;
                set_mode(&node, 0o666)?;
            }
            for folder in ["pts", "shm", PRIVATE] {
                fs::create_dir(dev.join(folder))?;
            }
            set_mode(&dev.join("shm"), 0o1777)?;
            let private = dev.join(PRIVATE);
            if let Some(bundle) = &command.ca_bundle {
                fs::copy(bundle, private.join(CA_BUNDLE))?;
            }
            for tap in ["stdout", "stderr"] {
                let tap = dev.join(tap);
                let mode = Mode::from_raw_mode(0o622);
                rustix::fs::mknodat(CWD, &tap, FileType::Fifo, mode, 0)?;
                set_mode(&tap, 0o622)?;
                // With one end of each kind here neither opening nor writing ever waits for somebody else.
                let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
                taps.push(rustix::fs::open(&tap, flags, Mode::empty())?);
            }
            Ok(())
        })?;
        self.taps = taps;
        // On a file system without devices they are there, and closed.
        let null = place::open(&self.root, &path.join("null"), OFlags::empty())
            .map_err(|error| failure("open", path, error))?;
        rustix::fs::open(name(&null), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map(drop)
            .map_err(|error| failure("open", &path.join("null"), error))
    }

    /// What can be had of /proc and /sys.
    fn kernel(&mut self) -> Result<(), Failure> {
        for folder in ["proc", "sys"] {
            self.put_at(Path::new(folder), |place| {
                fs::create_dir(place)?;
                let inside = |path: &&&str| Path::new(path).starts_with(folder);
                for file in KERNEL.iter().filter(inside) {
                    // Not all kernels have all of them, and an outer container may hide some.
                    let Ok(text) = fs::read(Path::new("/").join(file)) else {
                        continue;
                    };
                    let copy = place.join(
                        Path::new(file)
                            .strip_prefix(folder)
                            .unwrap_or(Path::new(file)),
                    );
                    fs::create_dir_all(copy.parent().unwrap_or(place))?;
                    fs::write(&copy, text)?;
                    set_mode(&copy, 0o444)?;
                }
                if folder == "proc" {
                    fs::write(place.join("mounts"), "rootfs / rootfs rw 0 0\n")?;
                }
                set_mode(place, 0o555)
            })?;
        }
        Ok(())
    }
}

/// Why there is no overlay.
pub(super) fn no_mounts() -> Failure {
    Failure::said("mount(overlay)", "nothing can be mounted here")
}

/// Opens a path of the host.
fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Failure> {
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| Failure::new(format!("open({})", path.display()), error))
}

fn directory(rootfs: &RootFs) -> Result<&Path, Failure> {
    match rootfs {
        RootFs::Directory(path) => Ok(path),
        RootFs::Overlay { .. } => Err(no_mounts()),
    }
}

/// Makes the root file system the root of this process.
pub(super) fn enter(rootfs: &RootFs) -> Result<(), Failure> {
    rustix::process::chroot(directory(rootfs)?).map_err(|error| Failure::new("chroot", error))?;
    rustix::process::chdir("/").map_err(|error| Failure::new("chdir(/)", error))
}

/// Whether the devices of this machine are closed to root, as an outer container's are: then a command may make
/// nodes for them. Asked for a disk that no machine has, in the root of the command.
pub(super) fn devices_are_guarded() -> Result<bool, Failure> {
    let node = Path::new("/dev/.probe");
    let disk = rustix::fs::makedev(259, (1 << 20) - 1);
    let owners_only = Mode::from_raw_mode(0o600);
    match rustix::fs::mknodat(CWD, node, FileType::BlockDevice, owners_only, disk) {
        Err(Errno::PERM) => return Ok(true),
        result => result.map_err(|error| Failure::new("mknod", error))?,
    }
    let opened = rustix::fs::open(node, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    fs::remove_file(node).map_err(|error| Failure::new("unlink", error))?;
    Ok(matches!(opened, Err(Errno::PERM | Errno::ACCESS)))
}

/// A path for what lies in a directory; only its last part may be a link.
fn at(parent: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new(&place::name(parent)).join(name)
}
