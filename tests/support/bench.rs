//! Where a test runs the tool: folders of its own, and runs that have to be looked at.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fs_err as fs;

use super::{User, repository, sha256, succeed};

/// Variables of the machine that the tool may see: how it reaches the world.
pub(crate) const REACH: [&str; 8] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// A user with a home, a working directory, a store and a folder for temporary files, all empty.
///
/// When it goes, what lies in the working directory must have been named by the test, through
/// [`path`](Self::path) or [`write`](Self::write), and there must be no temporary files.
#[derive(Debug)]
pub(crate) struct Bench {
    directory: tempfile::TempDir,
    user: User,
    named: RefCell<BTreeSet<PathBuf>>,
}

impl Bench {
    /// A bench for `user`; `None` (and the test is skipped) if the tests cannot be that user.
    pub(crate) fn new(user: User) -> Option<Self> {
        user.ids()?;
        // Short and beyond anybody's home: users have to get there.
        let directory = tempfile::Builder::new()
            .prefix("pib-")
            .tempdir()
            .expect("a temporary folder");
        let bench = Self {
            directory,
            user,
            named: RefCell::default(),
        };
        fs::set_permissions(bench.root(), PermissionsExt::from_mode(0o755)).expect("it is ours");
        for folder in ["home", "work", "tmp"] {
            fs::create_dir(bench.root().join(folder)).expect("it is new");
            bench.give(&bench.root().join(folder));
        }
        bench.give(bench.root());
        Some(bench)
    }

    /// A bench for whoever runs the tests.
    pub(crate) fn current() -> Self {
        Self::new(User::current()).expect("everybody can be himself")
    }

    /// The folder that holds all others.
    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    /// Who works here.
    pub(crate) fn user(&self) -> User {
        self.user
    }

    /// The tool's store.
    pub(crate) fn store(&self) -> PathBuf {
        self.root().join("store")
    }

    /// A path in the working directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let first = Path::new(name).components().next().expect("a name");
        self.named
            .borrow_mut()
            .insert(PathBuf::from(first.as_os_str()));
        self.root().join("work").join(name)
    }

    /// Writes a file into the working directory.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        let missing: Vec<_> = path
            .ancestors()
            .skip(1)
            .take_while(|parent| !parent.exists())
            .collect();
        for parent in missing.into_iter().rev() {
            fs::create_dir(parent).expect("its parent is there");
            self.give(parent);
        }
        fs::write(&path, text).expect("the working directory can be written");
        self.give(&path);
        path
    }

    /// Puts a wheel into the working directory, `pib_hello-1.0-py3-none-any.whl`, which needs
    /// `requirements`.
    pub(crate) fn write_wheel(&self, requirements: &[&str]) -> PathBuf {
        let path = self.path("pib_hello-1.0-py3-none-any.whl");
        let script = repository().join("testdata/wheel/make.py");
        succeed(
            Command::new("python3")
                .arg(script)
                .arg(self.root().join("work"))
                .args(requirements),
        );
        self.give(&path);
        path
    }

    /// Makes `path` the user's.
    pub(crate) fn give(&self, path: &Path) {
        let (uid, gid) = self.user.ids().expect("checked when the bench was made");
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("root may, and others own it");
    }

    /// A command that the user gives in the working directory, with next to nothing in its environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .current_dir(self.root().join("work"))
            .stdin(Stdio::null());
        command.envs(
            REACH
                .iter()
                .chain(&["PATH"])
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        );
        command
            .env("HOME", self.root().join("home"))
            .env("TMPDIR", self.root().join("tmp"));
        self.user.apply(&mut command);
        command
    }

    /// The tool, as the user calls it.
    pub(crate) fn tool<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = self.command(binary());
        command
            .env("PYATS_IMAGE_BUILD_STORE", self.store())
            .args(arguments);
        command
    }

    /// Runs the tool to its end.
    pub(crate) fn run<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Run {
        self.finish(&mut self.tool(arguments))
    }

    /// Runs a prepared command to its end.
    pub(crate) fn finish(&self, command: &mut Command) -> Run {
        let output = command.output().expect("the tool starts");
        let root = self
            .root()
            .to_str()
            .expect("temporary folders have plain names");
        let text = |bytes: Vec<u8>| {
            String::from_utf8(bytes)
                .expect("the tool writes UTF-8")
                .replace(root, "[BENCH]")
        };
        Run {
            command: format!("{command:?}"),
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            seen: Cell::default(),
        }
    }

    /// Holds that soon no process knows a mount in the bench, and none runs there.
    pub(crate) fn is_deserted(&self, what: &str) {
        let root = self.root().to_str().expect("a plain name").to_owned();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left: Vec<_> = processes()
                .filter(|process| {
                    let read = |name: &str| {
                        fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default()
                    };
                    let directory =
                        fs::read_link(format!("/proc/{process}/cwd")).unwrap_or_default();
                    read("mountinfo").contains(&root)
                        || read("cmdline").contains(&root)
                        || directory.starts_with(&root)
                })
                .collect();
            if left.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: these processes are left: {left:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn list(&self, folder: &str) -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(self.root().join(folder)).expect("the bench's folders stay");
        entries
            .map(|entry| PathBuf::from(entry.expect("readable").file_name()))
            .collect()
    }

    /// What is wrong with the store: blobs that are not what their names promise, and scratch.
    fn unsound(&self) -> Vec<String> {
        if !self.store().exists() {
            return Vec::new();
        }
        let blobs = self.list("store/blobs/sha256").into_iter().filter(|name| {
            let path = self.store().join("blobs/sha256").join(name);
            let file = fs::File::open(path).expect("blobs are readable");
            Path::new(&sha256(file).expect("blobs are readable")) != name
        });
        let blobs = blobs.map(|name| format!("blob {}", name.display()));
        let scratch = self
            .list("store/tmp")
            .into_iter()
            .map(|name| format!("tmp/{}", name.display()));
        blobs.chain(scratch).collect()
    }

    /// Removes the files, also those of subordinate ids, which an ordinary user only can from inside.
    fn remove(&self) {
        if fs::remove_dir_all(self.root()).is_err() {
            let mut command = Command::new("unshare");
            command
                .args(["--user", "--map-root-user", "--map-auto", "rm", "-rf"])
                .arg(self.root());
            command.status().expect("unshare starts");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let left: Vec<_> = self
            .list("work")
            .difference(&self.named.borrow())
            .cloned()
            .collect();
        let temporary = self.list("tmp");
        let unsound = if std::thread::panicking() {
            Vec::new()
        } else {
            self.unsound()
        };
        self.remove();
        if !std::thread::panicking() {
            assert!(
                unsound.is_empty(),
                "the tool left an unsound store: {unsound:?}"
            );
            assert!(
                left.is_empty(),
                "the tool left {left:?} in the working directory"
            );
            assert!(
                temporary.is_empty(),
                "the tool left temporary files: {temporary:?}"
            );
        }
    }
}

/// Sends a signal to a process, which may have ended.
pub(crate) fn send(child: &Child, signal: &str) {
    let _ = Command::new("kill")
        .args(["-s", signal, &child.id().to_string()])
        .stderr(Stdio::null())
        .status();
}

/// All that run now.
pub(crate) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("this is Linux").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A run of the tool that has ended. What a test does not ask for must be empty: the output, the
/// errors, and the status (0).
#[derive(Debug)]
#[must_use]
pub(crate) struct Run {
    command: String,
    status: Option<i32>,
    stdout: String,
    stderr: String,
    seen: Cell<(bool, bool, bool)>,
}

impl Run {
    /// The exit status; `None` if a signal ended it.
    pub(crate) fn status(&self) -> Option<i32> {
        let (_, stdout, stderr) = self.seen.get();
        self.seen.set((true, stdout, stderr));
        self.status
    }

    /// Standard output, with the bench's folder as `[BENCH]`.
    pub(crate) fn stdout(&self) -> &str {
        let (status, _, stderr) = self.seen.get();
        self.seen.set((status, true, stderr));
        &self.stdout
    }

    /// Standard error, with the bench's folder as `[BENCH]`.
    pub(crate) fn stderr(&self) -> &str {
        let (status, stdout, _) = self.seen.get();
        self.seen.set((status, stdout, true));
        &self.stderr
    }

    /// Holds that the run succeeded and wrote a single line to standard output, which it returns.
    /// Its progress, on standard error, may be anything.
    pub(crate) fn line(&self) -> &str {
        assert_eq!(
            self.status(),
            Some(0),
            "{}\n{}",
            self.command,
            self.stderr()
        );
        self.stderr();
        let line = self.stdout().strip_suffix('\n').expect("a line");
        assert!(!line.contains('\n'), "more than one line: {line}");
        line
    }

    /// Holds that the run was refused with `status` and nothing on standard output, and returns the
    /// errors.
    pub(crate) fn refusal(&self, status: i32) -> &str {
        assert_eq!(
            self.status(),
            Some(status),
            "{}\n{}",
            self.command,
            self.stderr()
        );
        self.stderr()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let (status, stdout, stderr) = self.seen.get();
        if std::thread::panicking() {
            return;
        }
        let all = format!(
            "{}\n{:?}\n{}{}",
            self.command, self.status, self.stdout, self.stderr
        );
        assert!(
            status || self.status == Some(0),
            "the status was not looked at: {all}"
        );
        assert!(
            stdout || self.stdout.is_empty(),
            "the output was not looked at: {all}"
        );
        assert!(
            stderr || self.stderr.is_empty(),
            "the errors were not looked at: {all}"
        );
    }
}

/// The tool, copied to where every user can execute it: Cargo's folder may be in root's home. A newer
/// build gets another name.
pub(crate) fn binary() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_pyats-image-build"));
    if User::current() != User::Root {
        return built.to_owned();
    }
    let metadata = fs::metadata(built).expect("Cargo has built it");
    let modified = metadata
        .modified()
        .expect("this system has times")
        .duration_since(UNIX_EPOCH);
    let age = modified.expect("after 1970").as_nanos();
    let folder = std::env::temp_dir().join(format!("pib-bin-{age:x}-{:x}", metadata.len()));
    let copy = folder.join("pyats-image-build");
    if !copy.exists() {
        for old in fs::read_dir(std::env::temp_dir())
            .expect("readable")
            .flatten()
        {
            let ours = old.file_name().to_string_lossy().starts_with("pib-bin-");
            // A younger one may be in use by tests of another checkout.
            let modified = old.metadata().and_then(|metadata| metadata.modified());
            let age = modified.ok().and_then(|modified| modified.elapsed().ok());
            if ours && age.is_some_and(|age| age > Duration::from_secs(24 * 60 * 60)) {
                let _ = fs::remove_dir_all(old.path());
            }
        }
        fs::create_dir_all(&folder).expect("a temporary folder");
        fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).expect("it is ours");
        let fresh = folder.join(format!(
            "fresh-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        fs::copy(built, &fresh).expect("the tool can be copied");
        fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).expect("it is ours");
        fs::rename(&fresh, &copy).expect("on one file system");
    }
    copy
}
