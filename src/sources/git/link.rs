//! The ways to a git server: HTTP, where every question is a request, and streams, by `git://` or ssh.

use std::io::{self, BufReader, Read, Write};

use percent_encoding::percent_decode_str;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use url::Url;

use super::Problem;
use super::error::{CHECK_URL, not_git};
use super::packet::{self, FLUSH};
use crate::buildfile::{Location, Repository, SshLocation};
use crate::error::Error;
use crate::net::{self, Trust};
use crate::secret::Secret;
use crate::sources::error::source;
use crate::sources::{self, Fetch, ssh};

/// The program on the other side.
const SERVICE: &str = "git-upload-pack";

/// Some servers tell git from browsers by the beginning of this.
const USER_AGENT_OF_GIT: &str = concat!(
    "git/2.0 (pyats-image-build ",
    env!("CARGO_PKG_VERSION"),
    ")"
);

/// The port of `git://`.
const GIT_PORT: u16 = 9418;

/// Of what a program on the other side says when it fails, as much is looked at.
const WORDS: u64 = 4096;

/// What a server answers.
pub(super) type Answer<'a> = Box<dyn Read + 'a>;

/// A way to a git server.
pub(super) enum Link<'a> {
    Http(Box<Http<'a>>),
    Stream(BufReader<Stream>),
}

/// Questions by HTTP.
pub(super) struct Http<'a> {
    /// Of the repository, without credentials.
    url: Url,
    trust: Trust,
    credentials: Option<(String, Secret)>,
    fetch: Fetch<'a>,
}

/// A connection that stays.
pub(super) enum Stream {
    Git(net::Connection),
    Ssh(Program),
}

/// A program that runs on the other side.
pub(super) struct Program {
    channel: ssh2::Channel,
    session: ssh::Session,
}

impl<'a> Link<'a> {
    /// By `http` or `https`.
    pub(super) fn http(
        location: &Location,
        repository: &Repository,
        fetch: Fetch<'a>,
    ) -> Result<Self, Error> {
        Ok(Self::Http(Box::new(Http {
            url: location.public(),
            trust: if repository.no_verify {
                Trust::Unverified
            } else {
                Trust::Verified
            },
            credentials: credentials(location, repository)?,
            fetch,
        })))
    }

    /// By `git://`.
    pub(super) fn git(location: &Location, fetch: Fetch<'a>) -> Result<Self, Problem> {
        let url = location.url();
        let host = url.host_str().unwrap_or_default();
        let port = url.port().unwrap_or(GIT_PORT);
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let connection = fetch.net.connect("git", address, port, fetch.progress)?;
        let path = percent_decode_str(url.path()).decode_utf8_lossy();
        // `/~user/x` is relative to a home directory.
        let path = path
            .strip_prefix('/')
            .filter(|rest| rest.starts_with('~'))
            .unwrap_or(&path);
        let named = url
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut request = Vec::new();
        packet::write(
            &mut request,
            &format!("{SERVICE} {path}\0host={named}\0\0version=2\0"),
        );
        (&connection.stream)
            .write_all(&request)
            .map_err(Problem::broken)?;
        Ok(Self::Stream(BufReader::new(Stream::Git(connection))))
    }

    /// By ssh.
    pub(super) fn ssh(
        location: &SshLocation,
        key: Option<&Secret>,
        fetch: Fetch<'a>,
    ) -> Result<Self, Error> {
        let session = ssh::connect(location, key, fetch)?;
        let failed = |error| session.failure(error, fetch);
        let mut channel = session.ssh.channel_session().map_err(failed)?;
        // Most servers refuse variables, and then speak the old version.
        let _ = channel.setenv("GIT_PROTOCOL", "version=2");
        let command = format!("{SERVICE} {}", quote(&location.path));
        channel.exec(&command).map_err(failed)?;
        let program = Stream::Ssh(Program { channel, session });
        Ok(Self::Stream(BufReader::new(program)))
    }

    /// What the server says first.
    pub(super) fn greeting(&mut self) -> Result<Answer<'_>, Problem> {
        match self {
            Self::Http(http) => Ok(Box::new(BufReader::new(http.greeting()?))),
            Self::Stream(stream) => Ok(Box::new(stream)),
        }
    }

    /// What the server answers to `request`.
    pub(super) fn ask(&mut self, request: Vec<u8>) -> Result<Answer<'_>, Problem> {
        match self {
            Self::Http(http) => Ok(Box::new(BufReader::new(http.ask(request)?))),
            Self::Stream(stream) => {
                let sent = stream.get_mut().write_all(&request);
                sent.map_err(Problem::broken)?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Why the server said nothing: a program that is reached by ssh tells people, beside its output.
    pub(super) fn explain(&mut self, problem: Problem) -> Problem {
        let (Self::Stream(stream), Problem::Broken(_)) = (self, &problem) else {
            return problem;
        };
        let Stream::Ssh(program) = stream.get_mut() else {
            return problem;
        };
        let mut words = Vec::new();
        // What came until it failed is still worth showing.
        let _ = program.channel.stderr().take(WORDS).read_to_end(&mut words);
        if words.is_empty() {
            problem
        } else {
            Problem::refused(&words)
        }
    }

    /// Ends a conversation in which nothing was asked.
    pub(super) fn leave(&mut self) {
        if let Self::Stream(stream) = self {
            // A server that is gone does not mind.
            let _ = stream.get_mut().write_all(FLUSH);
        }
    }
}

impl Http<'_> {
    fn greeting(&mut self) -> Result<net::Response, Error> {
        let mut url = self.below("info/refs");
        url.query_pairs_mut().append_pair("service", SERVICE);
        let response = self.send(Method::GET, url, Vec::new(), "advertisement")?;
        // A repository that has moved is asked where it is now; credentials stay at home.
        let at = response.url();
        let Some(path) = at.path().strip_suffix("/info/refs") else {
            return Err(not_git("it leads to another page"));
        };
        if at.origin() != self.url.origin() {
            self.credentials = None;
        }
        let mut url = at.clone();
        url.set_path(path);
        url.set_query(self.url.query());
        self.url = url;
        Ok(response)
    }

    fn ask(&self, request: Vec<u8>) -> Result<net::Response, Error> {
        self.send(Method::POST, self.below(SERVICE), request, "result")
    }

    /// The URL of something below the repository.
    fn below(&self, name: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{name}", self.url.path().trim_end_matches('/')));
        url
    }

    fn send(
        &self,
        method: Method,
        url: Url,
        body: Vec<u8>,
        kind: &str,
    ) -> Result<net::Response, Error> {
        let expected = format!("application/x-{SERVICE}-{kind}");
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_OF_GIT));
        headers.insert(
            HeaderName::from_static("git-protocol"),
            HeaderValue::from_static("version=2"),
        );
        if method == Method::POST {
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/x-git-upload-pack-request"),
            );
            headers.insert(
                ACCEPT,
                HeaderValue::from_static("application/x-git-upload-pack-result"),
            );
        }
        let request = net::Request {
            method,
            url,
            headers,
            body,
            trust: self.trust,
            credentials: self.credentials.clone(),
        };
        let response = self.fetch.net.request(request, self.fetch.progress)?;
        let status = response.status().as_u16();
        let other = format!("the server answers with status {status}");
        let refusal = match (status, &self.credentials) {
            (200, _) => None,
            (401, None) => Some((
                "authentication required",
                "set `credentials`, or use an ssh URL and `ssh_key`, for a private repository",
            )),
            (401, Some(_)) => Some((
                "the server does not accept the credentials",
                "check `credentials`; many servers want a token for a password",
            )),
            (403, _) => Some((
                "the server forbids access",
                "check `credentials`, and whether they may read the repository",
            )),
            (404 | 410, _) => Some((
                "the server has no such repository",
                "check the URL; a private repository needs `credentials` or `ssh_key`",
            )),
            _ => Some((&*other, CHECK_URL)),
        };
        if let Some((message, hint)) = refusal {
            return Err(source(message).with_hint(hint));
        }
        let kind = response.headers().get(CONTENT_TYPE);
        if kind.is_none_or(|kind| kind.as_bytes() != expected.as_bytes()) {
            return Err(not_git("it answers with something else than git's packets"));
        }
        Ok(response)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A channel that is closed in good manners first takes all that the server has to send.
        self.session.abandon();
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Git(connection) => (&connection.stream).read(buffer),
            Self::Ssh(program) => program.channel.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Git(connection) => (&connection.stream).write(buffer),
            Self::Ssh(program) => program.channel.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Git(connection) => (&connection.stream).flush(),
            Self::Ssh(program) => program.channel.flush(),
        }
    }
}

/// Those of the build file; else those of the URL or of `~/.netrc`.
fn credentials(
    location: &Location,
    repository: &Repository,
) -> Result<Option<(String, Secret)>, Error> {
    match &repository.credentials {
        Some(credentials) => Ok(Some(credentials.clone())),
        None => sources::credentials(location),
    }
}

/// `path` as one word of a shell; also of the C shell, which expands `!` within quotes.
fn quote(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''").replace('!', "'\\!'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word() {
        for (path, word) in [
            ("/srv/a b.git", "'/srv/a b.git'"),
            ("~/it's", "'~/it'\\''s'"),
            ("/$(x);`y`!", "'/$(x);`y`'\\!''"),
        ] {
            assert_eq!(quote(path), word);
        }
    }
}
