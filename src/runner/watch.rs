//! Finds out whether a command looked at paths of its root file system: then what it made may depend on them.
//!
//! Nothing is kept from the command, and nothing slows it down. The kernel itself remembers the names that were looked
//! up in a file system, those that do not exist included, and tells of a name whether it does (`RESOLVE_CACHED` of
//! openat2(2), since Linux 5.12). An overlay is mounted anew for each command, so at its beginning no name is known; a
//! name that is not known at its end was neither opened, nor asked for by stat(2), nor removed or renamed. What lists
//! or changes a directory itself is told by inotify(7). The attributes of a watched directory do not count: shells ask
//! for those of their working directory.
//!
//! A kernel that is short of memory forgets names, the oldest first. So names that nobody else uses are looked up
//! before the command starts, on each processor, since memory is kept apart by processor: if one of them is forgotten,
//! others may be.
//!
//! Some file systems below an overlay, such as NFS and FUSE, have each name asked for again after a while, and until
//! then it counts as forgotten. So only those are relied upon that are known not to.
//!
//! In doubt a command has looked: on kernels and in containers where any of this fails, and in a root file system that
//! is no overlay.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{Mode, OFlags, ResolveFlags, inotify};
use rustix::io::Errno;
use rustix::thread::CpuSet;
use serde::{Deserialize, Serialize};

use super::{Command, Failure, RootFs, init, wire};

/// The numbers of ext4, XFS, Btrfs, tmpfs, F2FS and bcachefs, none of which forgets a name by itself.
const LASTING: [u32; 6] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0xf2f5_2010,
    0xca45_1a4e,
];

/// The content of [`Watch::report`] once a command has looked at nothing.
const UNSEEN: &[u8] = b"unseen";

/// Paths of a root file system, and whether a command has looked at them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Watch {
    /// Directories that count when they are listed or changed; absolute.
    #[serde(with = "wire::paths")]
    pub directories: Vec<PathBuf>,
    /// Paths in them that count when they are looked up, for whatever purpose; absolute.
    #[serde(with = "wire::paths")]
    pub names: Vec<PathBuf>,
    /// A file of the host's that says what came of it, see [`Watch::is_unseen`].
    #[serde(with = "wire::path")]
    pub report: PathBuf,
}

impl Watch {
    /// Whether it is certain that the command, which has ended with success, looked at none of this.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        fs::read(&self.report).is_ok_and(|text| text == UNSEEN)
    }
}

/// Files to open while the host's file system is in sight.
pub(super) struct Prepared<'a> {
    watch: &'a Watch,
    report: fs::File,
}

impl<'a> Prepared<'a> {
    pub(super) fn open(command: &'a Command) -> Result<Option<Self>, Failure> {
        let RootFs::Overlay { lower, upper, .. } = &command.rootfs else {
            return Ok(None);
        };
        let is_lasting = || lower.iter().chain([upper]).all(|tree| is_lasting(tree));
        let Some(watch) = command.watch.as_ref().filter(|_| is_lasting()) else {
            return Ok(None);
        };
        let call = || format!("open({})", watch.report.display());
        let report = fs::File::create(&watch.report);
        let report = report.map_err(|error| Failure::new(call(), error))?;
        Ok(Some(Self { watch, report }))
    }

    /// Begins to watch, in the root file system and before the command starts; `None` where that is not possible.
    pub(super) fn begin(self) -> Option<Watcher<'a>> {
        use inotify::{CreateFlags, WatchFlags};
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        let mut marks = Vec::new();
        for directory in &self.watch.directories {
            let flags = WatchFlags::ALL_EVENTS | WatchFlags::DONT_FOLLOW | WatchFlags::ONLYDIR;
            inotify::add_watch(&events, directory, flags).ok()?;
            marks.extend(self::marks(directory).ok()?);
        }
        Some(Watcher {
            watch: self.watch,
            report: self.report,
            events,
            marks,
        })
    }
}

/// Lives in pid 1, inside the root file system.
pub(super) struct Watcher<'a> {
    watch: &'a Watch,
    report: fs::File,
    events: OwnedFd,
    marks: Vec<PathBuf>,
}

impl Watcher<'_> {
    /// Says what came of it, once no process of the command is left.
    pub(super) fn complete(self) -> Result<(), Failure> {
        init::end_others();
        if self.is_unseen() {
            let written = std::io::Write::write_all(&mut &self.report, UNSEEN);
            written.map_err(|error| Failure::new("write", error))?;
        }
        Ok(())
    }

    fn is_unseen(&self) -> bool {
        let is_unknown = |path: &PathBuf| is_known(path) == Ok(false);
        let is_reliable = |mark: &PathBuf| is_known(mark) == Ok(true);
        self.is_quiet()
            && self.watch.names.iter().all(is_unknown)
            && self.marks.iter().all(is_reliable)
    }

    /// Whether no directory was listed or changed. Accesses to a file in one are known by its name.
    fn is_quiet(&self) -> bool {
        use inotify::ReadFlags;
        let changes =
            ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.events, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.file_name().is_none() => return false,
                Ok(event) if event.events().intersects(changes) => return false,
                Ok(_) => {}
                Err(error) => return error == Errno::AGAIN,
            }
        }
    }
}

/// Whether the file system of `tree` forgets names only when memory runs short.
fn is_lasting(tree: &Path) -> bool {
    let kind = rustix::fs::statfs(tree).map(|found| found.f_type);
    kind.is_ok_and(|kind| u32::try_from(kind).is_ok_and(|kind| LASTING.contains(&kind)))
}

/// Looks up names that do not exist in a directory, one on each processor that the command may run on.
fn marks(directory: &Path) -> Result<Vec<PathBuf>, Errno> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let processors = (0..CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number));
    let marks = processors.map(|number| {
        let mut only = CpuSet::new();
        only.set(number);
        rustix::thread::sched_setaffinity(None, &only)?;
        let mark = directory.join(format!(".pyats-image-build-{number}"));
        match rustix::fs::lstat(&mark) {
            Err(Errno::NOENT) => Ok(mark),
            Err(error) => Err(error),
            Ok(_) => Err(Errno::EXIST),
        }
    });
    let marks = marks.collect();
    rustix::thread::sched_setaffinity(None, &allowed)?;
    marks
}

/// Whether the kernel remembers a path, and so somebody has looked at it.
fn is_known(path: &Path) -> Result<bool, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let cached = ResolveFlags::CACHED;
    match rustix::fs::openat2(rustix::fs::CWD, path, flags, Mode::empty(), cached) {
        Ok(_) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error),
    }
}
