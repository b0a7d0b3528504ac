//! What we write is read back: by us, by GNU tar, by Python, by gzip and zstd.

use std::process::Command;

use proptest::prelude::*;

use super::changes::{Op, apply_all, ops};
use super::*;

fn store(directory: &Path) -> Store {
    Store::open(&directory.join("store")).unwrap()
}

/// The whole tree at `root` as a layer.
fn layer_of_tree(root: &Path, directory: &Path, compression: Compression) -> Option<Layer> {
    let empty = directory.join("empty");
    if !empty.exists() {
        fs::create_dir(&empty).unwrap();
        fs::set_permissions(&empty, fs::metadata(root).unwrap().permissions()).unwrap();
        snapshot(&empty, &directory.join("empty.snapshot")).unwrap();
    }
    write_changes(&ChangesRequest {
        changes: Changes::Walk {
            root: root.to_owned(),
            snapshot: directory.join("empty.snapshot"),
        },
        ignore: Vec::new(),
        owners: None,
        times: own_times(),
        compression,
        store: store(directory).root().to_owned(),
    })
    .unwrap()
}

/// Unpacks layers, lowest first, into `DIRECTORY/NAME`.
pub(super) fn unpack_into(directory: &Path, name: &str, layers: &[Layer]) -> PathBuf {
    let store = store(directory);
    let rootfs = directory.join(name);
    fs::create_dir(&rootfs).unwrap();
    let layers = layers
        .iter()
        .map(|layer| (store.blob_path(&layer.descriptor.digest), layer.clone()))
        .collect();
    unpack(&UnpackRequest {
        layers,
        rootfs: rootfs.clone(),
        owners: None,
        coming: None,
        is_alone: false,
    })
    .unwrap();
    rootfs
}

fn difficult_tree(root: &Path) {
    fs::create_dir(root).unwrap();
    fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let deep = format!("{}/{}/{}", "d".repeat(60), "e".repeat(60), "f".repeat(40));
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(&deep).join("in-prefix"), "1").unwrap();
    fs::create_dir_all(root.join(&deep).join("g".repeat(98))).unwrap();
    fs::write(root.join(&deep).join("g".repeat(98)).join("h"), "2").unwrap();
    fs::write(root.join("n".repeat(255)), "3").unwrap();
    fs::write(root.join("n".repeat(100)), "4").unwrap();
    fs::create_dir(root.join("m".repeat(100))).unwrap();
    fs::write(root.join("größe"), "5").unwrap();
    fs::write(root.join(os(b"not-utf8-\xff\xfe")), "6").unwrap();
    fs::write(root.join("line\nbreak"), "7").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("large"), vec![7; 3_000_001]).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), root.join("long-target")).unwrap();
    std::os::unix::fs::symlink("zäh", root.join("utf8-target")).unwrap();
    std::os::unix::fs::symlink("/absolute", root.join("a-link")).unwrap();
    fs::hard_link(root.join("large"), root.join("linked")).unwrap();
    fs::hard_link(root.join("a-link"), root.join("linked-link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    rustix::fs::setxattr(
        root.join("empty"),
        "user.empty",
        b"",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    rustix::fs::setxattr(
        root.join("empty"),
        "user.note",
        b"a\nb\0c",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    for (path, time) in [("größe", -5), ("empty", 1 << 33), ("n", 0)] {
        let time = rustix::fs::Timespec {
            tv_sec: time,
            tv_nsec: 0,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        let _ = rustix::fs::utimensat(
            rustix::fs::CWD,
            root.join(path),
            &times,
            rustix::fs::AtFlags::empty(),
        );
    }
}

fn comparable(root: &Path) -> Vec<String> {
    // Sockets are not in layers.
    listing(root)
        .into_iter()
        .filter(|line| !line.starts_with("socket "))
        .collect()
}

#[test]
fn a_difficult_tree_survives_every_compression() {
    let directory = scratch();
    let tree = directory.path().join("tree");
    difficult_tree(&tree);
    for compression in [
        Compression::Gzip(6),
        Compression::Zstd(3),
        Compression::None,
    ] {
        let layer = layer_of_tree(&tree, directory.path(), compression).unwrap();
        assert_eq!(layer.descriptor.media_type, compression.media_type());
        let copy = unpack_into(directory.path(), &compression.to_string(), &[layer]);
        assert_eq!(comparable(&copy), comparable(&tree), "{compression}");
        let inode = |path: &str| {
            std::os::unix::fs::MetadataExt::ino(&fs::symlink_metadata(copy.join(path)).unwrap())
        };
        assert_eq!(inode("large"), inode("linked"));
        assert_eq!(inode("a-link"), inode("linked-link"));
    }
    let copied = directory.path().join("copied");
    copy(&tree, &copied).unwrap();
    assert_eq!(comparable(&copied), comparable(&tree));
    assert_eq!(
        std::os::unix::fs::MetadataExt::nlink(&fs::metadata(copied.join("linked")).unwrap()),
        1
    );
}

/// Runs a tool; `None`, loudly, if the machine does not have it.
#[expect(clippy::print_stderr, reason = "a test that is skipped has to be seen")]
fn tool(command: &mut Command) -> Option<Vec<u8>> {
    match command.output() {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{command:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(
                output.stderr.is_empty(),
                "{command:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Some(output.stdout)
        }
        Err(error) => {
            assert!(
                std::env::var_os("REQUIRE_ALL").is_none_or(|value| value != "1"),
                "{command:?}: {error}"
            );
            eprintln!("SKIPPED: {command:?}: {error}");
            None
        }
    }
}

#[test]
fn other_peoples_tools_read_what_we_write() {
    let directory = scratch();
    let tree = directory.path().join("tree");
    difficult_tree(&tree);
    let blob = |compression| {
        let layer = layer_of_tree(&tree, directory.path(), compression).unwrap();
        store(directory.path()).blob_path(&layer.descriptor.digest)
    };
    let (gzip, zstd) = (blob(Compression::Gzip(6)), blob(Compression::Zstd(3)));
    let plain = blob(Compression::None);
    let gzip_input = fs::File::open(&gzip).unwrap().into_parts().0;
    tool(Command::new("gzip").arg("-t").stdin(gzip_input));
    let zstd_input = fs::File::open(&zstd).unwrap().into_parts().0;
    tool(Command::new("zstd").args(["-q", "-t"]).stdin(zstd_input));

    for (index, blob) in [&gzip, &plain].into_iter().enumerate() {
        let by_tar = directory.path().join(format!("by-tar-{index}"));
        fs::create_dir(&by_tar).unwrap();
        fs::set_permissions(&by_tar, fs::metadata(&tree).unwrap().permissions()).unwrap();
        let mut tar = Command::new("tar");
        tar.args([
            "--xattrs",
            "--xattrs-include=*",
            "-p",
            "--numeric-owner",
            "--warning=no-timestamp",
        ]);
        tar.arg(if index == 0 { "-xzf" } else { "-xf" })
            .arg(blob)
            .arg("-C")
            .arg(&by_tar);
        if tool(&mut tar).is_some() {
            assert_eq!(comparable(&by_tar), comparable(&tree));
        }
    }
    let script = "
import tarfile, sys, os
for member in tarfile.open(sys.argv[1], errors='surrogateescape'):
    name = os.fsencode(member.name)
    sys.stdout.buffer.write(b'%s %d %o %d %s\\0' % (name, member.size, member.mode, member.mtime, os.fsencode(member.linkname)))
";
    let ours: Vec<u8> = {
        let mut archive = archive::Archive::new(fs::File::open(&plain).unwrap(), u64::MAX);
        let mut text = Vec::new();
        while let Some(entry) = archive.next().unwrap() {
            text.extend_from_slice(&entry.path);
            let rest = format!(" {} {:o} {} ", entry.size, entry.mode, entry.mtime.0);
            text.extend_from_slice(rest.as_bytes());
            text.extend_from_slice(&entry.link);
            text.push(0);
        }
        text
    };
    for blob in [&gzip, &plain] {
        if let Some(output) = tool(Command::new("python3").args(["-c", script]).arg(blob)) {
            assert_eq!(
                output.escape_ascii().to_string(),
                ours.escape_ascii().to_string()
            );
        }
    }
}

#[test]
fn the_workspace_belongs_to_root_and_keeps_modes_and_links() {
    let directory = scratch();
    let root = directory.path().join("tree");
    let tree = root.join("workspace");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("run.sh"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(
        tree.join("run.sh"),
        std::os::unix::fs::PermissionsExt::from_mode(0o751),
    )
    .unwrap();
    fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::set_permissions(
        tree.join("sub"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    fs::hard_link(tree.join("run.sh"), tree.join("sub/other")).unwrap();
    std::os::unix::fs::symlink("../run.sh", tree.join("sub/link")).unwrap();
    let store = store(directory.path());
    let times = Times {
        fixed_under: vec!["workspace".into()],
        fixed: 315_619_200,
        clamp: None,
    };
    let write = || write_tree(&root, &times, Compression::None, &store);
    let layer = write().unwrap();
    let blob = store.blob_path(&layer.descriptor.digest);
    let mut archive = archive::Archive::new(fs::File::open(&blob).unwrap(), u64::MAX);
    let mut entries = Vec::new();
    while let Some(entry) = archive.next().unwrap() {
        assert_eq!(
            (entry.uid, entry.gid, entry.mtime),
            (0, 0, (315_619_200, 0))
        );
        entries.push(format!(
            "{} {:?} {:o} {}",
            entry.path.escape_ascii(),
            entry.kind,
            entry.mode,
            entry.link.escape_ascii()
        ));
    }
    insta::assert_snapshot!(entries.join("\n"), @r"
    workspace Directory 755 
    workspace/run.sh File 751 
    workspace/sub Directory 755 
    workspace/sub/link Symlink 777 ../run.sh
    workspace/sub/other File 751 
    ");
    assert_eq!(write().unwrap(), layer);

    fs::write(
        tree.join(whiteout::name_for(b"x").escape_ascii().to_string()),
        "",
    )
    .unwrap();
    assert!(matches!(write(), Err(Error::Reserved { .. })));
    remove(&tree.join(whiteout::name_for(b"x").escape_ascii().to_string())).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    assert!(matches!(write(), Err(Error::Special { .. })));
}

/// More zeros than a stranger's layer of this size may hold, and bytes at either end of a hole.
#[test]
fn holes_are_neither_read_nor_written() {
    use fs_err::os::unix::fs::FileExt as _;
    use std::os::unix::fs::MetadataExt as _;
    const SIZE: u64 = (1 << 30) + (1 << 28) + 7;
    let directory = scratch();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let file = fs::File::create(tree.join("sparse")).unwrap();
    file.set_len(SIZE).unwrap();
    let marks: [(&[u8], u64); 4] = [
        (b"begin", 0),
        (b"middle", (1 << 29) - 3),
        (b"page", 1 << 30),
        (b"end", SIZE - 3),
    ];
    for (mark, at) in marks {
        file.write_all_at(mark, at).unwrap();
    }
    let began = std::time::Instant::now();
    let copied = directory.path().join("copied");
    copy(&tree, &copied).unwrap();
    let layer = layer_of_tree(&tree, directory.path(), Compression::Gzip(1)).unwrap();
    let unpacked = unpack_into(directory.path(), "unpacked", &[layer]);
    for root in [&copied, &unpacked] {
        let file = fs::File::open(root.join("sparse")).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), SIZE);
        assert!(metadata.blocks() * 512 < 2 << 20, "{}", metadata.blocks());
        for (mark, at) in marks {
            let mut found = vec![0; mark.len()];
            file.read_exact_at(&mut found, at).unwrap();
            assert_eq!(found, mark, "{at} of {root:?} after {:?}", began.elapsed());
        }
        assert_eq!(
            snapshot::content_digest(&root.join("sparse")).unwrap(),
            snapshot::content_digest(&tree.join("sparse")).unwrap()
        );
    }
}

#[test]
fn a_layer_has_a_limit() {
    let directory = scratch();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let file = fs::File::create(tree.join("sparse")).unwrap();
    file.set_len(8 << 40).unwrap();
    let result = write_tree(
        &tree,
        &own_times(),
        Compression::Gzip(1),
        &store(directory.path()),
    );
    let error = result.unwrap_err();
    assert!(
        matches!(&error, Error::TooLarge { path, .. } if path == Path::new("/sparse")),
        "{error}"
    );
    assert!(error.to_string().contains("100 GiB"), "{error}");
}

#[test]
fn a_file_that_is_not_as_long_as_it_was_is_an_error() {
    let directory = scratch();
    let from = directory.path().join("file");
    fs::write(&from, "12345").unwrap();
    for size in [4, 6, 0] {
        let mut writer = LayerWriter::new(&store(directory.path()), Compression::None).unwrap();
        let result = writer.append(&Header {
            path: b"file",
            content: Content::File { size, from: &from },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: &Xattrs::new(),
        });
        assert!(matches!(result, Err(Error::Changed { .. })), "{size}");
    }
    let leftovers = fs::read_dir(directory.path().join("store/tmp"))
        .unwrap()
        .count();
    assert_eq!(leftovers, 0, "half a blob was left behind");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_that_is_written_and_unpacked_is_the_same(ops in ops()) {
        tree_survives(&ops);
    }
}

fn tree_survives(ops: &[Op]) {
    let directory = scratch();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    apply_all(&tree, ops);
    let layers: Vec<_> = layer_of_tree(&tree, directory.path(), Compression::None)
        .into_iter()
        .collect();
    let unpacked = unpack_into(directory.path(), "unpacked", &layers);
    assert_eq!(listing(&unpacked), listing(&tree));
}
