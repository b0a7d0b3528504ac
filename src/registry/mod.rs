//! The distribution protocol; the only asynchronous code.

/// registry/repository[:tag][@digest], completed as Docker does (`python` is `docker.io/library/python:latest`).
pub use oci_distribution::Reference;

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Hosts (`host[:port]`) that are spoken to by plain HTTP, or HTTPS without verification.
    pub insecure: Vec<String>,
    /// Layers that are downloaded side by side.
    pub jobs: usize,
}

/// A connection pool with its options and tokens.
#[derive(Debug)]
pub struct Client;

impl Client {
    /// Makes a client; nothing is sent yet.
    #[must_use]
    pub fn new(_options: Options) -> Self {
        unimplemented!()
    }
}
