//! The long tests of pushing: a thousand faults, and how fast and how small pushes of many megabytes are.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::push::matrix;
use crate::support::{Bench, Noise, Registry, noise, peak, skopeo_copy, without_proxies};

/// The largest resident set of a push, in KiB.
const MEMORY: u64 = 80 * 1024;
/// The share of skopeo's time.
const SHARE: f64 = 0.6;
/// For what is there already, but for one small layer.
const SOON: Duration = Duration::from_millis(300);

#[test]
#[ignore = "long: a thousand faults"]
fn a_thousand_faults() {
    let seed = std::env::var("SEED").ok();
    let seed = seed.map_or_else(
        || u64::from(std::process::id()),
        |seed| seed.parse().expect("a number"),
    );
    matrix::run(1000, seed);
}

#[test]
#[ignore = "long: moves two gigabytes, and measures"]
fn a_large_image_is_pushed_in_less_time_than_skopeo_takes() {
    let bench = Bench::current();
    let layers: Vec<(u64, usize)> = (1..=5).map(|seed| (seed, 50_000_000)).collect();
    let image = noise(&bench.path("noise"), "1", &layers);
    // The files are in memory for both, and so is a registry of their own.
    let mut ratios = Vec::new();
    for round in 0..5_u64 {
        let (Some(other), Some(registry)) = (Registry::in_memory(), Registry::in_memory()) else {
            return;
        };
        let to = format!("docker://{}", other.reference("team/image:1"));
        let theirs = time(|| skopeo_copy(&bench, &image.image(), &to));
        let mut largest = 0;
        let reference = registry.reference("team/image:1");
        let took = time(|| largest = peak(&mut push(&bench, &image, &reference)));
        for registry in [&other, &registry] {
            assert_eq!(
                registry.tagged("team/image", "1").as_ref(),
                Some(&image.digest)
            );
        }
        ratios.push(took.as_secs_f64() / theirs.as_secs_f64());

        let again = time(|| run(&mut push(&bench, &image, &reference)));
        let more = [&layers[..], &[(100 + round, 2000)]].concat();
        let changed = noise(&image.layout, &format!("more{round}"), &more);
        let reference = registry.reference("team/image:2");
        let small = time(|| run(&mut push(&bench, &changed, &reference)));
        report(&[
            ("skopeo", theirs),
            ("push", took),
            ("again", again),
            ("one small layer", small),
        ]);
        report_memory(largest);
        assert!(
            largest < MEMORY,
            "the largest resident set is {largest} KiB"
        );
        assert!(again < SOON, "pushing again took {again:?}");
        assert!(small < SOON, "pushing a small change took {small:?}");
    }
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[2] <= SHARE, "shares of skopeo's time: {ratios:?}");
}

fn push(bench: &Bench, image: &Noise, reference: &str) -> Command {
    let mut command = bench.tool(["push", &image.image(), reference]);
    without_proxies(&mut command);
    command
}

fn run(command: &mut Command) {
    let output = command.output().expect("the tool starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

/// How long `work` takes, with nothing of the work before it left to be written.
fn time(work: impl FnOnce()) -> Duration {
    rustix::fs::sync();
    let began = Instant::now();
    work();
    began.elapsed()
}

#[expect(clippy::print_stdout, reason = "it is what the test measured")]
fn report(times: &[(&str, Duration)]) {
    for (name, took) in times {
        println!("{name}: {:.2} s", took.as_secs_f64());
    }
}

#[expect(clippy::print_stdout, reason = "it is what the test measured")]
fn report_memory(largest: u64) {
    println!("the largest resident set is {} MB", largest / 1024);
}
