//! Which images an entry is for.
//!
//! A prefix is a registry, a part of its names, or one name with its tag or digest; it ends where a part of
//! the reference ends. `*.` stands for any subdomains. As in the container tools, a prefix without a port is
//! for every port of its host. Unlike there, the letter case of a host makes no difference, and a prefix
//! with a tag counts as containers-registries.conf(5) says.

use super::error::PolicyProblem;
use crate::registry::Reference;
use crate::registry::reference::Problem;

/// A prefix that is known to be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    /// With the host in lower case.
    text: String,
    /// Where the name ends; a tag or digest begins there.
    end: usize,
}

impl Prefix {
    pub(super) fn parse(text: &str) -> Result<Self, PolicyProblem> {
        let text = text.trim_end_matches('/');
        if let Some(end) = text.find("://") {
            return Err(PolicyProblem::Place {
                text: crate::secret::mask(text),
                problem: Problem::Scheme(text[..end + 3].to_owned()),
            });
        }
        if text.starts_with("*.") && text.contains(['/', '@', ':']) {
            return Err(PolicyProblem::Wildcard(text.to_owned()));
        }
        let slash = text.find('/').unwrap_or(text.len());
        let end = text[slash..].find(['@', ':']);
        Ok(Self {
            text: lower_host(text),
            end: end.map_or(text.len(), |end| slash + end),
        })
    }

    /// As it is shown, and as prefixes are ordered.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// `:tag` or `@digest`; mostly empty.
    pub(super) fn suffix(&self) -> &str {
        &self.text[self.end..]
    }

    /// Whether it is for subdomains.
    pub(super) fn is_wild(&self) -> bool {
        self.text.starts_with("*.")
    }

    /// What comes after the prefix in the name of `reference`; `None` if it is not for that.
    pub(super) fn rest<'a>(&self, reference: &Reference, name: &'a str) -> Option<&'a str> {
        let lower = lower_host(name);
        let end = match self.text.strip_prefix('*') {
            Some(domain) if domain.starts_with('.') => {
                let end = lower.find([':', '/'])?;
                lower[..end].ends_with(domain).then_some(end)?
            }
            _ => lower
                .starts_with(&self.text[..self.end])
                .then_some(self.end)?,
        };
        let rest = &name[end..];
        let ends_well = rest.is_empty() || rest.starts_with(['/', ':']);
        let (tag, digest) = (reference.tag(), reference.digest());
        let is_meant = match self.suffix() {
            "" => true,
            suffix => {
                rest.is_empty()
                    && (tag.is_some_and(|tag| suffix.strip_prefix(':') == Some(tag))
                        || digest.is_some_and(|digest| suffix == format!("@{digest}")))
            }
        };
        (ends_well && is_meant).then_some(rest)
    }
}

/// `text` with what comes before its first slash in lower case.
fn lower_host(text: &str) -> String {
    let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    format!("{}{path}", host.to_ascii_lowercase())
}
