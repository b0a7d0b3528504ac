//! Builds in the containers that CI systems run their jobs in, with Docker's defaults and without privileges:
//! one build file, one digest.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use fs_err as fs;
use serde_json::{Value, json};

use crate::support::{
    Bench, Docker, REACH, Registry, base_layout, binary, repository, serve_base, verify,
};

/// The time of everything in these images.
pub(crate) const EPOCH: &str = "1700000000";

const BUILD: &str = "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [job.py, pib_hello-1.0-py3-none-any.whl]\n\
    packages: ['${WORKSPACE}/pib_hello-1.0-py3-none-any.whl']\nenv: {PIP_NO_INDEX: '1'}\n\
    cmds:\n  post: |\n\
    \x20   RUN useradd --create-home app && mkdir /data && echo text > /data/file && chown -R app: /data\n\
    \x20   RUN --mount=type=cache,target=/root/.cache echo x >> /root/.cache/x && cp /root/.cache/x /cached\n\
    \x20   RUN --network=none echo out > /dev/stdout && chmod 4755 /data/file && rm -r /var/lib/systemd || true\n\
    \x20   COPY --chown=app image/workspace/job.py /data/\n\
    \x20   USER app\n\
    \x20   RUN id -u > /home/app/id\n";

/// A machine that runs jobs in containers, upon the base.
pub(crate) struct Machine {
    pub(crate) bench: Bench,
    pub(crate) docker: Docker,
    pub(crate) base: String,
    _registry: Registry,
}

impl Machine {
    pub(crate) fn new() -> Option<Self> {
        let bench = Bench::current();
        let docker = Docker::with_base(&bench)?;
        let (registry, base) = serve_base()?;
        // Users of containers have to write there.
        fs::set_permissions(bench.root().join("work"), Permissions::from_mode(0o777))
            .expect("it is ours");
        Some(Self {
            bench,
            docker,
            base,
            _registry: registry,
        })
    }

    /// `docker run` with `flags`, in the bench's working directory, which reaches the world as the bench does.
    pub(crate) fn container(&self, flags: &[&str]) -> Command {
        let work = self.bench.root().join("work");
        let mut command = self.docker.command();
        command.args(["run", "--rm", "--network=host", "--workdir=/work"]);
        command.arg(format!("--volume={}:/work", work.display()));
        for name in REACH {
            command.arg(format!("--env={name}"));
        }
        if let Ok(bundle) = std::env::var("SSL_CERT_FILE") {
            command.arg(format!("--volume={bundle}:{bundle}:ro"));
        }
        command.arg(format!("--env=SOURCE_DATE_EPOCH={EPOCH}"));
        command.arg("--env=HOME=/tmp").args(flags);
        command
    }

    /// The tool in such a container.
    fn tool(&self, flags: &[&str], arguments: &[&str]) -> Output {
        let mut command = self.container(flags);
        command.arg(format!("--volume={}:/tool:ro", binary().display()));
        command.args(["--entrypoint=/tool", "base:1"]);
        command.args(arguments).output().expect("docker starts")
    }

    /// What the tool is given to build `build.yaml` anew.
    pub(crate) fn arguments<'a>(&'a self, output: &'a str) -> [&'a str; 7] {
        [
            "build.yaml",
            "-v",
            "--no-cache",
            "--base",
            &self.base,
            "-o",
            output,
        ]
    }

    /// Builds with `flags`; gives the digest and what was said.
    pub(crate) fn build(&self, flags: &[&str], name: &str) -> (String, String) {
        let output = format!("oci-dir:{name}");
        let run = self.tool(flags, &self.arguments(&output));
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.success(), "{flags:?}: {said}");
        let line = String::from_utf8_lossy(&run.stdout).into_owned();
        let (_, digest) = line.trim().split_once('@').expect("reference@digest");
        assert_eq!(verify(&self.bench.path(name), "1").digest, digest);
        (digest.to_owned(), said)
    }

    /// Holds that each of the containers takes its runner, and gives the image that this machine gives.
    pub(crate) fn gives_the_same_image(&self, containers: &[(&str, &str, &[&str])]) {
        let bench = &self.bench;
        bench.write_wheel(&[]);
        bench.write("job.py", "print('job')\n");
        bench.write("build.yaml", BUILD);
        let mut command = bench.tool(["build.yaml", "--base", &self.base, "-o", "oci-dir:here"]);
        let run = bench.finish(command.env("SOURCE_DATE_EPOCH", EPOCH));
        let (_, expected) = run.line().split_once('@').expect("reference@digest");
        assert_eq!(verify(&bench.path("here"), "1").digest, expected);
        for (name, runner, flags) in containers {
            let (digest, said) = self.build(flags, name);
            assert!(
                said.contains(&format!("runner `{runner}`")),
                "{name}: {said}"
            );
            assert_eq!(digest, expected, "{name}: {said}");
        }
    }

    /// An option for a container that lets everything pass but these calls.
    pub(crate) fn profile(&self, name: &str, errno: i32, calls: &[&str]) -> String {
        let rule = json!({
            "names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
        });
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let path = self.bench.write(name, profile.to_string());
        format!("--security-opt=seccomp={}", path.display())
    }
}

#[test]
fn the_usual_containers_give_the_same_image() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine.gives_the_same_image(&[
        ("default", "chroot", &[]),
        (
            "user",
            "userns-single",
            &["--user=1001", "--security-opt=seccomp=unconfined"],
        ),
    ]);
}

#[test]
fn where_nothing_works_every_runner_says_why() {
    let Some(machine) = Machine::new() else {
        return;
    };
    machine
        .bench
        .write("build.yaml", "tag: image:1\npython: 3.11\n");
    for flags in [
        &["--user=1001"][..],
        &[
            "--user=1001",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
        ],
    ] {
        let run = machine.tool(flags, &["build.yaml", "--base", &machine.base]);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(1), "{said}");
        for words in [
            "`root`: `geteuid`",
            "`userns-range`: ",
            "`userns-single`: `unshare(CLONE_NEWUSER)`: operation not permitted",
            "`chroot`: `geteuid`",
            "seccomp=unconfined",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let run = machine.tool(flags, &["doctor", "--offline"]);
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert_eq!(run.status.code(), Some(1), "{said}");
        assert!(said.contains("in a container (Docker)"), "{said}");
        assert!(said.contains("operation not permitted (errno 1)"), "{said}");
    }
}

#[test]
fn recipes_name_options_that_exist() {
    let bench = Bench::current();
    bench.write(
        "build.yaml",
        "tag: image:1\npython: 3.11\nsystem-packages: []\n",
    );
    let folder = repository().join("testdata/ci");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("it is there");
    let mut recipes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in ["gitlab.yml", "github.yml", "Jenkinsfile"] {
        let text = read(name);
        let (_, line) = text.split_once("pyats-image-build build.yaml").expect(name);
        let line = line.lines().next().expect("it has an end");
        // Variables of the CI system, whatever they hold.
        let line = line.replace("${{ github.repository }}", "team/tests");
        let line = line.replace("${{ github.sha }}", "0123abcd");
        let words = line.split_whitespace().map(|word| {
            let word = word.replace(['"', '\''], "");
            word.replace("$CI_REGISTRY_IMAGE", "registry.example.com/team/tests")
                .replace("$CI_COMMIT_REF_SLUG", "main")
                .replace("$BUILD_NUMBER", "1")
        });
        recipes.insert(name, words.collect());
    }
    for (name, path) in [
        ("tekton.yaml", "/spec/steps/0"),
        ("kubernetes-job.yaml", "/spec/template/spec/containers/0"),
    ] {
        let document: Value = serde_yaml::from_str(&read(name)).expect("it is YAML");
        let step = document.pointer(path).expect(name);
        assert_eq!(step["command"], json!(["/workspace/pyats-image-build"]));
        let words = step["args"].as_array().expect("it has some").iter();
        let words = words.map(|word| {
            let word = word.as_str().expect("text");
            word.replace("$(params.image)", "registry.example.com/team/tests:1")
                .replace("$(workspaces.store.path)", "store")
                .replace("$(results.digest.path)", "digest")
                .replace("/store", "store")
        });
        let mut words: Vec<_> = words.collect();
        assert_eq!(words.remove(0), "build.yaml");
        recipes.insert(name, words);
    }
    assert_eq!(
        recipes.len(),
        fs::read_dir(&folder).expect("there").count() - 1
    );
    bench.path("store");
    let Some(layout) = base_layout() else {
        return;
    };
    let base = format!("--base=oci:{}", layout.display());
    for (name, words) in recipes {
        let run = bench.run(
            ["build.yaml", "--dry-run", &base]
                .into_iter()
                .chain(words.iter().map(String::as_str)),
        );
        let said = run.stderr();
        assert_eq!(run.status(), Some(0), "{name}: {words:?}: {said}");
        assert!(
            run.stdout().contains("base: oci:"),
            "{name}: {}",
            run.stdout()
        );
        assert!(words.iter().any(|word| word == "--push"), "{name}");
    }
}
