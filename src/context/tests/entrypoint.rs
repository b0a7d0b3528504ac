//! The entrypoint under the shells that images have.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use fs_err as fs;

use crate::context::ENTRYPOINT;

/// A virtual environment, a workspace, and the script.
fn setup() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let made = Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(at("venv"))
        .status();
    assert!(made.unwrap().success());
    fs::create_dir(at("work space")).unwrap();
    fs::write(at("entrypoint.sh"), ENTRYPOINT).unwrap();
    directory
}

fn run(shell: &str, directory: &Path, venv: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(shell)
        .arg(directory.join("entrypoint.sh"))
        .args(arguments)
        .env("VIRTUAL_ENV", directory.join(venv))
        .env("WORKSPACE", directory.join("work space"))
        .env("PYTHONHOME", "/nowhere")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_command_runs_in_the_virtual_environment_and_the_workspace() {
    let directory = setup();
    let path = directory.path().canonicalize().unwrap();
    fs::create_dir(path.join("bare")).unwrap();
    for shell in ["dash", "bash"] {
        let script = "import os, sys; print(sys.prefix, os.getcwd(), sys.argv[1:]); sys.exit(7)";
        let output = run(
            shell,
            &path,
            "venv",
            &["python", "-c", script, "a b", ""],
            "",
        );
        let text = format!("{0}/venv {0}/work space ['a b', '']\n", path.display());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{shell}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{shell}");
        assert_eq!(output.status.code(), Some(7), "{shell}");

        // Without a virtual environment the variables are set all the same.
        let script = "echo \"${PATH%%:*} $VIRTUAL_ENV ${PYTHONHOME-unset}\"";
        let output = run(shell, &path, "bare", &["sh", "-c", script], "");
        let text = format!("{0}/bare/bin {0}/bare unset\n", path.display());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{shell}");

        // Without a command there is a shell.
        let output = run(
            shell,
            &path,
            "venv",
            &[],
            "echo ${BASH_VERSION:+bash}; pwd; exit 3\n",
        );
        let text = format!("bash\n{}/work space\n", path.display());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{shell}");
        assert_eq!(output.status.code(), Some(3), "{shell}");

        assert_eq!(
            run(shell, &path, "venv", &["no-such-command"], "")
                .status
                .code(),
            Some(127)
        );
    }
}

#[test]
fn the_command_takes_the_place_of_the_shell() {
    let directory = setup();
    let mut child = Command::new("sh")
        .arg(directory.path().join("entrypoint.sh"))
        .args(["sh", "-c", "echo $$"])
        .env("VIRTUAL_ENV", directory.path().join("venv"))
        .env("WORKSPACE", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let mut text = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut text).unwrap();
    child.wait().unwrap();
    assert_eq!(text.trim(), id.to_string());
}
