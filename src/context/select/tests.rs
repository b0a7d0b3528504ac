use super::*;

/// A context with these files; links are `name -> target`.
fn context(names: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in names {
        let (name, target) = match name.split_once(" -> ") {
            Some((name, target)) => (name, Some(target)),
            None => (*name, None),
        };
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match target {
            Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            None if name.ends_with('/') => fs::create_dir_all(path).unwrap(),
            None => fs::write(path, name).unwrap(),
        }
    }
    root
}

/// `target=source` of each entry, both relative.
fn selected(root: &Path, sources: &[&str], exclude: &[&str], parents: bool) -> String {
    let owned = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    match select(root, &owned(sources), &owned(exclude), parents) {
        Ok(selection) => {
            let root = fs::canonicalize(root).unwrap();
            let show = |entry: &Selected| {
                let source = entry.source.strip_prefix(&root).unwrap().display();
                format!("{}={source}", entry.target.display())
            };
            let mut text: Vec<String> = selection.entries.iter().map(show).collect();
            if (selection.files, selection.directories) == (1, 0) {
                text.push("one".to_owned());
            }
            text.join(" ")
        }
        Err(error) => match &error.messages()[..] {
            [outer, inner] if outer.contains("`.dockerignore`") => {
                format!(".dockerignore: {inner}")
            }
            _ => error.to_string(),
        },
    }
}

#[test]
fn sources_are_found_as_the_reference_says() {
    let root = context(&[
        "a.txt",
        "b.txt",
        "hom.rs",
        "home.rs",
        "arr[0].txt",
        "d/x",
        "d/e/y",
        "d/e/link -> /a.txt",
        "to-d -> d",
        "to-a -> ../../../../a.txt",
        "empty/",
    ]);
    for (sources, expected) in [
        (&["a.txt"][..], "a.txt=a.txt one"),
        (&["/a.txt"], "a.txt=a.txt one"),
        (&["../../a.txt"], "a.txt=a.txt one"),
        (&["./d/../a.txt"], "a.txt=a.txt one"),
        (&["a.txt", "b.txt"], "a.txt=a.txt b.txt=b.txt"),
        (&["*.txt"], "a.txt=a.txt arr[0].txt=arr[0].txt b.txt=b.txt"),
        (&["ho?.rs"], "hom.rs=hom.rs one"),
        (&["hom*"], "hom.rs=hom.rs home.rs=home.rs"),
        (&["[a-a].txt"], "a.txt=a.txt one"),
        (&["[^a].txt"], "b.txt=b.txt one"),
        (&["arr[[]0].txt"], "arr[0].txt=arr[0].txt one"),
        (&["arr\\[0].txt"], "arr[0].txt=arr[0].txt one"),
        (&["d"], "=d e=d/e e/link=d/e/link e/y=d/e/y x=d/x"),
        (&["d/"], "=d e=d/e e/link=d/e/link e/y=d/e/y x=d/x"),
        (&["d/*"], "=d/e link=d/e/link y=d/e/y x=d/x"),
        (&["to-d"], "=d e=d/e e/link=d/e/link e/y=d/e/y x=d/x"),
        (&["to-a"], "to-a=a.txt one"),
        (&["to-d/e/y"], "y=d/e/y one"),
        (&["empty"], "=empty"),
        (&["none"], "the context has no `none`"),
        (&["*.none"], "the context has no `*.none`"),
        (&["a.txt/x"], "the context has no `a.txt/x`"),
        (&["[a.txt"], "`[a.txt` is not a pattern: a `[` has no `]`"),
        (
            &["[b-a].txt"],
            "`[b-a].txt` is not a pattern: a range in it runs backwards",
        ),
        // Patterns follow no link, but links in front of them and those that match are followed.
        (&["to-*/x"], "the context has no `to-*/x`"),
        (&["to-d/*"], "=d/e link=d/e/link y=d/e/y x=d/x"),
        (
            &["to-*"],
            "to-a=a.txt =d e=d/e e/link=d/e/link e/y=d/e/y x=d/x",
        ),
        (&["*/x", "**/x"], "x=d/x x=d/x"),
        (&["*/*/y"], "y=d/e/y one"),
        (&["a.txt/*", "a.txt"], "a.txt=a.txt one"),
        // A pattern may match nothing, beside other sources.
        (&["none*", "a.txt"], "a.txt=a.txt one"),
        (&["a.txt", "none*"], "a.txt=a.txt one"),
        (&["none*", "nor*"], "the context has no `nor*`"),
        (&["a.txt", "none"], "the context has no `none`"),
        (&["a.tx\\t"], "a.txt=a.txt one"),
        (&["a.tx\\?"], "the context has no `a.tx\\?`"),
    ] {
        assert_eq!(
            selected(root.path(), sources, &[], false),
            expected,
            "{sources:?}"
        );
    }
}

#[test]
fn parents_are_kept() {
    let root = context(&["x/a.txt", "x/y/b.txt", "z/c.txt"]);
    for (source, expected) in [
        ("x/a.txt", "x=x x/a.txt=x/a.txt"),
        ("x/*/b.txt", "x=x x/y=x/y x/y/b.txt=x/y/b.txt"),
        ("x/./y/b.txt", "y=x/y y/b.txt=x/y/b.txt"),
        ("x/./*", "a.txt=x/a.txt y=x/y y/b.txt=x/y/b.txt"),
        ("x/*", "x=x x/a.txt=x/a.txt x/y=x/y x/y/b.txt=x/y/b.txt"),
        ("**/b.txt", "x=x x/y=x/y x/y/b.txt=x/y/b.txt"),
        ("x/**", "x=x x/a.txt=x/a.txt x/y=x/y x/y/b.txt=x/y/b.txt"),
        (
            "x/**/*.txt",
            "x=x x/a.txt=x/a.txt x/y=x/y x/y/b.txt=x/y/b.txt",
        ),
        ("*/./y/*", "y=x/y y/b.txt=x/y/b.txt"),
        ("x/./y/../a.txt", "a.txt=x/a.txt"),
        ("none*", "the context has no `none*`"),
        ("x/none", "the context has no `x/none`"),
        ("none/./x", "the context has no `none/./x`"),
    ] {
        assert_eq!(
            selected(root.path(), &[source], &[], true),
            expected,
            "{source}"
        );
    }
}

#[test]
fn sources_with_parents_are_merged() {
    let root = context(&["x/a.txt", "x/y/b.txt", "z/c.txt", "l -> x", "z/l -> ../x"]);
    for (sources, exclude, expected) in [
        (
            &["x/y/./b.txt", "x/./y", "none*"][..],
            &[][..],
            "b.txt=x/y/b.txt y=x/y y/b.txt=x/y/b.txt",
        ),
        (&["x/a.txt", "x/*"], &["x/y"], "x=x x/a.txt=x/a.txt"),
        // Links are copied, and followed in front of the pivot alone.
        (&["l", "z/l*"], &[], "l=l z=z z/l=z/l"),
        (&["l/./a.txt"], &[], "a.txt=x/a.txt"),
        (&["l/a.txt"], &[], "the context has no `l/a.txt`"),
        (&["x/./y"], &["y/*", "!y/b.txt"], "y=x/y y/b.txt=x/y/b.txt"),
    ] {
        assert_eq!(
            selected(root.path(), sources, exclude, true),
            expected,
            "{sources:?}"
        );
    }
}

#[test]
fn sockets_are_left_out() {
    let root = context(&["d/file"]);
    let socket = root.path().join("d/socket");
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    assert_eq!(selected(root.path(), &["d"], &[], false), "=d file=d/file");
    let selection = select(root.path(), &["d".to_owned()], &[], false).unwrap();
    assert_eq!(selection.sockets, [Path::new("socket")]);
}

#[test]
fn what_is_ignored_or_excluded_is_not_there() {
    let root = context(&[
        "a.txt",
        "a.md",
        "README.md",
        "d/a.txt",
        "d/b.md",
        "d/e/c.md",
        "out/x",
        "out/keep/y",
        "link -> a.md",
        "to-out -> out",
    ]);
    assert_eq!(
        selected(root.path(), &["d"], &["**/*.md"], false),
        "=d a.txt=d/a.txt e=d/e"
    );
    assert_eq!(
        selected(root.path(), &["a*"], &["*.md"], false),
        "a.txt=a.txt"
    );
    fs::write(
        root.path().join(".dockerignore"),
        "# comment\n\n*.md\n!README.md\n**/c.md\nout\n!out/keep\n/d/a.txt\n",
    )
    .unwrap();
    for (source, expected) in [
        ("a.md", "the context has no `a.md`"),
        ("README.md", "README.md=README.md one"),
        ("d", "=d b.md=d/b.md e=d/e"),
        ("out", "=out keep=out/keep keep/y=out/keep/y"),
        ("out/keep", "=out/keep y=out/keep/y"),
        ("*.md", "README.md=README.md one"),
        ("link", "the context has no `link`"),
        ("to-out/keep/y", "y=out/keep/y one"),
        ("to-out/x", "the context has no `to-out/x`"),
    ] {
        assert_eq!(
            selected(root.path(), &[source], &[], false),
            expected,
            "{source}"
        );
    }
    for (pattern, expected) in [
        ("[a", "a `[` has no `]`"),
        ("a\\", "it ends with `\\`"),
        ("[z-a]", "a range in it runs backwards"),
        ("!", "nothing is behind its `!`"),
        ("a/[b", "a `[` has no `]`"),
        ("[]a]", "a `]` or `-`"),
        ("[-a]", "a `]` or `-`"),
        ("[a-]", "a `[` has no `]`"),
        ("[]", "a `[` has no `]`"),
        ("[^]", "a `[` has no `]`"),
        ("\u{feff}# comment", ""),
        ("  # no comment", ""),
        ("/", ""),
    ] {
        fs::write(root.path().join(".dockerignore"), pattern).unwrap();
        let found = selected(root.path(), &["README.md"], &[], false);
        let start = match expected {
            "" => "README.md=",
            _ => ".dockerignore: `",
        };
        assert!(
            found.starts_with(start) && found.contains(expected),
            "{pattern}: {found}"
        );
    }
}
