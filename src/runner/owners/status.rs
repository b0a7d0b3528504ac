//! stat(2) and its kin, with the owners that were recorded.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::super::sys::{self, Answer, Notice};
use super::caller::Caller;
use super::{EMPTY_PATH, NOFOLLOW, Recorder, low, number};

/// The address of a path and whether a link at its end is followed, a descriptor, and where the answer goes.
struct Question {
    directory: i32,
    path: Option<u64>,
    flags: u32,
    buffer: u64,
    /// Of statx: which fields are wanted.
    mask: Option<u32>,
}

impl Question {
    fn of(notice: &Notice) -> Option<Self> {
        let [a, b, c, d, buffer, _] = notice.arguments;
        #[cfg(target_arch = "x86_64")]
        let by_path = |flags| Self {
            directory: libc::AT_FDCWD,
            path: Some(a),
            flags,
            buffer: b,
            mask: None,
        };
        Some(match notice.number {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_stat => by_path(0),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lstat => by_path(NOFOLLOW),
            libc::SYS_fstat => Self {
                directory: number(a),
                path: None,
                flags: 0,
                buffer: b,
                mask: None,
            },
            libc::SYS_newfstatat => Self {
                directory: number(a),
                path: Some(b),
                flags: low(d),
                buffer: c,
                mask: None,
            },
            libc::SYS_statx => Self {
                directory: number(a),
                path: Some(b),
                flags: low(c),
                buffer,
                mask: Some(low(d)),
            },
            _ => return None,
        })
    }

    fn find(&self, caller: &Caller<'_>) -> Result<OwnedFd, Errno> {
        let Some(address) = self.path else {
            return caller.file(self.directory);
        };
        let empty = self.flags & EMPTY_PATH != 0;
        // Since Linux 6.11.
        if address == 0 && empty && self.directory >= 0 {
            return caller.file(self.directory);
        }
        caller.lookup(self.directory, address, self.flags & NOFOLLOW == 0, empty)
    }
}

impl Recorder {
    /// Answers a question for a status; `None` if the call is none. The kernel answers what is root's or fails.
    pub(super) fn answer_status(&self, notice: &Notice) -> Result<Option<Answer>, Errno> {
        let Some(question) = Question::of(notice) else {
            return Ok(None);
        };
        let caller = Caller::new(&self.root, &self.listener, notice);
        let found = question
            .find(&caller)
            .and_then(|fd| Ok((self.owner_of(&fd)?, fd)));
        let Ok((owner, fd)) = found else {
            return Ok(Some(Answer::Continue));
        };
        if owner == (0, 0) {
            return Ok(Some(Answer::Continue));
        }
        let status = match question.mask {
            None => sys::status(&fd, owner),
            Some(mask) => {
                let how = question.flags & !(NOFOLLOW | EMPTY_PATH);
                sys::extended_status(&fd, how.cast_signed(), mask, owner)
            }
        };
        let Ok(bytes) = status else {
            return Ok(Some(Answer::Continue));
        };
        caller.check()?;
        caller.write(question.buffer, &bytes)?;
        Ok(Some(Answer::Value(0)))
    }
}
