//! COPY and ADD become actions: which sources they have, and where those go.

use super::action::{Action, Applied, Copy, History, Source};
use super::copy::is_digest;
use super::error::quoted;
use super::evaluate::State;
use super::instruction::CopyWords;
use super::problem::Problem;
use super::{value, word};
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

        let mut sources: Vec<Source> = Vec::new();
        for source in typed {
            let source = source_of(source)?;
            match &source {
                Source::Url(remote) | Source::Git(remote) if !words.is_add => {
                    return Err(Problem::Remote(quoted(&secret::mask(remote))));
                }
                _ => sources.push(source),
            }
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
        if sources.len() > 1
            && !destination.ends_with('/')
            && !matches!(destination.as_str(), "" | ".")
        {
            return Err(Problem::NotADirectory(quoted(&destination)));
        }
        if let Some(checksum) = &checksum {
            if !is_digest(checksum) {
                return Err(Problem::Digest(quoted(checksum)));
            }
            if !matches!(sources[..], [Source::Url(_) | Source::Git(_)]) {
                return Err(Problem::Checksum);
            }
        }
        let chmod = mode.map(|text| value::mode(&text).ok_or_else(|| Problem::Mode(quoted(&text))));
        let copy = Copy {
            is_add: words.is_add,
            sources,
            destination: self.destination(&destination),
            chown,
            chmod: chmod.transpose()?,
            exclude: self.all(&words.exclude, escape)?,
            parents: words.parents,
            link: words.link,
            checksum,
            keep_git_dir: words.keep_git_dir,
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
        if matches!(last, "" | "." | "..") && path != "/" {
            path.push('/');
        }
        path
    }
}

/// Which kind of source a word of COPY or ADD is.
fn source_of(word: String) -> Result<Source, Problem> {
    if word.is_empty() {
        return Err(Problem::Empty("source"));
    }
    let by_http = word.starts_with("http://") || word.starts_with("https://");
    let location = word.split(['#', '?']).next().unwrap_or(&word);
    let by_git = ["git://", "ssh://", "git@"]
        .iter()
        .any(|scheme| word.starts_with(scheme));
    Ok(match (by_http, location.strip_suffix(".git").is_some()) {
        (true, false) => Source::Url(word),
        (true, true) => Source::Git(word),
        (false, _) if by_git => Source::Git(word),
        (false, _) => Source::Path(word),
    })
}
