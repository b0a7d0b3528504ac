//! Repositories made by git itself, and its own servers of them.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use fs_err as fs;

use super::{Web, have, succeed};

/// A bare repository.
#[derive(Debug, Clone)]
pub(crate) struct GitRepository(PathBuf);

impl GitRepository {
    /// Makes an empty one at `path`, whose default branch is `main`.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        fs::create_dir_all(&path).expect("ours");
        let repository = Self(path);
        repository.git(&["init", "--quiet", "--bare", "--initial-branch=main"]);
        repository
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Runs git in it; gives what it printed, without the last line break.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        self.git_with(arguments, b"")
    }

    /// The same, with something to read.
    pub(crate) fn git_with(&self, arguments: &[&str], input: &[u8]) -> String {
        let mut child = git(&self.0)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input).expect("git reads");
        drop(stdin);
        let output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "git {arguments:?}");
        let text = String::from_utf8(output.stdout).expect("plain text");
        text.trim_end().to_owned()
    }

    /// Commits `files` (mode, path, content) on top of `branch`, and gives the commit's id.
    pub(crate) fn commit(&self, branch: &str, files: &[(&str, &str, &str)]) -> String {
        self.commits(branch, 1, |_| {
            files
                .iter()
                .map(|(mode, path, content)| {
                    (
                        (*mode).to_owned(),
                        (*path).to_owned(),
                        (*content).to_owned(),
                    )
                })
                .collect()
        })
    }

    /// Makes `count` commits, of the files that `files` gives for the number of each.
    pub(crate) fn commits(
        &self,
        branch: &str,
        count: usize,
        files: impl Fn(usize) -> Vec<(String, String, String)>,
    ) -> String {
        let name = format!("refs/heads/{branch}");
        let mut stream = Vec::new();
        let mut from = git(&self.0);
        let from = from
            .args(["rev-parse", "--verify", "--quiet", &name])
            .output();
        let from = String::from_utf8(from.expect("git starts").stdout).expect("an id");
        for number in 0..count {
            write!(
                stream,
                "commit {name}\ncommitter Jo <jo@example.com> {} +0000\ndata 4\nwork\n",
                1_700_000_000 + number
            )
            .expect("memory");
            if number == 0 && !from.is_empty() {
                writeln!(stream, "from {}", from.trim()).expect("memory");
            }
            for (mode, path, content) in files(number) {
                if mode == "160000" {
                    writeln!(stream, "M {mode} {content} {path}").expect("memory");
                } else {
                    let length = content.len();
                    writeln!(stream, "M {mode} inline {path}\ndata {length}\n{content}")
                        .expect("memory");
                }
            }
        }
        self.git_with(&["fast-import", "--quiet"], &stream);
        self.git(&["rev-parse", &name])
    }

    /// Stores a tree of `entries` (mode, name, id) that git itself would not make; gives its id.
    pub(crate) fn raw_tree(&self, entries: &[(&str, &str, &str)]) -> String {
        let mut tree = Vec::new();
        for (mode, name, id) in entries {
            tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
            tree.extend(hex::decode(id).expect("an id"));
        }
        self.git_with(
            &["hash-object", "-t", "tree", "--literally", "-w", "--stdin"],
            &tree,
        )
    }

    pub(crate) fn blob(&self, content: &[u8]) -> String {
        self.git_with(&["hash-object", "-w", "--stdin"], content)
    }

    /// Commits a tree as the only commit of a branch; gives the commit's id.
    pub(crate) fn commit_tree(&self, branch: &str, tree: &str) -> String {
        let id = self.git(&["commit-tree", "-m", "work", tree]);
        self.git(&["update-ref", &format!("refs/heads/{branch}"), &id]);
        id
    }
}

/// git, without anybody's configuration.
fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    isolate(command.current_dir(directory));
    command
}

fn isolate(command: &mut Command) -> &mut Command {
    command.env("GIT_CONFIG_NOSYSTEM", "1");
    for name in ["GIT_CONFIG_GLOBAL", "HOME"] {
        command.env(name, "/dev/null");
    }
    for role in ["AUTHOR", "COMMITTER"] {
        command
            .env(format!("GIT_{role}_NAME"), "Jo")
            .env(format!("GIT_{role}_EMAIL"), "jo@example.com")
            .env(format!("GIT_{role}_DATE"), "2024-01-01T00:00:00Z");
    }
    command
}

/// What answers a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GitProtocol {
    /// `git daemon`.
    Current,
    /// `git daemon` that was not told of any version, as old ones are.
    Old,
}

/// A server of all repositories below a folder by `git://`: one process of git a connection, on a free port
/// of the loopback interface.
#[derive(Debug)]
pub(crate) struct GitDaemon {
    address: SocketAddr,
    sent: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl GitDaemon {
    pub(crate) fn start(folder: &Path, protocol: GitProtocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let sent = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (folder, count, over) = (folder.to_owned(), sent.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (folder, count) = (folder.clone(), count.clone());
                // A client that goes away early is none of its business.
                std::thread::spawn(move || drop(serve(stream, &folder, protocol, &count)));
            }
        });
        Self {
            address,
            sent,
            ended,
            listener: Some(thread),
        }
    }

    /// `git://127.0.0.1:PORT/NAME`
    pub(crate) fn url(&self, name: &str) -> String {
        format!("git://{}/{name}", self.address)
    }

    /// Bytes that it has sent since this was asked last.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.swap(0, Ordering::SeqCst)
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn serve(
    mut stream: TcpStream,
    folder: &Path,
    protocol: GitProtocol,
    sent: &AtomicU64,
) -> io::Result<()> {
    let mut command = git(folder);
    match protocol {
        GitProtocol::Current => {
            command.args(["daemon", "--inetd", "--export-all"]);
            command.arg(format!("--base-path={}", folder.display()));
        }
        GitProtocol::Old => {
            let path = requested(&mut stream)?;
            command
                .args(["upload-pack", "--strict"])
                .arg(folder.join(path));
        }
    }
    let mut child = command
        .stdin(Stdio::from(OwnedFd::from(stream.try_clone()?)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut output = child.stdout.take().expect("it is piped");
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = output.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        sent.fetch_add(length as u64, Ordering::SeqCst);
        stream.write_all(&buffer[..length])?;
    }
    stream.shutdown(Shutdown::Both)?;
    child.wait()?;
    Ok(())
}

/// The path in the first packet, which is `git-upload-pack /PATH`, and then what old servers do not know.
fn requested(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = usize::from_str_radix(&String::from_utf8_lossy(&head), 16);
    let mut line = vec![0; length.map_err(io::Error::other)? - head.len()];
    stream.read_exact(&mut line)?;
    let line = String::from_utf8_lossy(&line);
    let path = line
        .split('\0')
        .next()
        .and_then(|line| line.split_once(" /"));
    Ok(path.map(|(_, path)| path.to_owned()).unwrap_or_default())
}

/// A web server of all repositories below a folder: git's own CGI program behind nginx, by Debian's fcgiwrap.
///
/// They lie below `git/`; below `private/git/` for who logs in, and below `old/git/` in the protocol's old
/// version.
#[derive(Debug)]
pub(crate) struct GitWeb {
    pub(crate) web: Web,
    process: Child,
    _directory: tempfile::TempDir,
}

impl GitWeb {
    /// Starts a server; `None` (and the test is skipped) if the programs are not there.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        if !have(&["fcgiwrap"]) {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("pib-cgi-")
            .tempdir()
            .expect("a folder");
        let socket = directory.path().join("socket");
        let program =
            Path::new(&succeed(git(folder).arg("--exec-path")).trim()).join("git-http-backend");
        let cgi = format!(
            "client_max_body_size 0; fastcgi_buffering off; fastcgi_pass unix:{};
            fastcgi_param SCRIPT_FILENAME {}; fastcgi_param GIT_PROJECT_ROOT {};
            fastcgi_param GIT_HTTP_EXPORT_ALL 1; fastcgi_param PATH_INFO $path;
            fastcgi_param REQUEST_METHOD $request_method; fastcgi_param QUERY_STRING $query_string;
            fastcgi_param CONTENT_TYPE $content_type; fastcgi_param CONTENT_LENGTH $content_length;",
            socket.display(),
            program.display(),
            folder.display()
        );
        let web = Web::start_with(&format!(
            "location ~ ^/git(?<path>/.*)$ {{ {cgi} }}
            location ~ ^/private/git(?<path>/.*)$ {{ auth_basic private; {cgi} }}
            location ~ ^/old/git(?<path>/.*)$ {{ fastcgi_param HTTP_GIT_PROTOCOL \"\"; {cgi} }}"
        ))?;
        let mut command = Command::new("setpriv");
        isolate(&mut command)
            .args(["--pdeathsig", "KILL", "fcgiwrap", "-c", "2", "-s"])
            .arg(format!("unix:{}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let process = command.spawn().expect("fcgiwrap starts");
        while !socket.exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Some(Self {
            web,
            process,
            _directory: directory,
        })
    }
}

impl Drop for GitWeb {
    fn drop(&mut self) {
        // With those that it forked; it may have ended already.
        let group = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.process.wait();
    }
}

/// A plain clone by git itself at `path`: what ours is compared with.
pub(crate) fn git_clone(url: &str, path: &Path) {
    succeed(
        git(Path::new("/"))
            .args(["clone", "--quiet", url])
            .arg(path),
    );
}
