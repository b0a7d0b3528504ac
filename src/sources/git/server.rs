//! What is said to a git server: names are asked for, then objects.
//!
//! Both versions that servers speak are understood: 2 ("gitprotocol-v2"), in which any commit can be
//! asked for, and 0 ("gitprotocol-pack"), in which the server first lists all of its names. Only the
//! newest version is asked for; a server that does not know it answers in the old one.

use std::io::Read;

use git2::Oid;

use super::Problem;
use super::error::{not_git, too_large};
use super::link::{Answer, Link};
use super::packet::{self, DELIMITER, FLUSH, MOST_LINES, Pack, Packet};
use super::refs::Refs;
use crate::error::Error;
use crate::sources::error::source;

/// Who asks, for the server's statistics.
pub(super) const AGENT: &str = concat!("pyats-image-build/", env!("CARGO_PKG_VERSION"));

/// Longer names are no names of commits.
const LONGEST_NAME: usize = 1024;

/// A git server that has told its names.
pub(super) struct Server<'a> {
    link: Link<'a>,
    greeting: Greeting,
    refs: Refs,
}

/// How much of the history is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The commits alone, if the server can give them so.
    One,
    /// With all that came before.
    All,
}

/// What a server says of itself.
#[derive(Debug, Default)]
struct Greeting {
    is_version_2: bool,
    capabilities: Vec<String>,
}

impl<'a> Server<'a> {
    /// Greets a server and learns its branches and tags, and what `name` stands for.
    pub(super) fn greet(mut link: Link<'a>, name: Option<&str>) -> Result<Self, Problem> {
        let mut refs = Refs::default();
        let greeting = greet(&mut link.greeting()?, &mut refs);
        let greeting = greeting.map_err(|problem| link.explain(problem))?;
        if let Some(format) = greeting
            .value("object-format")
            .filter(|name| *name != "sha1")
        {
            let format: String = format.chars().take(20).collect();
            return Err(source(format!(
                "it has objects of the format `{format}`, and only `sha1` can be read"
            ))
            .into());
        }
        if greeting.is_version_2 {
            let lines = packet::read_list(&mut link.ask(names_request(&greeting, name))?)?;
            for line in &lines {
                add_name(line, &mut refs);
            }
        }
        Ok(Self {
            link,
            greeting,
            refs,
        })
    }

    /// The server's names.
    pub(super) fn refs(&self) -> &Refs {
        &self.refs
    }

    /// Whether it may be asked for `id` itself.
    pub(super) fn may_give(&self, id: Oid) -> bool {
        self.greeting.is_version_2
            || self.refs.contains(id)
            || self.greeting.has("allow-reachable-sha1-in-want")
    }

    /// Asks for commits; the server can be asked once.
    pub(super) fn objects(
        &mut self,
        ids: &[Oid],
        depth: Depth,
    ) -> Result<Pack<Answer<'_>>, Problem> {
        let is_shallow = depth == Depth::One && self.greeting.gives_shallow();
        let mut answer = self
            .link
            .ask(self.greeting.objects_request(ids, is_shallow))?;
        if self.greeting.is_version_2 {
            skip_to_pack(&mut answer)?;
            return Ok(Pack::new(answer, true));
        }
        if is_shallow {
            packet::read_list(&mut answer)?;
        }
        // "NAK": nothing was offered that both sides have.
        packet::read(&mut answer)?;
        Ok(Pack::new(answer, self.greeting.has("side-band-64k")))
    }

    /// The server's names, for good.
    pub(super) fn into_refs(self) -> Refs {
        self.refs
    }

    /// Takes leave without having asked for anything.
    pub(super) fn leave(mut self) {
        self.link.leave();
    }
}

impl Greeting {
    fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    /// The value of a capability, such as of `object-format=sha1`.
    fn value(&self, name: &str) -> Option<&str> {
        let mut values = self.capabilities.iter();
        values.find_map(|known| known.strip_prefix(name)?.strip_prefix('='))
    }

    fn gives_shallow(&self) -> bool {
        if self.is_version_2 {
            let features = self.value("fetch").unwrap_or_default();
            return features.split(' ').any(|feature| feature == "shallow");
        }
        self.has("shallow")
    }

    fn objects_request(&self, ids: &[Oid], is_shallow: bool) -> Vec<u8> {
        let mut request = Vec::new();
        let mut features = String::new();
        if self.is_version_2 {
            self.begin(&mut request, "fetch");
            for argument in ["no-progress\n", "ofs-delta\n"] {
                packet::write(&mut request, argument);
            }
        } else {
            let wanted = ["side-band-64k", "ofs-delta", "no-progress"];
            for feature in wanted.into_iter().filter(|feature| self.has(feature)) {
                features.push(' ');
                features.push_str(feature);
            }
            if self.value("agent").is_some() {
                features.push_str(" agent=");
                features.push_str(AGENT);
            }
        }
        for id in ids {
            // In the old version the features stand behind the first id.
            let line = format!("want {id}{}\n", std::mem::take(&mut features));
            packet::write(&mut request, &line);
        }
        if is_shallow {
            packet::write(&mut request, "deepen 1\n");
        }
        if self.is_version_2 {
            packet::write(&mut request, "done\n");
            request.extend_from_slice(FLUSH);
        } else {
            request.extend_from_slice(FLUSH);
            packet::write(&mut request, "done\n");
        }
        request
    }

    /// Begins a command of version 2.
    fn begin(&self, request: &mut Vec<u8>, command: &str) {
        packet::write(request, &format!("command={command}\n"));
        if self.value("agent").is_some() {
            packet::write(request, &format!("agent={AGENT}\n"));
        }
        if self.value("object-format").is_some() {
            packet::write(request, "object-format=sha1\n");
        }
        request.extend_from_slice(DELIMITER);
    }
}

/// Reads what a server says first; in the old version that holds its names.
fn greet(reader: &mut impl Read, refs: &mut Refs) -> Result<Greeting, Problem> {
    let mut greeting = Greeting::default();
    let mut count = 0;
    let mut lines = 0;
    loop {
        let line = match packet::read(reader)? {
            Packet::Data(data) => packet::text(&data),
            // By HTTP the service's name comes first, alone.
            Packet::Flush if count == 0 && lines > 0 => continue,
            Packet::Flush | Packet::Delimiter => return Ok(greeting),
        };
        lines += 1;
        if lines > MOST_LINES {
            return Err(too_large("it has more than a million names").into());
        }
        if count == 0 && (line.starts_with("# service=") || line == "version 1") {
            continue;
        }
        count += 1;
        if count == 1 && line == "version 2" {
            greeting.is_version_2 = true;
        } else if greeting.is_version_2 {
            greeting.capabilities.push(line);
        } else {
            let (name, capabilities) = line.split_once('\0').unwrap_or((&line, ""));
            if count == 1 {
                let words = capabilities.split(' ').map(str::to_owned);
                greeting.capabilities = words.collect();
            }
            add_old_name(name, refs)?;
            if count == 1
                && let Some(default) = greeting.value("symref")
                && let Some(branch) = default.strip_prefix("HEAD:")
            {
                refs.set_default(branch);
            }
        }
    }
}

/// Adds a name as the old version lists it: `ID NAME`, and what a tag is for as `ID NAME^{}`.
fn add_old_name(line: &str, refs: &mut Refs) -> Result<(), Error> {
    let split = line.split_once(' ').and_then(|(id, name)| {
        // "shallow ID" says where a history ends.
        let id = if id == "shallow" {
            Oid::ZERO_SHA1
        } else {
            super::refs::full_id(id)?
        };
        Some((id, name))
    });
    let (id, name) = split.ok_or_else(|| not_git("the server sent a malformed ref list"))?;
    match name.strip_suffix("^{}") {
        Some(tag) => refs.peel(tag, id),
        None => refs.insert(name, id),
    }
    Ok(())
}

/// Adds a name as version 2 lists it: `ID NAME ATTRIBUTE…`.
fn add_name(line: &str, refs: &mut Refs) {
    let mut words = line.split(' ');
    let (Some(id), Some(name)) = (words.next().and_then(super::refs::full_id), words.next()) else {
        // `HEAD` may be the name of a branch that is not there yet, "unborn".
        return;
    };
    refs.insert(name, id);
    for attribute in words {
        if let Some(id) = attribute
            .strip_prefix("peeled:")
            .and_then(super::refs::full_id)
        {
            refs.peel(name, id);
        } else if let Some(branch) = attribute.strip_prefix("symref-target:")
            && name == "HEAD"
        {
            refs.set_default(branch);
        }
    }
}

fn names_request(greeting: &Greeting, name: Option<&str>) -> Vec<u8> {
    let mut request = Vec::new();
    greeting.begin(&mut request, "ls-refs");
    for line in [
        "peel",
        "symrefs",
        "ref-prefix HEAD",
        "ref-prefix refs/heads/",
        "ref-prefix refs/tags/",
    ] {
        packet::write(&mut request, &format!("{line}\n"));
    }
    if let Some(name) = name.filter(|name| name.len() < LONGEST_NAME) {
        packet::write(&mut request, &format!("ref-prefix {name}\n"));
        packet::write(&mut request, &format!("ref-prefix refs/{name}\n"));
    }
    request.extend_from_slice(FLUSH);
    request
}

/// Passes over the sections in front of the pack, which say where the history was cut.
fn skip_to_pack(answer: &mut impl Read) -> Result<(), Problem> {
    loop {
        match packet::read(answer)? {
            Packet::Data(data) if packet::text(&data) == "packfile" => return Ok(()),
            Packet::Data(_) | Packet::Delimiter => {}
            Packet::Flush => return Err(not_git("its answer holds no pack").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::git::refs::Wanted;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222";

    fn stream(parts: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            match *part {
                "flush" => bytes.extend_from_slice(FLUSH),
                line => packet::write(&mut bytes, line),
            }
        }
        bytes
    }

    #[test]
    fn the_old_greeting_holds_names() {
        let mut refs = Refs::default();
        let head =
            format!("{ONE} HEAD\0shallow symref=HEAD:refs/heads/main side-band-64k agent=x\n");
        let bytes = stream(&[
            "# service=git-upload-pack\n",
            "flush",
            &head,
            &format!("{ONE} refs/heads/main\n"),
            &format!("{TWO} refs/tags/v1\n"),
            &format!("{ONE} refs/tags/v1^{{}}\n"),
            &format!("shallow {TWO}\n"),
            "flush",
        ]);
        let greeting = greet(&mut &bytes[..], &mut refs).expect("a greeting");
        assert!(!greeting.is_version_2 && greeting.gives_shallow());
        assert_eq!(refs.all().len(), 2);
        let one = Oid::from_str(ONE).expect("an id");
        assert_eq!(refs.heads(one, None), ["main"]);
        assert_eq!(refs.tags(one), ["v1"]);
        let request = greeting.objects_request(&[one], true);
        let expected = stream(&[
            &format!("want {ONE} side-band-64k agent={AGENT}\n"),
            "deepen 1\n",
            "flush",
            "done\n",
        ]);
        assert_eq!(request, expected);
    }

    #[test]
    fn an_empty_repository_has_no_names() {
        let mut refs = Refs::default();
        let zero = "0".repeat(40);
        let bytes = stream(&[&format!("{zero} capabilities^{{}}\0shallow\n"), "flush"]);
        greet(&mut &bytes[..], &mut refs).expect("a greeting");
        assert!(refs.all().is_empty());
    }

    #[test]
    fn the_new_greeting_holds_capabilities() {
        let mut refs = Refs::default();
        let bytes = stream(&[
            "version 2\n",
            "agent=x\n",
            "fetch=shallow filter\n",
            "flush",
        ]);
        let greeting = greet(&mut &bytes[..], &mut refs).expect("a greeting");
        assert!(greeting.is_version_2 && greeting.gives_shallow());
        add_name(&format!("{ONE} HEAD symref-target:refs/heads/x"), &mut refs);
        add_name(&format!("{ONE} refs/heads/x"), &mut refs);
        add_name(&format!("{TWO} refs/tags/t peeled:{ONE}"), &mut refs);
        add_name("unborn HEAD symref-target:refs/heads/none", &mut refs);
        let wanted = refs.resolve(None, false).expect("HEAD");
        let one = Oid::from_str(ONE).expect("an id");
        let branch = Some("refs/heads/x".to_owned());
        assert_eq!(
            wanted,
            Wanted::Named {
                id: one,
                commit: one,
                branch
            }
        );
        assert_eq!(refs.tags(one), ["t"]);
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        for line in ["hello", "12 refs/heads/x", ""] {
            let bytes = stream(&[line, "flush"]);
            let error = greet(&mut &bytes[..], &mut Refs::default()).expect_err("no list");
            assert_eq!(
                error.into_error().to_string(),
                "there is no git server: the server sent a malformed ref list"
            );
        }
    }
}
