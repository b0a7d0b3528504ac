use insta::assert_snapshot;
use proptest::prelude::*;

use crate::registry::Reference;

fn complete(text: &str) -> String {
    text.parse::<Reference>().unwrap().to_string()
}

fn wrong(text: &str) -> String {
    text.parse::<Reference>().unwrap_err().to_string()
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn names_are_completed_as_docker_does() {
    for (text, expected) in [
        ("python", "docker.io/library/python:latest"),
        ("python:3.11-slim", "docker.io/library/python:3.11-slim"),
        ("team/image", "docker.io/team/image:latest"),
        ("index.docker.io/python:3", "docker.io/library/python:3"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("[::1]:5000/a/b:c", "[::1]:5000/a/b:c"),
        ("Host/x", "Host/x:latest"),
        ("ghcr.io/a/b__c/d--e.f:V1", "ghcr.io/a/b__c/d--e.f:V1"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
    ] {
        assert_eq!(complete(text), expected);
    }
    // Another reader completes the same names the same way. It knows no hosts in brackets.
    for text in [
        "python",
        "team/image",
        "localhost/x",
        "localhost:5000/x",
        "ghcr.io/a/b__c/d--e.f:V1",
    ] {
        let theirs: oci_distribution::Reference = text.parse().unwrap();
        assert_eq!(complete(text), theirs.whole());
    }
    assert_eq!(
        complete(&format!("a/b@{DIGEST}")),
        format!("docker.io/a/b@{DIGEST}")
    );
    assert_eq!(
        complete(&format!("a/b:t@{DIGEST}")),
        format!("docker.io/a/b:t@{DIGEST}")
    );
    assert_eq!(
        "python".parse::<Reference>().unwrap().host(),
        "registry-1.docker.io"
    );
}

#[test]
fn what_is_wrong_is_said_with_a_right_example() {
    assert_snapshot!(wrong(""), @"`` is not an image reference: it is empty; a right one looks like `python:3.11-slim`");
    assert_snapshot!(wrong("https://me:secret@docker.io/python"), @"`***@docker.io/python` is not an image reference: it begins with `https://`, which does not belong there; a right one looks like `python:3.11-slim`");
    assert_snapshot!(wrong("me:secret@docker.io/python"), @"`***@docker.io/python` is not an image reference: it holds an `@` that no digest follows; a right one looks like `python:3.11-slim`");
    assert_snapshot!(wrong(&format!("me:secret@docker.io/python@{DIGEST}")), @"`***@docker.io/python@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855` is not an image reference: it holds an `@` that no digest follows; a right one looks like `python:3.11-slim`");
    assert_snapshot!(wrong("python:"), @"`python:` is not an image reference: `` is not a tag: up to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`; a right one looks like `python:3.11-slim`");
    assert_snapshot!(wrong("Python"), @"`Python` is not an image reference: the name `Python` has upper-case letters; a right one looks like `python:3.11-slim`");
    assert_snapshot!(wrong("a//b"), @"`a//b` is not an image reference: `` is not a part of a name: lower-case letters and digits with `.`, `_` or `-` between them; a right one looks like `python:3.11-slim`");
    assert_snapshot!(wrong("a/-b"), @"`a/-b` is not an image reference: `-b` is not a part of a name: lower-case letters and digits with `.`, `_` or `-` between them; a right one looks like `python:3.11-slim`");
    assert_snapshot!(wrong("a/b___c"), @"`a/b___c` is not an image reference: `b___c` is not a part of a name: lower-case letters and digits with `.`, `_` or `-` between them; a right one looks like `python:3.11-slim`");
    assert_snapshot!(wrong("host.example:99999/x"), @"`host.example:99999/x` is not an image reference: `host.example:99999` is not a host with an optional port; a right one looks like `registry.example.com:5000/team/image:1.0`");
    assert_snapshot!(wrong("[::1/x"), @"`[::1/x` is not an image reference: `[::1` is not a host with an optional port; a right one looks like `registry.example.com:5000/team/image:1.0`");
    assert_snapshot!(wrong("python@sha512:00"), @"`python@sha512:00` is not an image reference: its digest is not `sha256:` and 64 lower-case hexadecimal digits; a right one looks like `python@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855`");
    assert_snapshot!(wrong(&"a".repeat(64)), @"`aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa` is not an image reference: 64 hexadecimal digits are an image's id, and not a name; a right one looks like `python:3.11-slim`");
    assert!(wrong(&"x/".repeat(200)).contains("is not a part of a name"));
    assert!(wrong(&format!("{}x", "x/".repeat(200))).contains("longer than 255"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reference_is_read_as_it_is_written(text in "([a-z]{1,5}\\.[a-z]{2}(:[1-9][0-9]{1,3})?/)?[a-z0-9]{1,4}([_-][a-z0-9]{1,3}){0,2}(/[a-z]{1,3})?(:[A-Za-z0-9_][A-Za-z0-9._-]{0,5})?") {
        let once = text.parse::<Reference>().unwrap();
        prop_assert_eq!(once.to_string().parse::<Reference>().unwrap(), once);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        if let Ok(reference) = text.parse::<Reference>() {
            let url = format!("https://{}/", reference.host());
            prop_assert!(reqwest::Url::parse(&url).is_ok());
        }
    }
}
