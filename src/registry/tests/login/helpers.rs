//! Helpers that work, fail, hang and lie.

use std::time::{Duration, Instant};

use insta::assert_snapshot;

use super::{CONFIG, HUB, Home, PLANTED, auth};
use crate::registry::Credentials;

/// A home whose file names the helper `h` for `h.example`.
fn with(script: &str) -> Home {
    let home = Home::new();
    home.write(CONFIG, r#"{"credHelpers": {"h.example": "h"}}"#);
    home.helper("h", script);
    home
}

fn answer(user: &str) -> String {
    format!(r#"echo '{{"ServerURL": "x", "Username": "{user}", "Secret": "{PLANTED}"}}'"#)
}

#[test]
fn a_helper_is_asked_by_the_server_s_name() {
    for (key, registry, asked) in [
        ("h.example", "h.example", "h.example"),
        ("https://h.example", "h.example", "h.example"),
        ("h.example:5000", "h.example:5000", "h.example:5000"),
        ("docker.io", "docker.io", HUB),
        ("index.docker.io", "docker.io", HUB),
        (HUB, "docker.io", HUB),
    ] {
        let home = Home::new();
        home.write(CONFIG, &format!(r#"{{"credHelpers": {{"{key}": "h"}}}}"#));
        let said = home.path("said");
        home.helper(
            "h",
            &format!("(echo \"$*\"; cat) >'{}'; {}", said.display(), answer("me")),
        );
        let expected =
            format!("me:{PLANTED} in the helper `docker-credential-h`, named by `/{CONFIG}`");
        assert_eq!(home.found(registry, "a"), expected, "{key}");
        assert_eq!(
            fs_err::read_to_string(said).unwrap(),
            format!("get\n{asked}")
        );
        assert_eq!(home.found("other.example", "a"), "nothing");
    }
}

#[test]
fn helpers_and_entries_have_an_order() {
    let home = Home::new();
    let entry = |user: &str| format!(r#"{{"auth": "{}"}}"#, auth(user));
    let entries = format!(
        r#""auths": {{"h.example": {}, "s.example": {{}}, "e.example": {}}}"#,
        entry("hidden"),
        entry("entry")
    );
    let text =
        format!(r#"{{"credHelpers": {{"h.example": "own"}}, "credsStore": "all", {entries}}}"#);
    home.write("run/containers/auth.json", &text);
    home.write(
        CONFIG,
        &format!(r#"{{"auths": {{"h.example": {}}}}}"#, entry("next")),
    );
    home.helper("own", &answer("own"));
    home.helper("all", &answer("all"));
    let user = |registry| home.user(registry, "a").unwrap();
    assert_eq!(user("h.example"), "own");
    assert_eq!(user("e.example"), "entry");
    assert_eq!(user("s.example"), "all");
    assert_eq!(user("unknown.example"), "all");
    // Without a login there, nothing else in the same file counts for a registry with its own helper.
    home.helper(
        "own",
        "echo 'credentials not found in native keychain'; exit 1",
    );
    assert_eq!(user("h.example"), "next");
    // An empty name is what turns the store off.
    home.write("run/containers/auth.json", r#"{"credsStore": ""}"#);
    assert_eq!(home.found("s.example", "a"), "nothing");
}

#[test]
fn a_helper_may_have_tokens_or_nothing() {
    let home = with(&answer("<token>"));
    let found = home.find("h.example", "a").unwrap().login.unwrap();
    assert!(
        matches!(&found.credentials, Credentials::IdentityToken(token) if token.reveal() == PLANTED)
    );
    assert!(!format!("{found:?}").contains(PLANTED));
    for nothing in [
        "echo 'credentials not found in native keychain'; exit 1",
        "echo 'Error: Credentials not found' >&2; exit 3",
        r#"echo '{"ServerURL": "", "Username": "", "Secret": ""}'"#,
    ] {
        home.helper("h", nothing);
        assert_eq!(home.found("h.example", "a"), "nothing", "{nothing}");
    }
}

#[test]
fn a_helper_that_fails_says_why_itself() {
    let long = "x".repeat(300);
    for (script, said) in [
        ("exit 3", ""),
        (
            "echo >&2; echo ' no key ' >&2; echo more >&2; exit 3",
            ": no key",
        ),
        ("echo locked; exit 3", ": locked"),
        ("printf 'a\\033[31mb\\n' >&2; exit 3", ": a\u{1b}[31mb"),
        (
            "echo 'https://me:PLANTED@h.example failed' >&2; exit 3",
            ": https://***@h.example failed",
        ),
        (r#"echo '{"Secret": "PLANTED"}'; exit 3"#, ""),
        (r#"printf 'x\n{"Secret": "PLANTED"}'; exit 3"#, ""),
        (
            &format!("echo {long} >&2; exit 3"),
            &format!(": {}", "x".repeat(200)),
        ),
        (
            "head -c 300000 /dev/zero >&2; exit 3",
            &format!(": {}", "\0".repeat(200)),
        ),
    ] {
        let expected = format!(
            "the credential helper `docker-credential-h`, named by `/{CONFIG}`, failed (exit status: 3){said} | try it by hand: `echo h.example | docker-credential-h get`"
        );
        assert_eq!(with(script).refused(), expected, "{script}");
    }
    assert!(with("kill -9 $$").refused().contains("failed (signal: 9"));
}

#[test]
fn a_helper_that_is_not_there_is_named() {
    let home = Home::new();
    home.write(CONFIG, r#"{"credHelpers": {"h.example": "h"}}"#);
    assert_snapshot!(home.refused(), @"the credential helper `docker-credential-h`, named by `/home/.docker/config.json`, is not in `PATH` | install `docker-credential-h`, add its folder to `PATH`, or take it out of `credHelpers` and `credsStore` in `/home/.docker/config.json`");
    home.install("h", "644", "no program");
    assert!(home.refused().contains("is not in `PATH`"));
    home.install("h", "755", "no program");
    assert_snapshot!(home.refused(), @"the credential helper `docker-credential-h`, named by `/home/.docker/config.json`, could not be run: Exec format error (os error 8) | check that `docker-credential-h` is a program for this machine");
    for name in ["", " ", "../h", "/bin/sh", r"h\u0000"] {
        home.write(
            CONFIG,
            &format!(r#"{{"credHelpers": {{"h.example": "{name}"}}}}"#),
        );
        assert!(
            home.refused().contains("which is no name of a program"),
            "{name}"
        );
    }
    home.write(CONFIG, r#"{"credsStore": "a/b"}"#);
    assert_snapshot!(home.refused(), @"`/home/.docker/config.json` names the credential helper `a/b`, which is no name of a program | `credHelpers` and `credsStore` in `/home/.docker/config.json` hold what follows `docker-credential-` in a program's name");
}

#[test]
fn what_is_no_answer_is_not_repeated() {
    for rubbish in [
        "echo PLANTED",
        "true",
        "echo '{}'",
        r#"echo '["PLANTED"]'"#,
        r#"echo '{"Username": "me", "Secret": 1, "x": "PLANTED"}'"#,
        r#"echo '{"Username": "me", "Secret": "PLANTED"} PLANTED'"#,
    ] {
        assert_eq!(
            with(rubbish).refused(),
            "the credential helper `docker-credential-h`, named by `/home/.docker/config.json`, gave an answer that is not understood | check that `docker-credential-h` is a credential helper as Docker has them",
            "{rubbish}"
        );
    }
    assert_snapshot!(with("while echo PLANTED; do :; done").refused(), @"the credential helper `docker-credential-h`, named by `/home/.docker/config.json`, gave an answer of more than 65536 bytes | check that `docker-credential-h` is a credential helper as Docker has them");
}

#[test]
fn a_helper_that_hangs_is_ended_with_all_that_it_started() {
    let mut home = Home::new();
    home.write(CONFIG, r#"{"credsStore": "h"}"#);
    let child = home.path("child");
    home.helper(
        "h",
        &format!("sleep 3600 & echo $! >'{}'; wait", child.display()),
    );
    home.environment.patience = Duration::from_secs(4);
    assert_snapshot!(home.refused(), @"the credential helper `docker-credential-h`, named by `/home/.docker/config.json`, was stopped after 4 s | if `docker-credential-h` waits for a password or a key, unlock its store before, or name a file with `--authfile FILE`");
    let child = fs_err::read_to_string(child).unwrap();
    let runs = || {
        let stat = fs_err::read_to_string(format!("/proc/{}/stat", child.trim()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    let end = Instant::now() + Duration::from_secs(20);
    while runs() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!runs(), "{child} still runs");
}

#[test]
fn what_a_helper_leaves_behind_is_not_waited_for() {
    let home = with(&format!("sleep 40 & {}; exit 0", answer("me")));
    let began = Instant::now();
    assert_eq!(home.user("h.example", "a").as_deref(), Some("me"));
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_long_answer_is_complete() {
    let script = r#"printf '{"Username": "me", "Secret": "'; head -c 60000 /dev/zero | tr '\0' x; echo '"}'"#;
    let found = with(script).find("h.example", "a").unwrap().login.unwrap();
    assert!(matches!(
        &found.credentials,
        Credentials::Password { password, .. } if password.reveal() == "x".repeat(60_000)
    ));
}
