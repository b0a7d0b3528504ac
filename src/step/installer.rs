//! The step that installs the packages: by pip, or by uv.
//!
//! uv comes from `PyPI`, or wherever `pip-config` says, by the image's own pip, which knows all about indexes, logins, proxies and
//! authorities; it is held to a digest, and lies with uv's cache outside of the image. `uv.py` does that, tells uv what pip
//! would go by, and removes what is not the same in every build.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::slice;

use serde_json::{Value, json};

use super::{Step, argv, compiling, python, settle};
use crate::buildfile::{Installer, Layout, UV_SETTINGS};
use crate::context::Cloned;
use crate::store;

const RUN_PIP: &str = include_str!("pip.py");
const RUN_UV: &str = include_str!("uv.py");
const CLONES: &str = include_str!("clones.py");

/// The uv that installs packages. Another one makes other keys, and so other steps.
pub(super) const UV: &str = "0.13.9";
/// The wheels of that version that run wherever a Python does that uv knows, and the program in each, by their digests:
/// `x86_64` with glibc, `x86_64` with musl, `aarch64` with either.
const UV_WHEELS: [(&str, &str); 3] = [
    (
        "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19",
        "b73acdf73b96c3ac9e56d2fa933427b3ee6a901e3cce6ba1e3ecb3f91ca0d86a",
    ),
    (
        "2c45530751517d6c3bbc69a19473f6effe47cce047bede01ffd8af7ea7b36b25",
        "edbfb9a3d00dc84148e6691cd8740781fdc32db6505d7ef88ba6c3e569d5bec9",
    ),
    (
        "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe",
        "bbecb5ac518030bb5e84f1999c577228460192832ac24a92bd772735682979f4",
    ),
];

/// Installs the packages of files of requirements, one after the other. `clones` are what git brought for them.
#[must_use]
pub fn packages(
    installer: Installer,
    requirements: &[String],
    clones: &[Cloned],
    settled: i64,
    layout: Layout,
) -> Step {
    let workspace = layout.workspace();
    // Bytecode is compiled by `settle`, on all cores; a cache in the image would only make the layer larger.
    // The words behind a script are for people, and for it.
    let words = match installer {
        Installer::Pip => [
            python(&run_pip(settled, workspace), layout),
            argv(&["pip", "install", "--no-compile", NO_CACHE, "-r"]),
        ],
        Installer::Uv => [
            python(&run_uv(workspace), layout),
            argv(&["uv", "pip", "install", "-r"]),
        ],
    }
    .concat();
    let install = |file: &String| [&words, slice::from_ref(file)].concat();
    let mut commands: Vec<_> = requirements.iter().map(install).collect();
    if !clones.is_empty() {
        let script = |function: &str| format!("{}{CLONES}\n\n{function}()\n", constant(clones));
        commands.insert(0, python(&script("place"), layout));
        commands.push(python(&script("record"), layout));
    }
    commands.push(settle(settled, layout));
    let name = match installer {
        Installer::Pip => "pip",
        Installer::Uv => "uv pip",
    };
    let names: Vec<_> = requirements
        .iter()
        .map(|file| format!("{name} install -r {file}"))
        .collect();
    Step {
        name: "packages",
        created_by: names.join(" && "),
        commands,
        // Both ask for the owners of many files, and need none but root.
        emulate: false,
    }
}

/// The constant of `clones.py`: a list of nothing but texts, for which JSON is valid Python.
fn constant(clones: &[Cloned]) -> String {
    let clones = clones.iter().map(|clone| {
        json!({
            "place": clone.place,
            "editable": clone.editable.as_deref().unwrap_or_default(),
            "url": clone.url,
            "commit": clone.commit,
            "revision": clone.revision.as_deref().unwrap_or_default(),
        })
    });
    format!("CLONES = {}\n", clones.collect::<Value>())
}

/// The script that runs pip in the workspace.
fn run_pip(settled: i64, workspace: &str) -> String {
    format!("WORKSPACE = '{workspace}'\n{}", compiling(settled, RUN_PIP))
}

/// The script that gets uv and runs it in the workspace, behind the constants that it reads.
fn run_uv(workspace: &str) -> String {
    let wheels = UV_WHEELS.map(|(wheel, _)| wheel);
    let programs = UV_WHEELS.map(|(_, program)| program);
    let settings: BTreeMap<_, _> = UV_SETTINGS.into_iter().collect();
    // JSON that holds nothing but texts is Python as well.
    let constants = [
        ("VERSION", store::json(&UV)),
        ("WHEELS", store::json(&wheels)),
        ("PROGRAMS", store::json(&programs)),
        ("SETTINGS", store::json(&settings)),
        ("WORKSPACE", store::json(&workspace)),
    ];
    let line =
        |(name, json): (&str, Vec<u8>)| format!("{name} = {}\n", String::from_utf8_lossy(&json));
    constants.map(line).concat() + RUN_UV
}

/// The word that keeps pip from leaving a cache in a layer. uv gets it from its script.
const NO_CACHE: &str = "--no-cache-dir";

/// Where an installer keeps downloads and wheels.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// The variable that tells where.
    pub variable: &'static str,
    /// The variable that tells it to keep none.
    pub none: &'static str,
    /// Where that is shown, in no layer.
    pub place: &'static str,
}

/// Where uv keeps them; and what it installed, compiled, see `bytecode.py`.
pub(super) const UV_CACHE: &str = "/dev/.pyats-image-build/uv";

/// Where `installer` keeps downloads and wheels.
#[must_use]
pub const fn kept(installer: Installer) -> Kept {
    match installer {
        Installer::Pip => Kept {
            variable: "PIP_CACHE_DIR",
            none: "PIP_NO_CACHE_DIR",
            place: "/dev/.pyats-image-build/pip",
        },
        Installer::Uv => Kept {
            variable: "UV_CACHE_DIR",
            none: "UV_NO_CACHE",
            place: UV_CACHE,
        },
    }
}

impl Step {
    /// Lets the installer have its cache, which lies outside of the image, unless `env` says something else of that; gives
    /// the variable that was added there.
    pub fn use_cache(
        &mut self,
        kept: Kept,
        env: &mut Vec<(OsString, OsString)>,
    ) -> Option<OsString> {
        if env
            .iter()
            .any(|(name, _)| name == kept.variable || name == kept.none)
        {
            return None;
        }
        for command in &mut self.commands {
            command.retain(|word| word != NO_CACHE);
        }
        env.push((kept.variable.into(), kept.place.into()));
        Some(kept.variable.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    use fs_err as fs;

    use super::*;

    /// What the script tells uv: its arguments and variables, or the script's last words.
    fn told(python: &Path, pip_conf: &str, requirements: &str, env: &[(&str, &str)]) -> Value {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let requirements = write("requirements.txt", requirements);
        let script = run_uv("/");
        let script = script.strip_suffix("\nmain()\n").unwrap().to_owned()
            + "\nimport json\nfrom pip._internal.utils import appdirs\nappdirs.site_config_dirs = lambda name: []\nfound = {}\ntold = tell(settings(sys.argv[1]), found)\nprint(json.dumps([told, found]))\n";
        let output = Command::new(python)
            .args(["-c", &script])
            .arg(requirements)
            .env_clear()
            .env("HOME", folder.path())
            .env("PIP_CONFIG_FILE", write("pip.conf", pip_conf))
            .envs(env.iter().copied())
            .output()
            .unwrap();
        if !output.status.success() {
            let errors = String::from_utf8(output.stderr).unwrap();
            return errors.lines().last().unwrap().into();
        }
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[test]
    fn uv_is_told_what_pip_would_go_by() {
        let folder = tempfile::tempdir().unwrap();
        let venv = Command::new("python3")
            .args(["-m", "venv"])
            .arg(folder.path())
            .status();
        assert!(venv.unwrap().success());
        let python = folder.path().join("bin/python");
        let told = |conf: &str, requirements: &str, env: &[(&str, &str)]| {
            told(&python, conf, requirements, env)
        };
        assert_eq!(told("", "a\n", &[]), json!([[], {}]));
        let indexes = "[global]\nindex-url = https://me:pw@a/simple\nextra-index-url =\n  https://b\n  https://c\n\
                       find-links = /one\n  https://two\n[search]\nindex = https://d\n";
        let variables = json!({
            "UV_DEFAULT_INDEX": "https://me:pw@a/simple",
            "UV_INDEX": "https://b https://c",
            "UV_FIND_LINKS": "/one,https://two",
        });
        assert_eq!(told(indexes, "a\n", &[]), json!([[], variables]));
        // The section of the command wins over the global one, and the environment over both.
        let conf = "[install]\ntimeout = 7\nretries = 2\n[global]\ntimeout = 5\nretries = 3\nproxy = http://p:1\n";
        let proxy = "http://p:1";
        let variables = json!({
            "UV_HTTP_TIMEOUT": "9", "UV_HTTP_RETRIES": "2",
            "HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "http_proxy": proxy, "https_proxy": proxy,
        });
        let env = [("PIP_DEFAULT_TIMEOUT", "9")];
        assert_eq!(told(conf, "a\n", &env), json!([[], variables]));
        // Switches, lists and what says nothing.
        let conf = "[global]\nno_index = yes\npre = false\ntrusted-host = a\n  b:80\nno-binary = c,d\nformat = columns\n\
                    constraint = /e\ncert = /f\n";
        let arguments = [
            "--constraints",
            "/e",
            "--no-binary",
            "c",
            "--no-binary",
            "d",
            "--no-index",
            "--allow-insecure-host",
            "a",
            "--allow-insecure-host",
            "b:80",
        ];
        assert_eq!(
            told(conf, "a\n", &[]),
            json!([arguments, {"SSL_CERT_FILE": "/f"}])
        );
        // What uv does not read in a file of requirements.
        let requirements = "--pre\n--trusted-host=a\n--trusted-host b\n--extra-index-url c\n# --require-hashes\nd # --prefer-binary\n";
        let arguments = [
            "--prerelease=allow",
            "--allow-insecure-host",
            "a",
            "--allow-insecure-host",
            "b",
        ];
        assert_eq!(told("", requirements, &[]), json!([arguments, {}]));
        let hashes = "a==1 \\\n    --hash=sha256:00\n";
        assert_eq!(told("", hashes, &[]), json!([["--require-hashes"], {}]));
        // What it has nothing like.
        let message =
            |name: &str| format!("error: uv has nothing like {name}: `installer: pip` goes by it");
        for (conf, env, name) in [
            ("[install]\nprefer-binary = 1\n", None, "prefer-binary"),
            ("", Some(("PIP_TARGET", "/x")), "target"),
        ] {
            let env: Vec<_> = env.into_iter().collect();
            let setting = format!("pip's setting `{name}`");
            assert_eq!(told(conf, "a\n", &env), message(&setting));
        }
        let refusal = told("", "--prefer-binary\n", &[]);
        assert!(
            refusal
                .as_str()
                .unwrap()
                .starts_with("error: uv has nothing like the option `--prefer-binary` in")
        );
    }

    #[test]
    fn what_was_compiled_ahead_is_what_is_compiled_later() {
        const WHEEL: &str = r#"
import os, sys, zipfile
os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    names = ['many/m%03d.py' % number for number in range(300)] + ['many/broken.py', 'one-1.data/scripts/s.py']
    for name in names:
        text = 'no python' if 'broken' in name else 'def %s(a=(1, 2)):\n    return "long text", a\n' % name[5:9]
        wheel.writestr(name, text)
    wheel.writestr('one-1.dist-info/METADATA', 'Metadata-Version: 2.1\nName: one\nVersion: 1\n')
    wheel.writestr('one-1.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    # No such file.
    wheel.writestr('many/bad-1.dist-info/RECORD', 'x' * 200000)
    names += ['one-1.dist-info/' + name for name in ('METADATA', 'WHEEL', 'RECORD')]
    wheel.writestr('one-1.dist-info/RECORD', ''.join(name + ',,\n' for name in names))
"#;
        const UNTIL_DONE: &str = r#"
group = start()
while len(glob.glob(os.path.join(AHEAD, "?" * 64))) < 3:
    time.sleep(0.01)
stop(group)
"#;
        let place = tempfile::tempdir().unwrap();
        let venv = place.path().join("venv");
        let python = venv.join("bin/python");
        let wheel = place.path().join("pip-unpack-x/one-1-py3-none-any.whl");
        let wheel = wheel.to_str().unwrap();
        let run = |program: &Path, words: &[&str]| {
            let output = Command::new(program)
                .args(words)
                .env("TMPDIR", place.path())
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .env("PYTHONHASHSEED", "0")
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let inodes = |folder: &str| {
            let folder = venv.join(folder);
            let found = run(
                Path::new("find"),
                &[folder.to_str().unwrap(), "-type", "f", "-printf", "%i\n"],
            );
            found.lines().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let mut seen = Vec::new();
        for compile_ahead in [false, true] {
            run(
                Path::new("python3"),
                &["-m", "venv", "--clear", venv.to_str().unwrap()],
            );
            run(&python, &["-c", WHEEL, wheel]);
            let script = run_pip(0, "/");
            let mut compiled = BTreeSet::new();
            if compile_ahead {
                let (functions, _) = script.split_once("\ndel sys.argv[0]\n").unwrap();
                run(&python, &["-c", &(functions.to_owned() + UNTIL_DONE)]);
                compiled = inodes(".bytecode");
                assert_eq!(compiled.len(), 300);
            }
            let words = ["pip", "install", "--no-compile", "--no-index", wheel];
            run(&python, &[&["-c", &*script][..], &words].concat());
            run(&python, &["-c", &compiling(0, "settle()\n")]);
            assert!(!venv.join(".bytecode").exists());
            // It was not compiled once more.
            assert!(compiled.is_subset(&inodes("lib")));
            let digests = r#"find "$0" -name '*.pyc' -path '*/many/*' | sort | xargs sha256sum"#;
            let lib = venv.join("lib");
            seen.push(run(
                Path::new("sh"),
                &["-c", digests, lib.to_str().unwrap()],
            ));
        }
        assert_eq!(seen[0].lines().count(), 300);
        assert_eq!(seen[0], seen[1]);
    }
}
