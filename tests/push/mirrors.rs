//! Mirrors and policy, by option and by file.

use super::{FAILED, pull, pull_run, refused, small, tool};
use crate::support::{Bench, Registry};

/// A host where nobody listens.
const NOBODY: &str = "localhost:1";

#[test]
fn a_mirror_stands_for_a_registry() {
    let (Some(mirror), bench) = (Registry::start(), Bench::current()) else {
        return;
    };
    let image = small(&bench);
    let reference = mirror.reference("hub/team/image:1");
    super::push(&bench, &[], &image, &reference);
    let place = format!("{NOBODY}={}/hub", mirror.host());
    let named = format!("{NOBODY}/team/image:1");
    pull(&["--registry-mirror", &place], &image, &named);

    // One that does not answer is passed over, once and not for each request.
    let dead = format!("{}=localhost:2", mirror.host());
    let bench = Bench::current();
    let run = pull_run(&bench, &["--registry-mirror", &dead], &reference);
    let said = run.refusal(FAILED);
    assert_eq!(
        said.matches("the mirror `localhost:2/").count(),
        1,
        "{said}"
    );
    assert!(said.contains("`virtual environment`"), "{said}");
}

#[test]
fn registries_are_moved_and_blocked_by_a_file() {
    let (Some(registry), bench) = (Registry::start(), Bench::current()) else {
        return;
    };
    let image = small(&bench);
    let file = bench.path("registries.conf");
    bench.write(
        "registries.conf",
        format!(
            "[[registry]]\nprefix = 'moved.example/team'\nlocation = '{}/other'\ninsecure = true\n\
             [[registry]]\nlocation = 'blocked.example'\nblocked = true\n",
            registry.host()
        ),
    );
    let push = |reference: &str| {
        let source = image.image();
        let mut command = tool(&bench, &["push", &source, reference]);
        command.env("CONTAINERS_REGISTRIES_CONF", &file);
        bench.finish(&mut command)
    };
    super::push(&bench, &[], &image, &registry.reference("other/image:1"));
    bench.write(
        "build.yaml",
        "tag: x:1\npython: 3.11\nsystem-packages: []\n",
    );
    let base = ["build.yaml", "-n", "--base", "moved.example/team/image:1"];
    let mut command = tool(&bench, &base);
    command.env("CONTAINERS_REGISTRIES_CONF", &file);
    let run = bench.finish(&mut command);
    assert_eq!(run.status(), Some(0), "{}", run.stderr());
    assert!(run.stdout().contains(&image.digest), "{}", run.stdout());
    assert!(run.stderr().contains("pull `moved.example/team/image:1`"));

    let said = refused(&push("blocked.example/team/image:1"), FAILED, &["blocked"]);
    assert!(said.contains("registries.conf"), "{said}");

    bench.write("registries.conf", "[[registry]]\nlocation = \n");
    let run = push("moved.example/team/image:1");
    refused(&run, super::USAGE, &["registries.conf", "line 2"]);
}
