//! The integration tests: one program, so that it links once.

/// What the tests stand on: the tool, users, a registry, a base, and other people's programs as oracles.
mod support;

/// Holds the dependency table of the source tree.
mod architecture;
/// What is refused, with which words and which exit status.
mod bad_input;
/// Instructions of `cmds` and Debian packages.
mod cmds;
/// Builds in the containers of CI systems.
mod containers;
/// What `--progress json` gives programs that watch.
mod events;
/// What images and steps write: on a terminal, in a log.
mod foreign;
/// Readers of what others write, with bytes that nobody should write.
mod fuzz;
/// The support code itself: a test that cannot fail is a defect.
mod harness;
/// Local files, renaming, modes, links, `pip-config`, environment: what ends up in the image.
mod image;
/// Packages by uv in place of pip.
mod installer;
/// `layout: pyats`: the image of the original tool since 22.11.
mod layout;
/// Kills at any moment, and the whole of pyATS: `tests/run.sh --full`.
mod long;
/// `oci-dir`, `oci-archive`, `docker-archive`, tags, labels, compression, the files for scripts.
mod outputs;
/// Pushes to registries of all kinds, on good days and bad ones.
mod push;
/// The Python package, from its wheel.
mod python;
/// A build from start to end as each kind of user, past every oracle.
mod quickstart;
/// Same input, same digest.
mod reproducible;
/// What editors read of the build file.
mod schema;
/// Credentials reach pip, and nothing that stays.
mod secrets;
/// The examples of the ancestor's document.
mod seed;
/// Sources of all kinds together: side by side, again, offline.
mod sources;
/// Files by `ftp` and `ftps`, from vsftpd and pyftpdlib.
mod sources_ftp;
/// Repositories by git: every way to them, every name of a commit, hostile trees.
mod sources_git;
/// Files by http and https, proxies, credentials.
mod sources_http;
/// Files and directories by scp: configuration, jumps, host keys, logins, hostile servers.
mod sources_scp;
/// What is run again, and what is not.
mod step_cache;
/// The store's folder, and files that are written at paths of the user's: nobody else gets at them.
mod store;
