//! Where images are, by the files of the container tools; skopeo reads the same files.

mod files;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::registry::mirrors::Search;
use crate::registry::{Place, PolicyError, Reference, Registries};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A user's and a system's folder.
struct Folders {
    directory: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// The same with one file of the user.
    fn with(text: &str) -> Self {
        let folders = Self::new();
        folders.write("user/registries.conf", text);
        folders
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    fn search(&self) -> Search {
        Search {
            user: Some(self.path("user")),
            system: self.path("system"),
            ..Search::default()
        }
    }

    fn load(&self, mirrors: &[&str]) -> Result<Registries, PolicyError> {
        let mirrors: Vec<_> = mirrors.iter().map(|text| (*text).to_owned()).collect();
        Registries::load_from(&self.search(), &mirrors)
    }
}

/// The places in short: `~` is a mirror, `!` insecure.
fn short(places: &[Place]) -> String {
    let one = |place: &Place| {
        let mirror = if place.is_mirror { "~" } else { "" };
        let insecure = if place.insecure { "!" } else { "" };
        format!("{mirror}{insecure}{}", place.reference)
    };
    places.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn sources(registries: &Registries, text: &str) -> String {
    short(&registries.sources(&reference(text)).unwrap())
}

fn blocked_by(registries: &Registries, text: &str) -> String {
    let error = registries.sources(&reference(text)).unwrap_err();
    let PolicyError::Blocked { prefix, .. } = &error else {
        panic!("{error:?}");
    };
    prefix.clone()
}

#[test]
fn without_files_every_image_is_where_it_says() {
    let folders = Folders::new();
    for registries in [Registries::default(), folders.load(&[]).unwrap()] {
        assert_eq!(
            sources(&registries, "python:3"),
            "docker.io/library/python:3"
        );
        let target = registries.target(&reference("r.example/x:1")).unwrap();
        assert_eq!(short(&[target]), "r.example/x:1");
    }
}

#[test]
fn the_longest_prefix_counts() {
    let folders = Folders::with(
        r#"
        unqualified-search-registries = ["example.com"]
        unknown = { key = 1 }

        [[registry]]
        prefix = "example.com/foo/"
        location = "internal.example:5000/bar"
        insecure = true

        [[registry.mirror]]
        location = "mirror-0.local/mirror-for-foo/"
        [[registry.mirror]]
        location = "mirror-1.local/mirrors/foo"
        insecure = true
        unknown = 1

        [[registry]]
        location = "example.com"

        [[registry]]
        prefix = "example.com/foo/image:old"
        location = "example.com/foo/image:old"
        [[registry.mirror]]
        location = "attic.local/image:old"

        [[registry]]
        location = "docker.io/library"
        [[registry.mirror]]
        location = "mirror.local/hub/library"

        [[registry]]
        prefix = "*.example.org"
        insecure = true

        [[registry]]
        prefix = "*.sub.example.org"
        location = "one.example/all"

        [aliases]
        "fedora" = "registry.fedoraproject.org/fedora"
        "#,
    );
    let registries = folders.load(&[]).unwrap();
    for (text, expected) in [
        (
            "example.com/foo/image:latest",
            "~mirror-0.local/mirror-for-foo/image:latest ~!mirror-1.local/mirrors/foo/image:latest \
             !internal.example:5000/bar/image:latest",
        ),
        (
            "example.com/foo:1",
            "~mirror-0.local/mirror-for-foo:1 ~!mirror-1.local/mirrors/foo:1 !internal.example:5000/bar:1",
        ),
        ("example.com/fool/image:1", "example.com/fool/image:1"),
        (
            "example.com/foo/image:old",
            "~attic.local/image:old example.com/foo/image:old",
        ),
        (
            "python:3",
            "~mirror.local/hub/library/python:3 docker.io/library/python:3",
        ),
        ("someone/python:3", "docker.io/someone/python:3"),
        ("example.org/x:1", "example.org/x:1"),
        ("A.B.Example.org:5000/x:1", "!A.B.Example.org:5000/x:1"),
        ("a.sub.example.org/x:1", "one.example/all/x:1"),
    ] {
        assert_eq!(sources(&registries, text), expected, "{text}");
    }
    let digested = format!("python:3@{DIGEST}");
    assert_eq!(
        sources(&registries, &digested),
        format!("~mirror.local/hub/library/python:3@{DIGEST} docker.io/library/python:3@{DIGEST}")
    );
    // Pushes go where they are told to, as with the container tools.
    let target = registries
        .target(&reference("example.com/foo/image:2"))
        .unwrap();
    assert_eq!(short(&[target]), "!example.com/foo/image:2");
}

#[test]
fn mirrors_may_be_for_digests_or_tags_only() {
    let folders = Folders::with(
        r#"
        [[registry]]
        location = "a.example"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m.example"

        [[registry]]
        location = "b.example"
        [[registry.mirror]]
        location = "digest.example"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tag.example"
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "all.example"
        pull-from-mirror = "all"
        "#,
    );
    let registries = folders.load(&[]).unwrap();
    assert_eq!(sources(&registries, "a.example/x:1"), "a.example/x:1");
    assert_eq!(
        sources(&registries, "b.example/x:1"),
        "~tag.example/x:1 ~all.example/x:1 b.example/x:1"
    );
    for (host, mirrors) in [("a", &["m"][..]), ("b", &["digest", "all"])] {
        let image = |host: &str| format!("{host}.example/x@{DIGEST}");
        let mut expected: Vec<_> = mirrors
            .iter()
            .map(|host| format!("~{}", image(host)))
            .collect();
        expected.push(image(host));
        assert_eq!(sources(&registries, &image(host)), expected.join(" "));
    }
}

#[test]
fn what_is_blocked_is_left_alone() {
    let folders = Folders::with(
        "[[registry]]\nlocation = \"bad.example\"\nblocked = true\n\
         [[registry]]\nlocation = \"bad.example/good\"\n\
         [[registry]]\nprefix = \"moved.example\"\nlocation = \"bad.example/x\"\n\
         [[registry]]\nlocation = \"bad.example/tagged:1\"\nblocked = true\n\
         [[registry]]\nlocation = \"only-mirrors.example\"\nblocked = true\n\
         [[registry.mirror]]\nlocation = \"bad.example\"\n\
         [[registry.mirror]]\nlocation = \"bad.example/good/mirror\"\n\
         [[registry]]\nprefix = \"no.example\"\nlocation = \"fine.example\"\nblocked = true\n",
    );
    let registries = folders.load(&[]).unwrap();
    for text in [
        "bad.example/x:1",
        "BAD.example/x:1",
        "bad.example:5000/x:1",
        "moved.example/y:1",
    ] {
        assert_eq!(blocked_by(&registries, text), "bad.example", "{text}");
    }
    assert_eq!(blocked_by(&registries, "no.example/x:1"), "no.example");
    assert_eq!(
        blocked_by(&registries, "bad.example/tagged:1"),
        "bad.example/tagged:1"
    );
    assert_eq!(
        sources(&registries, "bad.example/good/x:1"),
        "bad.example/good/x:1"
    );
    // Mirrors may replace what is blocked, so that nobody asks the place that counts.
    assert_eq!(
        sources(&registries, "only-mirrors.example/x:1"),
        "~bad.example/good/mirror/x:1"
    );
    for text in ["bad.example/x:1", "only-mirrors.example/x:1"] {
        let error = registries.target(&reference(text)).unwrap_err();
        assert!(matches!(error, PolicyError::Blocked { .. }), "{error}");
        assert!(error.hint().is_some());
    }
    let error = registries
        .target(&reference("bad.example/x:1"))
        .unwrap_err();
    let path = folders.path("user/registries.conf");
    assert_eq!(
        error.to_string(),
        format!(
            "`bad.example/x:1` is blocked by the prefix `bad.example` in `{}`, line 1",
            path.display()
        )
    );
}

#[test]
fn mirrors_of_the_command_line_come_first() {
    let folders = Folders::with(
        "[[registry]]\nlocation = \"docker.io\"\n\
         [[registry.mirror]]\nlocation = \"file.local\"\n\
         [[registry.mirror]]\nlocation = \"c.local\"\ninsecure = true\n",
    );
    let values = [
        "mirror.local/hub/",
        "index.docker.io=http://b.local:5000",
        "https://c.local",
        "quay.io=[::1]:5000/q",
    ];
    let registries = folders.load(&values).unwrap();
    assert_eq!(
        sources(&registries, "python:3"),
        "~mirror.local/hub/library/python:3 ~!b.local:5000/library/python:3 ~c.local/library/python:3 \
         ~file.local/library/python:3 docker.io/library/python:3"
    );
    assert_eq!(
        sources(&registries, "quay.io/a/b:1"),
        "~[::1]:5000/q/a/b:1 quay.io/a/b:1"
    );
    assert_eq!(sources(&registries, "ghcr.io/a/b:1"), "ghcr.io/a/b:1");
    for (value, shown) in [
        ("", "`` is not a mirror: it is empty"),
        ("=", "`=` is not a mirror: it is empty"),
        ("mirror", "`mirror` is not a host"),
        ("ftp://m.local", "begins with `ftp://`"),
        (
            "http://user:pa55@m.local/x",
            "`***@m.local/x` is not a mirror: it holds an `@`",
        ),
        (
            "docker.io=https://user:pa55@m.local",
            "`***@m.local` is not",
        ),
        ("m.local/Hub", "upper-case"),
        ("m.local/hub?x", "`hub?x`"),
        (
            "docker.io/library=m.local",
            "`docker.io/library` is not a host",
        ),
        ("docker=m.local", "`docker` is not a host"),
    ] {
        let error = folders.load(&[value]).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains(shown) && !text.contains("pa55"), "{text}");
        assert!(error.hint().unwrap().contains("--registry-mirror"));
    }
}

/// What skopeo says when nobody listens anywhere.
fn skopeo(home: &Path, reference: &str) -> String {
    let output = Command::new("skopeo")
        .args(["inspect", "--no-tags", &format!("docker://{reference}")])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home)
        .output()
        .unwrap();
    assert!(!output.status.success());
    // The message is quoted once more.
    String::from_utf8(output.stderr).unwrap().replace('\\', "")
}

#[test]
fn skopeo_asks_the_same_places() {
    if !crate::base::tests::has(&["skopeo"]) {
        return;
    }
    let folders = Folders::new();
    // Nobody listens on these ports, which only root could open.
    let text = r#"
        [[registry]]
        prefix = "wild.example/foo"
        location = "127.0.0.1:1/bar"
        [[registry.mirror]]
        location = "127.0.0.1:2/m"
        [[registry.mirror]]
        location = "127.0.0.1:3/digests"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "127.0.0.1:4/blocked"

        [[registry]]
        Location = "127.0.0.1:4"
        Blocked = true
        [[registry.mirror]]
        location = "127.0.0.1:5"

        [[registry]]
        prefix = "*.example"
        location = "127.0.0.1:6/any"

        [[registry]]
        location = "127.0.0.2"
        blocked = true

        [[registry]]
        prefix = "docker.io/library"
        location = "127.0.0.1:7/hub"
    "#;
    folders.write(".config/containers/registries.conf", text);
    folders.write("user/registries.conf", text);
    let registries = folders.load(&[]).unwrap();
    for (text, count) in [
        ("wild.example/foo/image:1", 2),
        (&format!("wild.example/foo/image@{DIGEST}"), 3),
        ("wild.example/image:1", 1),
        ("deep.wild.example/image:1", 1),
        ("127.0.0.1:4/image:1", 1),
        ("127.0.0.2/image:1", 0),
        ("127.0.0.2:1/image:1", 0),
        ("python:3", 1),
    ] {
        let said = skopeo(folders.directory.path(), text);
        // A place that it did not speak to is named with another reason.
        let asked: Vec<_> = said.split("pinging container registry ").skip(1).collect();
        let asked: Vec<_> = asked
            .iter()
            .map(|rest| rest.split(": ").next().unwrap())
            .collect();
        assert_eq!(asked.len(), count, "{text}: {said}");
        let reference = reference(text);
        match registries.sources(&reference) {
            Ok(places) => {
                let hosts: Vec<_> = places
                    .iter()
                    .map(|place| place.reference.registry())
                    .collect();
                assert_eq!(hosts, asked, "{text}: {said}");
                if count > 1 {
                    for place in places {
                        assert!(
                            said.contains(&place.reference.to_string()),
                            "{place:?}: {said}"
                        );
                    }
                }
            }
            Err(PolicyError::Blocked { prefix, .. }) => {
                assert!(asked.is_empty(), "{text}: {said}");
                assert!(
                    said.contains(&format!("registry {prefix} is blocked")),
                    "{said}"
                );
            }
            Err(error) => panic!("{error}"),
        }
    }
}
