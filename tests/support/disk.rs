//! A disk that is full soon, or that nobody can write to.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use super::{Bench, succeed};

/// A small file system, unmounted when it goes.
#[derive(Debug)]
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// Mounts one in a new folder of the bench; `size` as mount(8) has it, such as `20m`.
    pub(crate) fn mount(bench: &Bench, name: &str, size: &str) -> Self {
        let path = bench.path(name);
        fs::create_dir(&path).expect("ours");
        let options = format!("size={size},mode=0755");
        succeed(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
                .arg(&path),
        );
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Nobody can write to it any more.
    pub(crate) fn make_read_only(&self) {
        succeed(
            Command::new("mount")
                .args(["-o", "remount,ro"])
                .arg(&self.0),
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}
