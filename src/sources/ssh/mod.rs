//! Sessions by ssh: configuration, jumps, host keys, logins.
//!
//! [`connect`] reads like the table of contents. No question is ever asked: an unknown host or a key with a
//! passphrase is an error that says what to do.
//!
//! | file | holds |
//! |---|---|
//! | `config.rs` | what `ssh_config` files say of a host |
//! | `target.rs` | that, joined with what was typed and with the defaults |
//! | `way.rs` | the stream: direct, through a command, or through other hosts |
//! | `known_hosts.rs` | which key a host should have |
//! | `login.rs`, `key.rs` | who the user is |
//! | `words.rs` | quotes, patterns and tokens of ssh's files |

pub(crate) mod config;
mod key;
pub(crate) mod known_hosts;
mod login;
mod target;
mod way;
mod words;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use ssh2::{ErrorCode, MethodType};

use crate::buildfile::SshLocation;
use crate::error::{Error, Wrap as _};
use crate::secret::Secret;

use super::Fetch;
use super::error::source;
use known_hosts::{HostKey, Verdict};
use login::Given;
use target::{Address, Target, Way};
use way::{Jump, ProxyCommand, Stream};

/// How ssh decides whom to trust.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether a key of an unknown host is taken for its own, and remembered.
    pub accept_new_host_keys: bool,
    /// Replaces `~/.ssh/known_hosts` and the system's file.
    pub known_hosts: Option<PathBuf>,
}

/// A session after login. It ends with the value.
pub(super) struct Session {
    /// The session itself.
    pub(super) ssh: ssh2::Session,
    /// The same socket as the session's.
    socket: OwnedFd,
    /// `host:port`
    place: String,
    /// After the session, so that it ends later.
    stream: Stream,
}

/// Opens a session with the host of `location`, by `key` (the text of a private key) if there is one.
pub(super) fn connect(
    location: &SshLocation,
    key: Option<&Secret>,
    fetch: Fetch<'_>,
) -> Result<Session, Error> {
    let given = Given {
        key,
        password: location.password.as_ref(),
    };
    open(&Address::from(location), None, given, &[], fetch)
}

impl Session {
    /// What the session's failure is: `error`, or that the build was told to stop.
    pub(super) fn failure(&self, error: ssh2::Error, fetch: Fetch<'_>) -> Error {
        let message = format!("the session with `{}` failed", self.place);
        self.failure_of(&message, error, fetch)
    }

    /// The same with a message of its own. Unless the server itself said no to a request, nothing can be had
    /// from it any more, and it is not waited for.
    pub(super) fn failure_of(&self, message: &str, error: ssh2::Error, fetch: Fetch<'_>) -> Error {
        if matches!(error.code(), ErrorCode::Session(_)) {
            self.abandon();
        }
        failed(message, error).or_cancelled(fetch.progress)
    }

    /// Ends the session at once: closing it in good manners would wait for an answer.
    pub(super) fn abandon(&self) {
        // It may have ended already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

/// Opens a session. `jumps` are the hosts before this one, if somebody else than its own configuration says
/// so; `path` are the logins that wait for this one.
fn open(
    address: &Address,
    jumps: Option<&[Address]>,
    given: Given<'_>,
    path: &[String],
    fetch: Fetch<'_>,
) -> Result<Session, Error> {
    // A failure of a jump host itself names it. One on the way to it names another host already.
    let named = |error: Error| match path {
        [] => error,
        _ => error.wrap(format!("the jump host `{}` cannot be used", address.host)),
    };
    let mut target = Target::resolve(address, fetch.ssh, fetch.progress).map_err(named)?;
    if path.contains(&target.login()) {
        let message = format!("the way to `{}` leads through itself", target.login());
        return Err(source(message)
            .with_hint("set `ProxyJump none` for the jump host in the ssh configuration"));
    }
    match jumps {
        Some([]) | None => {}
        Some(jumps) => target.way = Way::Jumps(jumps.to_vec()),
    }
    let reached = match &target.way {
        Way::Direct => direct(&target, fetch).map_err(named)?,
        Way::Command(command) => by_command(command, &target, fetch).map_err(named)?,
        Way::Jumps(jumps) => jump(jumps, &target, path, fetch)?,
    };
    begin(&target, reached, given, fetch).map_err(named)
}

/// Agrees with the host at the end of a stream upon a session, and logs in.
fn begin(
    target: &Target,
    (socket, stream): (OwnedFd, Stream),
    given: Given<'_>,
    fetch: Fetch<'_>,
) -> Result<Session, Error> {
    let mut session = Session {
        ssh: ssh2::Session::new().map_err(|error| handshake(target, error, None))?,
        socket: socket.try_clone()?,
        place: target.place(),
        stream,
    };
    let stall = fetch.net.timing().stall.as_millis();
    session
        .ssh
        .set_timeout(u32::try_from(stall).unwrap_or(u32::MAX));
    session.ssh.set_tcp_stream(socket);
    greet(&mut session, target, fetch)?;
    let result = login::log_in(&session.ssh, target, given);
    fetch.progress.check()?;
    result.map(|()| session)
}

/// A connection to the target, and what it lives by.
fn direct(target: &Target, fetch: Fetch<'_>) -> Result<(OwnedFd, Stream), Error> {
    let (host, port) = (&target.host, target.port);
    let connection = fetch.net.connect("ssh", host, port, fetch.progress)?;
    // Small requests are not held back until the last one is acknowledged.
    connection.stream.set_nodelay(true)?;
    let socket = connection.stream.try_clone()?.into();
    Ok((socket, Stream::Direct(connection)))
}

/// The two ends of a command that leads to the target.
fn by_command(
    command: &str,
    target: &Target,
    fetch: Fetch<'_>,
) -> Result<(OwnedFd, Stream), Error> {
    let started = ProxyCommand::start(command, fetch.progress);
    let (socket, command) = started.wrap(|| {
        let place = target.place();
        format!("the `ProxyCommand` for `{place}` cannot be started")
    })?;
    Ok((socket, Stream::Command(command)))
}

/// A channel through the last of `jumps`, which is reached through those before it.
fn jump(
    jumps: &[Address],
    target: &Target,
    path: &[String],
    fetch: Fetch<'_>,
) -> Result<(OwnedFd, Stream), Error> {
    let Some((last, before)) = jumps.split_last() else {
        unreachable!("the list is split from a text, and so has an entry");
    };
    let path = [path, &[target.login()]].concat();
    let hop = open(last, Some(before), Given::default(), &path, fetch)?;
    let channel = hop
        .ssh
        .channel_direct_tcpip(&target.host, target.port, None);
    let channel = channel.map_err(|error| {
        let (jump, host) = (&hop.place, target.place());
        let message = format!("the jump host `{jump}` cannot reach `{host}`");
        hop.failure_of(&message, error, fetch)
    })?;
    let (socket, jump) = Jump::start(hop, channel, fetch.progress)?;
    Ok((socket, Stream::Jump(jump)))
}

/// Agrees with the server upon algorithms, and holds that it is who it should be.
fn greet(session: &mut Session, target: &Target, fetch: Fetch<'_>) -> Result<(), Error> {
    let (host, port) = (&*target.known_as.0, target.known_as.1);
    let known = known_hosts::look_up(&target.known_hosts, host, port, &session.ssh)?;
    let supported = session.ssh.supported_algs(MethodType::HostKey);
    let shaken = supported.and_then(|supported| {
        let preferred = known_hosts::algorithms(&known, &supported);
        session.ssh.method_pref(MethodType::HostKey, &preferred)?;
        session.ssh.handshake()
    });
    if let Err(error) = shaken {
        fetch.progress.check()?;
        return Err(handshake(target, error, session.stream.said()));
    }
    let Some(key) = HostKey::of(&session.ssh) else {
        let error = ssh2::Error::new(ErrorCode::Session(-10), "it has no key that can be read");
        return Err(handshake(target, error, None));
    };
    let host = known_hosts::name(host, port);
    match known_hosts::judge(&known, &key) {
        Verdict::Trusted => Ok(()),
        Verdict::Changed(line) => {
            let file = line.file.display();
            let message = format!(
                "`{host}` has another key than `{file}` names in line {}: the {} key `{}`",
                line.line, key.kind, key.fingerprint
            );
            Err(source(message).with_hint(format!(
                "if the machine was set up anew, remove that line of `{file}`; if not, somebody else answers \
                 in its place"
            )))
        }
        Verdict::Revoked(line) => Err(source(format!(
            "`{host}` has a key that `{}` revokes in line {}: `{}`",
            line.file.display(),
            line.line,
            key.fingerprint
        ))),
        Verdict::Unknown => meet(target, &host, &key, fetch),
    }
}

/// A host that nobody knows.
fn meet(target: &Target, host: &str, key: &HostKey, fetch: Fetch<'_>) -> Result<(), Error> {
    let file = target.known_hosts.first().cloned().unwrap_or_default();
    let shown = file.display();
    let HostKey {
        kind, fingerprint, ..
    } = key;
    if !target.accept_new {
        let message = format!("`{host}` is not a known host: its {kind} key is `{fingerprint}`");
        return Err(source(message).with_hint(format!(
            "if that is its key, give `--accept-new-host-keys` once, or add what `ssh-keyscan -p {} {}` \
             prints to `{shown}`",
            target.port, target.host
        )));
    }
    fetch.progress.note(format!(
        "`{host}` is known from now on, by its {kind} key `{fingerprint}`, in `{shown}`"
    ));
    known_hosts::remember(&file, host, key)
        .wrap(|| format!("the key of `{host}` cannot be added to `{shown}`"))
}

/// A session that does not begin; `said` is what the `ProxyCommand` wrote to its standard error.
fn handshake(target: &Target, error: ssh2::Error, said: Option<String>) -> Error {
    let said = said.map_or_else(String::new, |said| {
        format!("; the `ProxyCommand` said: {said}")
    });
    let place = target.place();
    let message = format!(
        "`{place}` does not begin a session: {}{said}",
        error.message()
    );
    source(message).with_source(error)
}

/// A failure in the library's words.
pub(super) fn failed(message: &str, error: ssh2::Error) -> Error {
    source(format!("{message}: {}", error.message())).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::error::Kind;
    use crate::net::{self, Timing};
    use crate::progress::Progress;

    /// Connects to somebody who takes connections and never says a word.
    fn connect_to_silence(stall: Duration, stop_after: Option<Duration>) -> Error {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let location = SshLocation {
            user: None,
            password: None,
            host: "127.0.0.1".to_owned(),
            port: Some(listener.local_addr().unwrap().port()),
            path: "/".to_owned(),
        };
        let timing = Timing {
            stall,
            ..Timing::default()
        };
        let client = net::Client::with_timing(net::Options::default(), timing);
        let progress = Progress::silent();
        let handle = progress.clone();
        if let Some(delay) = stop_after {
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                handle.stop();
            });
        }
        let fetch = Fetch {
            net: &client,
            ssh: &Options::default(),
            progress: &progress,
            part: &progress.start("a test"),
        };
        let began = Instant::now();
        let error = connect(&location, None, fetch).err().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{error}");
        error
    }

    #[test]
    fn a_silent_server_is_not_waited_for_for_ever() {
        let error = connect_to_silence(Duration::from_secs(1), None);
        let message = error.to_string();
        assert!(
            message.contains("` does not begin a session: "),
            "{message}"
        );
    }

    #[test]
    fn a_build_that_is_told_to_stop_stops() {
        let error = connect_to_silence(Duration::from_secs(60), Some(Duration::from_millis(100)));
        assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    }
}
