//! COPY and ADD: sources, a destination, and what becomes of owners and modes.

use std::ops::Range;

use super::error::quoted;
use super::flags::Shape;
use super::git::is_start_of_id;
use super::heredoc;
use super::instruction::CopyWords;
use super::parse::Parser;
use super::word;
use crate::mode::Mode;

pub(super) const COPY_FLAGS: [(&str, Shape); 6] = [
    ("chown", Shape::Text),
    ("chmod", Shape::Text),
    ("link", Shape::Truth),
    ("parents", Shape::Truth),
    ("exclude", Shape::Texts),
    ("from", Shape::Text),
];

pub(super) const ADD_FLAGS: [(&str, Shape); 7] = [
    ("chown", Shape::Text),
    ("chmod", Shape::Text),
    ("link", Shape::Truth),
    ("exclude", Shape::Texts),
    ("checksum", Shape::Text),
    ("keep-git-dir", Shape::Truth),
    ("unpack", Shape::Truth),
];

/// What a mode may look like, for hints.
pub(super) const MODE_HINT: &str = "write an octal number up to `7777`, or symbols, such as `--chmod=0755` or `--chmod=u=rwX,go=rX`";

/// What a checksum may look like, for hints.
pub(super) const DIGEST_HINT: &str =
    "write `--checksum=sha256:` and 64 digits, or for a repository the id of a commit";

impl Parser<'_> {
    pub(super) fn copy(&mut self) -> Option<CopyWords> {
        if let Some(from) = self.flags.get("from") {
            let message = "`COPY --from` cannot stand here: the image has one stage";
            let hint = "copy from the context, or fetch with `files`, `repositories` or `ADD`";
            self.add(from.at.clone(), message, hint);
        }
        self.check_flags();
        let (mut words, places) = if let Some(words) = self.array().ok()? {
            for word in &words {
                self.check_flag(word, self.rest_at());
            }
            let places = words.iter().map(|_| self.rest_at()).collect();
            (words, places)
        } else {
            let places = self.split();
            let words = places.iter().map(|at| self.text[at.clone()].to_owned());
            (words.collect(), places)
        };
        let destination = words.pop()?;
        if words.is_empty() {
            let message = format!("`{}` has no destination", self.name);
            let hint = format!("write `{} SOURCE DESTINATION`", self.name);
            self.add(self.rest_at(), message, hint);
            return None;
        }
        let (sources, heredocs) = self.sources(words, &places);
        if heredoc::word(&destination).is_some() {
            let message = "a heredoc cannot be a destination";
            let at = places.last().cloned().unwrap_or(0..0);
            self.add(at, message, "write the file's path behind it");
        } else if let Some(at) = places.last() {
            self.check_word(&destination, at.clone());
        }
        Some(CopyWords {
            is_add: self.name == "ADD",
            sources,
            heredocs,
            destination,
            chown: self.flags.text("chown"),
            chmod: self.flags.text("chmod"),
            exclude: self
                .flags
                .all("exclude")
                .filter_map(|flag| flag.value.clone())
                .collect(),
            parents: self.flags.truth("parents"),
            link: self.flags.truth("link"),
            checksum: self.flags.text("checksum"),
            keep_git_dir: self.optional_truth("keep-git-dir"),
            unpack: self.optional_truth("unpack"),
        })
    }

    fn optional_truth(&self, name: &str) -> Option<bool> {
        self.flags.get(name).map(|_| self.flags.truth(name))
    }

    /// Tells heredocs from other sources.
    fn sources(
        &mut self,
        words: Vec<String>,
        places: &[Range<usize>],
    ) -> (Vec<String>, Vec<heredoc::Heredoc>) {
        let (mut sources, mut heredocs) = (Vec::new(), Vec::new());
        for (word, at) in words.into_iter().zip(places) {
            if let Some(heredoc) = self.heredoc(&word).cloned() {
                if heredoc.expand
                    && let Err(error) = word::check_heredoc(&heredoc.text)
                {
                    let message = format!("in the heredoc `{}`: {error}", quoted(&heredoc.name));
                    let hint = format!("write `<<'{}'` to keep all of its text", heredoc.name);
                    self.add(at.clone(), message, hint);
                }
                heredocs.push(heredoc);
            } else {
                self.check_word(&word, at.clone());
                sources.push(word);
            }
        }
        (sources, heredocs)
    }

    /// Checks a word of the text; those of an array were checked already.
    fn check_word(&mut self, word: &str, at: Range<usize>) {
        if self.text[at.clone()] == *word {
            self.check(at);
        }
    }

    fn check_flags(&mut self) {
        let flags: Vec<_> = self
            .flags
            .0
            .iter()
            .filter_map(|flag| Some((flag.name.clone(), flag.value.clone()?, flag.at.clone())))
            .collect();
        for (name, text, at) in flags {
            self.check_flag(&text, at.clone());
            if text.contains('$') {
                continue;
            }
            if name == "chmod" && text.parse::<Mode>().is_err() {
                let message = format!("`{}` is not a mode", quoted(&text));
                self.add(at, message, MODE_HINT);
            } else if name == "checksum" && sha256(&text).is_none() && !is_start_of_id(&text) {
                let message = format!("`{}` is not a digest", quoted(&text));
                self.add(at, message, DIGEST_HINT);
            }
        }
    }
}

/// The digits of a file's digest; without its algorithm it is none.
pub(super) fn sha256(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("sha256:")?;
    let is_whole = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_whole.then_some(digits)
}
