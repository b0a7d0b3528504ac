//! Builds container images for pyATS jobs from one YAML file: no daemon, no root.
//!
//! # Architecture
//!
//! [`assemble::build`] reads like the table of contents: every stage is a function that takes values and
//! returns a value. What they pass on are [`manifest::Descriptor`]s: bytes live in one content-addressed
//! [`store::Store`], which is an OCI image layout.
//!
//! ```text
//! cli -> assemble -> dockerfile -> buildfile -> context -> base -> runner -> layer -> rootfs -> step -> image -> output
//! shared, lower:     cache, registry -> store -> manifest -> digest     net -> progress, secret
//! ```
//!
//! A stage never imports a later one, and a shared module never imports a stage; `tests/architecture.rs`
//! holds this. `assemble`, `images` (by their names), `push` (an image to a registry), `run` (a command in a built image), `doctor` (what this
//! machine allows), `prune` (what a store holds) and `carry` (the step cache in a folder) stand above the stages;
//! `confined`, lookups that no link leads out of, below all.
//!
//! | module | from | to |
//! |---|---|---|
//! | [`dockerfile`] | the instructions of `cmds` | what is to be run and copied, and what the config says; pure |
//! | [`buildfile`] | YAML text | a typed [`buildfile::BuildFile`]; past it nobody sees YAML |
//! | [`context`] | build file | the staged files: `image/workspace`, `image/venv` |
//! | [`base`] | a reference and a platform | config and layers in the store |
//! | [`runner`] | a command and a root file system | its outcome; sandboxes, by the best rung that works |
//! | [`layer`] | a directory or a changeset | the other one |
//! | [`rootfs`] | layers | an unpacked tree in the store; the calls that need the rung's user namespace |
//! | [`step`] | commands | the layer of what they changed |
//! | [`image`] | base, layers and settings | config and manifest; pure |
//! | [`output`] | an image in the store | `oci-dir`, `oci-archive`, `docker-archive` |
//!
//! # Processes
//!
//! The program that builds stays as it was started: it has threads, and never enters a namespace. To run
//! a step it executes itself anew, and that process (see [`runner::child`]) enters the namespaces before
//! any thread exists, mounts, drops its privileges and executes the command. Work on trees whose owners
//! are ids of a user namespace (unpacking, comparing, removing) is done the same way by
//! [`runner::call`] and [`rootfs::serve`]. Layers that have to be pulled are read there as they come, and verified at
//! their end ([`rootfs::pull`]). A program that uses this library therefore begins its `main` with
//!
//! ```no_run
//! # use pyats_image_builder::{rootfs, runner};
//! if let Some(call) = runner::child() {
//!     rootfs::serve(call);
//! }
//! ```
//!
//! # Without mounts
//!
//! Root of an ordinary container can neither mount nor make namespaces. On the rung `chroot` a step's tree is
//! always a copy; what the step is shown is put into it, and taken away before the layer is made (`runner/shown.rs`).
//! Its processes are found by descent and killed (`runner/family.rs`), also when the program is gone: what is pid 1
//! elsewhere outlives it by a moment. Filters keep the step from leaving its root and from looking into others.
//!
//! # Nothing twice
//!
//! A step is known by a [`cache::Key`] of all that it can read ([`step::Task`] says what that is), and one that is known is
//! not run: its layer is a blob of the store, or of a registry. Nothing is pulled or unpacked before a step has to run
//! ([`step::Stack`]), so an unchanged build only stages its files, makes the keys and writes the image's documents.
//! Builds of one store that want the same step at once wait for the one that runs it. What is removed meanwhile was
//! used by none of them ([`store::Store::session`]).
//!
//! # Owners
//!
//! On the rung `userns-single` no file can have an owner but the calling user. What layers say of owners, and
//! what steps ask for, is kept beside: files and directories carry [`layer::OWNER_ATTRIBUTE`], which the kernel
//! copies and moves with them; links, pipes and devices are listed by path ([`layer::RecordedOwners`]). Pid 1
//! of a step takes down its calls of chown(2), and can answer its questions ([`runner::Owners`]); a layer has
//! the owners that the other rungs give.
//!
//! # Same input, same digest
//!
//! Layers that are made here are sorted, have numeric owners, whole seconds, and no access times. Files of
//! the context and of the virtual environment carry one fixed time; bytecode is compiled for that time, in
//! small chunks by fresh processes (`step/bytecode.py`), since what a Python process compiled before shows
//! in what it compiles next: so it is the same when a wheel's is compiled before pip installs it.
//! Compression works in blocks of a fixed size, whatever the number of cores. Documents are serialised with
//! ordered keys.

pub mod assemble;
pub mod base;
pub mod buildfile;
pub mod cache;
pub mod carry;
mod confined;
pub mod context;
pub mod digest;
pub mod dockerfile;
pub mod doctor;
pub mod error;
pub mod image;
pub mod images;
pub mod layer;
pub mod manifest;
pub mod net;
pub mod output;
pub mod progress;
pub mod prune;
pub mod push;
pub mod registry;
pub mod rootfs;
pub mod run;
pub mod runner;
pub mod secret;
pub mod step;
pub mod store;
