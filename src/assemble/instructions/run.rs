//! RUN: what a command sees beside the image.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::FlockOperation;

use super::{Instructor, Prepared, failed, mount};
use crate::context;
use crate::digest::Digest;
use crate::dockerfile::{self, Network, Sharing};
use crate::error::{Error, Kind, Wrap as _};
use crate::mode::Mode;
use crate::runner::{FILES, Item, Mount, Placement, Tmpfs};
use crate::step::{self, Counts, Seen, Task};
use crate::store::{flock, open_lock};

impl Instructor<'_> {
    pub(super) fn run(self, run: &dockerfile::Run, title: &str) -> Result<Prepared, Error> {
        let mut env = step::with_defaults(&run.env);
        let mut add = |name: &str, value: &str| {
            let is_new = !env.iter().any(|(known, _)| known == name);
            if is_new {
                env.push((name.into(), value.into()));
            }
            is_new
        };
        let proxies = self.proxies.iter();
        let private = proxies.filter(|(name, value)| add(name, value.reveal()));
        let private = private.map(|(name, _)| name.into()).collect();
        if let Some(epoch) = self.epoch {
            add("SOURCE_DATE_EPOCH", &epoch.to_string());
        }
        let mut prepared = Prepared::default();
        let mut task = Task {
            argv: run.argv.clone(),
            env,
            private,
            user: run.user.clone(),
            cwd: PathBuf::from(&run.cwd),
            is_offline: run.network == Network::None,
            emulate: true,
            shown: Some(title.to_owned()),
            ..Task::default()
        };
        if let Some(script) = &run.script {
            let file = self.scratch_file("script", script.text.as_bytes(), 0o755)?;
            let script = mount(&file, &script.path, true);
            task.mounts.push(Seen::content(script));
        }
        for wanted in &run.mounts {
            self.show(wanted, title, &mut task, &mut prepared)?;
        }
        prepared.tasks.push(task);
        Ok(prepared)
    }

    /// Has a task see what `--mount` says.
    fn show(
        self,
        wanted: &dockerfile::Mount,
        title: &str,
        task: &mut Task,
        prepared: &mut Prepared,
    ) -> Result<(), Error> {
        match wanted {
            dockerfile::Mount::Bind {
                source,
                target,
                read_only,
            } => {
                let seen = self.bind(source, *read_only, title)?;
                let seen = mount(&seen, target, *read_only);
                task.mounts.push(Seen::content(seen));
            }
            dockerfile::Mount::Tmpfs { target, size } => task.tmpfs.push(Tmpfs {
                target: PathBuf::from(target),
                size: *size,
            }),
            dockerfile::Mount::Cache {
                id,
                source,
                target,
                read_only,
                sharing,
                mode,
                uid,
                gid,
            } => {
                let name = cache_name(id, *mode, (*uid, *gid));
                let (folder, lock) = self.cache(&name, *sharing)?;
                prepared.locks.extend(lock);
                let inside = folder.join("content");
                // A link would lead elsewhere.
                if !fs::symlink_metadata(&inside).is_ok_and(|there| there.is_dir()) {
                    let owner = (*uid, *gid);
                    prepared.before.push(place(&folder, None, *mode, owner));
                }
                let below = source.trim_start_matches('/').into();
                task.mounts.push(Seen {
                    mount: Mount {
                        below,
                        ..mount(&inside, target, *read_only)
                    },
                    counts: Counts::Cache(format!("cache {name} {source}")),
                });
            }
            dockerfile::Mount::Secret {
                id,
                target,
                env,
                required,
                mode,
                uid,
                gid,
            } => {
                let Some((_, source)) = self.secrets.iter().find(|(known, _)| known == id) else {
                    if *required {
                        return Err(Error::new(
                            Kind::Options,
                            format!("there is no secret `{id}`"),
                        )
                        .with_hint(format!("give it with `--secret id={id},src=FILE`")));
                    }
                    if let Some(variable) = env {
                        task.env.push((variable.into(), OsString::new()));
                        task.private.push(variable.into());
                    }
                    return Ok(());
                };
                let bytes = fs::read(source)?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                task.hidden.extend(step::lines_to_hide(&text));
                if let Some(variable) = env {
                    task.env.push((variable.into(), text.into()));
                    task.private.push(variable.into());
                }
                if let Some(target) = target {
                    let mut file = self.scratch_file("secret", &bytes, *mode)?;
                    if (*uid, *gid) != (0, 0) {
                        let folder = self.scratch_folder("placed")?;
                        let owner = (*uid, *gid);
                        let placing = place(&folder, Some(&file), *mode, owner);
                        prepared.before.push(placing);
                        file = folder.join("content");
                    }
                    task.mounts.push(Seen {
                        mount: mount(&file, target, true),
                        counts: Counts::Name(format!("secret {id} {mode:o} {uid}:{gid}")),
                    });
                }
            }
        }
        Ok(())
    }

    /// Files of the context for a step to see.
    fn bind(self, source: &str, read_only: bool, title: &str) -> Result<PathBuf, Error> {
        let found = context::resolve(self.context, Path::new(source));
        let found = found.wrap(|| failed(title))?;
        if read_only {
            return Ok(found);
        }
        // What is written there is gone afterwards.
        let copy = self.scratch_folder("bind")?.join("copy");
        context::copy_plainly(&found, &copy)?;
        Ok(copy)
    }

    /// The folder of a cache, and the lock that keeps others out for as long as it lives.
    fn cache(self, id: &str, sharing: Sharing) -> Result<(PathBuf, Option<fs::File>), Error> {
        for number in 0_u32.. {
            let name = format!("{id}\n{number}");
            let name = Digest::of(name.as_bytes()).hex();
            let folder = self.sources.store.make_cache(&name)?;
            match sharing {
                Sharing::Shared => return Ok((folder, None)),
                Sharing::Locked => {
                    let lock = open_lock(&folder.join("lock"))?;
                    let lock = flock(lock, FlockOperation::LockExclusive)?;
                    return Ok((folder, Some(lock)));
                }
                Sharing::Private => {
                    let lock = open_lock(&folder.join("lock"))?;
                    let exclusive = FlockOperation::NonBlockingLockExclusive;
                    if rustix::fs::flock(&lock, exclusive).is_ok() {
                        return Ok((folder, Some(lock)));
                    }
                }
            }
        }
        unreachable!("some folder is free")
    }
}

/// The name of a cache. As with `BuildKit`, the same id with another mode or owner is another cache.
fn cache_name(id: &str, mode: u32, (uid, gid): (u32, u32)) -> String {
    if (mode, uid, gid) == (0o755, 0, 0) {
        return id.to_owned();
    }
    format!("{id}\n{mode:o} {uid}:{gid}")
}

/// Puts `file`, or an empty directory, into a folder of the host under the name `content`, with this owner.
fn place(folder: &Path, file: Option<&Path>, mode: u32, (uid, gid): (u32, u32)) -> Task {
    const OUT: &str = "/dev/.pyats-image-build/out";
    let (root, name) = match file.and_then(|file| Some((file.parent()?, file.file_name()?))) {
        Some((parent, name)) => (parent, name.to_owned()),
        None => (folder, OsString::new()),
    };
    Task {
        placement: Some(Placement {
            items: vec![Item {
                source: name,
                target: "content".into(),
                unpack: false,
            }],
            destination: OUT.into(),
            owner: format!("{uid}:{gid}"),
            mode: Some(Mode::Octal(mode)),
            ..Placement::default()
        }),
        mounts: [mount(folder, OUT, false), mount(root, FILES, true)]
            .map(Seen::content)
            .into(),
        ..Task::default()
    }
}
