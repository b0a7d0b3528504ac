//! Archives that were made to do harm: each is refused, or does no more than its words mean inside
//! the root. `Unpacking` checks after each that nothing outside was touched.

use super::*;

fn refusal(tar: Vec<u8>) -> Malformed {
    refusal_of(&[tar])
}

fn refusal_of(tars: &[Vec<u8>]) -> Malformed {
    match Unpacking::new().try_unpack(tars) {
        Err(Error::Malformed { source, .. }) => source,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_name_with_dot_dot_that_stays_inside_is_where_it_leads() {
    let unpacking = Unpacking::new();
    // Whatever `to` is: no reader goes through it.
    let tar = Tar::default()
        .symlink("to", "/outside")
        .file("opt/../opt/q", "1")
        .file("to/../r", "2")
        .link("opt/none/../s", "a/../opt/q")
        .dir("opt/sub/../../opt/d/.")
        .dir("opt/..");
    unpacking.unpack(&[tar.end()]);
    assert_eq!(
        unpacking.names(),
        ["opt", "opt/d", "opt/q", "opt/s", "r", "to"]
    );
    assert_eq!(unpacking.read("opt/s"), "1");
}

#[test]
fn a_name_with_dot_dot_that_leads_out_is_refused() {
    for name in [
        "../outside/new",
        "a/../../outside/new",
        "..",
        "/../x",
        "a/../..",
        "a/b/../../../x",
        "./../x",
    ] {
        let refused = refusal(Tar::default().file(name, "x").end());
        assert!(
            matches!(refused, Malformed::Escapes { .. }),
            "{name}: {refused}"
        );
        let refused = refusal(
            Tar::default()
                .pax(&[("path", name.as_bytes())])
                .file("a", "x")
                .end(),
        );
        assert!(
            matches!(refused, Malformed::Escapes { .. }),
            "{name}: {refused}"
        );
    }
}

#[test]
fn an_absolute_name_means_the_root_of_the_image() {
    let unpacking = Unpacking::new();
    let name = unpacking.outside().join("new");
    unpacking.unpack(&[Tar::default()
        .file("/etc/passwd", "x")
        .pax(&[("path", name.as_os_str().as_bytes())])
        .file("a", "y")
        .end()]);
    assert_eq!(unpacking.read("etc/passwd"), "x");
    assert_eq!(
        unpacking.read(name.strip_prefix("/").unwrap().to_str().unwrap()),
        "y"
    );
}

#[test]
fn a_link_to_the_outside_is_not_followed_there() {
    let unpacking = Unpacking::new();
    let outside = unpacking.outside();
    let tar = Tar::default()
        .symlink("l", outside.to_str().unwrap())
        .file("l/new", "x")
        .end();
    // Inside the root nothing is there, so the link has no directory to put the file in.
    let result = unpacking.try_unpack(&[tar]);
    assert!(
        matches!(
            result,
            Err(Error::Malformed {
                source: Malformed::Parent { .. },
                ..
            })
        ),
        "{result:?}"
    );
}

#[test]
fn a_chain_of_links_upwards_ends_at_the_root() {
    let unpacking = Unpacking::new();
    unpacking.unpack(&[Tar::default()
        .dir("a/b")
        .dir("outside")
        .symlink("a/b/up", "../../../../../..")
        .symlink("a/b/more", "up/..")
        .file("a/b/more/outside/new", "x")
        .end()]);
    assert_eq!(unpacking.read("outside/new"), "x");
}

#[test]
fn a_directory_that_is_swapped_for_a_link_is_not_remembered() {
    let unpacking = Unpacking::new();
    let outside = unpacking.outside();
    let tar = Tar::default()
        .dir("real")
        .dir("d")
        .file("d/one", "1")
        .symlink("d", outside.to_str().unwrap())
        .file("d/two", "2")
        .end();
    let result = unpacking.try_unpack(&[tar]);
    assert!(
        matches!(
            result,
            Err(Error::Malformed {
                source: Malformed::Parent { .. },
                ..
            })
        ),
        "{result:?}"
    );
    let unpacking = Unpacking::new();
    let tar = Tar::default()
        .dir("real")
        .file("d/one", "1")
        .symlink("d", "/real")
        .file("d/two", "2")
        .end();
    unpacking.unpack(&[tar]);
    assert_eq!(unpacking.names(), ["d", "real", "real/two"]);
}

#[test]
fn a_directory_that_went_away_is_not_remembered() {
    // Deleted by the next layer, and made again.
    let unpacking = Unpacking::new();
    let two = Tar::default().file(".wh.d", "").file("d/new", "").end();
    unpacking.unpack(&[Tar::default().file("d/old", "").end(), two]);
    assert_eq!(unpacking.names(), ["d", "d/new"]);
    // Replaced under another name of itself.
    let tar = Tar::default()
        .dir("x")
        .symlink("x/up", "..")
        .file("x/up/x", "")
        .file("x/up/z", "");
    assert!(matches!(refusal(tar.end()), Malformed::Parent { .. }));
}

#[test]
fn a_hard_link_does_not_reach_out() {
    let unpacking = Unpacking::new();
    let secret = unpacking.outside().join("secret");
    let up = format!("../../../../../..{}", secret.display());
    assert!(matches!(
        refusal(Tar::default().link("l", &up).end()),
        Malformed::Escapes { .. }
    ));
    for target in [secret.to_str().unwrap(), "nothing", "/etc/passwd"] {
        let refused = refusal(Tar::default().link("l", target).end());
        assert!(
            matches!(refused, Malformed::Link { .. }),
            "{target}: {refused}"
        );
    }
    // Through a link, which is resolved inside the root.
    let outside = unpacking.outside();
    let tar = Tar::default()
        .symlink("d", outside.to_str().unwrap())
        .link("l", "d/secret")
        .end();
    assert!(matches!(refusal(tar), Malformed::Link { .. }));
    // To a link, which is not followed.
    let tar = Tar::default()
        .symlink("s", secret.to_str().unwrap())
        .link("l", "s")
        .file("l", "overwritten")
        .end();
    unpacking.unpack(&[tar]);
    assert_eq!(unpacking.read("l"), "overwritten");
}

#[test]
fn hard_links_to_directories_and_to_themselves_are_refused() {
    assert!(matches!(
        refusal(Tar::default().dir("d").link("l", "d").end()),
        Malformed::Link { .. }
    ));
    assert!(matches!(
        refusal(Tar::default().file("l", "x").link("l", "l").end()),
        Malformed::Link { .. }
    ));
}

#[test]
fn a_file_replaces_a_link_and_does_not_write_through_it() {
    let unpacking = Unpacking::new();
    let secret = unpacking.outside().join("secret");
    let one = Tar::default()
        .symlink("l", secret.to_str().unwrap())
        .file("l", "mine")
        .end();
    let two = Tar::default().symlink("m", secret.to_str().unwrap()).end();
    let three = Tar::default().file("m", "mine").end();
    unpacking.unpack(&[one, two, three]);
    assert_eq!(unpacking.read("l"), "mine");
    assert_eq!(unpacking.read("m"), "mine");
}

#[test]
fn a_file_does_not_write_through_another_name_of_the_replaced_one() {
    let unpacking = Unpacking::new();
    let one = Tar::default().file("a", "lower").link("b", "a").end();
    unpacking.unpack(&[one, Tar::default().file("a", "upper").end()]);
    assert_eq!(
        (unpacking.read("a"), unpacking.read("b")),
        ("upper".into(), "lower".into())
    );
}

#[test]
fn deletions_that_mean_something_else_are_refused() {
    for name in [
        ".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh..", "a/.wh...", ".wh.a/b",
    ] {
        let refused = refusal(Tar::default().dir("a").file(name, "").end());
        assert!(
            matches!(refused, Malformed::Whiteout { .. }),
            "{name}: {refused}"
        );
    }
    let refused = refusal(
        Tar::default()
            .pax(&[("path", b".wh.../../../outside")])
            .file("a", "")
            .end(),
    );
    assert!(matches!(refused, Malformed::Escapes { .. }), "{refused}");
}

#[test]
fn a_deletion_through_a_link_stays_in_the_root() {
    let unpacking = Unpacking::new();
    let outside = unpacking.outside();
    let one = Tar::default()
        .dir("d")
        .file("d/x", "")
        .symlink("inner", "/d")
        .symlink("outer", outside.to_str().unwrap())
        .symlink("up", "..")
        .end();
    let two = Tar::default()
        .file("inner/.wh.x", "")
        .file("outer/.wh.secret", "")
        .file("outer/.wh..wh..opq", "")
        .file("up/outside/.wh..wh..opq", "")
        .end();
    unpacking.unpack(&[one, two]);
    assert_eq!(unpacking.names(), ["d", "inner", "outer", "up"]);
}

#[test]
fn a_deleted_link_does_not_delete_what_it_points_to() {
    let unpacking = Unpacking::new();
    let outside = unpacking.outside();
    let one = Tar::default()
        .symlink("l", outside.to_str().unwrap())
        .symlink("m", "d")
        .file("d/x", "")
        .end();
    unpacking.unpack(&[
        one,
        Tar::default().file(".wh.l", "").file(".wh.m", "").end(),
    ]);
    assert_eq!(unpacking.names(), ["d", "d/x"]);
}

#[test]
fn a_path_cannot_be_injected_by_a_line_break() {
    let unpacking = Unpacking::new();
    unpacking.unpack(&[Tar::default()
        .pax(&[("comment", b"x\n16 path=injected")])
        .file("a", "x")
        .end()]);
    assert_eq!(unpacking.names(), ["a"]);
}

#[test]
fn extended_headers_that_are_not_well_formed_are_refused() {
    let pax = |block: &[u8]| {
        refusal(
            Tar::default()
                .raw(b'x', "pax", "", block, |_| ())
                .file("a", "x")
                .end(),
        )
    };
    for block in [
        &b"9 path=b"[..],
        b"path=b\n",
        b"99999 path=b\n",
        b"12 path=b\n\0\0\0",
        b"8 path=\n7 uid=\n x",
    ] {
        assert!(matches!(pax(block), Malformed::Records { .. }));
    }
    for records in [
        &[("size", &b"-1"[..])][..],
        &[("size", b"99999999999999999999")],
        &[("uid", b"root")],
        &[("mtime", b"yesterday")],
        &[("path", b"a\0b")],
    ] {
        let refused = refusal(Tar::default().pax(records).file("a", "x").end());
        assert!(matches!(refused, Malformed::Records { .. }), "{refused}");
    }
    let twice = Tar::default()
        .pax(&[("path", b"a")])
        .pax(&[("path", b"b")])
        .file("c", "x")
        .end();
    assert!(matches!(refusal(twice), Malformed::Records { .. }));
    let both = Tar::default()
        .raw(b'L', "long", "", b"long\0", |_| ())
        .pax(&[("path", b"b")])
        .file("c", "x")
        .end();
    assert!(matches!(refusal(both), Malformed::Records { .. }));
    let large = Tar::default()
        .pax(&[("comment", &vec![b'x'; 2 << 20])])
        .file("c", "x")
        .end();
    assert!(matches!(refusal(large), Malformed::Records { .. }));
    assert!(matches!(
        refusal(Tar::default().pax(&[("path", b"a")]).end()),
        Malformed::Truncated
    ));
    assert!(matches!(
        refusal(Tar::default().pax(&[("path", b"a")]).0),
        Malformed::Truncated
    ));
}

#[test]
fn a_size_of_an_extended_header_counts() {
    // Readers that ignore it would take the content for the next header.
    let inner = Tar::default().file("hidden", "").0;
    let unpacking = Unpacking::new();
    let tar = Tar::default()
        .pax(&[("size", b"512")])
        .raw(b'0', "a", "", b"", |_| ());
    let tar = Tar([tar.0, inner].concat()).file("b", "x").end();
    unpacking.unpack(&[tar]);
    assert_eq!(unpacking.names(), ["a", "b"]);
    assert_eq!(fs::metadata(unpacking.root().join("a")).unwrap().len(), 512);
}

#[test]
fn sparse_files_and_unknown_kinds_are_refused_by_name() {
    for flag in [b'S', b'V', b'M', b'D', b'A', b'!'] {
        let refused = refusal(Tar::default().raw(flag, "odd", "", b"", |_| ()).end());
        assert!(
            matches!(&refused, Malformed::Unsupported { path, .. } if path == "odd"),
            "{refused}"
        );
    }
    let records: [(&str, &[u8]); 3] = [
        ("path", b"odd"),
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
    ];
    assert!(matches!(
        refusal(Tar::default().pax(&records).file("a", "x").end()),
        Malformed::Unsupported { .. }
    ));
}

#[test]
fn names_that_the_kernel_does_not_take_are_refused() {
    assert!(matches!(
        refusal(Tar::default().file("", "x").end()),
        Malformed::Name { .. }
    ));
    let long = vec![b'x'; 5000];
    assert!(matches!(
        refusal(Tar::default().pax(&[("path", &long)]).file("a", "x").end()),
        Malformed::Name { .. }
    ));
    assert!(matches!(
        refusal(Tar::default().symlink("a", "").end()),
        Malformed::Name { .. }
    ));
    assert!(matches!(
        refusal(Tar::default().file("./", "x").file("a", "").end()),
        Malformed::Unsupported { .. } | Malformed::Checksum { .. }
    ));
    let result = Unpacking::new().try_unpack(&[Tar::default()
        .pax(&[("path", &long[..300])])
        .file("a", "x")
        .end()]);
    assert!(matches!(result, Err(Error::File { .. })), "{result:?}");
}

#[test]
fn numbers_that_no_file_has_are_refused() {
    let edit = |edit: fn(&mut tar::UstarHeader)| {
        refusal(Tar::default().raw(b'0', "a", "", b"", edit).end())
    };
    assert!(matches!(
        edit(|header| header.size = [0xff; 12]),
        Malformed::Number { field: "size", .. }
    ));
    assert!(matches!(
        edit(|header| header.size = *b"00000000008\0"),
        Malformed::Number { field: "size", .. }
    ));
    assert!(matches!(
        edit(|header| header.uid = [0xff; 8]),
        Malformed::Number { field: "user", .. }
    ));
    assert!(matches!(
        edit(|header| header.gid = *b"\x80\0\0\0\xff\xff\xff\xff"),
        Malformed::Number { field: "group", .. }
    ));
    assert!(matches!(
        edit(|header| header.mode = *b"0000x44\0"),
        Malformed::Number { field: "mode", .. }
    ));
}

#[test]
fn archives_that_are_cut_short_or_damaged_are_refused() {
    let whole = Tar::default().file("a", &"x".repeat(2000)).end();
    for length in [1, 511, 513, 1000, 512 + 2047] {
        assert!(
            matches!(refusal(whole[..length].to_owned()), Malformed::Truncated),
            "{length}"
        );
    }
    let mut damaged = whole.clone();
    damaged[3] ^= 1;
    assert!(matches!(refusal(damaged), Malformed::Checksum { at: 0 }));
    assert!(matches!(
        refusal(b"not a tar at all".repeat(64)),
        Malformed::Checksum { .. }
    ));
    let hidden = [vec![0; 512], whole].concat();
    assert!(matches!(refusal(hidden), Malformed::Checksum { .. }));
}

#[test]
fn a_parent_that_is_a_file_is_refused() {
    let tar = Tar::default().file("a", "x").file("a/b", "x").end();
    assert!(matches!(refusal(tar), Malformed::Parent { .. }));
    let tar = Tar::default().symlink("a", "a").file("a/b", "x").end();
    assert!(matches!(refusal(tar), Malformed::Parent { .. }));
}

#[test]
fn a_blob_with_other_bytes_is_refused() {
    let unpacking = Unpacking::new();
    let tar = Tar::default().file("a", "x").end();
    let (path, layer) = layer_of(unpacking.directory.path(), &tar, &tar);
    let try_layer = |layer: &Layer| {
        let layers = vec![(path.clone(), layer.clone())];
        let _ = remove(&unpacking.root());
        fs::create_dir(unpacking.root()).unwrap();
        unpack(&UnpackRequest {
            layers,
            rootfs: unpacking.root(),
            owners: None,
            coming: None,
            is_alone: false,
        })
    };
    try_layer(&layer).unwrap();
    let mut wrong = layer.clone();
    wrong.diff_id = DiffId(Digest::of(b"other"));
    assert!(matches!(try_layer(&wrong), Err(Error::DiffId { .. })));
    let mut wrong = layer.clone();
    wrong.descriptor.digest = Digest::of(b"other");
    assert!(matches!(try_layer(&wrong), Err(Error::Damaged { .. })));
    let mut wrong = layer.clone();
    wrong.descriptor.size += 1;
    assert!(matches!(try_layer(&wrong), Err(Error::Size { .. })));
    // Damage is reported as damage, whatever the reader made of the bytes.
    let mut damaged = tar;
    damaged[600] ^= 1;
    damaged[1] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert!(matches!(try_layer(&layer), Err(Error::Damaged { .. })));
}

#[test]
fn devices_0_0_and_attributes_of_overlays_do_not_reach_the_tree() {
    if !is_root("devices_0_0_and_attributes_of_overlays_do_not_reach_the_tree") {
        return;
    }
    let unpacking = Unpacking::new();
    let zeros = |header: &mut tar::UstarHeader| {
        header.dev_major = *b"0000000\0";
        header.dev_minor = *b"0000000\0";
    };
    let unpacked = unpacking.unpack(&[Tar::default()
        .raw(b'3', "mark", "", b"", zeros)
        .pax(&[
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.kept", b"a\nb"),
        ])
        .dir("d")
        .end()]);
    assert_eq!(unpacked.skipped_devices, [PathBuf::from("mark")]);
    assert_eq!(unpacking.names(), ["d"]);
    let node = node::Node::read(&unpacking.root().join("d"))
        .unwrap()
        .unwrap();
    assert_eq!(
        node.xattrs,
        Xattrs::from([(b"user.kept".to_vec(), b"a\nb".to_vec())])
    );
    assert_eq!(
        node::xattr(&unpacking.root().join("d"), b"trusted.overlay.opaque").unwrap(),
        None
    );
}

#[test]
fn a_tree_deeper_than_files_may_be_open_is_removed() {
    let unpacking = Unpacking::new();
    let mut parent = rustix::fs::open(
        unpacking.root(),
        rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&parent, "a-directory", rustix::fs::Mode::RWXU).unwrap();
        parent = rustix::fs::openat(
            &parent,
            "a-directory",
            rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
    }
    rustix::fs::fchmod(&parent, rustix::fs::Mode::empty()).unwrap();
    remove(&unpacking.root()).unwrap();
    assert!(!unpacking.root().exists());
    remove(&unpacking.root()).unwrap();
}

#[test]
fn removing_follows_no_link() {
    let unpacking = Unpacking::new();
    std::os::unix::fs::symlink(unpacking.outside(), unpacking.root().join("l")).unwrap();
    remove(&unpacking.root().join("l")).unwrap();
    std::os::unix::fs::symlink(unpacking.outside(), unpacking.root().join("l")).unwrap();
    remove(&unpacking.root()).unwrap();
    assert_eq!(
        fs::read_to_string(unpacking.outside().join("secret")).unwrap(),
        "untouched"
    );
}
