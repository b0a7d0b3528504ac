//! Requirements that git brings (`git+https://…`). pip would run git, which no slim image has and which has no
//! credentials there, so they are cloned as `repositories` are, and pip is shown the clones.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use fs_err as fs;
use regex::{Captures, Regex};

use super::destination::normalise;
use super::{Requirements, in_image, jobs, local};
use crate::buildfile::{Layout, Origin, Repository};
use crate::error::Error;
use crate::progress::Progress;
use crate::secret::{self, Secret, regex};
use crate::sources::error::filling;
use crate::sources::{self, Sources};

/// Where the step sees clones, each by its number.
const PLACE: &str = "/dev/.pyats-image-build/git";

/// A requirement that git brings: an option, the name with its extras, the URL, and its fragment.
static REQUIREMENT: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r#"^(?P<editable>\s*(?:-e\s*|--editable[=\s]\s*)["']?)?\s*"#,
        r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?P<extras>\[[^\]]*\])?\s*@\s*)?",
        r#"git\+(?P<url>(?:https?|ssh|git)://[^\s"'#]+)(?:#(?P<fragment>[^\s"']*))?"#,
    ))
});

/// A line that includes another file.
static INCLUDE: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"^\s*(?:-r\s*|--requirement[=\s]\s*)["']?([^\s"']+)"#));

/// The value of `egg=` in a fragment.
static EGG: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?P<extras>\[[^\]]*\])?$"));

/// A clone that the step is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloned {
    /// The folder, for this build alone.
    pub source: PathBuf,
    /// Where the step sees it.
    pub place: String,
    /// Where the image has it, if it is installed as editable.
    pub editable: Option<String>,
    /// Where it was cloned from, without credentials.
    pub url: String,
    /// Its commit.
    pub commit: String,
    /// The commit, tag or branch that was asked for.
    pub revision: Option<String>,
}

/// Requirements of git in the files of requirements.
struct Clones {
    layout: Layout,
    repositories: Vec<Repository>,
    /// Of each, where the image has it.
    editable: Vec<Option<String>>,
}

/// Clones what requirements ask git for into `folder`, which does not exist, and has the step read requirements that
/// name the clones; in files that are included as well.
pub(super) fn provide(
    requirements: &mut [Requirements],
    layout: Layout,
    image: &Path,
    folder: &Path,
    sources: Sources<'_>,
    progress: &Progress,
) -> Result<(Vec<Requirements>, Vec<Cloned>), Error> {
    let mut clones = Clones {
        layout,
        repositories: Vec::new(),
        editable: Vec::new(),
    };
    let mut included = Vec::new();
    for file in requirements.iter_mut() {
        clones.replace(file, image, &mut included);
    }
    let mut seen: BTreeSet<String> = requirements.iter().map(|file| file.path.clone()).collect();
    let mut replaced = Vec::new();
    while let Some(path) = included.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let mut file = Requirements::new(path);
        clones.replace(&mut file, image, &mut included);
        if file.replaced.is_some() {
            replaced.push(file);
        }
    }
    Ok((replaced, clones.fetch(folder, sources, progress)?))
}

impl Clones {
    /// Has the step read requirements that name clones. Adds the files that these include.
    fn replace(&mut self, file: &mut Requirements, image: &Path, included: &mut Vec<String>) {
        let text = match &file.secret {
            Some(secret) => secret.reveal().to_owned(),
            // pip refuses a file that is not UTF-8.
            None => match fs::read_to_string(in_image(image, &file.path)) {
                Ok(text) => text,
                Err(_) => return,
            },
        };
        included.extend(included_by(&text, &file.path, self.layout, image));
        let lines = text.split_inclusive('\n').map(|line| {
            let replaced = REQUIREMENT
                .captures(line)
                .and_then(|found| self.line(line, &found));
            replaced.unwrap_or_else(|| line.to_owned())
        });
        let replaced = lines.collect::<String>();
        if replaced != text {
            let (public, has_credentials) = secret::split_credentials(&replaced);
            file.replaced = Some(public);
            file.secret = has_credentials.then(|| Secret::new(replaced));
        }
    }

    /// A line that names a clone; `None` for what pip has to say something about.
    fn line(&mut self, line: &str, found: &Captures<'_>) -> Option<String> {
        let text = |name: &str| found.name(name).map(|part| part.as_str());
        let (url, revision) = split_revision(text("url")?);
        // pip replaces variables, and this tool does not know them all.
        if url.contains("${") {
            return None;
        }
        let mut name = text("name").unwrap_or_default();
        let mut extras = text("extras").unwrap_or_default();
        let mut subdirectory = PathBuf::new();
        for part in text("fragment").unwrap_or_default().split('&') {
            match part.split_once('=') {
                Some(("subdirectory", path)) => subdirectory = normalise(Path::new(path))?,
                Some(("egg", egg)) if name.is_empty() => {
                    let egg = EGG.captures(egg)?;
                    name = egg.name("name")?.as_str();
                    extras = egg.name("extras").map_or("", |extras| extras.as_str());
                }
                _ => {}
            }
        }
        let origin = Origin::parse(url).ok()?;
        let editable = found.name("editable").map(|_| {
            let last = url.trim_end_matches('/').rsplit('/').next();
            let last = last.unwrap_or_default().trim_end_matches(".git");
            let name = if name.is_empty() { last } else { name };
            format!("{}/src/{name}", self.layout.virtual_env())
        });
        let number = self.number(&origin, revision, editable.clone());
        let root = editable.unwrap_or_else(|| format!("{PLACE}/{number}"));
        let mut path = root;
        if subdirectory != Path::new("") {
            path = format!("{path}/{}", subdirectory.to_str()?);
        }
        let mut replaced = text("editable").unwrap_or_default().to_owned();
        // A string takes all that is written.
        let _ = match (found.name("editable"), name) {
            (Some(_), _) => write!(replaced, "{path}{extras}"),
            (None, "") => write!(replaced, "file://{path}"),
            (None, name) => write!(replaced, "{name}{extras} @ file://{path}"),
        };
        Some(replaced + &line[found.get(0)?.end()..])
    }

    /// The number of a clone, which is made if there is none.
    fn number(
        &mut self,
        origin: &Origin,
        revision: Option<&str>,
        editable: Option<String>,
    ) -> usize {
        let mut known = self.repositories.iter().zip(&self.editable);
        let found = known.position(|(known, place)| {
            known.origin == *origin && known.commit.as_deref() == revision && *place == editable
        });
        found.unwrap_or_else(|| {
            let number = self.repositories.len();
            let revision_shown = revision.map_or(String::new(), |name| format!("@{name}"));
            let name = format!("git+{}{revision_shown}", shown(origin));
            self.repositories.push(Repository {
                commit: revision.map(str::to_owned),
                ..Repository::new(origin.clone(), name)
            });
            self.editable.push(editable);
            number
        })
    }

    fn fetch(
        self,
        folder: &Path,
        sources: Sources<'_>,
        progress: &Progress,
    ) -> Result<Vec<Cloned>, Error> {
        if self.repositories.is_empty() {
            return Ok(Vec::new());
        }
        let fetched = sources::all(&self.repositories, &[], sources, progress)?;
        fs::create_dir(folder).map_err(filling)?;
        let mut clones = Vec::new();
        for (number, (repository, editable)) in
            self.repositories.into_iter().zip(self.editable).enumerate()
        {
            let name = &repository.name;
            let (Some(path), Some(facts)) = (fetched.path(name), fetched.validator(name)) else {
                continue;
            };
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let source = folder.join(number.to_string());
            // pip may write into the clone, and must not write into the store.
            local::copy_plainly(path, &source).map_err(filling)?;
            clones.push(Cloned {
                source,
                place: format!("{PLACE}/{number}"),
                editable,
                url: text(&facts["remotes"]["origin"]),
                commit: text(&facts["commit"]),
                revision: repository.commit,
            });
        }
        fetched.complete()?;
        Ok(clones)
    }
}

/// A location as messages may show it, and as a URL in any case.
fn shown(origin: &Origin) -> String {
    match origin {
        Origin::Ssh(location) => format!("ssh://{location}"),
        other => other.to_string(),
    }
}

/// A URL, and the commit, tag or branch behind the `@` of its path.
fn split_revision(url: &str) -> (&str, Option<&str>) {
    let path = url.find("://").map_or(0, |at| at + 3);
    let path = url[path..].find('/').map_or(url.len(), |at| path + at);
    match url[path..].rfind('@') {
        Some(at) => (&url[..path + at], Some(&url[path + at + 1..])),
        None => (url, None),
    }
}

/// Files of the workspace that the text of a file of requirements includes, as paths in the image.
fn included_by(text: &str, file: &str, layout: Layout, image: &Path) -> Vec<String> {
    let workspace = in_image(image, layout.workspace());
    let folder = Path::new(file).parent().unwrap_or(Path::new("/"));
    let names = text
        .lines()
        .filter_map(|line| INCLUDE.captures(line)?.get(1));
    let paths = names.filter_map(|name| {
        let path = folder.join(name.as_str());
        let relative = normalise(Path::new(layout.in_workspace(path.to_str()?)?))?;
        jobs::resolve(&workspace, &relative)?;
        Some(format!("{}/{}", layout.workspace(), relative.to_str()?))
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_name_clones() {
        for (line, replaced, name) in [
            (
                "a @ git+https://h/x.git@v1 ; python_version > '3'",
                "a @ file:///dev/.pyats-image-build/git/0 ; python_version > '3'",
                "git+https://h/x.git@v1",
            ),
            (
                "git+ssh://git@h/x.git@feature/y#egg=a[b]&subdirectory=c/d",
                "a[b] @ file:///dev/.pyats-image-build/git/0/c/d",
                "git+ssh://git@h/x.git@feature/y",
            ),
            (
                "git+https://u:PLANTED@h/x # a comment",
                "file:///dev/.pyats-image-build/git/0 # a comment",
                "git+https://***@h/x",
            ),
            (
                "-e git+https://h/x.git#egg=a[b]",
                "-e /venv/src/a[b]",
                "git+https://h/x.git",
            ),
            (
                "--editable=\"git+https://h/x.git\"",
                "--editable=\"/venv/src/x\"",
                "git+https://h/x.git",
            ),
        ] {
            let mut clones = Clones {
                layout: Layout::Split,
                repositories: Vec::new(),
                editable: Vec::new(),
            };
            let found = REQUIREMENT.captures(line).expect(line);
            assert_eq!(clones.line(line, &found).as_deref(), Some(replaced));
            assert_eq!(clones.line(line, &found).as_deref(), Some(replaced), "once");
            assert_eq!(clones.repositories.len(), 1);
            assert_eq!(clones.repositories[0].name, name);
        }
        for line in [
            "# git+https://h/x",
            "a # git+https://h/x",
            "--find-links git+https://h/x",
            "a @ git+file:///x",
            "https://h/git+https://h/x",
        ] {
            assert!(REQUIREMENT.captures(line).is_none(), "{line}");
        }
        let mut clones = Clones {
            layout: Layout::Split,
            repositories: Vec::new(),
            editable: Vec::new(),
        };
        for line in [
            "a @ git+https://${TOKEN}@h/x",
            "git+https://h/x#subdirectory=../y",
        ] {
            let found = REQUIREMENT.captures(line).expect(line);
            assert_eq!(clones.line(line, &found), None, "{line}");
        }
    }
}
