//! The three kinds of user that the tool works for.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use fs_err as fs;

use super::{skip, succeed};

/// Who runs the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Root.
    Root,
    /// An ordinary user with subordinate ids.
    Subids,
    /// An ordinary user without.
    Plain,
    /// An ordinary user with too few of them; none of [`User::ALL`].
    Few,
}

impl User {
    /// Every kind.
    pub(crate) const ALL: [Self; 3] = [Self::Root, Self::Subids, Self::Plain];

    /// The kind that runs the tests, which needs no preparation.
    pub(crate) fn current() -> Self {
        if rustix::process::geteuid().is_root() {
            Self::Root
        } else if has_subids(&own_name()) {
            Self::Subids
        } else {
            Self::Plain
        }
    }

    /// The uid and gid to switch to, or `None` if the tests cannot be such a user (and skip). Root
    /// makes the two accounts once; anybody else is only himself.
    pub(crate) fn ids(self) -> Option<(u32, u32)> {
        let root = rustix::process::geteuid().is_root();
        match self {
            _ if !root && self == Self::current() => Some((
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            )),
            _ if !root => {
                skip(&format!(
                    "only root can run the tool as another user ({self:?})"
                ));
                None
            }
            Self::Root => Some((0, 0)),
            Self::Subids | Self::Few if !super::have(&["newuidmap"]) => None,
            Self::Subids => Some(account("pib-subids", Some("2000000-2065535"))),
            Self::Few => Some(account("pib-few", Some("2100000-2100019"))),
            Self::Plain => Some(account("pib-plain", None)),
        }
    }

    /// The runner that this user's builds take.
    pub(crate) fn runner(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Subids => "userns-range",
            Self::Plain | Self::Few => "userns-single",
        }
    }

    /// Makes `command` run as this user, if it would not anyway.
    pub(crate) fn apply(self, command: &mut Command) {
        if let (true, Some((uid, gid))) = (self != Self::current(), self.ids()) {
            command.uid(uid).gid(gid);
        }
    }
}

/// The ids of an account of the tests, made if it is not there. System accounts get no subordinate ids
/// unless asked for.
fn account(name: &str, subids: Option<&str>) -> (u32, u32) {
    let path = std::env::temp_dir().join("pyats-image-builder-accounts.lock");
    let lock = fs::File::create(path).expect("a lock file can be made");
    lock.file().lock().expect("the lock can be waited for");
    let exists = Command::new("id")
        .args(["-u", name])
        .output()
        .is_ok_and(|id| id.status.success());
    if !exists {
        succeed(Command::new("/usr/sbin/useradd").args([
            "--system",
            "--user-group",
            "--no-create-home",
            name,
        ]));
    }
    if let Some(range) = subids
        && !has_subids(name)
    {
        let ranges = ["--add-subuids", range, "--add-subgids", range, name];
        succeed(Command::new("/usr/sbin/usermod").args(ranges));
    }
    assert_eq!(
        has_subids(name),
        subids.is_some(),
        "{name} is not the kind of user that it should be"
    );
    let id = |flag| {
        succeed(Command::new("id").args([flag, name]))
            .trim()
            .parse()
            .expect("ids are numbers")
    };
    (id("-u"), id("-g"))
}

fn has_subids(name: &str) -> bool {
    let table = fs::read_to_string("/etc/subuid").unwrap_or_default();
    table
        .lines()
        .any(|line| line.split(':').next() == Some(name))
}

fn own_name() -> String {
    succeed(Command::new("id").arg("-un")).trim().to_owned()
}
