//! Builds container images for pyATS jobs from one YAML file, without a daemon and without root.

pub mod assemble;
pub mod base;
pub mod buildfile;
pub mod context;
pub mod digest;
pub mod error;
pub mod image;
pub mod layer;
pub mod manifest;
pub mod output;
pub mod progress;
pub mod registry;
pub mod rootfs;
pub mod runner;
pub mod secret;
pub mod step;
pub mod store;
