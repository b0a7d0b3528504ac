//! Bad luck: nothing of it fails a build or makes an image wrong, and the next build is as good as ever.

use std::process::Stdio;
use std::time::{Duration, Instant};

use fs_err as fs;

use super::{Ground, shared};
use crate::support::{Disk, Faults, Kind, Mode, Plan, Registry, Settings, is_root, send, verify};

/// What a build says once when it gives a shared cache up.
const GIVEN_UP: &str = "is not used any more";

impl Ground {
    /// Builds with a cache that fails: the build does not, and says so once.
    fn build_without(&self, place: &str) -> String {
        let (_, said) = self.build(&["--cache-repo", place]);
        assert_eq!(said.matches(GIVEN_UP).count(), 1, "{said}");
        assert!(!said.contains("cached"), "{said}");
        said
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_read() {
    let Some(ground) = Ground::new() else { return };
    let Some(registry) = Registry::start() else {
        return;
    };
    // There is nothing in it, and nothing can be put there.
    let maintained = |data| {
        Registry::with(&Settings {
            mode: Mode::ReadOnly,
            data,
            ..Settings::default()
        })
    };
    let Some(empty) = maintained(None) else {
        return;
    };
    let said = ground.build_without(&empty.reference("team/cache"));
    assert!(said.contains("405"), "{said}");
    // What is in it is taken.
    ground.forget();
    let cache = shared(&ground, &registry);
    ground.build(&[&cache[0], &cache[1]]);
    let Some(full) = maintained(Some(&registry)) else {
        return;
    };
    ground.forget();
    let (_, said) = ground.build(&["--cache-repo", &full.reference("team/cache")]);
    assert_eq!(said.matches("cached").count(), 6, "{said}");
    assert!(!said.contains(GIVEN_UP), "{said}");
}

#[test]
fn a_cache_that_is_full() {
    if !is_root() {
        return;
    }
    let Some(ground) = Ground::new() else { return };
    // Less than the first layer has.
    let disk = Disk::mount(&ground.bench, "small", "2m");
    let Some(registry) = Registry::with(&Settings {
        place: Some(disk.path()),
        ..Settings::default()
    }) else {
        return;
    };
    let said = ground.build_without(&registry.reference("team/cache"));
    assert!(said.contains("500"), "{said}");
}

#[test]
fn a_cache_that_does_not_answer() {
    let Some(ground) = Ground::new() else { return };
    let Some(registry) = Registry::start() else {
        return;
    };
    for (method, part) in [("GET", "/manifests/"), ("POST", "/blobs/uploads/")] {
        let faults = Faults::start(
            registry.port(),
            Plan {
                silence: Duration::from_secs(60),
                ..Plan::quiet()
            },
        );
        for _ in 0..4 {
            faults.expect(method, part, Kind::Stall, 0);
        }
        let began = Instant::now();
        ground.build_without(&format!(
            "{}/{}/cache",
            faults.host(),
            method.to_lowercase()
        ));
        let took = began.elapsed();
        // Twice each, and there may be two blobs.
        let asked = faults.done()[&Kind::Stall];
        assert!((2..=4).contains(&asked), "{method}: {asked}");
        assert!(took < Duration::from_secs(110), "{method}: {took:?}");
        ground.forget();
    }
}

#[test]
fn a_build_that_is_killed_while_it_writes_to_a_cache() {
    let Some(ground) = Ground::new() else { return };
    let Some(registry) = Registry::start() else {
        return;
    };
    let bench = &ground.bench;
    let slow = |times: usize| {
        let faults = Faults::start(registry.port(), Plan::quiet());
        for _ in 0..times {
            faults.expect("PUT", "/manifests/", Kind::Slow, 4_000);
        }
        faults
    };
    for again in 0..3 {
        let faults = slow(1);
        let cache = format!("{}/killed/cache", faults.host());
        let mut build = bench
            .tool(["build.yaml", "--base", &ground.base, "--cache-repo", &cache])
            .args(["--secret", "id=token,src=token"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let deadline = Instant::now() + Duration::from_secs(120);
        while faults.total() == 0 {
            assert!(Instant::now() < deadline, "nothing is written");
            assert_eq!(build.try_wait().expect("ours"), None);
            std::thread::sleep(Duration::from_millis(20));
        }
        send(&build, "KILL");
        build.wait().expect("ours");
        assert_eq!(faults.total(), 1, "{again}");
    }
    // The layer is in the store, or the entry is not: either way the image is what it has to be.
    let place = registry.reference("killed/cache");
    let (_, said) = ground.build(&["--cache-repo", &place]);
    assert!(said.contains("virtual environment: "), "{said}");
    assert!(!said.contains("is made here"), "{said}");
    let layers = || verify(&bench.path("out"), "1").manifest["layers"].clone();
    let made = layers();
    ground.forget();
    let (_, said) = ground.build(&["--cache-repo", &place]);
    assert_eq!(said.matches("cached").count(), 6, "{said}");
    assert_eq!(layers(), made);
}

#[test]
fn a_clock_that_was_set_back() {
    let Some(ground) = Ground::new() else { return };
    let (first, _) = ground.build(&[]);
    // As if all of it had been made in a year from now.
    let later = std::time::SystemTime::now() + Duration::from_secs(365 * 86_400);
    let steps = ground.bench.store().join("steps");
    for entry in fs::read_dir(&steps).expect("there are some") {
        let path = entry.expect("ours").path();
        let text = fs::read_to_string(&path).expect("text");
        if let Some((head, tail)) = text.split_once("\"at\":")
            && !text.contains("\"created\"")
        {
            let end = tail.find([',', '}']).expect("an object ends");
            let (seconds, rest) = tail.split_at(end);
            let seconds: u64 = seconds.parse().expect("seconds");
            fs::write(
                &path,
                format!("{head}\"at\":{}{rest}", seconds + 365 * 86_400),
            )
            .expect("ours");
        }
        let file = fs::File::options().write(true).open(&path).expect("ours");
        file.set_modified(later).expect("ours");
    }
    let (again, said) = ground.build(&[]);
    assert_eq!(again, first);
    assert_eq!(said.matches("cached").count(), 6, "{said}");
    // What was made in the future has no age, and so none that is below a limit.
    let (_, said) = ground.build(&["--cache-ttl", "1h"]);
    assert!(!said.contains("cached"), "{said}");
    // What a build uses now was used now, whatever was said before.
    std::thread::sleep(Duration::from_secs(1));
    let run = ground.bench.run(["cache", "prune", "--all"]);
    assert!(
        run.stdout().contains("virtual environment"),
        "{}",
        run.stdout()
    );
}

#[test]
fn a_store_that_nobody_can_write_to() {
    if !is_root() {
        return;
    }
    let Some(ground) = Ground::new() else { return };
    let disk = Disk::mount(&ground.bench, "disk", "1g");
    let store = disk.path().join("store").display().to_string();
    ground.build(&["--store", &store]);
    disk.make_read_only();
    for more in [&[][..], &["--dry-run"]] {
        let run = ground.command(&[&["--store", &store], more].concat());
        let said = run.refusal(1);
        assert!(said.contains("Read-only file system"), "{said}");
        assert!(
            said.contains("hint: ") && said.contains("--store"),
            "{said}"
        );
    }
}
