//! Staging: what a build file names goes into a context, and nothing is built.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fs_err as fs;

use super::{Bench, Run, Web, base_layout};

/// The build failed.
const FAILED: i32 = 1;

/// A dry run with options and variables, which stages what a build file names.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    bench: &'a Bench,
    options: Vec<String>,
    env: Vec<(&'static str, String)>,
}

impl<'a> Stage<'a> {
    /// Without any proxy, whatever the machine has.
    pub(crate) fn new(bench: &'a Bench) -> Self {
        Self {
            bench,
            options: Vec::new(),
            env: Vec::new(),
        }
    }

    /// With the authority of a server.
    pub(crate) fn trusting(mut self, web: &Web) -> Self {
        let authority = web.authority().to_str().expect("a plain name").to_owned();
        self.options.extend(["--ca-cert".to_owned(), authority]);
        self
    }

    /// With a variable.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// With an option.
    pub(crate) fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// The command for a build file with this `text` (and a tag).
    pub(crate) fn command(&self, text: &str) -> Command {
        self.bench.write("build.yaml", format!("tag: x\n{text}\n"));
        let context = self.bench.path("context");
        if context.exists() {
            fs::remove_dir_all(&context).expect("it is ours");
        }
        let base = base_layout().expect("the base was made");
        let mut command = self
            .bench
            .tool(["build.yaml", "-n", "-k", "-p", "context", "--base"]);
        command.arg(format!("oci:{}", base.display()));
        without_proxies(&mut command);
        command.args(&self.options).envs(self.env.iter().cloned());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, text: &str) -> Run {
        self.bench.finish(&mut self.command(text))
    }

    /// Stages what has to work; gives the workspace.
    pub(crate) fn workspace(&self, text: &str) -> PathBuf {
        let run = self.run(text);
        let errors = run.stderr();
        assert_eq!(run.status(), Some(0), "{errors}");
        run.stdout();
        self.bench.path("context/image/workspace")
    }

    /// Stages what has to fail, with these words in the error, and no secret (all tests' hold `pa55`).
    pub(crate) fn refused(&self, text: &str, words: &[&str]) {
        let run = self.run(text);
        let error = run.refusal(FAILED);
        for word in words {
            assert!(
                error.contains(word),
                "`{word}` is missing for {text}: {error}"
            );
        }
        assert!(!error.contains("pa55"), "{error}");
    }

    /// Stages what has to work; gives the largest resident set that the tool had meanwhile, in KiB.
    pub(crate) fn peak(&self, text: &str) -> u64 {
        peak(&mut self.command(text))
    }
}

/// Takes the machine's proxies from a command.
pub(crate) fn without_proxies(command: &mut Command) {
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        command.env_remove(name);
        command.env_remove(name.to_ascii_lowercase());
    }
}

/// Runs a command that has to work; gives the largest resident set that it had meanwhile, in KiB.
pub(crate) fn peak(command: &mut Command) -> u64 {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the tool starts");
    let mut peak = 0;
    loop {
        // The peak of what has ended cannot be read any more; it only grows until then.
        peak = peak.max(resident(child.id()).unwrap_or(0));
        if let Some(ended) = child.try_wait().expect("it is our child") {
            assert!(ended.success());
            return peak;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The largest resident set that a process had so far, in KiB; `None` if it has ended.
pub(crate) fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
