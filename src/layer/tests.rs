//! What the tests of layers share: archives made by hand, trees as text, and changes at random.

mod changes;
mod hostile;
mod roundtrip;
mod semantics;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use tempfile::TempDir;

use super::*;
use crate::digest::{DiffId, Digest};
use crate::manifest::{Descriptor, media_type};

/// Whether a test that needs root runs; otherwise says why it does not.
#[expect(clippy::print_stderr, reason = "a test that is skipped has to be seen")]
fn is_root(test: &str) -> bool {
    // Root of a user namespace may make neither devices nor files of just any owner.
    let ids = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if rustix::process::geteuid().is_root() && ids.split_whitespace().last() == Some("4294967295") {
        return true;
    }
    assert!(
        std::env::var_os("REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{test} needs root"
    );
    eprintln!("SKIPPED {test}: it needs root");
    false
}

/// Whether a test that mounts an overlay runs: as root, also as that of a user namespace with mounts
/// of its own, as the runner's helpers are.
#[expect(clippy::print_stderr, reason = "a test that is skipped has to be seen")]
fn can_mount(test: &str) -> bool {
    let target = scratch();
    let flags = rustix::mount::MountFlags::empty();
    match rustix::mount::mount("tmpfs", target.path(), "tmpfs", flags, None) {
        Ok(()) => {
            rustix::mount::unmount(target.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
            true
        }
        Err(error) => {
            assert!(
                std::env::var_os("REQUIRE_ALL").is_none_or(|value| value != "1"),
                "{test} need mounts: {error}"
            );
            eprintln!("SKIPPED {test}: they need mounts: {error}");
            false
        }
    }
}

fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("layer-test-")
        .tempdir()
        .unwrap()
}

/// Times that leave everything as it is.
fn own_times() -> Times {
    Times {
        fixed_under: Vec::new(),
        fixed: 0,
        clamp: None,
    }
}

/// A tar made by hand, byte by byte.
#[derive(Default, Clone)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(
        mut self,
        flag: u8,
        name: &str,
        link: &str,
        body: &[u8],
        edit: impl FnOnce(&mut tar::UstarHeader),
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_size(body.len() as u64);
        header.set_mode(if flag == b'5' { 0o755 } else { 0o644 });
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        let ustar = header.as_ustar_mut().unwrap();
        ustar.typeflag = [flag];
        ustar.name[..name.len()].copy_from_slice(name.as_bytes());
        ustar.linkname[..link.len()].copy_from_slice(link.as_bytes());
        edit(ustar);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, body: &str) -> Self {
        self.raw(b'0', name, "", body.as_bytes(), |_| ())
    }

    fn dir(self, name: &str) -> Self {
        self.raw(b'5', name, "", b"", |_| ())
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(b'2', name, target, b"", |_| ())
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.raw(b'1', name, target, b"", |_| ())
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut block = Vec::new();
        for (key, value) in records {
            pax::append(&mut block, key.as_bytes(), value);
        }
        self.raw(b'x', "pax", "", &block, |_| ())
    }

    /// With the two blocks of zeros at its end.
    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// A blob in a file, and the layer that it is.
fn layer_of(directory: &Path, blob: &[u8], tar: &[u8]) -> (PathBuf, Layer) {
    let digest = Digest::of(blob);
    let path = directory.join(digest.hex());
    fs::write(&path, blob).unwrap();
    let descriptor = Descriptor::new(media_type::OCI_LAYER, digest, blob.len() as u64);
    (
        path,
        Layer {
            descriptor,
            diff_id: DiffId(Digest::of(tar)),
        },
    )
}

/// A directory `rootfs` with layers unpacked into it, beside an `outside` that nothing may touch.
struct Unpacking {
    directory: TempDir,
}

impl Unpacking {
    fn new() -> Self {
        let directory = scratch();
        fs::create_dir(directory.path().join("rootfs")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        fs::write(directory.path().join("outside/secret"), "untouched").unwrap();
        Self { directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    fn try_unpack(&self, tars: &[Vec<u8>]) -> Result<Unpacked, Error> {
        let layers = tars
            .iter()
            .map(|tar| layer_of(self.directory.path(), tar, tar))
            .collect();
        let result = unpack(&UnpackRequest {
            layers,
            rootfs: self.root(),
            owners: None,
            coming: None,
            is_alone: false,
        });
        let names: Vec<_> = walk::names(&self.outside()).unwrap();
        assert_eq!(
            names,
            [b"secret".to_vec()],
            "something was written outside of the root"
        );
        assert_eq!(
            fs::read_to_string(self.outside().join("secret")).unwrap(),
            "untouched"
        );
        result
    }

    fn unpack(&self, tars: &[Vec<u8>]) -> Unpacked {
        self.try_unpack(tars).unwrap()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    /// All paths, in order.
    fn names(&self) -> Vec<String> {
        let paths = walk::Walk::new(&self.root()).map(|entry| entry.unwrap().0);
        paths
            .skip(1)
            .map(|path| String::from_utf8(path).unwrap())
            .collect()
    }
}

/// All that a layer says about a tree, a line a path.
fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in walk::Walk::new(root) {
        let (path, node) = entry.unwrap();
        let content = match node.kind {
            Kind::File => fs::read(walk::at(root, &path)).unwrap(),
            _ => node.target.clone(),
        };
        lines.push(format!(
            "{} {:?} {:o} {}:{} {} {:?} {}",
            path.escape_ascii(),
            node.kind,
            if node.kind == Kind::Symlink {
                0
            } else {
                node.mode
            },
            node.uid,
            node.gid,
            if path.is_empty() || node.kind == Kind::Directory {
                0
            } else {
                node.mtime.0
            },
            node.xattrs,
            content.escape_ascii()
        ));
    }
    lines
}

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}
