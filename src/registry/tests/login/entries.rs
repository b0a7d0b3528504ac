//! Keys and entries, as people and other tools wrote them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use insta::assert_snapshot;
use proptest::prelude::*;

use super::{CONFIG, HUB, Home, PLANTED, auth, auths, name, skopeo_user};
use crate::base::tests::has;
use crate::registry::login::decode;

/// Whose login is found for `wanted`, a registry and a repository, among those of `keys`.
fn check(cases: &[(&str, &str, Option<&str>)]) {
    for (keys, wanted, expected) in cases {
        let home = Home::new();
        home.write(CONFIG, &auths(&keys.split(' ').collect::<Vec<_>>()));
        let (registry, repository) = wanted.split_once('/').unwrap();
        let user = home.user(registry, repository);
        assert_eq!(user, expected.map(name), "{keys} for {wanted}");
    }
}

#[test]
fn every_form_of_a_key_is_understood() {
    check(&[
        ("h.example", "h.example/a", Some("h.example")),
        ("h.example", "H.example/a", Some("h.example")),
        ("H.Example", "h.example/a", Some("H.Example")),
        ("h.example/", "h.example/a", Some("h.example/")),
        (
            "https://h.example",
            "h.example/a/b",
            Some("https://h.example"),
        ),
        (
            "http://h.example/v2/",
            "h.example/a",
            Some("http://h.example/v2/"),
        ),
        (
            "https://h.example/v1/x",
            "h.example/a",
            Some("https://h.example/v1/x"),
        ),
        ("h.example/v1/", "h.example/a", Some("h.example/v1/")),
        ("h.example:5000", "h.example:5000/a", Some("h.example:5000")),
        (
            "https://[::1]:5000/",
            "[::1]:5000/a",
            Some("https://[::1]:5000/"),
        ),
        ("h.example/v1", "h.example/a", None),
        ("h.example:5000", "h.example/a", None),
        ("h.example", "h.example:5000/a", None),
        ("xh.example h.example.org example", "h.example/a", None),
    ]);
}

#[test]
fn the_key_that_says_most_is_taken() {
    check(&[
        (
            "http://h.example https://h.example h.example",
            "h.example/a",
            Some("h.example"),
        ),
        (
            "http://h.example https://h.example",
            "h.example/a",
            Some("https://h.example"),
        ),
        (
            "h.example/t h.example h.example/t/i",
            "h.example/t/i",
            Some("h.example/t/i"),
        ),
        (
            "h.example/t h.example",
            "h.example/t/i",
            Some("h.example/t"),
        ),
        ("h.example/t h.example", "h.example/t2/i", Some("h.example")),
        ("h.example/t/i", "h.example/t", None),
    ]);
}

#[test]
fn docker_hub_goes_by_many_names() {
    let both = format!("index.docker.io {HUB}");
    let all = format!("{both} docker.io");
    check(&[
        ("docker.io", "docker.io/library/a", Some("docker.io")),
        (
            "index.docker.io",
            "docker.io/library/a",
            Some("index.docker.io"),
        ),
        (
            "registry-1.docker.io",
            "docker.io/library/a",
            Some("registry-1.docker.io"),
        ),
        (HUB, "docker.io/library/a", Some(HUB)),
        (&both, "docker.io/library/a", Some(HUB)),
        (&all, "docker.io/library/a", Some("docker.io")),
        (
            "docker.io docker.io/library",
            "docker.io/library/a",
            Some("docker.io/library"),
        ),
        ("hub.docker.io docker.com", "docker.io/library/a", None),
    ]);
}

#[test]
fn skopeo_finds_the_same() {
    if !has(&["skopeo"]) {
        return;
    }
    let mut found = 0;
    for keys in [
        &["h.example", "localhost:5000"][..],
        &["https://h.example", "http://localhost:5000/v2/"],
        &["h.example/team", "https://localhost:5000"],
        &["docker.io", "index.docker.io"],
        &[HUB],
        &["h.example:443"],
    ] {
        for file in [
            "run/containers/auth.json",
            "config/containers/auth.json",
            CONFIG,
        ] {
            let home = Home::new();
            home.write(file, &auths(keys));
            for registry in ["h.example", "localhost:5000", "docker.io"] {
                let theirs = skopeo_user(&home, registry);
                assert_eq!(
                    home.user(registry, "x"),
                    theirs,
                    "{keys:?} in {file}, {registry}"
                );
                found += usize::from(theirs.is_some());
            }
        }
    }
    assert_eq!(found, 21);
}

#[test]
fn a_login_without_content_hides_no_other() {
    let home = Home::new();
    let empty = r#"{"auths": {"h.example/team": {}, "h.example": {"auth": "", "email": "x"},
        "https://h.example": null, "http://h.example": {"auth": "Og=="}}}"#;
    home.write("run/containers/auth.json", empty);
    home.write("config/containers/auth.json", " \n");
    home.write(
        CONFIG,
        r#"{"auths": null, "credHelpers": null, "credsStore": null}"#,
    );
    assert_eq!(home.found("h.example", "team/a"), "nothing");
    home.write(
        "home/.dockercfg",
        &format!(r#"{{"h.example": {{"auth": "{}"}}}}"#, auth("me")),
    );
    assert_eq!(home.user("h.example", "team/a").as_deref(), Some("me"));
}

#[test]
fn each_kind_of_login_is_understood() {
    let (me, padding) = (STANDARD.encode("me:a:b"), STANDARD_NO_PAD.encode("me:pass"));
    for (entry, expected) in [
        (format!(r#"{{"auth": "{me}"}}"#), "me:a:b"),
        (format!(r#"{{"auth": " {padding}\n"}}"#), "me:pass"),
        (
            format!(r#"{{"auth": "{}"}}"#, STANDARD.encode("me:pass\0\0")),
            "me:pass",
        ),
        (
            format!(r#"{{"auth": "{}"}}"#, STANDARD.encode("me:")),
            "me:",
        ),
        (r#"{"username": "me", "password": "p"}"#.to_owned(), "me:p"),
        (
            format!(r#"{{"username": "x", "password": "p", "auth": "{me}"}}"#),
            "me:a:b",
        ),
        (
            format!(r#"{{"auth": "{me}", "identitytoken": "t"}}"#),
            "identity t",
        ),
        (
            r#"{"identitytoken": "i", "registrytoken": "r"}"#.to_owned(),
            "registry r",
        ),
        (
            r#"{"auth": "Og==", "identitytoken": "t", "unknown": [1]}"#.to_owned(),
            "identity t",
        ),
    ] {
        let home = Home::new();
        home.write(CONFIG, &format!(r#"{{"auths": {{"h.example": {entry}}}}}"#));
        let found = home.found("h.example", "a");
        assert_eq!(found, format!("{expected} in `/{CONFIG}`"), "{entry}");
    }
}

#[test]
fn a_malformed_login_matters_only_if_it_is_needed() {
    let home = Home::new();
    let write = |entry: &str| {
        let text = format!(
            r#"{{"auths": {{"https://{PLANTED}:x@h.example": {{}}, "h.example": {entry}, "o.example": {{"auth": "{}"}}}}}}"#,
            auth("me")
        );
        home.write(CONFIG, &text);
    };
    write(&format!(r#"{{"auth": "{PLANTED}!"}}"#));
    assert_eq!(home.user("o.example", "a").as_deref(), Some("me"));
    assert_snapshot!(home.refused(), @"the login for `h.example` in `/home/.docker/config.json` cannot be understood: `auth` is not base64 | log in again with `pyats-image-build login`");
    write(&format!(r#"{{"auth": "{}"}}"#, STANDARD.encode(PLANTED)));
    assert_snapshot!(home.refused(), @"the login for `h.example` in `/home/.docker/config.json` cannot be understood: `auth` holds no colon between a user name and a password | log in again with `pyats-image-build login`");
    write(&format!(r#"{{"auth": "{}"}}"#, STANDARD.encode(b"me:\xff")));
    assert_snapshot!(home.refused(), @"the login for `h.example` in `/home/.docker/config.json` cannot be understood: `auth` holds no text | log in again with `pyats-image-build login`");
    write(r#"{"username": "me"}"#);
    assert_snapshot!(home.refused(), @"the login for `h.example` in `/home/.docker/config.json` cannot be understood: it has a user name and no password | log in again with `pyats-image-build login`");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_decoder_panic(text in "\\PC*|[A-Za-z0-9+/=\\s]*") {
        if let Ok((user, _)) = decode(&text) {
            prop_assert!(!user.contains(':'));
        }
    }

    #[test]
    fn a_login_is_read_as_it_is_written(user in "[^:]{0,9}", password in "(.*[^\\x00])?") {
        let text = format!("{user}:{password}");
        for auth in [STANDARD.encode(&text), STANDARD_NO_PAD.encode(&text)] {
            let (found, secret) = decode(&auth).unwrap();
            prop_assert_eq!((found.as_str(), secret.reveal()), (user.as_str(), password.as_str()));
        }
    }
}
