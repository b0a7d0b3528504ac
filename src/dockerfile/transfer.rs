//! COPY and ADD become actions: which sources they have, and where those go.

use super::action::{Action, Applied, Copy, History, Source};
use super::error::quoted;
use super::evaluate::State;
use super::instruction::CopyWords;
use super::problem::Problem;
use super::{copy, git, value, word};
use crate::secret;

impl State {
    pub(super) fn copy(&mut self, words: &CopyWords, escape: char) -> Result<Applied, Problem> {
        let typed = self.all(&words.sources, escape)?;
        let destination = self.expand(&words.destination, escape)?;
        let chown = self.optional(words.chown.as_ref(), escape)?;
        let mode = self.optional(words.chmod.as_ref(), escape)?;
        let checksum = self.optional(words.checksum.as_ref(), escape)?;

        let mut created_by = String::from(if words.is_add { "ADD" } else { "COPY" });
        let mut tell = |text: &str| {
            created_by.push(' ');
            created_by.push_str(text);
        };
        if words.parents {
            tell("--parents");
        }
        if let Some(chown) = &chown {
            tell(&format!("--chown={chown}"));
        }
        if let Some(mode) = &mode {
            tell(&format!("--chmod={mode}"));
        }
        for source in &typed {
            tell(source);
        }
        for heredoc in &words.heredocs {
            tell(&format!("<<{}", heredoc.name));
        }
        tell(&destination);
        created_by.push_str(" # buildkit");

        let mut sources = Vec::new();
        for word in typed {
            let is_git = git::is_git(&word);
            let is_url = word.starts_with("http://") || word.starts_with("https://");
            sources.push(match (is_git, is_url) {
                (false, false) => Source::Path(word),
                _ if !words.is_add => {
                    return Err(Problem::Remote(quoted(&secret::mask(&word))));
                }
                (true, _) => {
                    let git = git::parse(&word, words.keep_git_dir, checksum.as_deref())?;
                    Source::Git(git)
                }
                (false, true) => Source::Url(word),
            });
        }
        for heredoc in &words.heredocs {
            let mut text = heredoc.content();
            if heredoc.expand {
                let expanded = word::expand_heredoc(&text, &|name| self.value(name))?;
                self.spend(expanded.text.len() + expanded.work)?;
                text = expanded.text;
            }
            let name = heredoc.name.clone();
            sources.push(Source::Inline { name, text });
        }
        let path = self.destination(&destination);
        if sources.len() > 1 && !path.ends_with('/') {
            return Err(Problem::NotADirectory(quoted(&destination)));
        }
        let sha256 = match (&checksum, &sources[..]) {
            (None, _) | (_, [Source::Git(_)]) => None,
            (Some(checksum), [Source::Url(_)]) => {
                let digits = copy::sha256(checksum);
                let digits = digits.ok_or_else(|| Problem::Digest(quoted(checksum)))?;
                Some(digits.to_ascii_lowercase())
            }
            _ => return Err(Problem::Checksum),
        };
        let chmod = mode.map(|text| text.parse().map_err(|_| Problem::Mode(quoted(&text))));
        let copy = Copy {
            is_add: words.is_add,
            sources,
            destination: path,
            chown,
            chmod: chmod.transpose()?,
            exclude: self.all(&words.exclude, escape)?,
            parents: words.parents,
            link: words.link,
            sha256,
            unpack: words.unpack,
        };
        Ok(Applied {
            action: Action::Copy(copy),
            history: Some(History {
                created_by,
                empty_layer: false,
            }),
        })
    }

    /// A destination as an absolute path, with its slash at the end.
    fn destination(&self, typed: &str) -> String {
        let mut path = value::absolute(&self.cwd(), typed);
        let last = typed.rsplit('/').next().unwrap_or(typed);
        if matches!(last, "" | ".") && path != "/" {
            path.push('/');
        }
        path
    }
}
