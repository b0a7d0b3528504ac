//! Which files are asked, and what goes before them.

use std::path::Path;

use insta::assert_snapshot;

use super::{CONFIG, HUB, Home, PLANTED, auth, auths};
use crate::registry::Given;
use crate::secret::Secret;

#[test]
fn files_are_asked_in_their_order() {
    let home = Home::new();
    let files = [
        "run/containers/auth.json",
        "config/containers/auth.json",
        CONFIG,
        "home/.dockercfg",
    ];
    for (at, file) in files.iter().enumerate() {
        let user = format!("user{at}");
        let entries = serde_json::json!({"h.example": {"auth": auth(&user)}});
        let content = match at {
            3 => entries,
            _ => serde_json::json!({ "auths": entries }),
        };
        home.write(file, &content.to_string());
    }
    for (at, file) in files.iter().enumerate() {
        let expected = format!("user{at}:{PLANTED} in `/{file}`");
        assert_eq!(home.found("h.example", "a"), expected);
        assert_eq!(home.found("other.example", "a"), "nothing");
        fs_err::remove_file(home.path(file)).unwrap();
    }
    let found = home.find("h.example", "a").unwrap();
    assert!(found.login.is_none());
    assert_eq!(found.searched, files.map(|file| home.path(file)));
}

#[test]
fn a_named_file_is_the_only_one() {
    let mut home = Home::new();
    home.write(CONFIG, &auths(&["h.example"]));
    home.write("mine.json", &auths(&["o.example"]));
    home.environment.authfile = Some(home.path("mine.json"));
    assert_eq!(home.found("h.example", "a"), "nothing");
    assert_eq!(home.user("o.example", "a").as_deref(), Some("o.example"));
    // The option goes before the variable.
    home.logins.authfile = Some(home.path(CONFIG));
    assert_eq!(home.found("o.example", "a"), "nothing");
    assert_eq!(home.user("h.example", "a").as_deref(), Some("h.example"));

    home.logins.authfile = Some(home.path("none.json"));
    assert_snapshot!(home.refused(), @"`/none.json` does not exist, though `--authfile` names it | check the path, or make the file with `pyats-image-build login`");
    home.logins.authfile = None;
    home.environment.authfile = Some(home.path("none/none.json"));
    assert_snapshot!(home.refused(), @"`/none/none.json` does not exist, though `REGISTRY_AUTH_FILE` names it | check the path, or make the file with `pyats-image-build login`");
    home.environment.authfile = Some("/dev/null".into());
    assert_eq!(home.found("h.example", "a"), "nothing");
}

#[test]
fn a_variable_is_asked_after_all_files_and_never_changed() {
    let mut home = Home::new();
    let text =
        r#"{"auths": {"https://h.example/v1/": {"auth": "AUTH"}}, "credsStore": "of-the-runner"}"#;
    home.environment.text = Some(Secret::new(text.replace("AUTH", &auth("runner"))));
    let runner = format!("runner:{PLANTED} in `DOCKER_AUTH_CONFIG`");
    assert_eq!(home.found("h.example", "a"), runner);
    assert_eq!(home.found("o.example", "a"), "nothing");
    let searched = home.find("o.example", "a").unwrap().searched;
    assert_eq!(searched.last().unwrap(), Path::new("DOCKER_AUTH_CONFIG"));

    assert_eq!(
        home.save("h.example", "me", PLANTED).unwrap(),
        format!("`/{CONFIG}`")
    );
    assert_eq!(home.user("h.example", "a").as_deref(), Some("me"));
    assert_eq!(home.remove(None).unwrap(), [format!("`/{CONFIG}`")]);
    assert_eq!(home.found("h.example", "a"), runner);

    home.environment.authfile = Some("/dev/null".into());
    assert_eq!(home.found("h.example", "a"), "nothing");
    home.environment.authfile = None;
    home.environment.text = Some(Secret::new(PLANTED));
    assert_snapshot!(home.refused(), @"`DOCKER_AUTH_CONFIG` cannot be understood at line 1 | it must be JSON: correct `DOCKER_AUTH_CONFIG`, or take it away and log in again");
}

#[test]
fn docker_s_folder_can_be_moved() {
    let mut home = Home::new();
    home.write(CONFIG, &auths(&["h.example"]));
    home.write("moved/config.json", &auths(&["o.example"]));
    home.environment.docker = Some(home.path("moved"));
    assert_eq!(home.found("h.example", "a"), "nothing");
    assert_eq!(home.user("o.example", "a").as_deref(), Some("o.example"));
}

#[test]
fn a_given_login_is_for_its_registry_alone() {
    let mut home = Home::new();
    home.write(CONFIG, &auths(&["h.example", "o.example", HUB]));
    let give = |home: &mut Home, registry: &str| {
        home.logins.given = Some(Given {
            registry: registry.to_owned(),
            user: "given".to_owned(),
            password: Secret::new(PLANTED),
            origin: "`--creds`",
        });
    };
    give(&mut home, "h.example");
    assert_eq!(
        home.found("h.example", "a"),
        format!("given:{PLANTED} in `--creds`")
    );
    assert_eq!(
        home.find("h.example", "a").unwrap().searched,
        [] as [&Path; 0]
    );
    assert_eq!(home.user("o.example", "a").as_deref(), Some("o.example"));
    give(&mut home, "index.docker.io");
    assert_eq!(
        home.user("docker.io", "library/a").as_deref(),
        Some("given")
    );
    assert_eq!(home.user("h.example", "a").as_deref(), Some("h.example"));
    let shown = format!(
        "{:?} {:?}",
        home.logins,
        home.find("docker.io", "a").unwrap()
    );
    assert!(
        shown.contains("given") && !shown.contains(PLANTED),
        "{shown}"
    );
}

#[test]
fn a_malformed_file_is_an_error_that_shows_nothing_of_it() {
    let home = Home::new();
    for (text, line) in [
        (
            format!("{{\"auths\": {{\n\"h.example\": {{\"auth\": \"{PLANTED}\"\n"),
            3,
        ),
        (format!("{{\n\"auths\": \"{PLANTED}\"}}"), 2),
        (
            format!("{{\n\n\"auths\": {{\"x\": {{\"auth\": [\"{PLANTED}\"]}}}}}}"),
            3,
        ),
        (format!("{{\"{PLANTED}\" 1}}"), 1),
        (format!("[\"{PLANTED}\"]"), 1),
        (format!("{{\"credHelpers\":\n[\"{PLANTED}\"]}}"), 2),
        (PLANTED.to_owned(), 1),
    ] {
        home.write(CONFIG, &text);
        let expected = format!(
            "`/{CONFIG}` cannot be understood at line {line} | it must be JSON: correct `/{CONFIG}`, or take it away and log in again"
        );
        assert_eq!(home.refused(), expected, "{text}");
        let error = home.save("h.example", "me", PLANTED).unwrap_err();
        assert_eq!(home.told(&error), expected, "{text}");
        let error = home.remove(None).unwrap_err();
        assert_eq!(home.told(&error), expected, "{text}");
        assert_eq!(fs_err::read_to_string(home.path(CONFIG)).unwrap(), text);
    }
    fs_err::write(home.path(CONFIG), b"{\n\"auths\": {\"\xff\": {}}}").unwrap();
    assert!(home.refused().contains("at line 2"), "{}", home.refused());
}
