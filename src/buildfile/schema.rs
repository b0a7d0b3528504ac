//! A JSON Schema of the build file, by which editors complete its keys, explain them, and mark what is wrong.
//!
//! Its keys come from the decoder's own tables, so that neither knows one that the other does not. It speaks of
//! shapes, and of texts only where a pattern cannot be wrong: `%ENV{NAME}` may stand in any text, and blanks
//! around it often do not count. So it accepts all that the decoder accepts, unless a variable gives a key of a
//! table; whether a tag, a URL or an instruction makes sense is for the decoder to say. Follows JSON Schema
//! draft-07, the last one that YAML language servers know; `patternErrorMessage` is theirs.

use serde_json::{Map, Value, json};

use super::JOBS;
use super::cmds::CMDS;
use super::decode::{JOBFILES, KEYS, OURS};
use super::files::FILE;
use super::installer::Installer;
use super::layout::{INSTALLATION, Layout};
use super::repositories::{CREDENTIALS, REPOSITORY};
use super::shape::{FALSE, TRUE};
use crate::net::PROXY_VARIABLES;

/// The schema of a build file. A snapshot has none: that file is another program's.
#[must_use]
pub fn schema() -> Value {
    let about = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Build file of pyats-image-build",
        "description": "What a container image for pyATS jobs holds. %ENV{NAME} in any value is replaced by that \
            environment variable.",
    });
    with(record(&KEYS, &[], key), about)
}

/// A key of the build file: its shape, and what it is for.
fn key(name: &str) -> (Value, &'static str) {
    match name {
        "tag" => (
            with(
                line_or_blank(),
                json!({ "examples": ["mypyatsimage:latest"] }),
            ),
            "Tag of the image.",
        ),
        "python" => (
            python(),
            "Version of the base python:X-slim. Default: 3.6.9, with a warning.",
        ),
        "base" => (
            with(line(), json!({ "examples": ["oci:base:latest"] })),
            "Another base than python:X-slim: a registry reference, oci:DIR[:TAG], oci-archive:FILE[:TAG] or \
                docker-archive:FILE.",
        ),
        "platform" => (
            platform(),
            "What to pull and build for. This machine has to be able to execute it.",
        ),
        "layout" => (
            words(&Layout::ALL.map(|layout| layout.to_string())),
            "Where the image has the workspace and the virtual environment: split is /workspace and /venv, pyats \
                is /pyats for both, as in images of the original tool since 22.11.",
        ),
        "env" => (
            env(),
            "Environment variables of the image; they are not secret. $NAME, ${NAME}, ${NAME:-default} and \
                ${NAME:+text} expand against the base's, WORKSPACE, VIRTUAL_ENV and the entries above.",
        ),
        "files" => (
            list(&json!({ "anyOf": [either(line(), entry()), folder()] })),
            "Files and folders, each a path or URL, or name/in/workspace: path or URL. Paths are relative to the \
                current directory, ~ expands. In place of a path, {path: path, exclude: [pattern]} leaves out parts of \
                a folder.",
        ),
        "packages" => (
            list(&scalar()),
            "Requirements, as pip reads them. Paths such as ./x.whl are relative to the workspace.",
        ),
        "pip-config" => (
            pip_config(),
            "Sections with their options, or the text of a pip.conf. Becomes $VIRTUAL_ENV/pip.conf.",
        ),
        "installer" => (
            words(&Installer::ALL.map(|installer| installer.to_string())),
            "Who installs the packages: pip, or uv, which is faster.",
        ),
        "repositories" => (
            mapping(
                &destination(),
                &[INSTALLATION],
                &record(&REPOSITORY, &["url"], repository),
            ),
            "Git repositories, by the folders in the workspace that they are cloned to.",
        ),
        "snapshot" => (
            line(),
            "File made by pyats environment snapshot: its packages are installed before packages, its \
                repositories join repositories.",
        ),
        "proxy" => (
            record(&PROXY_VARIABLES, &[], proxy),
            "Proxies for this build, in place of the environment's. They are never in the image.",
        ),
        "cmds" => (
            record(&CMDS, &[], cmds),
            "Dockerfile instructions, any but FROM and COPY --from.",
        ),
        "jobfiles" => (
            // A key that is not known is only worth a warning.
            with(
                record(&JOBFILES, &[], jobfiles),
                json!({ "additionalProperties": true }),
            ),
            "Which files installation/jobfiles.txt lists.",
        ),
        "labels" => (names(), "Labels, for the image's config."),
        "annotations" => (names(), "Annotations, for the image's manifest."),
        "system-packages" => (
            system_packages(),
            "Debian packages, installed by apt before all else; [] installs none. Default: the few that a job \
                reaches its devices with, and tini.",
        ),
        _ => unreachable!("`KEYS` has no other"),
    }
}

/// A key of an entry of `repositories`.
fn repository(name: &str) -> (Value, &'static str) {
    match name {
        "url" => (
            line(),
            "Where to clone from: an https, http, ssh, git or file URL, user@host:path, or a path.",
        ),
        "commit_id" => (
            line_or_blank(),
            "A commit's id (abbreviated or not), a tag or a branch, perhaps with ~1 for its parent. Default: \
                whatever the server's HEAD is.",
        ),
        "requirements_file" => (
            truth(),
            "Whether pip installs the repository's requirements.txt, in a run of its own before packages.",
        ),
        "ssh_key" => (
            scalar(),
            "Text of a private key to log in with. Written as %ENV{NAME} it is not in the build file either.",
        ),
        "credentials" => (
            record(&CREDENTIALS, &CREDENTIALS, credentials),
            "Whom to log in as.",
        ),
        "GIT_SSL_NO_VERIFY" => (
            truth(),
            "Turns the verification of certificates off, for this repository alone.",
        ),
        _ => unreachable!("`REPOSITORY` has no other"),
    }
}

fn credentials(name: &str) -> (Value, &'static str) {
    let description = match name {
        "username" => "Name of the user.",
        "password" => {
            "Password or token. Written as %ENV{NAME} it is not in the build file either."
        }
        _ => unreachable!("`CREDENTIALS` has no other"),
    };
    (scalar(), description)
}

fn proxy(name: &str) -> (Value, &'static str) {
    let description = match name.to_ascii_uppercase().as_str() {
        "HTTP_PROXY" => "Proxy for http: an http:// or socks5:// URL.",
        "HTTPS_PROXY" => "Proxy for https: an http:// or socks5:// URL.",
        "FTP_PROXY" => "Proxy for ftp and ftps: an http:// or socks5:// URL.",
        "SOCKS_PROXY" => "SOCKS 5 proxy for whatever has no proxy of its own.",
        "ALL_PROXY" => "Proxy for whatever has no proxy of its own: an http:// or socks5:// URL.",
        "NO_PROXY" => {
            "What is reached without a proxy: domains, addresses and networks, with commas between them, or *."
        }
        _ => unreachable!("`PROXY_VARIABLES` has no other"),
    };
    (scalar(), description)
}

fn cmds(name: &str) -> (Value, &'static str) {
    let description = match name {
        "pre" => "Instructions that are carried out before pip installs the packages.",
        "post" => "Instructions that are carried out after everything else.",
        _ => unreachable!("`CMDS` has no other"),
    };
    // Neither a number nor a truth value is an instruction.
    (json!({ "type": ["string"] }), description)
}

fn jobfiles(name: &str) -> (Value, &'static str) {
    let lines = either(line_or_blank(), list(&line_or_blank()));
    match name {
        "paths" => (
            lines,
            "Job files: paths relative to the workspace, or absolute in the image.",
        ),
        "match" => (
            with(lines, json!({ "default": JOBS })),
            "Regular expressions that match a job file's name from its beginning.",
        ),
        "glob" => (
            lines,
            "Shell patterns of job files, relative to the workspace and every folder in it.",
        ),
        _ => unreachable!("`JOBFILES` has no other"),
    }
}

fn python() -> Value {
    let version = form(
        &trimmed(r"[0-9]+(\.[0-9]+){0,2}"),
        "write digits and dots, such as 3.11",
    );
    // No truth value has digits.
    let more = json!({ "type": ["string", "number"], "examples": [3.11] });
    with(version, more)
}

fn platform() -> Value {
    let parts = form(
        &with_variables("^[^/]+/[^/]+(/[^/]+)?$|^[^!-~]*$"),
        "write OS/ARCH or OS/ARCH/VARIANT, such as linux/amd64",
    );
    // Neither a number nor a truth value has a slash.
    let more = json!({ "type": ["string"], "examples": ["linux/amd64", "linux/arm64"] });
    with(parts, more)
}

/// One of some words, of which the first is the default.
fn words(names: &[String]) -> Value {
    let message = format!("write {}", names.join(" or "));
    // The names alone are what an editor offers.
    json!({
        "type": ["string"],
        "anyOf": [{ "enum": names }, form(&trimmed(&names.join("|")), &message)],
        "default": names.first(),
    })
}

fn env() -> Value {
    let name = form(
        &with_variables(r#"^[^ \t\r\n="'$\\]+$"#),
        "use letters, digits and underscores",
    );
    mapping(&name, &OURS, &either(scalar(), nothing()))
}

/// An entry of `files` that names its destination.
fn entry() -> Value {
    let one = json!({ "minProperties": 1, "maxProperties": 1 });
    let source = either(line(), folder());
    with(mapping(&destination(), &[INSTALLATION], &source), one)
}

/// A source of `files` that leaves something out.
fn folder() -> Value {
    record(&FILE, &["path"], |name| match name {
        "path" => (line(), "File or folder, by its path or URL."),
        _ => (
            either(line_or_blank(), list(&line_or_blank())),
            "Patterns of what the folder leaves out, as in a .dockerignore: *.pyc is at its top, **/*.pyc anywhere.",
        ),
    })
}

/// A key that is a path in the workspace. `.` and `..` are left to the decoder.
fn destination() -> Value {
    form(
        r"^[^/\n\r][^\n\r]*$",
        "name a file or folder by a path relative to the workspace",
    )
}

fn pip_config() -> Value {
    let value = either(scalar(), list(&scalar()));
    let name = form(
        r"^[^\[\]=:]+$",
        "the name of an option has neither a bracket nor = or :",
    );
    let section = mapping(&name, &[], &either(value, nothing()));
    let name = form(r"^[^\[\]]+$", "the name of a section has no bracket");
    let sections = mapping(&name, &[], &either(section, nothing()));
    // Neither a number nor a truth value is the text of a `pip.conf`.
    either(json!({ "type": ["string"] }), sections)
}

/// `labels` or `annotations`
fn names() -> Value {
    let name = form(
        &with_variables(r"^[^ \t\r\n=]+$"),
        "use letters, digits, dots and dashes",
    );
    mapping(&name, &[], &either(scalar(), nothing()))
}

fn system_packages() -> Value {
    let name = form(
        &trimmed("[a-z0-9][a-z0-9+.-]*([:=][!-~]*)?"),
        "write one package an item, such as git",
    );
    list(&with(scalar(), name))
}

/// A truth value in the words of YAML 1.1, most of which are texts to YAML 1.2.
fn truth() -> Value {
    let either_case = |c: char| format!("[{}{c}]", c.to_ascii_uppercase());
    let words = TRUE.iter().chain(&FALSE);
    let words: Vec<String> = words
        .map(|word| word.chars().map(either_case).collect())
        .collect();
    let words = form(
        &with_variables(&format!("^({})$", words.join("|"))),
        "write true or false",
    );
    with(
        words,
        json!({ "type": ["boolean", "string"], "default": false }),
    )
}

/// Text. Without quotes a number and a truth value are text as well.
fn scalar() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

/// Text in one line; others around it may be blank. Which characters beyond ASCII are blank is for the decoder to say.
fn line() -> Value {
    let one = form(&with_variables(LINE), "this has to be one line of text");
    with(scalar(), one)
}

const LINE: &str = r"^([^!-~]*[\r\n])?[^\r\n]*[^ \t\r\n][^\r\n]*([\r\n][^!-~]*)?$";

/// The same, or blank text, which counts as none.
fn line_or_blank() -> Value {
    let pattern = with_variables(&format!("{LINE}|^[^!-~]*$"));
    with(scalar(), form(&pattern, "this has to be one line of text"))
}

/// The key without a value.
fn nothing() -> Value {
    json!({ "type": ["null"] })
}

fn list(item: &Value) -> Value {
    json!({ "type": ["array"], "items": item })
}

/// A mapping with any keys of the form `name`, but for some.
fn mapping(name: &Value, but: &[&str], value: &Value) -> Value {
    let but = but.iter().map(|name| ((*name).to_owned(), false.into()));
    json!({
        "type": ["object"],
        "propertyNames": name,
        "properties": but.collect::<Map<_, _>>(),
        "additionalProperties": value,
    })
}

/// A mapping with the keys of a table, as [`Decoder::record`](super::shape::Decoder::record) reads it: those that are
/// not `required` may have no value.
fn record(table: &[&str], required: &[&str], key: fn(&str) -> (Value, &'static str)) -> Value {
    let properties = table.iter().map(|name| {
        let (value, description) = key(name);
        let value = if required.contains(name) {
            value
        } else {
            either(value, nothing())
        };
        let value = with(value, json!({ "description": description }));
        ((*name).to_owned(), value)
    });
    json!({
        "type": ["object"],
        "properties": properties.collect::<Map<_, _>>(),
        "required": required,
        "additionalProperties": false,
    })
}

/// Either of two of different types. All keywords but `type` concern one type each, so that they can stand side by
/// side, and an editor says more of what is wrong than it would with `anyOf`.
fn either(mut one: Value, mut other: Value) -> Value {
    if let (Value::Array(types), Value::Array(more)) = (&mut one["type"], other["type"].take()) {
        types.extend(more);
    }
    other["type"] = one["type"].clone();
    with(one, other)
}

/// A schema with more keywords, or with others in their place.
fn with(mut schema: Value, more: Value) -> Value {
    if let (Value::Object(schema), Value::Object(more)) = (&mut schema, more) {
        schema.extend(more);
    }
    schema
}

/// A form of texts, and what an editor says about others.
fn form(pattern: &str, message: &str) -> Value {
    json!({ "pattern": pattern, "patternErrorMessage": message })
}

/// A pattern for text around which blanks do not count. Whatever is blank, it is none of the characters from `!` to `~`.
fn trimmed(pattern: &str) -> String {
    with_variables(&format!("^[^!-~]*({pattern})[^!-~]*$"))
}

/// A pattern that has nothing to say about text with a `%ENV{NAME}` in it.
fn with_variables(pattern: &str) -> String {
    format!(r"{pattern}|%ENV\{{")
}
