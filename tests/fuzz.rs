//! Readers of what others write, with seeds of `tests/fuzz/seeds` that are changed by chance: ten seconds for each,
//! `FUZZ_SECONDS` for more, and another `FUZZ_SEED` for others. Neither needs a compiler of its own. `tests/fuzz/run.sh`
//! fuzzes with coverage feedback, and is where seeds come from.

use std::io::{Seek as _, Write as _};
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use fs_err as fs;
use pyats_image_builder::fuzz;

use crate::support::repository;

/// An input that takes longer is a fault: none is longer than some kilobytes.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn build_file() {
    run("build_file");
}

#[test]
fn dockerfile() {
    run("dockerfile");
}

#[test]
fn reference() {
    run("reference");
}

#[test]
fn auth_json() {
    run("auth_json");
}

#[test]
fn registries_conf() {
    run("registries_conf");
}

#[test]
fn known_hosts() {
    run("known_hosts");
}

#[test]
fn ssh_config() {
    run("ssh_config");
}

#[test]
fn layer() {
    run("layer");
}

#[test]
fn manifest() {
    run("manifest");
}

#[test]
fn snapshot() {
    run("snapshot");
}

/// Each target has its seeds, its program for libFuzzer, and a test above.
#[test]
fn every_target_is_run() {
    let this = fs::read_to_string(repository().join("tests/fuzz.rs")).expect("a source");
    for (name, _) in fuzz::TARGETS {
        assert!(!seeds(name).is_empty(), "{name}");
        assert!(this.contains(&format!("run(\"{name}\")")), "{name}");
        let program = repository().join(format!("tests/fuzz/fuzz_targets/{name}.rs"));
        let program = fs::read_to_string(program).expect("a source");
        assert!(program.contains(&format!("\"{name}\"")), "{name}");
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = repository().join("tests/fuzz/seeds").join(name);
    let entries = fs::read_dir(folder).expect("it has seeds");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    // In the same order everywhere.
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("readable"))
        .collect()
}

fn run(name: &str) {
    let seconds = number("FUZZ_SECONDS").unwrap_or(10);
    let mut chance = Chance(number("FUZZ_SEED").unwrap_or(1));
    let seeds = seeds(name);
    // What ends the process leaves its input here. The file stays open: others are flushed to the disk when they are closed.
    let input = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
    let mut file = fs::File::create(&input).expect("the folder is the tests'");
    let began = Instant::now();
    let mut calls = 0_u64;
    for seed in &seeds {
        call(name, seed, &mut file);
        calls += 1;
    }
    while began.elapsed() < Duration::from_secs(seconds) {
        call(name, &chance.input(&seeds), &mut file);
        calls += 1;
    }
    fs::remove_file(&input).expect("it was written");
    assert!(calls > 100, "{name}: only {calls} inputs");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn call(name: &str, bytes: &[u8], input: &mut fs::File) {
    input.rewind().expect("it is a file");
    input.write_all(bytes).expect("there is room");
    input.set_len(bytes.len() as u64).expect("it is a file");
    let began = Instant::now();
    let outcome = catch_unwind(|| fuzz::call(name, bytes));
    let took = began.elapsed();
    assert!(
        outcome.is_ok() && took < PATIENCE,
        "{name}: {took:?} for `{}`, which is in {}",
        bytes.escape_ascii(),
        input.path().display()
    );
}

/// A generator of numbers (xorshift64*), so that an input can be had again.
struct Chance(u64);

impl Chance {
    /// A number below `limit`; 0 if there is none.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("31 bits") % limit.max(1)
    }

    fn part<'b>(&mut self, bytes: &'b [u8], longest: usize) -> &'b [u8] {
        let start = self.below(bytes.len() + 1);
        let length = self.below((bytes.len() - start).min(longest) + 1);
        &bytes[start..start + length]
    }

    /// A seed with a few changes.
    fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        const SPECIAL: &[u8] = b"\0\n\r\t \"'\\#$%&()*,-./:;<=>?@[]`{|}~\x1b\x7f\x80\xff";
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            let length = self.below((bytes.len() - at).min(40) + 1);
            let new = match self.below(6) {
                0 => Vec::new(),
                1 => vec![SPECIAL[self.below(SPECIAL.len())]],
                2 => vec![u8::try_from(self.below(256)).expect("a byte")],
                3 => self.part(&bytes, 80).to_vec(),
                4 => self.part(&bytes, 8).repeat(1 + self.below(40)),
                _ => {
                    let seed = self.below(seeds.len());
                    self.part(&seeds[seed], 200).to_vec()
                }
            };
            // In place of as many bytes, or between.
            let end = if self.below(2) == 0 { at } else { at + length };
            bytes.splice(at..end, new);
        }
        bytes.truncate(1 << 14);
        bytes
    }
}
