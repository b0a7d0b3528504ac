//! What the program and its helper process say to each other, over a socket that the helper has as its standard
//! input. A step's environment holds secrets: it travels here, never on a command line or in an environment.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use super::{Command, Failure, Outcome, Runner};

/// The first thing that the helper hears.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// The process that started the helper, and after whose end it may not live.
    pub(super) parent: i32,
    pub(super) runner: Runner,
    pub(super) job: Job,
}

/// What the helper is for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Run a command; three descriptors come along.
    Run(Box<Command>),
    /// Answer a call.
    Call { task: String },
    /// Try the runner, with a file system in memory mounted upon this directory.
    Probe { directory: PathBuf },
    /// Try an overlay in this empty directory.
    Overlay { directory: PathBuf },
}

/// What follows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Note {
    /// To the program: the helper is in its new user namespace and waits for the maps of ids.
    MapIds,
    /// To the helper: they are written.
    IdsMapped,
    /// To the program: send the input of the call.
    Ready,
    /// To the program: what was asked for cannot be done here.
    Failed(Failure),
    /// To the program: it is done, or the command ended.
    Done(Outcome),
    /// To the program: the answer follows as bytes; whether it is an error's message.
    Answer { error: bool },
    /// To the helper: send SIGTERM to the command.
    Signal(i32),
    /// To the helper: send SIGKILL.
    Kill,
}

/// One end of the socket.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// A connected pair.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self(ours), theirs.into()))
    }

    /// Both ends of one.
    pub(super) fn both() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self(one), Self(other)))
    }

    /// The helper's end, taken from its standard input; `None` if that is no socket.
    pub(super) fn from_stdin() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        rustix::net::sockopt::socket_type(stdin).ok()?;
        let socket = rustix::io::fcntl_dupfd_cloexec(stdin, 3).ok()?;
        let null = fs_err::File::open("/dev/null").ok()?;
        rustix::stdio::dup2_stdin(null.file()).ok()?;
        Some(Self(socket.into()))
    }

    /// Sends descriptors, with one byte to carry them.
    pub(super) fn send_descriptors(&self, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors"));
        }
        let byte = [io::IoSlice::new(b"f")];
        rustix::net::sendmsg(&self.0, &byte, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives the descriptors of [`Channel::send_descriptors`].
    pub(super) fn receive_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut slices = [io::IoSliceMut::new(&mut byte)];
        rustix::net::recvmsg(&self.0, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        Ok(control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect())
    }

    /// Whether somebody is at the other end.
    pub(super) fn is_open(&self) -> bool {
        let mut byte = [0];
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        !matches!(
            rustix::net::recv(&self.0, &mut byte[..], peek),
            Ok((0, _)) | Err(Errno::CONNRESET)
        )
    }

    /// Sends a value.
    pub(super) fn send<T: Serialize>(&self, value: &T) -> io::Result<()> {
        self.send_bytes(&serde_json::to_vec(value)?)
    }

    /// Receives a value; `None` at the end of the conversation.
    pub(super) fn receive<T: for<'de> Deserialize<'de>>(&self) -> io::Result<Option<T>> {
        match self.receive_bytes()? {
            Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            None => Ok(None),
        }
    }

    /// Sends bytes, after their number.
    pub(super) fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
        (&self.0).write_all(&length.to_le_bytes())?;
        (&self.0).write_all(bytes)
    }

    /// Receives bytes; `None` at the end of the conversation. A process that was killed in the middle of a
    /// message ends it, too.
    pub(super) fn receive_bytes(&self) -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; 8];
        let mut bytes = vec![];
        let read = (&self.0).read_exact(&mut length).and_then(|()| {
            let length = u64::from_le_bytes(length);
            let read = (&self.0).take(length).read_to_end(&mut bytes)?;
            if u64::try_from(read) == Ok(length) {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        });
        match read {
            Ok(()) => Ok(Some(bytes)),
            Err(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(None),
                _ => Err(error),
            },
        }
    }
}

impl std::os::fd::AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Paths need not be UTF-8, which `serde` asks of a `PathBuf`: they travel as the operating system's strings.
pub(super) mod path {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        OsString::deserialize(from).map(PathBuf::from)
    }
}

/// As [`path`], for several.
pub(super) mod paths {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        paths
            .iter()
            .map(|path| path.as_os_str())
            .collect::<Vec<_>>()
            .serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        Ok(Vec::<OsString>::deserialize(from)?
            .into_iter()
            .map(PathBuf::from)
            .collect())
    }
}

/// As [`path`], for one that may be missing.
#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
pub(super) mod maybe_path {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        path.as_ref().map(|path| path.as_os_str()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<OsString>::deserialize(from)?.map(PathBuf::from))
    }
}
