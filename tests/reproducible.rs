//! The same build from other directories, at other times, with empty stores, by other users on other
//! runners gives the same manifest digest when `SOURCE_DATE_EPOCH` is set.

use crate::support::{Bench, User, serve_base, verify};

const EPOCH: &str = "1700000000";

#[test]
fn the_same_build_gives_the_same_digest_on_every_runner() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let mut digests = Vec::new();
    // The first user twice: also without a change of runner.
    for user in [User::Root, User::Root, User::Subids, User::Plain] {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        bench.write_wheel(&[]);
        bench.write("jobs/job.py", "print('job')\n");
        bench.write(
            "build.yaml",
            "tag: repro:1\npython: 3.11\nsystem-packages: []\nfiles: [jobs, pib_hello-1.0-py3-none-any.whl]\n\
             packages: ['${WORKSPACE}/pib_hello-1.0-py3-none-any.whl']\nenv: {PIP_NO_INDEX: '1', A: b}\n",
        );
        let out = bench.path("out");
        let output = format!("oci-dir:{}", out.display());
        let mut command = bench.tool(["build.yaml", "--base", &base, "--output", &output]);
        command.env("SOURCE_DATE_EPOCH", EPOCH);
        let run = bench.finish(&mut command);
        let digest = run
            .line()
            .split_once('@')
            .expect("reference@digest")
            .1
            .to_owned();
        let image = verify(&out, "1");
        assert_eq!(image.digest, digest);
        assert_eq!(image.config["created"], "2023-11-14T22:13:20Z");
        let newest = image
            .own_layers(3)
            .iter()
            .flatten()
            .map(|entry| entry.mtime)
            .max();
        assert!(newest <= Some(1_700_000_000), "times are clamped");
        digests.push((user, image));
    }
    let Some((first, expected)) = digests.first() else {
        return;
    };
    for (user, image) in &digests[1..] {
        assert_eq!(image.config, expected.config, "{user:?} and {first:?}");
        assert_eq!(image.layers, expected.layers, "{user:?} and {first:?}");
        assert_eq!(image.digest, expected.digest, "{user:?} and {first:?}");
    }
}

#[test]
fn an_unchanged_build_gives_back_the_very_same_bytes_of_layers() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    bench.write(
        "build.yaml",
        "tag: repro:1\npython: 3.11\nsystem-packages: []\nenv: {PIP_NO_INDEX: '1'}\n",
    );
    let layers = |name: &str| {
        let out = bench.path(name);
        let output = format!("oci-dir:{}", out.display());
        bench
            .run(["build.yaml", "-c", "--base", &base, "--output", &output])
            .line();
        verify(&out, "1").manifest["layers"].clone()
    };
    assert_eq!(layers("one"), layers("two"));
}
