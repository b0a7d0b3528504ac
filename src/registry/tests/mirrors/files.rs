//! Which files are read, in which order, and what is wrong in them.

use super::{Folders, blocked_by, reference, sources};
use crate::registry::mirrors::Search;
use crate::registry::{PolicyError, PolicyProblem, Registries};

fn assert_wrong(text: &str, line: usize, words: &str) {
    let folders = Folders::with(text);
    let error = folders.load(&[]).unwrap_err();
    let place = format!(
        "`{}`, line {line}: ",
        folders.path("user/registries.conf").display()
    );
    let shown = error.to_string();
    assert!(
        shown.starts_with(&place) && shown.contains(words),
        "{text}: {shown}"
    );
    // The random name of the folder may contain anything.
    let folder = folders.path("").display().to_string();
    let all = format!("{error:?}").replace(&folder, "");
    assert!(!all.contains("pa55"), "{all}");
    assert!(error.hint().is_some());
}

#[test]
fn what_is_wrong_in_a_file_is_shown_with_its_line() {
    let registry = "[[registry]]\nlocation = \"a.example\"\n";
    let by_digest = "[[registry]]\nlocation = \"a.example\"\nmirror-by-digest-only = true\n";
    for (text, line, words) in [
        ("a = 1\nb = \n", 2, "value"),
        (
            "\n[[registry]]\nblocked = \"yes\"\n",
            3,
            "expected a boolean",
        ),
        (
            "[[registry]]\nblocked = true\nlocation = \"a.example\"\nBlocked = false\n",
            2,
            "another time in another letter case",
        ),
        ("registry = 1\n", 1, "expected a sequence"),
        (
            "\n[[registry]]\ninsecure = true\n",
            2,
            "a `location` is missing",
        ),
        (
            "[[registry]]\nprefix = \"a.example\"\n",
            1,
            "a `location` is missing",
        ),
        (
            "[[registry]]\nlocation = \"https://a.example\"\n",
            2,
            "begins with `https://`",
        ),
        (
            "[[registry]]\nlocation = \"u:pa55@a.example\"\n",
            2,
            "`***@a.example` is not a place",
        ),
        ("[[registry]]\nlocation = \"a\"\n", 2, "`a` is not a host"),
        (
            "[[registry]]\nlocation = \"a.example/X\"\n",
            2,
            "upper-case",
        ),
        ("[[registry]]\nlocation = \"a.example/x?\"\n", 2, "`x?`"),
        (
            "[[registry]]\nprefix = \"a.example/x:1\"\nlocation = \"a.example/x:2\"\n",
            3,
            "`x:2`",
        ),
        (
            "[[registry]]\nprefix = \"http://a.example\"\nlocation = \"b.example\"\n",
            2,
            "`http://`",
        ),
        (
            "[[registry]]\nprefix = \"*.example.com/foo\"\n",
            2,
            "more beside `*`",
        ),
        (
            &format!("{registry}pull-from-mirror = \"all\"\n"),
            3,
            "belongs into",
        ),
        (
            &format!("{registry}[[registry.mirror]]\ninsecure = true\n"),
            3,
            "is missing",
        ),
        (
            &format!(
                "{registry}[[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \"some\"\n"
            ),
            5,
            "`some` is not `all`",
        ),
        (
            &format!(
                "{by_digest}[[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \"all\"\n"
            ),
            6,
            "does not go together with `mirror-by-digest-only`",
        ),
        (
            &format!("{registry}{registry}insecure = true\n"),
            3,
            "another `insecure` elsewhere",
        ),
        (
            &format!("{registry}{registry}blocked = true\n"),
            3,
            "another `blocked` elsewhere",
        ),
        (
            &format!("{registry}[registries.block]\nregistries = []\n"),
            3,
            "version 2",
        ),
    ] {
        assert_wrong(text, line, words);
    }
}

#[test]
fn what_leads_nowhere_only_shows_when_it_is_used() {
    let folders =
        Folders::with("[[registry]]\nprefix = \"a.example\"\nlocation = \"b.example:1\"\n");
    let registries = folders.load(&[]).unwrap();
    let error = registries
        .sources(&reference("a.example:2/x:1"))
        .unwrap_err();
    assert!(matches!(error, PolicyError::Astray { .. }), "{error:?}");
}

#[test]
fn later_files_win() {
    let entry = |host: &str, mirror: &str| {
        format!(
            "[[registry]]\nlocation = \"{host}\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\n"
        )
    };
    let folders = Folders::new();
    let all = |folders: &Folders| {
        let registries = folders.load(&[]).unwrap();
        let first = |host: &str| {
            let places = registries
                .sources(&reference(&format!("{host}/x:1")))
                .unwrap();
            places[0].reference.registry().to_owned()
        };
        [first("a.example"), first("b.example"), first("c.example")].join(" ")
    };
    folders.write(
        "system/registries.conf",
        &(entry("a.example", "system.local") + &entry("b.example", "system.local")),
    );
    assert_eq!(all(&folders), "system.local system.local c.example");
    folders.write(
        "system/registries.conf.d/20.conf",
        &entry("b.example", "twenty.local"),
    );
    folders.write(
        "system/registries.conf.d/10.conf",
        &entry("b.example", "ten.local"),
    );
    folders.write("system/registries.conf.d/30.ignored", "not TOML");
    folders.write("system/registries.conf.d/40.conf/x.conf", "not TOML");
    assert_eq!(all(&folders), "system.local twenty.local c.example");
    folders.write(
        "user/registries.conf.d/05.conf",
        &entry("b.example", "five.local"),
    );
    assert_eq!(all(&folders), "system.local five.local c.example");
    folders.write("user/registries.conf", &entry("c.example", "user.local"));
    assert_eq!(all(&folders), "a.example five.local user.local");

    folders.write("only.conf", &entry("a.example", "only.local"));
    folders.write("over.conf", &entry("c.example", "over.local"));
    let load = |only: Option<&str>, over: Option<&str>| {
        let search = Search {
            only: only.map(|name| folders.path(name)),
            over: over.map(|name| folders.path(name)),
            ..folders.search()
        };
        Registries::load_from(&search, &[])
    };
    let registries = load(Some("only.conf"), Some("over.conf")).unwrap();
    assert_eq!(
        sources(&registries, "a.example/x:1"),
        "~only.local/x:1 a.example/x:1"
    );
    assert_eq!(sources(&registries, "b.example/x:1"), "b.example/x:1");
    assert_eq!(
        sources(&registries, "c.example/x:1"),
        "~over.local/x:1 c.example/x:1"
    );
    let registries = load(None, Some("over.conf")).unwrap();
    assert_eq!(
        sources(&registries, "b.example/x:1"),
        "~five.local/x:1 b.example/x:1"
    );
    assert_eq!(
        sources(&registries, "c.example/x:1"),
        "~over.local/x:1 c.example/x:1"
    );
    for (only, over) in [(Some("missing"), None), (None, Some("missing"))] {
        let error = load(only, over).unwrap_err();
        assert!(matches!(error, PolicyError::Read(_)), "{error:?}");
        assert!(error.to_string().contains("missing"), "{error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn version_1_is_understood_in_main_files() {
    let text = "[registries.search]\nregistries = ['a.example']\n\
                [registries.insecure]\nregistries = ['b.example', 'c.example/']\n\
                [registries.block]\nregistries = ['c.example']\n";
    let folders = Folders::with(text);
    let registries = folders.load(&[]).unwrap();
    assert_eq!(sources(&registries, "a.example/x:1"), "a.example/x:1");
    assert_eq!(sources(&registries, "b.example/x:1"), "!b.example/x:1");
    assert_eq!(blocked_by(&registries, "c.example/x:1"), "c.example");
    folders.write("user/registries.conf.d/x.conf", text);
    assert!(matches!(
        folders.load(&[]).unwrap_err(),
        PolicyError::Invalid {
            problem: PolicyProblem::OldDropIn,
            ..
        }
    ));
}
