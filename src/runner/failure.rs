//! What failed in the making of a sandbox, and what can be done about it.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Refusal, Runner};

/// A call that failed, as the helper process reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    call: String,
    errno: i32,
    reason: String,
}

impl Failure {
    /// A system call, or what stands for it, and its error.
    pub(super) fn new(call: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let source = std::error::Error::source(&error);
        // fs_err hides the number behind its own message.
        let raw = error.raw_os_error().or_else(|| {
            source?
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error)
        });
        let reason = raw.map_or_else(
            || reason(&error),
            |raw| reason(&io::Error::from_raw_os_error(raw)),
        );
        Self {
            call: call.into(),
            errno: raw.unwrap_or(0),
            reason,
        }
    }

    /// A program or file, and what is the matter with it.
    pub(super) fn said(call: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            call: call.into(),
            errno: 0,
            reason: reason.into(),
        }
    }

    /// The failure with its remedy on this machine.
    pub(super) fn refusal(self, runner: Runner) -> Refusal {
        let remedy = remedy(runner, &self);
        Refusal {
            call: self.call,
            errno: self.errno,
            reason: self.reason,
            remedy,
        }
    }
}

/// What an error means, without the number that the standard library adds.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

fn remedy(runner: Runner, failure: &Failure) -> String {
    let call = failure.call.as_str();
    if call == "geteuid" {
        return "run as root (`sudo`; in a container `--user root`, in Kubernetes `runAsUser: 0`), or use \
                a runner that needs no root"
            .into();
    }
    if matches!(
        call,
        "newuidmap" | "newgidmap" | "/etc/subuid" | "/etc/subgid"
    ) || call.starts_with("execve(new")
    {
        return id_remedy(call);
    }
    if call.starts_with("mount(overlay") {
        return "put the directory on a file system that can hold an overlay's upper directory \
                (ext4, xfs, btrfs or tmpfs, not another overlay, as a container's own root is, or a \
                network share), such as a volume, or update to Linux 5.11"
            .into();
    }
    let refused = matches!(failure.errno, libc::EPERM | libc::EACCES);
    if runner == Runner::Chroot {
        return chroot_remedy(call, refused);
    }
    if call.contains("CLONE_NEWUSER") && failure.errno == libc::ENOSPC
        || setting("/proc/sys/user/max_user_namespaces") == Some(0) && runner != Runner::Root
    {
        return "as root: `sysctl -w user.max_user_namespaces=15000`".into();
    }
    if runner != Runner::Root && setting("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return "as root: `sysctl -w kernel.unprivileged_userns_clone=1`".into();
    }
    if runner != Runner::Root
        && refused
        && setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1)
    {
        return "as root: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or an AppArmor \
                profile with `userns` for this program"
            .into();
    }
    if call.contains("CLONE_NEWUSER") && failure.errno == libc::EINVAL {
        return "use a kernel with user namespaces (CONFIG_USER_NS)".into();
    }
    if refused || failure.errno == libc::ENOSYS {
        return "start the outer container with `--security-opt seccomp=unconfined --security-opt \
                apparmor=unconfined` (and, for the runner `root`, `--cap-add SYS_ADMIN`); in Kubernetes, \
                with `seccompProfile: {type: Unconfined}`, or as root in a pod with `hostUsers: false`; \
                or run outside of a container"
            .into();
    }
    String::new()
}

fn chroot_remedy(call: &str, refused: bool) -> String {
    if call.starts_with("open(/dev/") || call.starts_with("execve(") {
        return "choose a place that is not mounted `nodev` or `noexec`, with `--store DIR` or `--work-dir DIR` (a \
                container's tmpfs needs the options `exec,dev`)"
            .into();
    }
    if call == "seccomp" {
        return "use Linux 5.5 or newer, and an outer container whose runtime neither emulates the kernel nor watches \
                system calls itself"
            .into();
    }
    if call.starts_with("mkdir(") {
        return "choose a place that can be written to, with `--store DIR` or `--work-dir DIR`"
            .into();
    }
    if refused {
        return "give the container Docker's default capabilities, of which Podman and CRI-O leave some out: \
                `--cap-add MKNOD --cap-add SYS_CHROOT`; in Kubernetes `capabilities: {add: [MKNOD, SYS_CHROOT]}`"
            .into();
    }
    String::new()
}

fn id_remedy(call: &str) -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "USER".into());
    if call.starts_with("execve(") || on_disk(call).is_none() && !call.starts_with('/') {
        return "as root: `apt-get install uidmap` (or `dnf install shadow-utils`)".into();
    }
    format!(
        "as root: `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`, with a \
         range that no other user has; newuidmap and newgidmap have to be setuid root or have file \
         capabilities, and work neither with no-new-privileges nor on a `nosuid` mount"
    )
}

fn on_disk(program: &str) -> Option<()> {
    ["/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .any(|directory| std::path::Path::new(directory).join(program).exists())
        .then_some(())
}

fn setting(file: &str) -> Option<u64> {
    fs_err::read_to_string(file).ok()?.trim().parse().ok()
}
