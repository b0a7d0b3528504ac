//! What layers mean: image-spec `layer.md`, where it is silent what Docker and containerd do.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use super::*;

#[test]
fn a_deletion_hides_what_lower_layers_have_and_nothing_of_its_own_layer() {
    let unpacking = Unpacking::new();
    let one = Tar::default()
        .dir("d")
        .file("d/old", "")
        .dir("d/sub")
        .file("d/sub/x", "")
        .file("f", "lower")
        .file("g", "")
        .end();
    let two = Tar::default()
        .file("d/new", "")
        .file(".wh.d", "")
        .file("d/newer", "")
        .file("f", "upper")
        .file(".wh.f", "")
        .file(".wh.g", "")
        .file(".wh.nothing", "")
        .file("nowhere/.wh.x", "")
        .end();
    unpacking.unpack(&[one, two]);
    assert_eq!(unpacking.names(), ["d", "d/new", "d/newer", "f"]);
    assert_eq!(unpacking.read("f"), "upper");
}

#[test]
fn an_opaque_directory_hides_lower_layers_wherever_its_marker_stands() {
    for marker_first in [true, false] {
        let unpacking = Unpacking::new();
        let one = Tar::default()
            .file("d/a/old", "")
            .file("d/b", "")
            .file("e", "")
            .end();
        let two = Tar::default().dir("d");
        let two = if marker_first {
            two.file("d/.wh..wh..opq", "")
        } else {
            two
        };
        let two = two.file("d/a/new", "").file("d/c", "");
        let two = if marker_first {
            two
        } else {
            two.file("d/.wh..wh..opq", "")
        };
        let three = Tar::default().file("d/later", "").end();
        unpacking.unpack(&[one, two.end(), three]);
        assert_eq!(
            unpacking.names(),
            ["d", "d/a", "d/a/new", "d/c", "d/later", "e"],
            "{marker_first}"
        );
    }
}

#[test]
fn a_deleted_file_that_the_layer_links_to_stays_under_its_new_name() {
    let unpacking = Unpacking::new();
    let one = Tar::default().file("a", "content").end();
    unpacking.unpack(&[one, Tar::default().link("b", "a").file(".wh.a", "").end()]);
    assert_eq!(unpacking.names(), ["b"]);
    assert_eq!(unpacking.read("b"), "content");
}

#[test]
fn an_entry_replaces_what_is_of_another_kind() {
    let unpacking = Unpacking::new();
    let one = Tar::default()
        .file("file", "")
        .file("dir/x", "")
        .dir("target")
        .file("target/y", "")
        .symlink("link", "target")
        .end();
    let two = Tar::default()
        .dir("file")
        .symlink("dir", "target")
        .dir("link")
        .file("link/z", "")
        .end();
    unpacking.unpack(&[one, two]);
    assert_eq!(
        unpacking.names(),
        ["dir", "file", "link", "link/z", "target", "target/y"]
    );
    assert!(
        fs::symlink_metadata(unpacking.root().join("dir"))
            .unwrap()
            .is_symlink()
    );
    assert!(
        fs::symlink_metadata(unpacking.root().join("link"))
            .unwrap()
            .is_dir()
    );
}

#[test]
fn a_directory_that_is_there_gets_the_new_metadata_and_keeps_its_files() {
    let unpacking = Unpacking::new();
    let one = Tar::default()
        .pax(&[("SCHILY.xattr.user.old", b"1")])
        .dir("d")
        .file("d/x", "")
        .end();
    let two = Tar::default()
        .raw(b'5', "d", "", b"", |header| header.mode = *b"0001750\0")
        .file("d/y", "")
        .end();
    unpacking.unpack(&[one, two]);
    assert_eq!(unpacking.names(), ["d", "d/x", "d/y"]);
    let node = node::Node::read(&unpacking.root().join("d"))
        .unwrap()
        .unwrap();
    assert_eq!(
        (node.mode, node.mtime, node.xattrs.len()),
        (0o1750, (1_000_000_000, 0), 0)
    );
}

#[test]
fn directories_that_are_missing_are_made() {
    let unpacking = Unpacking::new();
    unpacking.unpack(&[Tar::default()
        .file("a/b/c", "")
        .symlink("l", "a")
        .file("l/new/x", "")
        .end()]);
    assert_eq!(
        unpacking.names(),
        ["a", "a/b", "a/b/c", "a/new", "a/new/x", "l"]
    );
    let metadata = fs::metadata(unpacking.root().join("a/b")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o755, 0));
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let unpacking = Unpacking::new();
    let time: (&str, &[u8]) = ("mtime", b"1234567890.123456789");
    unpacking.unpack(&[Tar::default()
        .pax(&[time])
        .dir("d")
        .pax(&[time])
        .file("d/f", "x")
        .pax(&[time])
        .symlink("d/l", "f")
        .pax(&[("mtime", b"-1.5")])
        .file("old", "")
        .end()]);
    for path in ["d", "d/f", "d/l"] {
        let node = node::Node::read(&unpacking.root().join(path))
            .unwrap()
            .unwrap();
        assert_eq!(node.mtime, (1_234_567_890, 123_456_789), "{path}");
    }
    let node = node::Node::read(&unpacking.root().join("old"))
        .unwrap()
        .unwrap();
    assert_eq!(node.mtime, (-2, 500_000_000));
}

#[test]
fn owners_modes_devices_and_capabilities_are_kept() {
    if !is_root("owners_modes_devices_and_capabilities_are_kept") {
        return;
    }
    let unpacking = Unpacking::new();
    // Version 2, cap_net_raw=ep, with a line break's byte in it.
    let capability = b"\x01\0\0\x02\x0a\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let owned = |header: &mut tar::UstarHeader| {
        header.uid = *b"0001750\0";
        header.gid = *b"0001751\0";
        header.mode = *b"0006755\0";
        header.dev_major = *b"0000001\0";
        header.dev_minor = *b"0000003\0";
    };
    let unpacked = unpacking.unpack(&[Tar::default()
        .pax(&[("SCHILY.xattr.security.capability", capability)])
        .raw(b'0', "ping", "", b"x", owned)
        .raw(b'2', "link", "nowhere", b"", owned)
        .raw(b'6', "fifo", "", b"", owned)
        .raw(b'3', "null", "", b"", owned)
        .pax(&[("uid", b"3000000"), ("gid", b"3000001")])
        .file("large-ids", "")
        .end()]);
    assert!(unpacked.skipped_devices.is_empty());
    assert_eq!((unpacked.entries, unpacked.bytes), (7, 1));
    let read = |path: &str| {
        node::Node::read(&unpacking.root().join(path))
            .unwrap()
            .unwrap()
    };
    for path in ["ping", "link", "fifo", "null"] {
        assert_eq!((read(path).uid, read(path).gid), (0o1750, 0o1751), "{path}");
    }
    assert_eq!(read("ping").mode, 0o6755);
    assert_eq!(read("ping").xattrs[&b"security.capability"[..]], capability);
    assert_eq!(read("null").rdev, rustix::fs::makedev(1, 3));
    assert_eq!(
        (read("large-ids").uid, read("large-ids").gid),
        (3_000_000, 3_000_001)
    );
}

#[test]
fn owners_that_are_not_set_are_written_down_as_they_are_at_the_end() {
    let unpacking = Unpacking::new();
    let user = |header: &mut tar::UstarHeader| {
        header.uid = *b"0001750\0";
        header.gid = *b"0000000\0";
    };
    let zero = |header: &mut tar::UstarHeader| {
        header.uid = *b"0000000\0";
        header.gid = *b"0000000\0";
    };
    let one = Tar::default()
        .raw(b'5', "run", "", b"", zero)
        .symlink("var", "run")
        .raw(b'0', "var/a b", "", b"", user)
        .link("hard", "run/a b")
        .raw(b'0', "replaced", "", b"", user)
        .raw(b'0', "deleted", "", b"", user)
        .raw(b'0', "root", "", b"", zero)
        .end();
    let two = Tar::default()
        .raw(b'0', "replaced", "", b"", zero)
        .file(".wh.deleted", "")
        .raw(b'5', "run/d", "", b"", user)
        .end();
    let owners = unpacking.directory.path().join("owners");
    let layers = [one, two]
        .iter()
        .map(|tar| layer_of(unpacking.directory.path(), tar, tar))
        .collect();
    unpack(&UnpackRequest {
        layers,
        rootfs: unpacking.root(),
        owners: Some(owners.clone()),
        coming: None,
        is_alone: false,
    })
    .unwrap();
    let text = fs::read_to_string(&owners).unwrap();
    let mut lines: Vec<_> = text.split_terminator('\0').collect();
    // Whose the symbolic link is depends on who runs the test.
    lines.retain(|line| !line.ends_with(" var"));
    assert_eq!(lines, ["1000 0 hard", "1000 0 run/a b", "1000 0 run/d"]);
    let owner = fs::metadata(unpacking.root().join("replaced"))
        .unwrap()
        .uid();
    assert_eq!(owner, rustix::process::geteuid().as_raw());
}

#[test]
fn every_compression_is_read_whatever_the_media_type_says() {
    let tar = Tar::default().file("a", &"content ".repeat(100_000)).end();
    let gzip = |data: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let (head, tail) = tar.split_at(300_001);
    let blobs = [
        tar.clone(),
        gzip(&tar),
        [gzip(head), gzip(b""), gzip(tail)].concat(),
        zstd::encode_all(&tar[..], 3).unwrap(),
        [
            zstd::encode_all(head, 3).unwrap(),
            b"\x50\x2a\x4d\x18\x02\0\0\0xx".to_vec(),
            zstd::encode_all(tail, 3).unwrap(),
        ]
        .concat(),
    ];
    for (index, blob) in blobs.iter().enumerate() {
        let unpacking = Unpacking::new();
        let layers = vec![layer_of(unpacking.directory.path(), blob, &tar)];
        unpack(&UnpackRequest {
            layers,
            rootfs: unpacking.root(),
            owners: None,
            coming: None,
            is_alone: false,
        })
        .unwrap();
        assert_eq!(unpacking.read("a").len(), 800_000, "{index}");
    }
    let unpacking = Unpacking::new();
    let cut = &blobs[1][..blobs[1].len() - 9];
    let layers = vec![layer_of(unpacking.directory.path(), cut, &tar)];
    let result = unpack(&UnpackRequest {
        layers,
        rootfs: unpacking.root(),
        owners: None,
        coming: None,
        is_alone: false,
    });
    assert!(
        matches!(
            result,
            Err(Error::Malformed {
                source: Malformed::Stream(_),
                ..
            })
        ),
        "{result:?}"
    );
}

#[test]
fn old_formats_are_read() {
    let unpacking = Unpacking::new();
    let long = "n".repeat(120);
    let name = format!("{long}\0");
    unpacking.unpack(&[Tar::default()
        .raw(b'L', "././@LongLink", "", name.as_bytes(), |_| ())
        .raw(b'0', "cut", "", b"x", |_| ())
        .raw(b'K', "././@LongLink", "", name.as_bytes(), |_| ())
        .raw(b'1', "hard", "cut", b"", |_| ())
        .raw(b'\0', "v7-directory/", "", b"", |header| {
            header.mode = *b"0000755\0";
            header.magic = [0; 6];
            header.version = [0; 2];
        })
        .raw(b'7', "contiguous", "", b"y", |_| ())
        .raw(b'g', "pax_global_header", "", b"13 comment=x\n", |_| ())
        .raw(b'0', "name", "", b"", |header| {
            header.prefix[..6].copy_from_slice(b"prefix");
        })
        .raw(b'5', "./", "", b"", |header| header.mode = *b"0000711\0")
        .0]);
    assert_eq!(
        unpacking.names(),
        [
            "contiguous",
            "hard",
            &long,
            "prefix",
            "prefix/name",
            "v7-directory"
        ]
    );
    assert_eq!(
        fs::metadata(unpacking.root()).unwrap().mode() & 0o7777,
        0o711
    );
}

#[test]
fn a_full_disk_is_told_before_it_is_filled() {
    if !is_root("a_full_disk_is_told_before_it_is_filled") {
        return;
    }
    let unpacking = Unpacking::new();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", unpacking.root(), "tmpfs", flags, c"size=1m").unwrap();
    let result = unpacking.try_unpack(&[Tar::default().file("large", &"x".repeat(2 << 20)).end()]);
    rustix::mount::unmount(unpacking.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
    let error = result.unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("--store"));
}
