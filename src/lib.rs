//! Builds container images for pyATS jobs from one YAML file: no daemon, no root.
//!
//! # Use
//!
//! ```no_run
//! use pyats_image_builder::{Event, Options, Progress, build, helper};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // First of all: steps are run by this program, started once more.
//!     helper();
//!     let progress = Progress::new(|event| {
//!         if let Event::Started { label, nested: false, .. } = event {
//!             eprintln!("{label}");
//!         }
//!     });
//!     let options = Options {
//!         tags: vec!["mypyatsimage:latest".to_owned()],
//!         outputs: vec!["oci-archive:image.tar".parse()?],
//!         ..Options::new("build.yaml")
//!     };
//!     let outcome = build(&options, &progress)?;
//!     if let Some(image) = outcome.image {
//!         println!("{} has {} bytes", image.manifest.digest, image.size());
//!     }
//!     Ok(())
//! }
//! ```
//!
//! | function | what it does |
//! |---|---|
//! | [`helper`] | what `main` has to begin with |
//! | [`build`] | a build file becomes an image in the store and, if wanted, in layouts, archives and registries |
//! | [`find`] | an image of the store, of a layout or of an archive; [`Image::inspect`] shows it as Docker does |
//! | [`tag`] | an image of the store gets further tags |
//! | [`push`] | an image goes to registries |
//! | [`run`] | a command is run in an image |
//!
//! All of them block, can be called from any thread and several at once, and print nothing (but [`run`], whose command does):
//! what happens comes as an [`Event`] to the [`Progress`] that they are given, and [`Progress::stop`] ends them. An
//! [`Error`] says what failed ([`Error::kind`]), why (its sources), what can be done about it ([`Error::hint`]), and what
//! a failed step printed last ([`Error::tail`]). Both quote what registries, archives and steps say, byte for byte:
//! [`printable`] makes one line of it that is safe on a terminal.
//!
//! They do what the program `pyats-image-build` does, with the same store. Of the environment they read, as the program
//! does, what says how other machines are reached (`HTTPS_PROXY` and its like, `SSL_CERT_FILE`, `REGISTRY_AUTH_FILE`,
//! `DOCKER_CONFIG`, `CONTAINERS_REGISTRIES_CONF`, `NETRC`, `SSH_AUTH_SOCK`), where the store is ([`default_store`]), where
//! temporary files go (`TMPDIR`), and what a build file asks for by `%ENV{NAME}`. Not read are variables that stand for an
//! option of the program's: `SOURCE_DATE_EPOCH` is [`Options::epoch`], `PYATS_IMAGE_BUILD_USERNAME` and
//! `PYATS_IMAGE_BUILD_PASSWORD` are [`Access::login`].
//!
//! The modules are not part of this: the program, its tests and its benchmarks use them, and they change as they need to.
//!
//! # Architecture
//!
//! `assemble::build` reads like the table of contents: every stage is a function that takes values and
//! returns a value. What they pass on are `manifest::Descriptor`s: bytes live in one content-addressed
//! `store::Store`, which is an OCI image layout.
//!
//! ```text
//! cli -> assemble -> dockerfile -> buildfile -> sources -> context -> base -> runner -> layer -> rootfs -> step -> image -> output
//! shared, lower:     cache, registry -> store -> manifest -> digest     net -> error -> progress, secret
//! ```
//!
//! A stage never imports a later one, and a shared module never imports a stage; `tests/architecture.rs`
//! holds this. `assemble`, `access` (how other machines are reached), `images` (by their names), `push` (an image to a
//! registry), `run` (a command in a built image), `doctor` (what this machine allows), `prune` (what a store holds),
//! `carry` (the step cache in a folder) and `fuzz` (what fuzzers call) stand above the stages; `confined`, lookups that no
//! link leads out of, and `mode`, permissions as chmod(1) takes them, below all.
//!
//! | module | from | to |
//! |---|---|---|
//! | `dockerfile` | the instructions of `cmds` | what is to be run and copied, and what the config says; pure |
//! | `buildfile` | YAML text | a typed `buildfile::BuildFile`; past it nobody sees YAML |
//! | `sources` | files and repositories of other machines | copies of them in the store |
//! | `context` | build file | the staged files: `image/workspace`, `image/venv`, or `image/pyats` |
//! | `base` | a reference and a platform | config and layers in the store |
//! | `runner` | a command and a root file system | its outcome; sandboxes, by the best runner that works |
//! | `layer` | a directory or a changeset | the other one |
//! | `rootfs` | layers | an unpacked tree in the store; the calls that need the runner's user namespace |
//! | `step` | commands | the layer of what they changed |
//! | `image` | base, layers and settings | config and manifest; pure |
//! | `output` | an image in the store | `oci-dir`, `oci-archive`, `docker-archive` |
//!
//! # Errors
//!
//! An error is one value, [`Error`]: made where something fails, with its kind and its hint, and wrapped by
//! callers that know what it was for. Enums are kept where code steers by their variants, and convert into
//! it where they leave that code.
//!
//! # Processes
//!
//! The program that builds stays as it was started: it has threads, and never enters a namespace. To run
//! a step it executes itself anew, and that process (see `runner::child`) enters the namespaces before
//! any thread exists, mounts, drops its privileges and executes the command. Work on trees whose owners
//! are ids of a user namespace (unpacking, comparing, removing) is done the same way by
//! `runner::call` and `rootfs::serve`. Layers that have to be pulled are read there as they come, and verified at
//! their end (`rootfs::pull`). A program that uses this library therefore begins its `main` with [`helper`].
//!
//! # Without mounts
//!
//! Root of an ordinary container can neither mount nor make namespaces. On the runner `chroot` a step's tree is
//! always a copy; what the step is shown is put into it, and taken away before the layer is made (`runner/shown.rs`).
//! Its processes are found by descent and killed (`runner/family.rs`), also when the program is gone: what is pid 1
//! elsewhere outlives it by a moment. Filters keep the step from leaving its root; and that process is asked of every call
//! that names a process, which has to be the step's (`runner/reach.rs`).
//!
//! # Nothing twice
//!
//! A step is known by a `cache::Key` of all that it can read (`step::Task` says what that is), and one that is known is
//! not run: its layer is a blob of the store, or of a registry. Nothing is pulled or unpacked before a step has to run
//! (`step::Stack`), so an unchanged build only stages its files, makes the keys and writes the image's documents.
//! Builds of one store that want the same step at once wait for the one that runs it. What is removed meanwhile was
//! used by none of them (`store::Store::session`).
//!
//! A step of `cmds` sees the workspace, and depends on it only if it looked there: the kernel tells (`runner::Watch`).
//! Where overlays work, each layer above a base is unpacked by itself, once for all stacks that have it (`rootfs`).
//!
//! # Owners
//!
//! On the runner `userns-single` no file can have an owner but the calling user. What layers say of owners, and
//! what steps ask for, is kept beside: files and directories carry `layer::OWNER_ATTRIBUTE`, which the kernel
//! copies and moves with them; links, pipes and devices are listed by path (`layer::RecordedOwners`). Pid 1
//! of a step takes down its calls of chown(2), and can answer its questions (`runner::Owners`); a layer has
//! the owners that the other runners give.
//!
//! # Same input, same digest
//!
//! Layers that are made here are sorted, have numeric owners, whole seconds, and no access times. Files of
//! the context and of the virtual environment carry one fixed time; bytecode is compiled for that time, in
//! small chunks by fresh processes (`step/bytecode.py`), since what a Python process compiled before shows
//! in what it compiles next: so it is the same when a wheel's is compiled before pip installs it, or was for
//! another image.
//! Compression works in blocks of a fixed size, whatever the number of cores. Documents are serialised with
//! ordered keys.

// These can be seen by the program, its tests and its benchmarks; nobody else should rely on them.
#[doc(hidden)]
pub mod access;
#[doc(hidden)]
pub mod assemble;
#[doc(hidden)]
pub mod base;
#[doc(hidden)]
pub mod buildfile;
#[doc(hidden)]
pub mod cache;
#[doc(hidden)]
pub mod carry;
mod confined;
#[doc(hidden)]
pub mod context;
#[doc(hidden)]
pub mod digest;
#[doc(hidden)]
pub mod dockerfile;
#[doc(hidden)]
pub mod doctor;
#[doc(hidden)]
pub mod error;
mod files;
#[doc(hidden)]
pub mod fuzz;
#[doc(hidden)]
pub mod image;
#[doc(hidden)]
pub mod images;
#[doc(hidden)]
pub mod layer;
#[doc(hidden)]
pub mod manifest;
#[doc(hidden)]
pub mod mode;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod output;
#[doc(hidden)]
pub mod progress;
#[doc(hidden)]
pub mod prune;
#[doc(hidden)]
pub mod push;
#[doc(hidden)]
pub mod registry;
#[doc(hidden)]
pub mod rootfs;
#[doc(hidden)]
pub mod run;
#[doc(hidden)]
pub mod runner;
#[doc(hidden)]
pub mod secret;
#[doc(hidden)]
pub mod sources;
#[doc(hidden)]
pub mod step;
#[doc(hidden)]
pub mod store;

pub use access::{Access, Login};
pub use assemble::{CacheRepo, Options, Outcome, Plan, Push, build};
pub use base::Pull;
pub use buildfile::Installer;
pub use cache::{Mode as CacheMode, Policy as CachePolicy, Seal};
pub use digest::{DiffId, Digest};
pub use error::{Error, Kind};
pub use image::{Entry, Format, Image};
pub use images::{default_store, find, tag};
pub use layer::Compression;
pub use manifest::{Descriptor, Layer, Platform};
pub use output::{Kind as OutputKind, Output};
pub use progress::{Event, Progress};
pub use push::{Options as PushOptions, Pushed, push};
pub use registry::Reference;
pub use run::{Options as RunOptions, env_file, run, volume};
pub use runner::{Mount, Outcome as Ended, Runner};
pub use secret::{Secret, printable, printable_json};
pub use sources::{Again, SshOptions};
pub use step::Fate;

/// The examples of the README, which are tested too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Has to be the first thing that `main` does, before any thread exists.
///
/// To run a step the program starts itself again, as a helper process. In that one this does what was asked, and does not
/// return; otherwise it does nothing. A program that does not begin with it gets an error in place of a build. Where
/// somebody else's `main` comes first, as in a test harness, let another program build.
///
/// ```
/// use pyats_image_builder::{Error, helper};
///
/// fn main() -> Result<(), Error> {
///     helper();
///     // What the program is for.
///     Ok(())
/// }
/// ```
pub fn helper() {
    if let Some(call) = runner::child() {
        rootfs::serve(call);
    }
}

/// Keeps other processes of the user, such as steps of other builds, from reading this one's memory, where logins are;
/// debuggers too. Also lets threads start in containers whose profile forbids clone3(2). For a program whose whole purpose
/// is to build, right after [`helper`].
pub fn harden() -> Result<(), Error> {
    Ok(runner::harden()?)
}
