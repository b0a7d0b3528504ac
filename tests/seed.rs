//! The examples of the ancestor's document build as they stand: replaced are hosts (and folders of the
//! author's machine), names of packages and wheels, ids of commits, and the version of Python; `cmds` is
//! left out.

use std::path::Path;

use fs_err as fs;
use serde_json::Value;

use crate::support::{
    Bench, Ftpd, GitRepository, GitWeb, Image, Proxy, Sshd, User, serve_base, verify,
};

/// The document's example of a whole build file.
pub(crate) const WHOLE: &str = r#"
tag: "mypyatsimage:latest" # Docker tag for the image once it is built
python: 3.11 # Python version to use as base Docker image
env: # Mapping to set as environment variables in the image
  VAR1: VALUE1
  VAR2: VALUE2
files: # List of files/directories to copy to the image
    # A single file/dir on local host
  - /path/to/file1
    # A key can be given to provide a new name for the file
  - myfile_2: /path/to/file2
    # A key can also change the destination location
  - dirname/file3: /path/to/file3
    # Files can be downloaded from a web address
  - "https://webaddress.com/path/to/file4"
    # Keys work to rename files retrieved in any manner
  - myfile_5: "https://webaddress/path/to/file5"
    # Also supports scp
  - "scp://remotehost/path/to/file6"
    # Also supports ftp
  - "ftp://remotehost:2121/path/to/file7"
packages: # List of python packages to install
  - pyats[full]
  - otherpackage1==1.0 # Supports package version restrictions
  - otherpackage2==2.0
pip-config: # Values to be converted into a pip.conf file
  # [global]
  # disable-pip-version-check = 1
  global:
    disable-pip-version-check: 1
repositories: # Mapping of all git repositories to clone
  reponame: # Key is the name of the directory to clone to
    # Url to remote git repo
    url: "ssh://git@address/path/to/repo.git"
    # Optional commit ID to switch to after cloning
    commit_id: abcd1234
  dirname/repo2name: # Key supports cloning into a subdirectory
    url: "https://address/path/to/repo2.git"
snapshot: /path/to/snapshot/file.yaml # pyATS environment snapshot file
proxy: # Specific proxy arguments used by Docker during image building
  HTTP_PROXY: "http://127.0.0.1:1111"
  HTTPS_PROXY: "https://127.0.0.1:1111"
  FTP_PROXY: "ftp://127.0.0.1:1111"
  NO_PROXY: "*.test.example.com,.example2.com"
"#;

/// Its other examples: variables for Python's search, both forms of `pip-config`, and a wheel by scp.
pub(crate) const OTHERS: [&str; 4] = [
    r"
env:
  PYTHONPATH: ${WORKSPACE}/repo1dir/:${WORKSPACE}/repo2dir/
repositories:
  repo1:
    url: 'ssh://git@address/path/to/a/repo.git'
  repo2:
    url: 'ssh://git@address/path/to/another/repo.git'
",
    r#"
pip-config:
  global:
    format: columns
    no-cache-dir: false
    trusted-host:
      - pypi.python.org
      - pyats-pypi.cisco.com
    index-url: "http://pyats-pypi.cisco.com/simple"
    disable-pip-version-check: 1
  search:
    index: "http://pyats-pypi.cisco.com"
"#,
    r"
pip-config: |
  [global]
  format = columns
  no-cache-dir = false
  trusted-host = pypi.python.org
          pyats-pypi.cisco.com
  index-url = http://pyats-pypi.cisco.com/simple
  disable-pip-version-check = 1

  [search]
  index = http://pyats-pypi.cisco.com
",
    r#"
files:
  - "scp://remotehost/path/to/packagename.whl"
packages:
  - ${WORKSPACE}/packagename.whl
"#,
];

/// Applies replacements, each of which must have something to replace.
fn adapted(text: &str, replacements: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in replacements {
        assert!(text.contains(from), "`{from}` is not in {text}");
        text = text.replace(from, to);
    }
    text
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("it is in a folder")).expect("ours");
    fs::write(path, text).expect("ours");
}

#[test]
fn the_whole_example_builds() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    let home = bench.root().join("theirs");
    let repository = GitRepository::new(home.join("path/to/repo.git"));
    let wanted = repository.commit("main", &[("100644", "suite.py", "wanted")]);
    repository.commit("main", &[("100644", "suite.py", "newer")]);
    GitRepository::new(home.join("path/to/repo2.git"))
        .commit("main", &[("100644", "two.py", "two")]);
    let (Some(web), Some(sshd), Some(ftpd), Some(proxy)) = (
        GitWeb::start(&home),
        Sshd::start_for(&bench, &[]),
        Ftpd::pyftpdlib(true, false),
        Proxy::http(),
    ) else {
        return;
    };
    fs::create_dir_all(web.web.write("x", "").with_file_name("path/to")).expect("ours");
    for number in [4, 5] {
        web.web
            .write(&format!("path/to/file{number}"), format!("file{number}"));
    }
    write(&ftpd.root().join("path/to/file7"), "file7");
    for number in [1, 2, 3, 6] {
        write(
            &home.join(format!("path/to/file{number}")),
            &format!("file{number}"),
        );
    }
    let snapshot = "packages: [idna==3.7]\nrepositories: {}\n";
    write(&home.join("path/to/snapshot/file.yaml"), snapshot);

    let tls = web.web.tls_url("");
    let [folder, ssh] = [home.display().to_string(), ssh_host(&sshd)];
    let text = adapted(
        WHOLE,
        &[
            ("https://webaddress.com/", &tls),
            ("https://webaddress/", &tls),
            ("https://address/path", &format!("{tls}git/path")),
            (" /path", &format!(" {folder}/path")),
            (
                "scp://remotehost/path",
                &format!("scp://{ssh}{folder}/path"),
            ),
            (
                "ssh://git@address/path",
                &format!("ssh://{ssh}{folder}/path"),
            ),
            ("remotehost:2121", ftpd.address()),
            ("abcd1234", &wanted[..8]),
            ("127.0.0.1:1111", &proxy.authority()),
            ("pyats[full]", "packaging"),
            ("otherpackage1==1.0", "six==1.16.0"),
            ("otherpackage2==2.0", "toml==0.10.2"),
        ],
    );
    bench.write("build.yaml", text);
    bench.path("out");
    let authority = web.web.authority().display().to_string();
    let mut command = bench.tool(["build.yaml", "--base", &base, "-o", "oci-dir:out"]);
    command.args(["-k", "-p", "context"]);
    let run = bench.finish(command.args(["--ca-cert", &authority]));
    run.line();
    assert!(!run.stderr().contains("pa55"), "{}", run.stderr());

    let image = verify(&bench.path("out"), "latest");
    holds_all(&image, &bench.path("context/image/workspace"), &wanted);
    for host in [
        "pypi.org",
        &web.web.tls_url("")[8..17],
        &ftpd.address()[..9],
    ] {
        assert!(
            proxy.log().contains(host),
            "{host} was reached without the proxy"
        );
    }
    let text = image.config.to_string().to_lowercase();
    assert!(!text.contains("proxy"), "a proxy is in the config");
}

/// Holds that an image and its context have what the whole example names; of the first repository, this
/// commit.
fn holds_all(image: &Image, workspace: &Path, commit: &str) {
    let read = |name: &str| fs::read_to_string(workspace.join(name)).expect(name);
    for (name, content) in [
        ("file1", "file1"),
        ("myfile_2", "file2"),
        ("dirname/file3", "file3"),
        ("file4", "file4"),
        ("myfile_5", "file5"),
        ("file6", "file6"),
        ("file7", "file7"),
        ("reponame/suite.py", "wanted"),
        ("dirname/repo2name/two.py", "two"),
        (
            "installation/snapshot.yaml",
            "packages:\n  - idna==3.7\nrepositories: {}\n",
        ),
    ] {
        assert_eq!(read(name), content, "{name}");
        assert!(image.find(&format!("workspace/{name}")).is_some(), "{name}");
    }
    assert_eq!(image.env("VAR2"), Some("VALUE2"));
    for module in ["idna", "six.py", "toml", "packaging"] {
        let name = format!("venv/lib/python3.11/site-packages/{module}");
        assert!(image.find(&name).is_some(), "{name}");
    }
    let repos: Value = serde_json::from_str(&read("installation/repos.json")).expect("JSON");
    assert_eq!(repos["/workspace/reponame"]["commit"], commit);
    assert_eq!(repos["/workspace/reponame"]["path"], "/workspace/reponame");
    assert!(image.find("workspace/reponame/.git").is_none());
}

#[test]
fn every_other_example_builds() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::new(User::current()).expect("everybody can be himself");
    let Some(sshd) = Sshd::start_for(&bench, &[]) else {
        return;
    };
    let wheel = bench.write_wheel(&[]);
    let home = bench.root().join("theirs");
    for name in ["a/repo.git", "another/repo.git"] {
        let repository = GitRepository::new(home.join("path/to").join(name));
        repository.commit("main", &[("100644", "module.py", name)]);
    }
    let name = wheel
        .file_name()
        .expect("it has one")
        .to_string_lossy()
        .into_owned();
    fs::copy(&wheel, home.join("path/to").join(&name)).expect("ours");
    let [folder, ssh] = [home.display().to_string(), ssh_host(&sshd)];
    let [git, scp] = ["ssh", "scp"].map(|scheme| format!("{scheme}://{ssh}{folder}/path"));
    let replacements: [&[(&str, &str)]; 4] = [
        &[("ssh://git@address/path", &git)],
        &[],
        &[],
        &[("scp://remotehost/path", &scp), ("packagename.whl", &name)],
    ];
    let mut files = Vec::new();
    for (number, (text, replacements)) in OTHERS.iter().zip(replacements).enumerate() {
        let text = adapted(text, replacements);
        bench.write(
            "build.yaml",
            format!("tag: other:{number}\npython: 3.11\nsystem-packages: []\n{text}"),
        );
        let out = format!("out{number}");
        bench.path(&out);
        let [output, context] = [format!("oci-dir:{out}"), format!("context{number}")];
        let pip_conf = bench.path(&context).join("image/venv/pip.conf");
        let run = bench.run([
            "build.yaml",
            "--base",
            &base,
            "-o",
            &output,
            "-k",
            "-p",
            &context,
        ]);
        run.line();
        let image = verify(&bench.path(&out), &number.to_string());
        match number {
            0 => assert_eq!(
                image.env("PYTHONPATH"),
                Some("/workspace/repo1dir/:/workspace/repo2dir/")
            ),
            3 => assert!(image.find("venv/bin/pib-hello").is_some()),
            _ => {
                assert!(image.find("venv/pip.conf").is_some());
                files.push(fs::read_to_string(pip_conf).expect("it was staged"));
            }
        }
    }
    // The two forms of `pip-config` are the same to its reader.
    let [mapping, text] =
        [&files[0], &files[1]].map(|file| file.split_whitespace().collect::<Vec<_>>());
    assert_eq!(mapping, text);
}

/// `user@host:port`
fn ssh_host(sshd: &Sshd) -> String {
    let user = crate::support::succeed(std::process::Command::new("id").arg("-un"));
    format!("{}@{}", user.trim(), sshd.host())
}
