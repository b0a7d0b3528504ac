//! Credentials reach pip, and nothing that stays: no layer, config, context, log, error or store.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use fs_err as fs;

use crate::support::{
    Bench, Ftpd, GitRepository, GitWeb, Proxy, Sshd, User, Web, keygen, serve_base, succeed, verify,
};

/// Every secret of these tests holds `pa55`: here it is plain, and as base64 has it at any place of a text.
/// Percent-encoding leaves it as it is.
const SECRETS: [&str; 4] = ["pa55", "cGE1N", "BhNT", "wYTU1"];

/// Python runs such a line of a `.pth` file whenever it starts. This one shows each word of what pip is shown.
const CHATTERBOX: &str = "import os; [print(*open(name).read().translate(dict.fromkeys(map(ord, ':/@'), ' ')).split(), \
     sep='\\n') for name in ('/workspace/installation/requirements.txt', '/venv/pip.conf', *map(os.getenv, \
     ('PIP_CONFIG_FILE', 'NETRC'))) if name and os.path.exists(name)]";

#[test]
fn credentials_reach_pip_and_nothing_else() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let mut wheels = fetch_uv();
    let both = |user| [(user, "pip"), (user, "uv")];
    for (user, installer) in User::ALL.into_iter().flat_map(both) {
        let Some(bench) = Bench::new(user) else {
            continue;
        };
        let wheel = bench.write_wheel(&[]);
        let add = "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'a').writestr('pib.pth', sys.argv[2])";
        let mut python = Command::new("python3");
        succeed(python.args(["-c", add]).arg(&wheel).arg(CHATTERBOX));
        let name = wheel.file_name().expect("a file").display().to_string();
        wheels.insert(name, fs::read(wheel).expect("it was just made"));
        let index = serve_index(wheels.clone());
        // What the build file may say of the index, and the two secrets that may say it.
        let address = index.split(':').next().expect("a host");
        let url = |login: &str| format!("http://{login}{index}/main/simple");
        let key = |login| format!("pip-config:\n  global:\n    index-url: {}\n", url(login));
        let (key, id, secret) = match user {
            User::Root => (key("user:pa55-of-conf@"), "unused", String::new()),
            User::Subids => (
                key(""),
                "netrc",
                format!("machine {address}\nlogin user\npassword pa55-of-conf\n"),
            ),
            User::Plain | User::Few => (
                String::new(),
                "pip.conf",
                format!("[global]\nindex-url = {}\n", url("user:pa55-of-conf@")),
            ),
        };
        bench.write("secret", secret);
        bench.write("token", "pa55-of-token\npa55-again\n");
        bench.write(
            "build.yaml",
            format!(
                "tag: image:1\npython: 3.11\nsystem-packages: []\ninstaller: {installer}\n\
                 packages:\n  - --extra-index-url http://user:%ENV{{LINE}}@{index}/extra/simple\n  - pib-hello\n\
                 {key}cmds:\n  post: |\n    RUN --mount=type=secret,id=token,env=WORD,required \
                 --mount=type=secret,id=token cat /run/secrets/token && echo \"$WORD\" && test -n \"$WORD\" && \
                 sed \"s/pa/pa$(printf '\\033')/\" /run/secrets/token\n"
            ),
        );
        let run = bench.finish(
            bench
                .tool(["build.yaml", "-v", "-k", "-p", "context", "--base", &base])
                .args(["-o", "oci-dir:out", "--metadata-file", "metadata"])
                .args(["--secret", "id=token,src=token"])
                .arg("--secret")
                .arg(format!("id={id},src=secret"))
                .env("LINE", "pa55-of-line"),
        );
        let log = format!("{}{}", run.line(), run.stderr());
        // Two lines of the token three times, and the passwords that the package prints.
        let stars = log
            .lines()
            .filter(|line| line.trim_end().ends_with("| ***"))
            .count();
        assert!(stars >= 8, "the steps show their secrets: {log}");
        let image = verify(&bench.path("out"), "1");
        assert!(
            image.find("venv/bin/pib-hello").is_some(),
            "{installer} was let in"
        );
        assert!(image.find("run/secrets").is_none(), "what was mounted upon");
        let is_given = user != User::Plain;
        assert_eq!(image.find("venv/pip.conf").is_some(), is_given);
        let requirements = "workspace/installation/requirements.txt";
        assert!(image.find(requirements).is_some(), "{requirements}");
        bench.path("context");
        bench.path("metadata");
        fs::write(bench.root().join("log"), log).expect("the bench can be written");

        let own = [
            if user == User::Root {
                "build.yaml"
            } else {
                "secret"
            },
            "token",
        ];
        only_the_users_own_files_hold_secrets(&bench, &[], &own);
    }
}

#[test]
fn credentials_of_sources_reach_servers_and_nothing_else() {
    let Some((_registry, base)) = serve_base() else {
        return;
    };
    let bench = Bench::current();
    let folder = bench.root().join("theirs");
    let repository = GitRepository::new(folder.join("x.git"));
    repository.commit("main", &[("100644", "module.py", "x")]);
    let (Some(web), Some(sshd), Some(ftpd), Some(proxy)) = (
        GitWeb::start(&folder),
        Sshd::start_for(&bench, &[]),
        Ftpd::pyftpdlib(false, false),
        Proxy::http(),
    ) else {
        return;
    };
    web.web.write("private/file", "of http");
    web.web.write("private/netrc", "by netrc");
    fs::write(ftpd.root().join("ftp"), "of ftp").expect("ours");
    // A key of the build file alone: its text is a secret too, whichever of its lines.
    let key = bench.root().join("home/key");
    keygen(&bench, &key, "ed25519", "");
    sshd.authorize(&key);
    let key = fs::read_to_string(key).expect("it was just made");
    let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
    let netrc = bench.root().join("home/.netrc");
    fs::write(
        &netrc,
        "machine 127.0.0.1 login user password pa55-of-web\n",
    )
    .expect("ours");

    let git = web.web.tls_url("private/git/x.git");
    let ssh = format!("ssh://{}{}", sshd.host(), repository.path().display());
    let with = |url: String, login: &str| url.replace("//", &format!("//{login}@"));
    bench.write(
        "build.yaml",
        format!(
            "tag: image:1\npython: 3.11\nsystem-packages: []\nfiles:\n  - {}\n  - {}\n  - {}\nrepositories:\n  \
             by-url: {{url: '{}'}}\n  by-ssh: {{url: '{ssh}', ssh_key: '%ENV{{KEY}}'}}\n  \
             by-login:\n    url: {git}\n    credentials: {{username: user, password: '%ENV{{WORD}}'}}\n\
             proxy: {{HTTP_PROXY: 'http://{}', HTTPS_PROXY: 'http://{}'}}\n",
            with(web.web.tls_url("private/file"), Web::LOGIN),
            web.web.tls_url("private/netrc"),
            with(format!("ftp://{}/ftp", ftpd.address()), "me%40x:pa55%2Fof%20ftp"),
            with(git.clone(), Web::LOGIN),
            proxy.authority(),
            proxy.authority(),
        ),
    );
    let build = |number: u32| {
        let mut command = bench.tool(["build.yaml", "-v", "-k", "-p", "context", "--base", &base]);
        command
            .args(["-o", "oci-dir:out", "--metadata-file", "metadata"])
            .args(["--ca-cert".as_ref(), web.web.authority().as_os_str()])
            .env("KEY", &key)
            .env("WORD", "pa55-of-web");
        let run = bench.finish(&mut command);
        let log = format!("{}{}", run.line(), run.stderr());
        fs::write(bench.root().join(format!("log{number}")), log).expect("ours");
    };
    // The second one asks what changed.
    build(1);
    build(2);
    let image = verify(&bench.path("out"), "1");
    for name in [
        "file",
        "netrc",
        "ftp",
        "by-url/module.py",
        "by-ssh/module.py",
        "by-login/module.py",
    ] {
        assert!(
            image.find(&format!("workspace/{name}")).is_some(),
            "{name} was fetched"
        );
    }
    // What is refused is told without them, too.
    let wrong = with(web.web.tls_url("private/file"), "user:pa55-wrong");
    bench.write(
        "wrong.yaml",
        format!("python: 3.11\nsystem-packages: []\nfiles: ['{wrong}']\n"),
    );
    let mut command = bench.tool(["wrong.yaml", "--base", &base]);
    command.args(["--ca-cert".as_ref(), web.web.authority().as_os_str()]);
    let run = bench.finish(&mut command);
    fs::write(bench.root().join("log3"), run.refusal(1)).expect("ours");
    for name in ["context", "metadata"] {
        bench.path(name);
    }
    // The user's home, the servers' folders and the build files may hold them.
    fs::remove_dir_all(bench.root().join("home/.ssh")).expect("ours");
    fs::remove_file(bench.root().join("home/key")).expect("ours");
    fs::remove_file(netrc).expect("ours");
    only_the_users_own_files_hold_secrets(&bench, &lines, &["build.yaml", "wrong.yaml"]);
}

/// Searches all folders of a bench. The build files, `own`, are the user's, and the only place where secrets
/// (those of all tests, and `more`) are found.
fn only_the_users_own_files_hold_secrets(bench: &Bench, more: &[&str], own: &[&str]) {
    let user = bench.user();
    let words: Vec<String> = SECRETS
        .iter()
        .chain(more)
        .map(|text| regex::escape(text))
        .collect();
    let secrets = regex::bytes::Regex::new(&words.join("|")).expect("plain text");
    let search = || search(bench.root(), &secrets);
    let found = search();
    let own: Vec<_> = own.iter().map(|name| bench.path(name)).collect();
    let others: Vec<_> = found.iter().filter(|path| !own.contains(path)).collect();
    let lines = |path: &std::path::PathBuf| {
        let text = fs::read(path).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        let told: Vec<_> = lines.filter(|line| secrets.is_match(line)).collect();
        String::from_utf8_lossy(&told.join(&b'\n')).into_owned()
    };
    let told: Vec<_> = others.iter().map(|path| lines(path)).collect();
    assert!(
        others.is_empty(),
        "{user:?}: there are secrets in {others:?}: {told:?}"
    );
    for own in own {
        assert!(found.contains(&own), "the search finds what is there");
    }
    // Also in a compressed blob.
    let planted = bench.root().join("planted");
    let mut file = flate2::write::GzEncoder::new(
        fs::File::create(&planted).expect("ours"),
        flate2::Compression::default(),
    );
    file.write_all(b"some text, user:pa55-of-line, more text")
        .expect("ours");
    file.finish().expect("ours");
    assert!(search().contains(&planted));
}

/// The files below `root` that hold a secret, as they are or decompressed.
fn search(root: &Path, secrets: &regex::bytes::Regex) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let kind = entry.file_type().expect("it is there");
            // What was unpacked of the base is not this build's.
            if kind.is_dir() && entry.file_name() != "rootfs" {
                directories.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).expect("root and owners may read");
                let mut plain = Vec::new();
                if bytes.starts_with(&[0x1f, 0x8b]) {
                    let mut gzip = flate2::read::MultiGzDecoder::new(&bytes[..]);
                    gzip.read_to_end(&mut plain)
                        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                }
                if secrets.is_match(&bytes) || secrets.is_match(&plain) {
                    found.push(path);
                }
            }
        }
    }
    found
}

/// uv's wheels for this machine, by their names, as the real index has them.
fn fetch_uv() -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().expect("there is room");
    let venv = folder.path().join("venv");
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    let wheels = folder.path().join("wheels");
    let mut pip = Command::new(venv.join("bin/pip"));
    pip.args([
        "download",
        "-q",
        "--no-deps",
        "--only-binary",
        ":all:",
        "uv==0.13.9",
        "-d",
    ]);
    succeed(pip.arg(&wheels));
    let entries = fs::read_dir(wheels).expect("pip made it").flatten();
    let pair = |entry: fs::DirEntry| {
        let wheel = fs::read(entry.path()).expect("pip wrote it");
        (entry.file_name().display().to_string(), wheel)
    };
    entries.map(pair).collect()
}

/// A package index with wheels that wants a login, one for each of its halves: the first has uv, the second the rest.
/// Gives its address.
fn serve_index(wheels: BTreeMap<String, Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let wheels = wheels.clone();
            std::thread::spawn(move || answer(stream, &wheels));
        }
    });
    address.to_string()
}

fn answer(mut stream: TcpStream, wheels: &BTreeMap<String, Vec<u8>>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut login = String::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line
            .to_ascii_lowercase()
            .strip_prefix("authorization: basic ")
        {
            line[line.len() - value.len()..].clone_into(&mut login);
        }
    }
    let expected = if path.starts_with("/main/") {
        "dXNlcjpwYTU1LW9mLWNvbmY=" // `user:pa55-of-conf`
    } else {
        "dXNlcjpwYTU1LW9mLWxpbmU=" // `user:pa55-of-line`
    };
    let mut parts = path.trim_matches('/').split("/simple/");
    let (half, rest) = (parts.next()?, parts.next()?);
    let (project, file) = rest.split_once('/').unwrap_or((rest, ""));
    // Each half has one of the two, so both logins are needed.
    let has = |name: &str| {
        let of = name.split('-').next().unwrap_or_default().replace('_', "-");
        of == project && (half == "main") == (of == "uv")
    };
    let link = |name: &String| format!("<a href=\"{name}\">{name}</a>\n");
    let page: String = wheels.keys().filter(|name| has(name)).map(link).collect();
    let wheel = wheels.get(file).filter(|_| has(file));
    let (status, kind, body) = match wheel {
        _ if login != expected => (
            "401 Unauthorized\r\nWWW-Authenticate: Basic",
            "text/html",
            &b""[..],
        ),
        Some(wheel) => ("200 OK", "application/octet-stream", &wheel[..]),
        None if file.is_empty() => ("200 OK", "text/html", page.as_bytes()),
        None => ("404 Not Found", "text/html", &b""[..]),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()
}
