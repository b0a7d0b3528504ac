//! Tries the runners. A call that succeeds proves little (a security module may let `unshare` pass and refuse the
//! next step), so each runner is gone to its end, in a helper process, on a file system in memory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, StatVfsMountFlags, Uid};
use rustix::mount::MountFlags;
use rustix::process::WaitOptions;

use super::failure::Failure;
use super::seccomp::Told;
use super::shown::{self, Shown};
use super::wire::Job;
use super::{
    Command, Error, Outcome, Refusal, Report, RootFs, Runner, child, init, mounts, parent, sys,
};

/// See [`super::probe`].
pub(super) fn report(directory: &Path) -> Report {
    Report {
        runners: Runner::ALL
            .into_iter()
            .map(|runner| (runner, attempt(runner, directory)))
            .collect(),
    }
}

/// See [`super::choose`].
pub(super) fn choose(
    forced: Option<Runner>,
    directory: &Path,
) -> Result<(Runner, Vec<(Runner, Refusal)>), Error> {
    child::require()?;
    let mut refused = vec![];
    for runner in Runner::ALL
        .into_iter()
        .filter(|runner| forced.is_none_or(|forced| forced == *runner))
    {
        match attempt(runner, directory) {
            Ok(()) => return Ok((runner, refused)),
            Err(refusal) => refused.push((runner, refusal)),
        }
    }
    Err(Error::Refused { runners: refused })
}

/// See [`super::next`].
pub(super) fn next(runner: Runner, directory: &Path) -> Option<Runner> {
    let mut after = Runner::ALL.into_iter().filter(|other| *other > runner);
    after.find(|runner| attempt(*runner, directory).is_ok())
}

/// See [`super::probe_overlay`].
pub(super) fn probe_overlay(runner: Runner, directory: &Path) -> Result<(), Refusal> {
    let failed = |error| Failure::new(format!("mkdir({})", directory.display()), error);
    let directory = tempfile::Builder::new()
        .prefix(".probe-")
        .tempdir_in(directory)
        .map_err(|error| failed(error).refusal(runner))?;
    let job = Job::Overlay {
        directory: directory.path().to_owned(),
    };
    parent::attempt(runner, job)
}

fn attempt(runner: Runner, directory: &Path) -> Result<(), Refusal> {
    if matches!(runner, Runner::Root | Runner::Chroot) && !rustix::process::geteuid().is_root() {
        return Err(Failure::said("geteuid", "not running as root").refusal(runner));
    }
    let directory = if runner == Runner::Chroot {
        directory.to_owned()
    } else {
        // Only to mount upon.
        [std::env::temp_dir(), "/tmp".into()]
            .into_iter()
            .find(|directory| directory.is_dir())
            .unwrap_or("/".into())
    };
    parent::attempt(runner, Job::Probe { directory })
}

/// In the helper, as pid 1: all that a step needs, short of a step.
pub(super) fn all_the_way(runner: Runner, directory: &Path) -> Result<Outcome, Failure> {
    let own = if runner == Runner::Chroot {
        // What a killed one leaves is taken for a killed build's.
        let own = tempfile::Builder::new()
            .prefix("pyats-image-build-")
            .tempdir_in(directory);
        let call = || format!("mkdir({})", directory.display());
        let own = own.map_err(|error| Failure::new(call(), error))?;
        let disk = rustix::fs::statvfs(own.path());
        if disk.is_ok_and(|disk| disk.f_flag.contains(StatVfsMountFlags::NOEXEC)) {
            let reason = "its file system is mounted `noexec`";
            return Err(Failure::said(
                format!("execve({})", directory.display()),
                reason,
            ));
        }
        Some(own)
    } else {
        mounts::detach_from_host()?;
        mounts::tmpfs(directory, MountFlags::NOSUID, "mode=700")
            .map_err(|error| Failure::new("mount(tmpfs)", error))?;
        None
    };
    let root = own
        .as_ref()
        .map_or(directory, |own| own.path())
        .join("root");
    rustix::fs::mkdir(&root, Mode::from_raw_mode(0o755))
        .map_err(|error| Failure::new("mkdir", error))?;
    let command = Command {
        rootfs: RootFs::Directory(root.clone()),
        mounts: vec![],
        tmpfs: vec![],
        user: String::new(),
        network: true,
        placement: None,
        argv: vec![OsString::from("/nothing")],
        env: vec![],
        cwd: PathBuf::from("/"),
        ca_bundle: None,
        interactive: false,
        inherit_output: false,
        owners: None,
        watch: None,
    };
    let shown = if runner == Runner::Chroot {
        Some(Shown::put(&command)?)
    } else {
        mounts::enter(runner, &command)?;
        None
    };
    if runner != Runner::UsernsSingle {
        let owned = if runner == Runner::Chroot {
            root.join("owned")
        } else {
            PathBuf::from("/owned")
        };
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::open(&owned, flags, Mode::from_raw_mode(0o644))
            .map_err(|error| Failure::new("open", error))?;
        rustix::fs::chownat(
            CWD,
            &owned,
            Some(Uid::from_raw(1)),
            Some(Gid::from_raw(1)),
            rustix::fs::AtFlags::empty(),
        )
        .map_err(|error| Failure::new("chown(file, 1, 1)", error))?;
    }
    // A process of its own, as for a step: the filter must not bind pid 1.
    let (report, reporter) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| Failure::new("pipe2", error))?;
    let Some(child) = sys::fork().map_err(|error| Failure::new("fork", error))? else {
        drop(report);
        let enter = || match runner {
            Runner::Chroot => shown::enter(&command.rootfs),
            _ => Ok(()),
        };
        let tried = enter().and_then(|()| init::restrict(runner, Told::Owners, command.network));
        if let Err(failure) = tried {
            let _ = serde_json::to_writer(std::fs::File::from(reporter), &failure);
        }
        sys::exit(0);
    };
    drop(reporter);
    let report = std::io::read_to_string(std::fs::File::from(report));
    let status = rustix::process::waitpid(Some(child), WaitOptions::empty())
        .map_err(|error| Failure::new("waitpid", error))?;
    let ended = status.and_then(|(_, status)| status.exit_status());
    if let Some(shown) = shown {
        shown.take_away(false)?;
    }
    drop(own);
    match report.as_deref().map(serde_json::from_str) {
        Ok(Ok(failure)) => Err(failure),
        // Nothing was said.
        _ if ended == Some(0) => Ok(Outcome::Exited(0)),
        _ => Err(Failure::said("seccomp", "the filter ended the process")),
    }
}

/// In the helper: an overlay with its upper directory in `directory`, tried with what steps do to it. A deleted
/// file becomes a device node, and a directory made anew gets an extended attribute.
pub(super) fn overlay(directory: &Path) -> Result<(), Failure> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| directory.join(name));
    let call = |call: &str| format!("{call} in an overlay");
    let make = |path: &Path, call: String| {
        fs_err::create_dir(path).map_err(|error| Failure::new(call, error))
    };
    for path in [&lower, &upper, &work, &lower.join("again")] {
        make(path, format!("mkdir({})", path.display()))?;
    }
    for file in ["deleted", "again/below"] {
        fs_err::write(lower.join(file), "")
            .map_err(|error| Failure::new(format!("write({file})"), error))?;
    }
    mounts::overlay(std::slice::from_ref(&lower), &upper, &work)?;
    let tried = (|| {
        fs_err::remove_file(upper.join("deleted"))
            .map_err(|error| Failure::new(call("unlink"), error))?;
        let again = upper.join("again");
        fs_err::remove_dir_all(&again).map_err(|error| Failure::new(call("rmdir"), error))?;
        make(&again, call("mkdir"))?;
        if again.join("below").exists() {
            return Err(Failure::said(call("setxattr"), "it has no effect"));
        }
        Ok(())
    })();
    rustix::mount::unmount(&upper, rustix::mount::UnmountFlags::DETACH)
        .map_err(|error| Failure::new("umount2", error))?;
    // The kernel leaves these without permissions, which would keep the caller from removing them.
    let _ = fs_err::remove_dir_all(work.join("work"));
    tried
}
