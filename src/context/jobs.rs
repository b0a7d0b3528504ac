//! Which staged files are pyATS jobs, for `installation/jobfiles.txt`.
//!
//! A file is a job if its name matches a regular expression of `match` (by default it holds `job`
//! and ends in `.py`), if it matches a pattern of `glob`, if `paths` names it, or if it is a Python
//! file with the marker in its first lines. Expressions are held against the name alone, from its
//! start. `installation` is searched by `paths` only. Directories are never jobs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::buildfile::{INSTALLATION, JobFiles, Layout};
use crate::progress::Progress;

use super::destination::normalise;
use super::glob::Glob;
use crate::error::{Error, Kind};
use crate::sources::error::filling;

/// Makes a Python file a job, whatever its name.
const MARKER: &[u8] = b"PYATS_JOBFILE";

/// Lines of a file that may hold the marker.
const MARKER_LINES: usize = 10;

/// Bytes of a file that are searched for the marker: a first line can be of any length.
const MARKER_BYTES: u64 = 1 << 20;

/// Finds the jobs; paths are relative to `workspace`, which is canonical.
pub(super) fn discover(
    jobfiles: &JobFiles,
    layout: Layout,
    workspace: &Path,
    progress: &Progress,
) -> Result<BTreeSet<PathBuf>, Error> {
    let globs = jobfiles.globs.iter().map(|glob| {
        Glob::parse(glob, layout).ok_or_else(|| {
            let message =
                format!("`jobfiles` has the glob `{glob}`, which does not stay in the workspace");
            Error::new(Kind::BuildFile, message)
                .with_hint("write it relative to the workspace, such as `jobs/*.py`")
        })
    });
    let globs = globs.collect::<Result<Vec<Glob>, Error>>()?;
    let mut jobs = BTreeSet::new();

    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        progress.check()?;
        for entry in fs::read_dir(workspace.join(&directory)).map_err(filling)? {
            let entry = entry.map_err(filling)?;
            let path = directory.join(entry.file_name());
            if path == Path::new(INSTALLATION) {
                continue;
            }
            if entry.file_type().map_err(filling)?.is_dir() {
                directories.push(path);
                continue;
            }
            let name = entry.file_name();
            let text = name.to_string_lossy();
            let by_name = || jobfiles.is_match(&text);
            let by_glob = || globs.iter().any(|glob| glob.matches(&path));
            let by_marker = || name.as_bytes().ends_with(b".py") && is_marked(workspace, &path);
            if by_name() || by_glob() || by_marker() {
                jobs.insert(path);
            }
        }
    }

    for path in &jobfiles.paths {
        let found = normalise(Path::new(in_workspace(path, layout)))
            .filter(|relative| resolve(workspace, relative).is_some());
        if let Some(relative) = found {
            jobs.insert(relative);
        } else {
            progress.warn(format!(
                "`jobfiles` names `{path}`, which is not a file in the workspace"
            ));
        }
    }
    Ok(jobs)
}

/// The text of `jobfiles.txt`: image paths, sorted; `None` without jobs.
///
/// Its reader is Python's `json`. Bytes that are not UTF-8 are written as the lone surrogates that
/// Python keeps them as in paths (PEP 383), so that it can open the file.
pub(super) fn json(jobs: &BTreeSet<PathBuf>, layout: Layout) -> Option<String> {
    let mut paths: Vec<&[u8]> = jobs
        .iter()
        .map(|path| path.as_os_str().as_bytes())
        .collect();
    paths.sort_unstable();
    // There may be many, so each is written where it stays.
    let mut json = String::new();
    for path in paths {
        json += if json.is_empty() {
            "{\"jobs\": ["
        } else {
            ", "
        };
        write!(json, "\"{}/", layout.workspace()).unwrap_or_default();
        for chunk in path.utf8_chunks() {
            for unit in chunk.valid().encode_utf16() {
                match u8::try_from(unit) {
                    Ok(byte @ (b'"' | b'\\')) => json.extend(['\\', char::from(byte)]),
                    Ok(byte @ 0x20..0x7f) => json.push(char::from(byte)),
                    _ => write!(json, "\\u{unit:04x}").unwrap_or_default(),
                }
            }
            for byte in chunk.invalid() {
                write!(json, "\\udc{byte:02x}").unwrap_or_default();
            }
        }
        json.push('"');
    }
    (!json.is_empty()).then(|| json + "]}")
}

/// A path as the build file may write it, relative to the workspace if it lies there.
pub(super) fn in_workspace(path: &str, layout: Layout) -> &str {
    ["${WORKSPACE}/", "$WORKSPACE/"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix))
        .or_else(|| layout.in_workspace(path))
        .unwrap_or(path)
}

/// The file behind `relative`, if there is one in the workspace.
pub(super) fn resolve(workspace: &Path, relative: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(workspace.join(relative)).ok()?;
    (path.starts_with(workspace) && path.is_file()).then_some(path)
}

/// Whether the marker is in the first lines. What cannot be read is not a job.
fn is_marked(workspace: &Path, relative: &Path) -> bool {
    let search = |path: PathBuf| -> io::Result<bool> {
        let mut reader = BufReader::new(fs::File::open(path)?.take(MARKER_BYTES));
        let mut lines = 0;
        let mut buffer = Vec::new();
        while lines < MARKER_LINES {
            buffer.clear();
            if reader.read_until(b'\n', &mut buffer)? == 0 {
                break;
            }
            let text = buffer.strip_suffix(b"\n").unwrap_or(&buffer);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            // Python ends a line at a lone carriage return too.
            for line in text.split(|byte| *byte == b'\r').take(MARKER_LINES - lines) {
                lines += 1;
                if line.windows(MARKER.len()).any(|window| window == MARKER) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    };
    resolve(workspace, relative).is_some_and(|path| search(path).unwrap_or(false))
}
