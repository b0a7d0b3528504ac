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
mod error;
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
use crate::secret::Secret;

use super::Fetch;
use known_hosts::{HostKey, Verdict};
use login::Given;
use target::{Address, Target, Way};
use way::{Jump, ProxyCommand, Stream};

pub(super) use error::Error;

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
    /// What the session's failure is: `error`, or that the build was told to stop. Unless the server itself
    /// said no to a request, nothing can be had from it any more, and it is not waited for.
    pub(super) fn failure(&self, error: ssh2::Error, fetch: Fetch<'_>) -> Error {
        if matches!(error.code(), ErrorCode::Session(_)) {
            self.abandon();
        }
        match fetch.progress.check() {
            Err(cancelled) => Error::Cancelled(cancelled),
            Ok(()) => Error::Session {
                host: self.place.clone(),
                source: error,
            },
        }
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
    let mut target = Target::resolve(address, fetch.ssh, fetch.progress)?;
    if path.contains(&target.login()) {
        return Err(Error::Loop {
            login: target.login(),
        });
    }
    match jumps {
        Some([]) | None => {}
        Some(jumps) => target.way = Way::Jumps(jumps.to_vec()),
    }
    let (socket, stream) = reach(&target, path, fetch)?;
    let mut session = Session {
        ssh: ssh2::Session::new().map_err(|source| handshake(&target, source, None))?,
        socket: socket.try_clone()?,
        place: target.place(),
        stream,
    };
    let stall = fetch.net.timing().stall.as_millis();
    session
        .ssh
        .set_timeout(u32::try_from(stall).unwrap_or(u32::MAX));
    session.ssh.set_tcp_stream(socket);
    greet(&mut session, &target, fetch)?;
    let result = login::log_in(&session.ssh, &target, given);
    fetch.progress.check()?;
    result.map(|()| session)
}

/// The stream to the target, and what it lives by.
fn reach(target: &Target, path: &[String], fetch: Fetch<'_>) -> Result<(OwnedFd, Stream), Error> {
    match &target.way {
        Way::Direct => {
            let (host, port) = (&target.host, target.port);
            let connection = fetch.net.connect("ssh", host, port, fetch.progress)?;
            // Small requests are not held back until the last one is acknowledged.
            connection.stream.set_nodelay(true)?;
            Ok((
                connection.stream.try_clone()?.into(),
                Stream::Direct(connection),
            ))
        }
        Way::Command(command) => {
            let (socket, command) = ProxyCommand::start(command, fetch.progress)
                .map_err(way::failed(target.place()))?;
            Ok((socket, Stream::Command(command)))
        }
        Way::Jumps(jumps) => {
            let (socket, jump) = jump(jumps, target, path, fetch)?;
            Ok((socket, Stream::Jump(jump)))
        }
    }
}

/// A channel through the last of `jumps`, which is reached through those before it.
fn jump(
    jumps: &[Address],
    target: &Target,
    path: &[String],
    fetch: Fetch<'_>,
) -> Result<(OwnedFd, Jump), Error> {
    let Some((last, before)) = jumps.split_last() else {
        unreachable!("the list is split from a text, and so has an entry");
    };
    let path = [path, &[target.login()]].concat();
    let hop = open(last, Some(before), Given::default(), &path, fetch);
    let hop = hop.map_err(|error| match error {
        Error::Cancelled(_) | Error::Loop { .. } | Error::Jump { .. } | Error::Forward { .. } => {
            error
        }
        error => Error::Jump {
            login: last.host.clone(),
            source: Box::new(error),
        },
    })?;
    let channel = hop
        .ssh
        .channel_direct_tcpip(&target.host, target.port, None);
    let channel = channel.map_err(|source| match hop.failure(source, fetch) {
        Error::Session { host, source } => Error::Forward {
            jump: host,
            host: target.place(),
            source,
        },
        other => other,
    })?;
    Ok(Jump::start(hop, channel, fetch.progress)?)
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
    if let Err(source) = shaken {
        fetch.progress.check()?;
        return Err(handshake(target, source, session.stream.said()));
    }
    let Some(key) = HostKey::of(&session.ssh) else {
        let source = ssh2::Error::new(ErrorCode::Session(-10), "it has no key that can be read");
        return Err(handshake(target, source, None));
    };
    let host = known_hosts::name(host, port);
    match known_hosts::judge(&known, &key) {
        Verdict::Trusted => Ok(()),
        Verdict::Changed(line) => Err(Error::ChangedKey {
            host,
            kind: key.kind,
            fingerprint: key.fingerprint,
            file: line.file.clone(),
            line: line.line,
        }),
        Verdict::Revoked(line) => Err(Error::RevokedKey {
            host,
            fingerprint: key.fingerprint,
            file: line.file.clone(),
            line: line.line,
        }),
        Verdict::Unknown => meet(target, host, key, fetch),
    }
}

/// A host that nobody knows.
fn meet(target: &Target, host: String, key: HostKey, fetch: Fetch<'_>) -> Result<(), Error> {
    let file = target.known_hosts.first().cloned().unwrap_or_default();
    if !target.accept_new {
        return Err(Error::UnknownHost {
            host,
            place: (target.host.clone(), target.port),
            kind: key.kind,
            fingerprint: key.fingerprint,
            file,
        });
    }
    fetch.progress.note(format!(
        "`{host}` is known from now on, by its {} key `{}`, in `{}`",
        key.kind,
        key.fingerprint,
        file.display()
    ));
    known_hosts::remember(&file, &host, &key).map_err(|source| Error::Remember {
        host,
        file,
        source,
    })
}

fn handshake(target: &Target, source: ssh2::Error, command_said: Option<String>) -> Error {
    Error::Handshake {
        host: target.place(),
        source,
        command_said,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::*;
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
        assert!(matches!(error, Error::Handshake { .. }), "{error}");
    }

    #[test]
    fn a_build_that_is_told_to_stop_stops() {
        let error = connect_to_silence(Duration::from_secs(60), Some(Duration::from_millis(100)));
        assert!(matches!(error, Error::Cancelled(_)), "{error}");
    }
}
