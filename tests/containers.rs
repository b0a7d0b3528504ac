//! Builds in the containers that CI systems run their jobs in, with Docker's defaults and without privileges:
//! one build file, one digest.

use std::process::Output;

use fs_err as fs;
use serde_json::json;

use crate::support::{Bench, Docker, binary, serve_base, verify};

const EPOCH: &str = "1700000000";

const BUILD: &str = "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [job.py, pib_hello-1.0-py3-none-any.whl]\n\
    packages: ['${WORKSPACE}/pib_hello-1.0-py3-none-any.whl']\nenv: {PIP_NO_INDEX: '1'}\n\
    cmds:\n  post: |\n\
    \x20   RUN useradd --create-home app && mkdir /data && echo text > /data/file && chown -R app: /data\n\
    \x20   RUN --mount=type=cache,target=/root/.cache echo x >> /root/.cache/x && cp /root/.cache/x /cached\n\
    \x20   RUN --network=none echo out > /dev/stdout && chmod 4755 /data/file && rm -r /var/lib/systemd || true\n\
    \x20   COPY --chown=app image/workspace/job.py /data/\n\
    \x20   USER app\n\
    \x20   RUN id -u > /home/app/id\n";

/// A machine with Docker, and the base as an image to start containers from.
struct Runner {
    bench: Bench,
    docker: Docker,
    base: String,
    _registry: crate::support::Registry,
}

impl Runner {
    fn new() -> Option<Self> {
        let bench = Bench::current();
        let docker = Docker::with_base(&bench)?;
        let (registry, base) = serve_base()?;
        bench.write_wheel(&[]);
        bench.write("job.py", "print('job')\n");
        bench.write("build.yaml", BUILD);
        Some(Self {
            bench,
            docker,
            base,
            _registry: registry,
        })
    }

    /// The tool in a container with `flags`, its working directory the bench's.
    fn tool(&self, flags: &[&str], arguments: &[&str]) -> Output {
        let work = self.bench.root().join("work");
        let mut command = self.docker.command();
        command.args(["run", "--rm", "--network", "host", "--workdir", "/work"]);
        command.arg(format!("--volume={}:/tool:ro", binary().display()));
        command.arg(format!("--volume={}:/work", work.display()));
        command.arg(format!("--env=SOURCE_DATE_EPOCH={EPOCH}"));
        command.args(["--env=HOME=/tmp", "--entrypoint=/tool"]);
        command.args(flags).arg("base:1").args(arguments);
        command.output().expect("docker starts")
    }

    /// Builds with `flags`; gives the digest and what was said.
    fn build(&self, flags: &[&str], name: &str) -> (String, String) {
        let output = format!("oci-dir:{name}");
        let arguments = ["build.yaml", "-v", "--base", &self.base, "-o", &output];
        let run = self.tool(flags, &arguments);
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(run.status.success(), "{flags:?}: {said}");
        let line = String::from_utf8_lossy(&run.stdout).into_owned();
        let (_, digest) = line.trim().split_once('@').expect("reference@digest");
        assert_eq!(verify(&self.bench.path(name), "1").digest, digest);
        (digest.to_owned(), said)
    }
}

#[test]
fn every_container_gives_the_same_image() {
    let Some(runner) = Runner::new() else { return };
    let bench = &runner.bench;
    let mut command = bench.tool(["build.yaml", "--base", &runner.base, "-o", "oci-dir:here"]);
    let run = bench.finish(command.env("SOURCE_DATE_EPOCH", EPOCH));
    let (_, expected) = run.line().split_once('@').expect("reference@digest");
    assert_eq!(verify(&bench.path("here"), "1").digest, expected);
    // Users of containers have to write there.
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(bench.root().join("work"), everybody).expect("ours");
    // What the kernels and the profiles of some years ago do not know, refused as the one and as the other do.
    let young = ["openat2", "statx", "clone3", "close_range", "faccessat2"];
    let profile = |name: &str, errno: i32, more: &[&str]| {
        let names = [&young[..], more].concat();
        let rule = json!({
            "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
        });
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let path = bench.write(name, profile.to_string());
        format!("--security-opt=seccomp={}", path.display())
    };
    let forbidden = ["unshare", "mount", "pidfd_open"];
    let old_profile = profile("profile.json", libc::EPERM, &forbidden);
    // Kernels that tell of calls, as this rung needs it, have that one.
    let old_kernel = profile("kernel.json", libc::ENOSYS, &[]);
    for (name, rung, flags) in [
        ("old-profile", "chroot", &[old_profile.as_str()][..]),
        ("old-kernel", "userns-single", &["--user=1001", &old_kernel]),
        ("default", "chroot", &[]),
        (
            "read-only",
            "chroot",
            &["--read-only", "--tmpfs=/tmp:exec,dev"],
        ),
        (
            "volume",
            "chroot",
            &["--volume=/store", "--env=PYATS_IMAGE_BUILD_STORE=/store"],
        ),
        (
            "mounts",
            "root",
            &["--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined"],
        ),
        (
            "user",
            "userns-single",
            &["--user=1001", "--security-opt=seccomp=unconfined"],
        ),
    ] {
        let (digest, said) = runner.build(flags, name);
        assert!(said.contains(&format!("rung `{rung}`")), "{name}: {said}");
        assert_eq!(digest, expected, "{name}: {said}");
    }
}

#[test]
fn where_nothing_works_every_rung_says_why() {
    let Some(runner) = Runner::new() else { return };
    for flags in [
        &["--user=1001"][..],
        &[
            "--user=1001",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
        ],
    ] {
        let run = runner.tool(flags, &["build.yaml", "--base", &runner.base]);
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
        let run = runner.tool(flags, &["doctor", "--offline"]);
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert_eq!(run.status.code(), Some(1), "{said}");
        assert!(said.contains("in a container (Docker)"), "{said}");
        assert!(said.contains("operation not permitted (errno 1)"), "{said}");
    }
}

#[test]
fn a_step_in_plain_sight_sees_nothing_of_the_tool() {
    let Some(runner) = Runner::new() else { return };
    let program = "
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, *arguments):
    ctypes.set_errno(0)
    done = libc.syscall(*[ctypes.c_long(argument) for argument in arguments])
    print(name, 'refused' if done < 0 and ctypes.get_errno() == 1 else 'open')
parent = os.getppid()
refused('ptrace', 101, 16, parent, 0, 0)
buffer = ctypes.create_string_buffer(64)
refused('read', 310, parent, ctypes.addressof(buffer), 1, ctypes.addressof(buffer), 1, 0)
refused('chroot', 161, 0)
refused('kill', 62, -1, 0)
print('environ', os.path.exists(f'/proc/{parent}/environ'))
print('secret' , any('planted' in value for value in os.environ.values()))
";
    runner.bench.write("look.py", program);
    runner.bench.write(
        "build.yaml",
        "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [look.py]\nenv: {PIP_NO_INDEX: '1'}\n\
         cmds:\n  post: RUN python3 /workspace/look.py\n",
    );
    let (_, said) = runner.build(&["--env=PASSWORD=planted", "--env=TRY=planted"], "out");
    for words in [
        "ptrace refused",
        "read refused",
        "chroot refused",
        "kill refused",
        "environ False",
        "secret False",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
