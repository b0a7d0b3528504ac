//! Logins that are kept, and removed again.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::json;

use super::{CONFIG, HUB, Home, PLANTED, auth, auths, skopeo_user};
use crate::base::tests::has;

const AUTH: &str = "run/containers/auth.json";

/// A helper that keeps its logins in files of a folder, each as it came.
const VAULT: &str = r#"
cd "$(dirname "$0")" || exit 2
case $1 in
store) cat >request; cp request "$(sed 's/.*"ServerURL":"\([^"]*\)".*/\1/; s,/,_,g' request)" ;;
get) cat "$(sed 's,/,_,g')" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm "$(sed 's,/,_,g')" ;;
esac"#;

#[test]
fn what_is_kept_is_found_by_us_and_by_others() {
    if !has(&["skopeo"]) {
        return;
    }
    let home = Home::new();
    for (registry, user) in [
        ("h.example", "me"),
        ("docker.io", "hub"),
        ("h.example", "again"),
    ] {
        assert_eq!(
            home.save(registry, user, PLANTED).unwrap(),
            format!("`/{CONFIG}`")
        );
        assert_eq!(
            home.found(registry, "a"),
            format!("{user}:{PLANTED} in `/{CONFIG}`")
        );
        assert_eq!(skopeo_user(&home, registry).as_deref(), Some(user));
    }
    let expected =
        json!({"auths": {"h.example": {"auth": auth("again")}, HUB: {"auth": auth("hub")}}});
    assert_eq!(home.read(CONFIG), expected);
    let mode = |name: &str| {
        fs_err::metadata(home.path(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!((mode(CONFIG), mode("home/.docker")), (0o600, 0o700));
    let left: Vec<_> = fs_err::read_dir(home.path("home/.docker"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn what_else_a_file_says_is_kept() {
    let home = Home::new();
    let before = json!({
        "HttpHeaders": {"User-Agent": "x"},
        "auths": {
            "https://h.example/v2/": {"auth": auth("old"), "identitytoken": PLANTED},
            "h.example/team": {"auth": auth("team")},
            "o.example": {"auth": auth("other"), "email": "e"},
        },
        "proxies": [1, 2.5, null],
    });
    home.write(CONFIG, &before.to_string());
    fs_err::set_permissions(home.path(CONFIG), std::fs::Permissions::from_mode(0o644)).unwrap();
    home.save("h.example", "me", "p").unwrap();
    let mut expected = before;
    let entries = expected["auths"].as_object_mut().unwrap();
    entries.remove("https://h.example/v2/");
    entries.insert("h.example".to_owned(), json!({"auth": "bWU6cA=="}));
    assert_eq!(home.read(CONFIG), expected);
    assert_eq!(
        fs_err::metadata(home.path(CONFIG)).unwrap().mode() & 0o7777,
        0o600
    );
}

#[test]
fn a_login_goes_where_its_registry_is_known() {
    let mut home = Home::new();
    home.write(
        "run/containers/auth.json",
        &auths(&["docker.io", "h.example/team"]),
    );
    home.write(
        "home/.dockercfg",
        r#"{"old.example": {}, "https://index.docker.io/v1/": {}}"#,
    );
    assert_eq!(
        home.save("docker.io", "me", "p").unwrap(),
        format!("`/{AUTH}`")
    );
    assert_eq!(
        home.read(AUTH)["auths"]["docker.io"],
        json!({"auth": "bWU6cA=="})
    );
    // A namespace is not the registry.
    assert_eq!(
        home.save("h.example", "me", "p").unwrap(),
        format!("`/{CONFIG}`")
    );
    assert_eq!(
        home.save("old.example", "me", "p").unwrap(),
        "`/home/.dockercfg`"
    );
    assert_eq!(
        home.read("home/.dockercfg")["old.example"],
        json!({"auth": "bWU6cA=="})
    );
    assert_eq!(home.user("old.example", "a").as_deref(), Some("me"));

    home.environment.docker = Some(home.path("moved"));
    assert_eq!(
        home.save("h.example", "me", "p").unwrap(),
        "`/moved/config.json`"
    );
    home.environment.authfile = Some(home.path("by/variable.json"));
    assert_eq!(
        home.save("docker.io", "me", "p").unwrap(),
        "`/by/variable.json`"
    );
    assert_eq!(
        home.read("by/variable.json"),
        json!({"auths": {"docker.io": {"auth": "bWU6cA=="}}})
    );
    home.logins.authfile = Some(home.path("by/config.json"));
    assert_eq!(
        home.save("docker.io", "me", "p").unwrap(),
        "`/by/config.json`"
    );
    assert_eq!(
        home.read("by/config.json"),
        json!({"auths": {HUB: {"auth": "bWU6cA=="}}})
    );
}

#[test]
fn links_stay_links() {
    let home = Home::new();
    home.write("real/there.json", "{}");
    fs_err::create_dir_all(home.path("home/.docker")).unwrap();
    let link = home.path(CONFIG);
    for target in ["../../real/there.json", "../../real/later.json"] {
        fs_err::os::unix::fs::symlink(target, &link).unwrap();
        home.save("h.example", "me", "p").unwrap();
        assert_eq!(fs_err::read_link(&link).unwrap().to_str(), Some(target));
        assert_eq!(home.user("h.example", "a").as_deref(), Some("me"));
        fs_err::remove_file(&link).unwrap();
    }
    assert_eq!(home.read("real/later.json"), home.read("real/there.json"));
    fs_err::os::unix::fs::symlink("config.json", &link).unwrap();
    let error = home.save("h.example", "me", PLANTED).unwrap_err();
    assert!(
        home.told(&error)
            .contains("Too many levels of symbolic links"),
        "{error}"
    );
}

#[test]
fn many_at_once_lose_nothing() {
    let home = Home::new();
    home.write(CONFIG, r#"{"other": 1}"#);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let home = &home;
            scope.spawn(move || {
                for round in 0..10 {
                    let registry = format!("h{thread}-{round}.example");
                    home.save(&registry, "me", "p").unwrap();
                    if round % 2 == 1 {
                        assert_eq!(home.remove(Some(&registry)).unwrap().len(), 1);
                    }
                }
            });
        }
    });
    let content = home.read(CONFIG);
    assert_eq!(content["auths"].as_object().unwrap().len(), 40);
    assert_eq!(content["other"], 1);
}

#[test]
fn a_locked_folder_is_not_waited_for_without_end() {
    let mut home = Home::new();
    home.write(CONFIG, "{}");
    let folder = fs_err::File::open(home.path("home/.docker")).unwrap();
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    home.environment.patience = Duration::from_millis(100);
    let error = home.save("h.example", "me", PLANTED).unwrap_err();
    assert_snapshot!(home.told(&error), @"`/home/.docker/config.json` is being changed by another process for more than 0.1 s | try again when the other process is done");
    drop(folder);
    home.save("h.example", "me", "p").unwrap();
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let mut home = Home::new();
    for user in ["", "a:b", "a\nb"] {
        let error = home.save("h.example", user, PLANTED).unwrap_err();
        assert!(home.told(&error).contains("is not a user name"), "{user}");
    }
    home.logins.authfile = Some("/dev/null".into());
    let error = home.save("h.example", "me", PLANTED).unwrap_err();
    assert_snapshot!(home.told(&error), @"`/dev/null` is not a file | name a file with `--authfile FILE`");
    home.logins.authfile = None;
    home.environment.home = None;
    let error = home.save("h.example", "me", PLANTED).unwrap_err();
    assert_snapshot!(home.told(&error), @"there is no place to keep a login: `HOME` is not set | set `HOME`, or name a file with `--authfile FILE`");
}

#[test]
fn a_helper_keeps_what_its_file_gives_it() {
    let home = Home::new();
    home.helper("vault", VAULT);
    let before = json!({
        "auths": {"h.example": {"auth": auth("old")}},
        "credHelpers": {"own.example": "vault"},
        "credsStore": "vault",
    });
    home.write(CONFIG, &before.to_string());
    let vault = format!("the helper `docker-credential-vault`, named by `/{CONFIG}`");
    for registry in ["h.example", "own.example", "docker.io"] {
        assert_eq!(home.save(registry, "me", PLANTED).unwrap(), vault);
        assert_eq!(
            home.found(registry, "a"),
            format!("me:{PLANTED} in {vault}")
        );
    }
    assert_eq!(
        home.read("bin/request"),
        json!({"ServerURL": HUB, "Username": "me", "Secret": PLANTED})
    );
    let mut expected = before;
    expected["auths"] = json!({"h.example": {}, HUB: {}});
    assert_eq!(home.read(CONFIG), expected);

    assert_eq!(home.remove(Some("h.example")).unwrap(), [vault.as_str()]);
    assert_eq!(home.remove(Some("h.example")).unwrap(), [] as [&str; 0]);
    assert_eq!(home.found("h.example", "a"), "nothing");
    assert_eq!(home.remove(None).unwrap(), [vault.as_str(), vault.as_str()]);
    expected["auths"] = json!({});
    assert_eq!(home.read(CONFIG), expected);
    for registry in ["own.example", "docker.io"] {
        assert_eq!(home.found(registry, "a"), "nothing");
    }
}

#[test]
fn a_helper_that_does_not_take_a_login_changes_nothing() {
    let home = Home::new();
    let before = json!({"auths": {"h.example": {"auth": auth("old")}}, "credsStore": "h"});
    home.write(CONFIG, &before.to_string());
    home.helper("h", "echo \"cannot keep $(cat)\" >&2; exit 1");
    let error = home.save("h.example", "me", PLANTED).unwrap_err();
    assert_snapshot!(home.told(&error), @r#"the credential helper `docker-credential-h`, named by `/home/.docker/config.json`, failed (exit status: 1): cannot keep {"ServerURL":"h.example","Username":"me","Secret":"***"} | try it by hand: `docker-credential-h list`"#);
    assert_eq!(home.read(CONFIG), before);
    // It need not read what it is given.
    home.helper("h", "exec <&-; exit 0");
    home.save("h.example", "me", &"x".repeat(200_000)).unwrap();
}

#[test]
fn logins_are_removed_everywhere() {
    let mut home = Home::new();
    let keys = [
        "h.example",
        "https://h.example/v1/",
        "h.example/team",
        "o.example",
    ];
    home.write(AUTH, &auths(&keys));
    home.write(CONFIG, &auths(&[HUB, "docker.io", "o.example"]));
    home.write(
        "home/.dockercfg",
        &auths(&["h.example"])
            .replace(r#"{"auths":"#, "")
            .replacen("}}}", "}}", 1),
    );
    assert_eq!(home.remove(Some("none.example")).unwrap(), [] as [&str; 0]);
    assert_eq!(
        home.remove(Some("h.example")).unwrap(),
        [format!("`/{AUTH}`"), "`/home/.dockercfg`".to_owned()]
    );
    assert_eq!(home.found("h.example", "team/a"), "nothing");
    assert_eq!(home.user("o.example", "a").as_deref(), Some("o.example"));
    assert_eq!(home.read("home/.dockercfg"), json!({}));
    assert_eq!(
        home.remove(Some("docker.io")).unwrap(),
        [format!("`/{CONFIG}`")]
    );
    assert_eq!(
        home.read(CONFIG),
        json!({"auths": {"o.example": {"auth": auth("o.example")}}})
    );
    assert_eq!(
        home.remove(None).unwrap(),
        [format!("`/{AUTH}`"), format!("`/{CONFIG}`")]
    );
    assert_eq!(home.remove(None).unwrap(), [] as [&str; 0]);
    home.logins.authfile = Some(home.path("none.json"));
    assert_eq!(home.remove(Some("h.example")).unwrap(), [] as [&str; 0]);
}

#[test]
fn a_failure_keeps_nothing_else_from_being_removed() {
    let home = Home::new();
    home.write(
        AUTH,
        r#"{"credHelpers": {"h.example": "none"}, "auths": {"h.example": {"auth": "eDp5"}}}"#,
    );
    home.write(CONFIG, &auths(&["h.example"]));
    let error = home.remove(Some("h.example")).unwrap_err();
    assert!(
        home.told(&error)
            .contains("`docker-credential-none`, named by"),
        "{error}"
    );
    assert_eq!(home.read(AUTH)["auths"], json!({}));
    assert_eq!(home.read(CONFIG), json!({"auths": {}}));
}
