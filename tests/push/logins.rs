//! Where logins come from, and who may do what with them.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use fs_err as fs;

use super::{FAILED, policy, pull, pull_run, push, refused, small, tool};
use crate::support::{
    Bench, Failure, Login, Noise, Registry, Run, Settings, Tokens, skopeo_manifest, succeed,
};

/// A registry with a password, and an image for it.
fn guarded(bench: &Bench) -> Option<(Registry, Noise)> {
    let settings = Settings {
        login: Login::Password,
        ..Settings::default()
    };
    Some((Registry::with(&settings)?, small(bench)))
}

/// `user:password`, as files of logins hold it.
fn auth() -> String {
    let login = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    base64::prelude::BASE64_STANDARD.encode(login)
}

/// A push with these variables.
fn push_with(bench: &Bench, env: &[(&str, &str)], image: &Noise, reference: &str) -> Run {
    let mut command = tool(bench, &["push", &image.image(), reference]);
    bench.finish(command.envs(env.iter().copied()))
}

#[test]
fn files_and_variables() {
    let bench = Bench::current();
    let Some((registry, image)) = guarded(&bench) else {
        return;
    };
    let host = registry.host();
    let good = format!(r#"{{"auths": {{"{host}": {{"auth": "{}"}}}}}}"#, auth());
    let root = bench.root().display().to_string();
    let write = |name: &str| {
        let path = bench.root().join("home").join(name);
        fs::create_dir_all(path.parent().expect("it is below")).expect("the home is ours");
        fs::write(&path, &good).expect("the home is ours");
        path
    };
    let folder = |name: &str| format!("{root}/home/{name}");
    let mut number = 0;
    let mut works = |name: &str, variables: &[(&str, &str)]| {
        number += 1;
        let reference = registry.reference(&format!("team/image:{number}"));
        let path = write(name);
        let run = push_with(&bench, variables, &image, &reference);
        assert_eq!(
            run.line(),
            format!("{reference}@{}", image.digest),
            "{name}"
        );
        fs::remove_file(path).expect("it was made here");
        // Without it, nobody is let in.
        let reference = registry.reference(&format!("team/image:x{number}"));
        let run = push_with(&bench, variables, &image, &reference);
        refused(&run, FAILED, &[&host]);
    };
    works(".docker/config.json", &[]);
    works(".config/containers/auth.json", &[]);
    works(
        "docker/config.json",
        &[("DOCKER_CONFIG", &folder("docker"))],
    );
    works(
        "config/containers/auth.json",
        &[("XDG_CONFIG_HOME", &folder("config"))],
    );
    works(
        "run/containers/auth.json",
        &[("XDG_RUNTIME_DIR", &folder("run"))],
    );
    works("some/file", &[("REGISTRY_AUTH_FILE", &folder("some/file"))]);
    let name = ("PYATS_IMAGE_BUILD_USERNAME", Registry::USER);
    let word = ("PYATS_IMAGE_BUILD_PASSWORD", Registry::PASSWORD);
    let reference = registry.reference("team/image:environment");
    push_with(&bench, &[name, word], &image, &reference).line();

    let file = bench.write("auth.json", &good).display().to_string();
    let reference = registry.reference("team/image:authfile");
    let arguments = ["push", "--authfile", &file, &image.image(), &reference];
    bench.finish(&mut tool(&bench, &arguments)).line();
    pull(&["--authfile", &file], &image, &reference);
}

/// Puts a helper into a folder for the `PATH`, which it returns.
fn helper(bench: &Bench, script: &str) -> String {
    let path = bench.write("bin/docker-credential-tester", script);
    fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let folder = path.parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{folder}:{path}")
}

#[test]
fn helpers() {
    let bench = Bench::current();
    let Some((registry, image)) = guarded(&bench) else {
        return;
    };
    let host = registry.host();
    let script = format!(
        "#!/bin/sh\nread server\n[ \"$1 $server\" = 'get {host}' ] || exit 1\n\
         echo '{{\"ServerURL\":\"{host}\",\"Username\":\"{}\",\"Secret\":\"{}\"}}'\n",
        Registry::USER,
        Registry::PASSWORD
    );
    let path = helper(&bench, &script);
    let configs = [
        format!(r#"{{"credHelpers": {{"{host}": "tester"}}}}"#),
        r#"{"credsStore": "tester"}"#.to_owned(),
        // An entry without content says that the helper has the login.
        format!(r#"{{"auths": {{"{host}": {{}}}}, "credsStore": "tester"}}"#),
    ];
    for (number, config) in configs.iter().enumerate() {
        let file = bench.write("config.json", config).display().to_string();
        let reference = registry.reference(&format!("team/image:{number}"));
        let variables = [("PATH", path.as_str()), ("REGISTRY_AUTH_FILE", &file)];
        push_with(&bench, &variables, &image, &reference).line();
    }
    let file = bench
        .write("config.json", &configs[0])
        .display()
        .to_string();
    let reference = registry.reference("team/image:refused");
    let variables = [("PATH", path.as_str()), ("REGISTRY_AUTH_FILE", &file)];
    for (script, words) in [
        (
            "echo the vault is locked >&2; exit 1",
            &["tester", "the vault is locked", "config.json"][..],
        ),
        ("echo pa55 is no JSON", &["tester", "config.json"]),
        ("exit 0", &["tester", "config.json"]),
    ] {
        helper(&bench, &format!("#!/bin/sh\n{script}\n"));
        refused(
            &push_with(&bench, &variables, &image, &reference),
            FAILED,
            words,
        );
    }
    let words = ["docker-credential-tester", "config.json", "hint: "];
    let run = push_with(&bench, &variables[1..], &image, &reference);
    refused(&run, FAILED, &words);
    assert_eq!(registry.tagged("team/image", "refused"), None);
}

#[test]
fn a_helper_that_fails_keeps_nobody_from_pulling_what_is_public() {
    let bench = Bench::current();
    let Some(tokens) = Tokens::start(policy(0)) else {
        return;
    };
    let Some(registry) = Registry::with_login(Login::Tokens(&tokens)) else {
        return;
    };
    let Some(open) = Registry::beside(&registry) else {
        return;
    };
    let image = small(&bench);
    let config = r#"{"credsStore": "missing"}"#;
    let file = bench.write("config.json", config).display().to_string();
    let authfile = ["--authfile", &file];
    push(&bench, &[], &image, &open.reference("public/image:1"));
    let run = pull_run(&bench, &authfile, &registry.reference("public/image:1"));
    // What was pulled has no Python.
    run.refusal(FAILED);
    let told = run
        .stderr()
        .matches("is asked without a login: the credential helper");
    assert_eq!(told.count(), 1, "{}", run.stderr());
    // What is not public is refused for want of a login, and this is why there is none.
    push(&bench, &[], &image, &open.reference("team/image:1"));
    let words = ["docker-credential-missing", "config.json", "hint: "];
    let run = pull_run(&bench, &authfile, &registry.reference("team/image:1"));
    refused(&run, FAILED, &words);
    let (source, reference) = (image.image(), registry.reference("team/image:2"));
    let arguments = [&["push"], &authfile[..], &[&source, &reference]].concat();
    refused(&bench.finish(&mut tool(&bench, &arguments)), FAILED, &words);
}

#[test]
fn login_and_logout() {
    let bench = Bench::current();
    let Some((registry, image)) = guarded(&bench) else {
        return;
    };
    let host = registry.host();
    let file = bench.root().join("home/.docker/config.json");
    let login = |arguments: &[&str], password: &str| {
        let mut command = tool(&bench, &[&["login"], arguments].concat());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = bench.write("password", password);
        command.stdin(fs::File::open(input).expect("ours").into_parts().0);
        bench.finish(&mut command)
    };
    // A login that does not work is not kept.
    let run = login(
        &["-u", Registry::USER, "--password-stdin", &host],
        "pa55-wrong",
    );
    refused(&run, FAILED, &[&host, "401"]);
    assert!(!file.exists());
    let ways: [&[&str]; 2] = [
        &["-u", Registry::USER, "--password-stdin", &host],
        &["-u", Registry::USER, "-p", Registry::PASSWORD, &host],
    ];
    for (number, way) in ways.iter().enumerate() {
        let run = login(way, &format!("{}\n", Registry::PASSWORD));
        assert_eq!(run.status(), Some(0), "{}", run.stderr());
        assert!(!format!("{}{}", run.stdout(), run.stderr()).contains("pa55"));
        let mode = fs::metadata(&file)
            .expect("it was kept")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let reference = registry.reference(&format!("team/image:{number}"));
        push_with(&bench, &[], &image, &reference).line();
        // skopeo reads the same file.
        let mut command = bench.command("skopeo");
        command.args(["inspect", "--raw", "--tls-verify=false", "--authfile"]);
        let manifest = succeed(command.arg(&file).arg(format!("docker://{reference}")));
        assert_eq!(manifest.as_bytes(), image.manifest);
        let run = bench.finish(&mut tool(&bench, &["logout", &host]));
        assert_eq!(run.status(), Some(0), "{}", run.stderr());
        assert!(run.stderr().contains("[BENCH]/home/.docker/config.json"));
        let run = push_with(&bench, &[], &image, &registry.reference("team/image:x"));
        refused(&run, FAILED, &[&host]);
    }
    // We read what skopeo keeps.
    let other = bench.path("auth.json").display().to_string();
    let mut command = Command::new("skopeo");
    command.args(["login", "--tls-verify=false", "--authfile", &other]);
    succeed(command.args(["-u", Registry::USER, "-p", Registry::PASSWORD, &host]));
    let variables = [("REGISTRY_AUTH_FILE", other.as_str())];
    push_with(
        &bench,
        &variables,
        &image,
        &registry.reference("team/image:skopeo"),
    )
    .line();
    let run = bench.finish(tool(&bench, &["logout", "--all"]).envs(variables));
    assert_eq!(run.status(), Some(0), "{}", run.stderr());
    assert!(run.stderr().contains("[BENCH]/work/auth.json"));
    let left = fs::read_to_string(&other).unwrap_or_default();
    assert!(!left.contains(&host), "{left}");
}

#[test]
fn identity_tokens() {
    let bench = Bench::current();
    let Some(tokens) = Tokens::start(policy(0)) else {
        return;
    };
    let Some(registry) = Registry::with_login(Login::Tokens(&tokens)) else {
        return;
    };
    let image = small(&bench);
    let host = registry.host();
    let identity = Tokens::identity("writer");
    let auth = base64::prelude::BASE64_STANDARD.encode("00000000-0000-0000-0000-000000000000:");
    let entry = format!(r#"{{"auth": "{auth}", "identitytoken": "{identity}"}}"#);
    let config = format!(r#"{{"auths": {{"{host}": {entry}}}}}"#);
    let file = bench.write("config.json", config).display().to_string();
    let variables = [("REGISTRY_AUTH_FILE", file.as_str())];
    let reference = registry.reference("team/image:1");
    push_with(&bench, &variables, &image, &reference).line();
    let asked = tokens.asked();
    assert!(
        asked.iter().all(|one| one.by == "refresh_token"),
        "{asked:?}"
    );

    // A helper says the same with a name of its own.
    let script = format!(
        "#!/bin/sh\necho '{{\"ServerURL\":\"{host}\",\"Username\":\"<token>\",\"Secret\":\"{identity}\"}}'\n"
    );
    let path = helper(&bench, &script);
    let config = r#"{"credsStore": "tester"}"#;
    bench.write("config.json", config);
    let variables = [("PATH", path.as_str()), ("REGISTRY_AUTH_FILE", &file)];
    let reference = registry.reference("team/image:2");
    push_with(&bench, &variables, &image, &reference).line();
    let asked = tokens.asked();
    assert!(
        asked.iter().all(|one| one.by == "refresh_token"),
        "{asked:?}"
    );

    // Servers that know no POST are asked by GET, if there is a password.
    tokens.fail(Failure::NoPost);
    let reference = registry.reference("team/image:3");
    let creds = [
        "push",
        "--creds",
        "writer:pa55-w",
        &image.image(),
        &reference,
    ];
    bench.finish(&mut tool(&bench, &creds)).line();
}

#[test]
fn who_may_not_push_is_told_before_anything_is_built() {
    let bench = Bench::current();
    let Some(tokens) = Tokens::start(policy(0)) else {
        return;
    };
    let Some(registry) = Registry::with_login(Login::Tokens(&tokens)) else {
        return;
    };
    // Nothing is staged, and no base is asked for: there is none.
    let text = "python: 3.11\nsystem-packages: []\nfiles: [missing]\n";
    bench.write("build.yaml", text);
    let reference = registry.reference("team/image:1");
    let base = registry.reference("team/base:none");
    let arguments = [
        "build.yaml",
        "--base",
        &base,
        "-t",
        &reference,
        "--push",
        "--creds",
    ];
    let run = |login: &str| bench.finish(tool(&bench, &arguments).arg(login));
    refused(&run("reader:pa55-r"), FAILED, &[&reference, "reader"]);
    refused(&run("writer:pa55-no"), FAILED, &["writer"]);
    // Whoever may, or does not want to know, sees the next thing that is wrong.
    refused(&run("writer:pa55-w"), super::FAILED, &["missing"]);
    let mut command = tool(&bench, &arguments);
    command.args(["reader:pa55-r", "--skip-push-check"]);
    refused(&bench.finish(&mut command), FAILED, &["missing"]);
    assert_eq!(registry.tagged("team/image", "1"), None);
}

#[test]
fn a_reader_pulls_with_the_file_of_the_writer_elsewhere() {
    let bench = Bench::current();
    let Some((registry, image)) = guarded(&bench) else {
        return;
    };
    let host = registry.host();
    // The key with the longest path is for the repository; the other login is wrong.
    let wrong = base64::prelude::BASE64_STANDARD.encode("tester:pa55-wrong");
    let config = format!(
        r#"{{"auths": {{"{host}": {{"auth": "{wrong}"}}, "{host}/team": {{"auth": "{}"}}}}}}"#,
        auth()
    );
    let file = bench.write("auth.json", config).display().to_string();
    let variables = [("REGISTRY_AUTH_FILE", file.as_str())];
    let reference = registry.reference("team/image:1");
    push_with(&bench, &variables, &image, &reference).line();
    let other = registry.reference("other/image:1");
    let run = push_with(&bench, &variables, &image, &other);
    refused(&run, FAILED, &[&host, "auth.json", "tester"]);
    let Some(open) = Registry::beside(&registry) else {
        return;
    };
    let name = format!("docker://{}", open.reference("team/image:1"));
    assert_eq!(skopeo_manifest(&bench, &name), image.manifest);
}
