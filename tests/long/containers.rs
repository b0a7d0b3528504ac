//! The long tests of builds in containers: the quickstart and a compiler in all kinds, a hundred builds of which many
//! are killed, the one file to ship, and the recipe for GitLab.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use serde_json::Value;

use crate::containers::{EPOCH, Machine};
use crate::support::{Bench, Login, Registry, User, have, is_root, repository, succeed, verify};

/// Of a job as non-root where namespaces are allowed.
const UNCONFINED: &[&str] = &["--user=1001", "--security-opt=seccomp=unconfined"];

/// What kernels and profiles of some years ago do not know.
const YOUNG: &[&str] = &["openat2", "statx", "clone3", "close_range", "faccessat2"];

#[test]
#[ignore = "long: builds in containers of all kinds"]
fn unusual_containers_give_the_same_image() {
    let Some(machine) = Machine::new() else {
        return;
    };
    // As Docker's profile was before these calls, and refused what it did not know.
    let calls = [YOUNG, &["unshare", "mount", "pidfd_open"]].concat();
    let profile = machine.profile("profile.json", libc::EPERM, &calls);
    // Kernels that can tell of calls, as this runner needs it, have pidfd_open.
    let kernel = machine.profile("kernel.json", libc::ENOSYS, YOUNG);
    let volume = ["--volume=/store", "--env=PYATS_IMAGE_BUILD_STORE=/store"];
    let shared = machine.bench.path("shared");
    fs::create_dir(&shared).expect("it is new");
    fs::set_permissions(&shared, Permissions::from_mode(0o777)).expect("it is ours");
    let mounted = [
        UNCONFINED,
        &["--env=PYATS_IMAGE_BUILD_STORE=/work/shared/store"],
    ]
    .concat();
    machine.gives_the_same_image(&[
        ("old-profile", "chroot", &[&profile]),
        ("old-kernel", "userns-single", &["--user=1001", &kernel]),
        (
            "read-only",
            "chroot",
            &["--read-only", "--tmpfs=/tmp:exec,dev"],
        ),
        ("volume", "chroot", &volume),
        // Here an overlay can be had, as it cannot upon the container's own.
        ("mounted", "userns-single", &mounted),
        (
            "mounts",
            "root",
            &["--cap-add=SYS_ADMIN", "--security-opt=apparmor=unconfined"],
        ),
    ]);
}

#[test]
#[ignore = "long: builds in a container"]
fn a_step_in_plain_sight_sees_nothing_of_the_tool() {
    let Some(machine) = Machine::new() else {
        return;
    };
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
    machine.bench.write("look.py", program);
    machine.bench.write(
        "build.yaml",
        "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [look.py]\nenv: {PIP_NO_INDEX: '1'}\n\
         cmds:\n  post: RUN python3 /workspace/look.py\n",
    );
    let (_, said) = machine.build(&["--env=PASSWORD=planted", "--env=TRY=planted"], "out");
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

#[test]
#[ignore = "long: builds in a container"]
fn a_container_can_have_subordinate_ids() {
    if !have(&["newuidmap", "setcap"]) {
        return;
    }
    let Some(machine) = Machine::new() else {
        return;
    };
    let bench = &machine.bench;
    let mut flags: Vec<String> = UNCONFINED.iter().map(|flag| (*flag).to_owned()).collect();
    let mut show = |name: &str, bytes: &[u8], target: &str| {
        let path = bench.write(name, bytes);
        flags.push(format!("--volume={}:{target}:ro", path.display()));
        path
    };
    // A setuid program would be root of the container, who is not allowed enough: that takes a capability of the file.
    for (program, capability) in [
        ("newuidmap", "cap_setuid=ep"),
        ("newgidmap", "cap_setgid=ep"),
    ] {
        let target = format!("/usr/bin/{program}");
        let path = show(program, &fs::read(&target).expect("installed"), &target);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("ours");
        succeed(Command::new("setcap").arg(capability).arg(&path));
    }
    show("subuid", b"job:100000:65536\n", "/etc/subuid");
    show("subgid", b"job:100000:65536\n", "/etc/subgid");
    let passwd = b"root:x:0:0::/root:/bin/sh\njob:x:1001:0::/tmp:/bin/sh\n";
    show("passwd", passwd, "/etc/passwd");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    machine.gives_the_same_image(&[("range", "userns-range", &flags)]);
}

/// A package that `PyPI` has for this version of Python as source code only.
const COMPILED: &str = "tag: image:1\npython: 3.11\nsystem-packages: []\ncmds:\n  pre: |\n    \
    RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev\n\
    packages: [netifaces==0.11.0]\n";

#[test]
#[ignore = "long: installs packages and a compiler five times"]
fn the_quickstart_and_a_compiler_everywhere() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let quickstart = fs::read_to_string(repository().join("testdata/quickstart/build.yaml"));
    let quickstart = quickstart.expect("it is there").replace(":latest", ":1");
    let mut layers = BTreeMap::new();
    for user in User::ALL {
        let Some(bench) = Bench::new(user) else {
            return;
        };
        write_quickstart(&bench);
        for (name, text) in [("quickstart", &*quickstart), ("compiled", COMPILED)] {
            bench.write("build.yaml", text);
            let output = format!("oci-dir:{name}");
            let arguments = machine.arguments(&output);
            let run = bench.finish(bench.tool(arguments).env("SOURCE_DATE_EPOCH", EPOCH));
            run.line();
            let runner = run
                .stderr()
                .contains(&format!("runner `{}`", user.runner()));
            assert!(runner || user == User::Root, "{}", run.stderr());
            check(&bench.path(name), name, user.runner(), &mut layers);
        }
    }
    write_quickstart(&machine.bench);
    for (place, runner, flags) in [
        ("default", "chroot", &[][..]),
        ("user", "userns-single", UNCONFINED),
    ] {
        for (name, text) in [("quickstart", &*quickstart), ("compiled", COMPILED)] {
            machine.bench.write("build.yaml", text);
            let folder = format!("{place}-{name}");
            let (_, said) = machine.build(flags, &folder);
            assert!(said.contains(&format!("runner `{runner}`")), "{said}");
            check(&machine.bench.path(&folder), name, place, &mut layers);
        }
    }
    assert_eq!(layers.len(), 5, "{layers:#?}");
    let mut digests: Vec<_> = layers.values().collect();
    digests.dedup();
    assert_eq!(digests.len(), 1, "{layers:#?}");
}

fn write_quickstart(bench: &Bench) {
    for file in ["hello_job.py", "testbed.yaml"] {
        let name = format!("testdata/quickstart/{file}");
        let text = fs::read(repository().join(&name)).expect("it is there");
        bench.write(&name, text);
    }
}

/// Notes the layers of the quickstart, and looks for what was compiled.
fn check(layout: &Path, name: &str, place: &str, layers: &mut BTreeMap<String, Vec<Value>>) {
    let image = verify(layout, "1");
    if name == "quickstart" {
        let digests = image.manifest["layers"].as_array().expect("it has layers");
        layers.insert(place.to_owned(), digests.clone());
    } else {
        let names = image.layers.iter().flatten().map(|entry| &entry.name);
        let mut modules = names.filter(|name| {
            name.starts_with("venv/lib/python3.11/site-packages/netifaces.")
                && Path::new(name).extension().is_some_and(|end| end == "so")
        });
        assert!(modules.next().is_some(), "{place}: nothing was compiled");
    }
}

/// How many builds there are, and how many are to be killed: every third.
const BUILDS: usize = 100;
const KILLED: usize = BUILDS / 3;

#[test]
#[ignore = "long: a hundred builds"]
fn a_hundred_builds_of_which_many_are_killed_leave_nothing() {
    let (Some(machine), Some(tool)) = (Machine::new(), dist()) else {
        return;
    };
    let bench = &machine.bench;
    bench.write_wheel(&["--noise", "3000000"]);
    // It writes where the base has files, and leaves processes.
    bench.write(
        "build.yaml",
        "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [pib_hello-1.0-py3-none-any.whl]\n\
         packages: ['${WORKSPACE}/pib_hello-1.0-py3-none-any.whl']\nenv: {PIP_NO_INDEX: '1'}\ncmds:\n  pre: |\n    \
         RUN echo x >> /etc/passwd; rm /usr/bin/perl; touch /etc/of-a-step; (setsid sleep 9999 &) ; sleep 0.5\n",
    );
    let store = bench.path("store");
    fs::create_dir(&store).expect("it is new");
    let name = format!("pib-{}", std::process::id());
    let mut start = machine.container(&["--detach", "--init", "--name", &name]);
    start.arg(format!("--volume={}:/tool:ro", tool.display()));
    start.args(["--entrypoint=sleep", "base:1", "infinity"]);
    succeed(&mut start);
    let build = |prefix: &str| {
        let mut command = machine.docker.command();
        let line = format!(
            "SOURCE_DATE_EPOCH=1700000000 {prefix} /tool build.yaml --store /work/store --base {} -o oci-dir:out --no-cache",
            machine.base
        );
        command.args(["exec", &name, "sh", "-c", &line]);
        command.output().expect("docker starts")
    };
    let first = build("");
    let said = String::from_utf8_lossy(&first.stderr);
    assert!(first.status.success(), "{said}");
    assert!(said.contains("runner `chroot`"), "{said}");
    let before = everything(&store);

    // How long a build takes: the first one has pulled the base.
    let mut length = Duration::MAX;
    let mut killed = 0;
    for number in 0..BUILDS {
        // Spread over the whole of a build, in an order that hits all of it early.
        if number % 3 == 2 {
            let part = u32::try_from(number / 3 * 7 % KILLED).expect("few");
            let moment = length * (part + 1) / u32::try_from(KILLED + 1).expect("few");
            let run = build(&format!(
                "timeout --foreground --signal KILL {}",
                moment.as_secs_f64()
            ));
            killed += usize::from(!run.status.success());
        } else {
            let began = Instant::now();
            let run = build("");
            length = length.min(began.elapsed());
            let said = String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success(), "build {number}: {said}");
            assert_eq!(run.stdout, first.stdout, "build {number}");
            verify(&bench.path("out"), "1");
        }
    }
    assert!(killed >= KILLED * 9 / 10, "only {killed} were killed");
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = succeed(
            machine
                .docker
                .command()
                .args(["top", &name, "-o", "pid,args"]),
        );
        // The container's init, and what it runs.
        if left.lines().skip(1).count() == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{left}");
        std::thread::sleep(Duration::from_millis(100));
    }
    // What the last killed one left goes with the next one.
    assert!(build("").status.success());
    let after = everything(&store);
    let changed: Vec<_> = after
        .iter()
        .filter(|entry| before.get(entry.0) != Some(entry.1))
        .map(|(path, _)| path)
        .chain(before.keys().filter(|path| !after.contains_key(*path)))
        .collect();
    assert!(changed.is_empty(), "the store has changed: {changed:?}");
    succeed(machine.docker.command().args(["kill", &name]));
    fs::remove_dir_all(&store).expect("it is ours");
}

/// Every file of the store, with its size and mode, and what is unpacked with its time: blobs and notes are written anew.
fn everything(store: &Path) -> BTreeMap<PathBuf, (u64, u32, i64)> {
    let mut found = BTreeMap::new();
    let mut open = vec![store.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            let metadata = fs::symlink_metadata(&path).expect("there");
            if metadata.is_dir() {
                open.push(path);
            } else {
                let is_unpacked = path.starts_with(store.join("rootfs"));
                let time = if is_unpacked { metadata.mtime() } else { 0 };
                found.insert(path, (metadata.len(), metadata.mode(), time));
            }
        }
    }
    found
}

/// The one file to ship, made by the command that makes it.
fn dist() -> Option<PathBuf> {
    if !is_root() {
        return None;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(repository())
        .args(["dist", "--message-format=json"])
        // As it is shipped.
        .env_remove("OPENSSL_NO_VENDOR")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "cargo dist fails");
    let text = String::from_utf8(output.stdout).expect("JSON lines");
    let mut artifacts = text.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    artifacts.next()
}

#[test]
#[ignore = "long: makes the one file to ship"]
fn one_file_builds_in_musl_and_empty_root_file_systems() {
    if !have(&["busybox"]) {
        return;
    }
    let (Some(machine), Some(tool)) = (Machine::new(), dist()) else {
        return;
    };
    let bench = &machine.bench;
    bench.write_wheel(&[]);
    bench.write(
        "build.yaml",
        "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles: [pib_hello-1.0-py3-none-any.whl]\n\
         packages: ['${WORKSPACE}/pib_hello-1.0-py3-none-any.whl', 'six==1.16.0']\n",
    );
    let expected = {
        let mut command = bench.tool(["build.yaml", "--base", &machine.base, "-o", "oci-dir:here"]);
        let run = bench.finish(command.env("SOURCE_DATE_EPOCH", EPOCH));
        bench.path("here");
        run.line().to_owned()
    };
    for (name, is_musl) in [("empty", false), ("musl", true)] {
        let root = bench.root().join(name);
        fs::create_dir_all(&root).expect("it is new");
        fs::copy(&tool, root.join("tool")).expect("it is ours");
        if is_musl {
            for folder in ["bin", "lib", "etc", "tmp"] {
                fs::create_dir(root.join(folder)).expect("it is new");
            }
            fs::copy("/bin/busybox", root.join("bin/busybox")).expect("it is installed");
            fs_err::os::unix::fs::symlink("busybox", root.join("bin/sh")).expect("it is new");
            let loader = "lib/ld-musl-x86_64.so.1";
            fs::copy(Path::new("/").join(loader), root.join(loader)).expect("musl is installed");
            fs::write(root.join("etc/alpine-release"), "3.20.0\n").expect("it is ours");
        }
        let archive = bench.root().join(format!("{name}.tar"));
        succeed(
            Command::new("tar")
                .arg("-C")
                .arg(&root)
                .arg("-cf")
                .arg(&archive)
                .arg("."),
        );
        let image = format!("{name}:1");
        succeed(
            machine
                .docker
                .command()
                .arg("import")
                .arg(&archive)
                .arg(&image),
        );
        fs::remove_file(archive).expect("it is ours");
        fs::remove_dir_all(&root).expect("it is ours");

        let mut command = machine.container(&[]);
        if is_musl {
            command.args([
                "--entrypoint=/bin/sh",
                &image,
                "-c",
                "exec /tool \"$@\"",
                "sh",
            ]);
        } else {
            command.args(["--entrypoint=/tool", &image]);
        }
        let output = format!("oci-dir:{name}");
        command.args(["build.yaml", "-v", "--base", &machine.base, "-o", &output]);
        let run = command.output().expect("docker starts");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{name}: {said}");
        assert!(said.contains("runner `chroot`"), "{name}: {said}");
        assert_eq!(String::from_utf8_lossy(&run.stdout).trim(), expected);
        verify(&bench.path(name), "1");
        let mut command = machine.container(&["--entrypoint=/tool", &image]);
        let said = succeed(command.args(["doctor", "--base", &machine.base]));
        assert!(said.contains("chroot: works, and is chosen"), "{said}");
    }
}

#[test]
#[ignore = "long: makes the tool's own image, and runs the recipe for GitLab in it"]
fn gitlabs_recipe_builds_and_pushes() {
    let (Some(machine), Some(tool)) = (Machine::new(), dist()) else {
        return;
    };
    let Some(registry) = Registry::with_login(Login::Password) else {
        return;
    };
    // The tool's image, from the build file beside the recipes, at the root of a checkout.
    let bench = &machine.bench;
    let place = "target/x86_64-unknown-linux-gnu/dist/pyats-image-build";
    bench.write(place, fs::read(tool).expect("it was made"));
    fs::set_permissions(bench.path(place), Permissions::from_mode(0o755)).expect("ours");
    let recipes = repository().join("testdata/ci");
    bench.write(
        "image.yaml",
        fs::read(recipes.join("image.yaml")).expect("there"),
    );
    let name = "registry.example.com/ci/pyats-image-build:1";
    let arguments = ["image.yaml", "--tag", name, "--base", &machine.base];
    bench.path("image.tar");
    let mut command = bench.tool(arguments);
    bench
        .finish(command.args(["-o", "docker-archive:image.tar"]))
        .line();
    machine.docker.load(&bench.path("image.tar"));

    // What GitLab's executor does: the project mounted, variables set, the script read from standard input.
    let project = "builds/team/tests";
    bench.write(&format!("{project}/job.py"), "print('job')\n");
    bench.write(
        &format!("{project}/build.yaml"),
        "tag: tests\npython: 3.11\nsystem-packages: []\nfiles: [job.py]\npackages: [six==1.16.0]\n",
    );
    let job = recipe(&recipes.join("gitlab.yml"));
    assert_eq!(job["image"], name);
    let image = format!("{}/team/tests", registry.host());
    // No name is the beginning of one that comes later.
    let given = [
        ("CI_PROJECT_DIR", "/work/builds/team/tests"),
        ("CI_REGISTRY_IMAGE", &image),
        ("CI_REGISTRY_USER", Registry::USER),
        ("CI_REGISTRY_PASSWORD", Registry::PASSWORD),
        ("CI_COMMIT_REF_SLUG", "main"),
        ("CI", "true"),
    ];
    let mut digests = Vec::new();
    for number in [1, 2] {
        let mut variables: BTreeMap<String, String> = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for (name, value) in job["variables"].as_object().expect("it has variables") {
            let mut value = value.as_str().expect("text").to_owned();
            for (name, known) in given {
                value = value.replace(&format!("${name}"), known);
            }
            variables.insert(name.clone(), value);
        }
        // There is no Docker Hub here.
        let lines = job["script"].as_array().expect("it has a script");
        let lines = lines.iter().map(|line| {
            let line = line.as_str().expect("text");
            line.replace(
                " build.yaml",
                &format!(" build.yaml --base {}", machine.base),
            )
        });
        let script: Vec<_> = lines.collect();
        let script = format!(
            "set -eo pipefail\ncd \"$CI_PROJECT_DIR\"\n{}\n",
            script.join("\n")
        );
        let mut command = machine.container(&["--interactive"]);
        for (name, value) in &variables {
            command.arg(format!("--env={name}={value}"));
        }
        command.args([name, "sh", "-c", "exec bash"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker starts");
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(script.as_bytes()).expect("it listens");
        drop(input);
        let run = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{said}");
        assert!(!said.contains(Registry::PASSWORD), "{said}");
        let folder = bench.path(project);
        let digest = fs::read_to_string(folder.join("digest")).expect("the artifact");
        let tagged = registry.tagged("team/tests", "main");
        assert_eq!(Some(digest.trim()), tagged.as_deref());
        digests.push(digest);
        // GitLab brings the cache back into a fresh project.
        let cache = job["cache"]["paths"][0].as_str().expect("a path");
        assert!(folder.join(cache).is_dir(), "{cache}");
        if number == 2 {
            assert!(
                !said.contains("unpack layers"),
                "the store is not used: {said}"
            );
        }
        fs::remove_file(folder.join("digest")).expect("ours");
    }
}

/// The only job of a file for GitLab.
fn recipe(path: &Path) -> Value {
    let program = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let text = succeed(
        Command::new("/usr/bin/python3")
            .args(["-c", program])
            .arg(path),
    );
    let jobs: BTreeMap<String, Value> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(jobs.len(), 1);
    jobs.into_values().next().expect("one")
}
