//! The proxy of bad days, with skopeo and curl as its clients: it spoils what it is told to, and nothing else.

use std::process::Command;
use std::time::Duration;

use super::servers::{copies, curl, image};
use crate::support::{Bench, Faults, Kind, Logged, Plan, Registry, have, succeed, verify};

/// Where an upload goes on.
fn location(head: &str) -> String {
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("Location: "));
    line.expect("a session").trim().to_owned()
}

#[test]
fn a_quiet_proxy_changes_nothing_and_counts() {
    let bench = Bench::current();
    let image = image(&bench);
    let Some(registry) = Registry::start() else {
        return;
    };
    let faults = Faults::start(registry.port(), Plan::quiet());
    let name = format!("docker://{}/team/image:1", faults.host());
    assert!(copies(&[], &image.image(), &name));
    let back = format!("oci:{}:1", bench.path("back").display());
    assert!(copies(&[], &name, &back));
    assert_eq!(verify(&bench.path("back"), "1").digest, image.digest);
    // The config is sent, too, and skopeo sends in chunks.
    let more = faults
        .sent()
        .checked_sub(image.size())
        .expect("all was sent");
    assert!((1..5000).contains(&more), "{more}");
    assert_eq!((faults.total(), faults.leaks()), (0, 0));
    let sent = registry.uploads();
    assert!(sent.iter().any(|one| one.method == "PATCH"), "{sent:?}");
    // A mount is no upload.
    let before = registry.uploads().len();
    let layer = &image.layers[0];
    let uploads = format!("http://{}/v2/team/other/blobs/uploads/", faults.host());
    let mount = format!("{uploads}?mount={layer}&from=team/image");
    assert_eq!(curl(&["-X", "POST", &mount]).1, 201);
    assert_eq!(registry.uploads().len(), before);
    assert!(registry.requests().iter().any(Logged::is_mount));
    let mount = format!("{uploads}?mount={layer}&from=team/nothing");
    assert_eq!(curl(&["-X", "POST", &mount]).1, 202);
    assert_eq!(registry.uploads().len(), before + 1);
}

#[test]
fn a_proxy_spoils_what_it_is_told_to() {
    if !have(&["curl"]) {
        return;
    }
    let bench = Bench::current();
    let image = image(&bench);
    let Some(registry) = Registry::start() else {
        return;
    };
    registry.push(&image.layout, "1", "team/image:1");
    let faults = Faults::start(registry.port(), Plan::quiet());
    let at = |path: &str| format!("http://{}/v2/team/image/{path}", faults.host());
    let blob = at(&format!("blobs/{}", image.layers[1]));
    let path = bench.path("blob").display().to_string();
    let sound = fs_err::read(registry.blob(&image.layers[1])).expect("there");
    let fetch = || {
        let _ = fs_err::remove_file(&path);
        let (_, status) = curl(&["-L", "-o", &path, "-D", "/dev/null", "-u", "a:pa55", &blob]);
        (status, fs_err::read(&path).unwrap_or_default())
    };
    assert_eq!(fetch(), (200, sound.clone()));
    // curl gives 000 without an answer, and the status of what was cut.
    for (kind, place, status, length) in [
        (Kind::CutRequest, 20, 0, 0),
        (Kind::CutAnswer, 5, 0, 0),
        (Kind::Short, 1234, 200, 1234),
        (Kind::Long, 1, 200, sound.len()),
        (Kind::Busy, 0, 429, 60),
        (Kind::Unwell, 2, 503, 60),
        (Kind::Expired, 0, 401, 60),
        (Kind::Stall, 20, 0, 0),
    ] {
        faults.expect("GET", "/blobs/", kind, place);
        let (found, bytes) = fetch();
        assert_eq!(found, status, "{kind:?}");
        assert!(
            bytes.len().abs_diff(length) < 20,
            "{kind:?} {}",
            bytes.len()
        );
        assert_eq!(faults.done()[&kind], 1, "{kind:?}");
    }
    faults.expect("GET", "/blobs/", Kind::Flip, 777);
    let (_, bytes) = fetch();
    let differ = (0..sound.len()).filter(|at| sound[*at] != bytes[*at]);
    assert_eq!(differ.collect::<Vec<_>>(), [777]);
    // curl takes the password along to the same host only, and so does not tell it elsewhere.
    faults.expect("GET", "/blobs/", Kind::Redirect, 0);
    assert_eq!(fetch(), (200, sound.clone()));
    assert_eq!((faults.done()[&Kind::Redirect], faults.leaks()), (1, 0));
    faults.expect("GET", "/blobs/", Kind::Redirect, 0);
    curl(&[
        "-L",
        "--location-trusted",
        "-o",
        &path,
        "-u",
        "a:pa55",
        &blob,
    ]);
    assert_eq!(faults.leaks(), 1);
    faults.expect("PUT", "/manifests/", Kind::Lie, 5);
    let manifest = bench
        .write("manifest", &image.manifest)
        .display()
        .to_string();
    let header = format!(
        "Content-Type: {}",
        "application/vnd.oci.image.manifest.v1+json"
    );
    let (said, _) = curl(&["-i", "-T", &manifest, "-H", &header, &at("manifests/2")]);
    assert!(said.contains("0005\r\n"), "{said}");
    assert_eq!(
        registry.tagged("team/image", "2"),
        Some(image.digest.clone())
    );

    // A session that is lost is lost in the registry as well.
    for (kind, status) in [(Kind::Lost, 404), (Kind::OutOfRange, 416)] {
        let (said, _) = curl(&["-i", "-X", "POST", &at("blobs/uploads/")]);
        let session = said
            .lines()
            .find_map(|line| line.strip_prefix("Location: "));
        let session = session.expect("a session").trim();
        faults.expect("PATCH", "/blobs/uploads/", kind, 1 << 20);
        assert_eq!(curl(&["-X", "PATCH", "-d", "abc", session]).1, status);
        assert_eq!(curl(&["-X", "PATCH", "-d", "abc", session]).1, 404);
    }
    faults.rest();
    assert_eq!(fetch(), (200, sound));
}

#[test]
fn a_session_that_is_cut_goes_on() {
    if !have(&["curl"]) {
        return;
    }
    let bench = Bench::current();
    let image = image(&bench);
    let Some(registry) = Registry::start() else {
        return;
    };
    registry.push(&image.layout, "1", "team/image:1");
    let faults = Faults::start(registry.port(), Plan::quiet());
    let at = |path: &str| format!("http://{}/v2/team/other/{path}", faults.host());
    let sound = fs_err::read(registry.blob(&image.layers[1])).expect("there");
    let path = bench.write("blob", &sound).display().to_string();
    let (said, _) = curl(&["-i", "-X", "POST", &at("blobs/uploads/")]);
    let session = location(&said);
    faults.expect("PATCH", "/blobs/uploads/", Kind::Kept, 3000);
    let whole = format!("@{path}");
    // The registry would read a form's fields.
    let octets = [
        "-H",
        "Content-Type: application/octet-stream",
        "-X",
        "PATCH",
        "--data-binary",
    ];
    assert_eq!(curl(&[&octets[..], &[&whole, &session]].concat()).1, 0);
    let (said, status) = curl(&["-i", &session]);
    assert!(
        status == 204 && said.contains("Range: 0-2999\r\n"),
        "{said}"
    );
    let rest = format!("@{}", bench.write("rest", &sound[3000..]).display());
    let session = location(&said);
    let (said, status) = curl(&[&["-i"], &octets[..], &[&rest, &session]].concat());
    assert_eq!(status, 202, "{said}");
    let end = format!("{}&digest={}", location(&said), image.layers[1]);
    let (said, status) = curl(&["-X", "PUT", &end]);
    assert_eq!(status, 201, "{said}");
}

#[test]
fn chance_follows_its_seed_and_gives_pause() {
    if !have(&["curl"]) {
        return;
    }
    let Some(registry) = Registry::start() else {
        return;
    };
    let run = |seed| {
        let plan = Plan {
            seed,
            chance: 400,
            kinds: vec![Kind::Busy, Kind::Unwell],
            calm: 3,
            silence: Duration::ZERO,
        };
        let faults = Faults::start(registry.port(), plan);
        let url = format!("http://{}/v2/", faults.host());
        // One connection for all.
        let urls = vec![url.as_str(); 300];
        let text = succeed(
            Command::new("curl")
                .args(["--silent", "--noproxy", "*", "-o", "/dev/null"])
                .args(["-w", "%{http_code}\n"])
                .args(urls.iter().flat_map(|url| ["-o", "/dev/null", *url])),
        );
        let line: Vec<bool> = text.lines().map(|status| status == "200").collect();
        (line, faults.total())
    };
    let (line, total) = run(7);
    let rows: Vec<&[bool]> = line.chunk_by(|one, other| one == other).collect();
    assert!(total > 40, "{total}");
    assert_eq!(line.iter().filter(|fine| !**fine).count(), total as usize);
    let inner = &rows[1..rows.len() - 1];
    let longest = |fine: bool| {
        inner
            .iter()
            .filter(|row| row[0] == fine)
            .map(|row| row.len())
            .max()
    };
    assert_eq!(longest(false), Some(3), "{rows:?}");
    let calm = inner.iter().filter(|row| row[0]).map(|row| row.len()).min();
    assert!(calm >= Some(3), "{rows:?}");
    assert_eq!(run(7).0, line);
    assert_ne!(run(8).0, line);
}
