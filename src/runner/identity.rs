//! Who a command runs as: `USER[:GROUP]` as in a Dockerfile and as Docker takes it, looked up in the root
//! file system's own `/etc/passwd` and `/etc/group` (passwd(5), group(5)).
//!
//! Called when that root file system is the root, so that no link in it leads out.

use std::io::Read as _;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{Gid, Uid};

use super::Failure;

/// Of a larger file only so much is read.
const LARGEST: u64 = 8 << 20;

/// Who a command runs as.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    uid: u32,
    gid: u32,
    /// Supplementary ones, of which the first is `gid`: a file that gives a group less than others gives this user no
    /// more for that.
    groups: Vec<u32>,
    /// What `HOME` is if nobody sets it.
    pub(super) home: String,
}

impl Identity {
    /// Looks up a user; the empty text is root. The error is for the user.
    pub(super) fn look_up(user: &str) -> Result<Self, String> {
        let [passwd, group] = ["/etc/passwd", "/etc/group"].map(read);
        Self::find(user, &passwd, &group)
    }

    fn find(text: &str, passwd: &str, group: &str) -> Result<Self, String> {
        let (user, named_group) = text.split_once(':').unwrap_or((text, ""));
        let user = if user.is_empty() { "0" } else { user };
        let number: Option<u32> = user.parse().ok();
        // name:password:uid:gid:comment:home:shell
        let entry = records(passwd).find_map(|fields| {
            let uid = fields.get(2)?.parse().ok()?;
            (fields[0] == user || number == Some(uid)).then_some((fields, uid))
        });
        let mut identity = match (&entry, number) {
            (Some((fields, uid)), _) => Self {
                uid: *uid,
                gid: fields.get(3).and_then(|gid| gid.parse().ok()).unwrap_or(0),
                groups: Vec::new(),
                home: fields.get(5).map_or("", |home| home).to_owned(),
            },
            (None, Some(uid)) => Self {
                uid,
                gid: 0,
                groups: Vec::new(),
                home: String::new(),
            },
            (None, None) => return Err(format!("there is no user `{user}` in /etc/passwd")),
        };
        // name:password:gid:members
        let groups = || {
            records(group).filter_map(|fields| {
                let gid: u32 = fields.get(2)?.parse().ok()?;
                Some((fields, gid))
            })
        };
        if named_group.is_empty() {
            if let Some((fields, _)) = &entry {
                let is_member =
                    |members: &str| members.split(',').any(|member| member == fields[0]);
                let of = groups().filter(|(group, _)| group.get(3).is_some_and(|m| is_member(m)));
                identity.groups = of.map(|(_, gid)| gid).collect();
            }
        } else {
            let number: Option<u32> = named_group.parse().ok();
            let found =
                groups().find(|(fields, gid)| fields[0] == named_group || number == Some(*gid));
            identity.gid = found
                .map(|(_, gid)| gid)
                .or(number)
                .ok_or_else(|| format!("there is no group `{named_group}` in /etc/group"))?;
        }
        identity.groups.retain(|group| *group != identity.gid);
        identity.groups.insert(0, identity.gid);
        if entry.is_none() {
            let home = if identity.uid == 0 { "/root" } else { "/" };
            home.clone_into(&mut identity.home);
        }
        Ok(identity)
    }

    /// Becomes this user for good; who is not root then has no capability left.
    pub(super) fn assume(&self) -> Result<(), Failure> {
        let refused = |call: &'static str| move |error| Failure::new(call, error);
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        rustix::thread::set_thread_groups(&groups).map_err(refused("setgroups"))?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(refused("setresgid"))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(refused("setresuid"))
    }
}

/// The largest number that `--chown` takes for an id and not for a name, as with `BuildKit`.
const LARGEST_ID: u32 = i32::MAX.cast_unsigned();

/// Whom files are given: `USER[:GROUP]` as `--chown` takes it. A number alone is the group's as well; a name
/// has the group of its account. An empty user or group, and `root`, are root.
pub(super) fn owner(text: &str) -> Result<(u32, u32), String> {
    let [passwd, group] = ["/etc/passwd", "/etc/group"].map(read);
    owner_in(text, &passwd, &group)
}

fn owner_in(text: &str, passwd: &str, group: &str) -> Result<(u32, u32), String> {
    let (user, named_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number = |text: &str| match text {
        "" | "root" => Some(0),
        text => text.parse().ok().filter(|id| *id <= LARGEST_ID),
    };
    let group = match (named_group, named_group.and_then(number)) {
        (None, _) => None,
        (_, Some(gid)) => Some(gid),
        (Some(name), None) => Some(gid_of(name, group)?),
    };
    let (uid, own) = match number(user) {
        Some(uid) => (uid, uid),
        None => ids_of(user, passwd)?,
    };
    Ok((uid, group.unwrap_or(own)))
}

/// The ids of the account with this name.
fn ids_of(name: &str, passwd: &str) -> Result<(u32, u32), String> {
    let is_it = |fields: &Vec<&str>| fields[0] == name;
    let ids = records(passwd).filter(is_it).find_map(|fields| {
        let id = |at: usize| fields.get(at)?.parse().ok();
        Some((id(2)?, id(3)?))
    });
    ids.ok_or_else(|| format!("there is no user `{name}` in /etc/passwd"))
}

/// The id of the group with this name.
fn gid_of(name: &str, group: &str) -> Result<u32, String> {
    let is_it = |fields: &Vec<&str>| fields[0] == name;
    let id = records(group)
        .filter(is_it)
        .find_map(|fields| fields.get(2)?.parse().ok());
    id.ok_or_else(|| format!("there is no group `{name}` in /etc/group"))
}

/// The fields of each line.
fn records(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.split(':').collect())
}

/// The text of a regular file; nothing if there is none.
fn read(path: &str) -> String {
    // A pipe of this name must not be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else {
        return String::new();
    };
    let is_file =
        rustix::fs::fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    let mut bytes = Vec::new();
    if is_file {
        // What can be read of it counts.
        let _ = fs_err::File::from_parts(file.into(), path)
            .take(LARGEST)
            .read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n\
                          bad\n12:x:77:78::/home/twelve:\nnone:x:5:5:::\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nwheel:x:10:root,app\ndialout:x:20:app\nbad\n";

    fn find(user: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        let found = Identity::find(user, PASSWD, GROUP)?;
        Ok((found.uid, found.gid, found.groups, found.home))
    }

    #[test]
    fn files_are_given_to_whom_the_reference_says() {
        for (text, owner) in [
            ("", (0, 0)),
            ("app", (1000, 1001)),
            ("app:wheel", (1000, 10)),
            ("55:wheel", (55, 10)),
            ("55", (55, 55)),
            ("10:11", (10, 11)),
            ("app:7", (1000, 7)),
            ("1:", (1, 0)),
            ("app:", (1000, 0)),
            (":5", (0, 5)),
            (":", (0, 0)),
            ("root", (0, 0)),
            ("007", (7, 7)),
            ("12", (12, 12)),
            ("2147483647", (2_147_483_647, 2_147_483_647)),
        ] {
            assert_eq!(owner_in(text, PASSWD, GROUP).unwrap(), owner, "{text}");
        }
        for text in [
            "nobody",
            "app:none",
            "-1",
            "5:-1",
            "2147483648",
            "4000000000",
            "1:4294967295",
            "5:6:7",
        ] {
            owner_in(text, PASSWD, GROUP).unwrap_err();
        }
    }

    #[test]
    fn users_are_who_docker_takes_them_for() {
        for (user, uid, gid, groups, home) in [
            ("", 0, 0, vec![0, 10], "/root"),
            ("root", 0, 0, vec![0, 10], "/root"),
            ("0", 0, 0, vec![0, 10], "/root"),
            ("app", 1000, 1001, vec![1001, 10, 20], "/home/app"),
            ("1000", 1000, 1001, vec![1001, 10, 20], "/home/app"),
            ("app:", 1000, 1001, vec![1001, 10, 20], "/home/app"),
            // A group that is named is the only one.
            ("app:wheel", 1000, 10, vec![10], "/home/app"),
            ("app:20", 1000, 20, vec![20], "/home/app"),
            ("app:4711", 1000, 4711, vec![4711], "/home/app"),
            // Nobody knows the number: it is taken as it is.
            ("4711", 4711, 0, vec![0], "/"),
            ("4711:4712", 4711, 4712, vec![4712], "/"),
            // An account without a home has an empty one.
            ("none", 5, 5, vec![5], ""),
            // A name that looks like a number is found first.
            ("12", 77, 78, vec![78], "/home/twelve"),
        ] {
            let expected = (uid, gid, groups, home.to_owned());
            assert_eq!(find(user).unwrap(), expected, "{user}");
        }
        for (user, word) in [
            ("nobody", "no user `nobody`"),
            ("bad", "no user `bad`"),
            ("app:none", "no group `none`"),
            ("-1", "no user `-1`"),
            ("4294967296", "no user `4294967296`"),
        ] {
            let error = find(user).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
