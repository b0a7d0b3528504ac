//! What is refused: one clear error that says what to do, no secret in it, and nothing under the tag.

use fs_err as fs;
use fs_err::os::unix::fs::symlink;

use super::{FAILED, USAGE, policy, pull_run, push_refused, refused, small, tool};
use crate::support::{
    Bench, Gate, Login, Mode, Noise, Registry, Settings, Tokens, Way, Web, noise,
};

#[test]
fn logins_that_do_not_do() {
    let bench = Bench::current();
    let Some(tokens) = Tokens::start(policy(0)) else {
        return;
    };
    let image = small(&bench);
    for login in [Login::Password, Login::Tokens(&tokens)] {
        let has_rights = matches!(login, Login::Tokens(_));
        let Some(registry) = Registry::with_login(login) else {
            return;
        };
        let name = registry.reference("team/image:1");
        let target = (&registry, name.as_str());
        let host = registry.host();
        push_refused(&bench, &[], &image, target, &[&host, "hint: ", "login"]);
        let wrong = ["--creds", "writer:pa55-wrong"];
        push_refused(&bench, &wrong, &image, target, &["writer", "`--creds`"]);
        if has_rights {
            let reader = ["--creds", "reader:pa55-r"];
            push_refused(&bench, &reader, &image, target, &["reader", "hint: "]);
            let other = registry.reference("somebody/image:1");
            let writer = ["--creds", "writer:pa55-w"];
            push_refused(
                &bench,
                &writer,
                &image,
                (&registry, &other),
                &["somebody/image", "writer"],
            );
        }
    }
}

#[test]
fn registries_that_take_nothing() {
    let bench = Bench::current();
    let Some(origin) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    // Asked for a tag that its origin lacks, docker-registry says 500 as a mirror.
    for (mode, status) in [(Mode::ReadOnly, "405"), (Mode::MirrorOf(&origin), "500")] {
        let settings = Settings {
            mode,
            ..Settings::default()
        };
        let Some(registry) = Registry::with(&settings) else {
            return;
        };
        let name = registry.reference("team/image:1");
        let words = [name.as_str(), status, "hint: "];
        push_refused(&bench, &[], &image, (&registry, &name), &words);
    }
}

#[test]
fn what_a_registry_does_not_have() {
    let Some(registry) = Registry::start() else {
        return;
    };
    let bench = Bench::current();
    let image = small(&bench);
    registry.push(&image.layout, "1", "team/image:1");
    for name in ["team/unknown:1", "team/image:unknown"] {
        let reference = registry.reference(name);
        let run = pull_run(&bench, &[], &reference);
        refused(&run, FAILED, &[&reference, "404", "hint: "]);
    }
}

#[test]
fn http_and_https_in_each_others_place() {
    let bench = Bench::current();
    let image = small(&bench);
    let Some(registry) = Registry::start() else {
        return;
    };
    let Some(gate) = Gate::start(&registry, Way::Straight) else {
        return;
    };
    let at = |host: String| format!("{host}/team/image:1");
    let plain = at(gate.strange_host());
    let words = ["TLS", "`--insecure-registry", "hint: "];
    push_refused(&bench, &[], &image, (&registry, &plain), &words);
    let foreign = at(gate.tls_host());
    let words = ["certificate", "`--ca-cert", "hint: "];
    push_refused(&bench, &[], &image, (&registry, &foreign), &words);
    let authority = gate.authority().display().to_string();
    let trust = ["--ca-cert", authority.as_str()];
    let expired = at(gate.expired_host());
    push_refused(&bench, &trust, &image, (&registry, &expired), &["expired"]);
    // A file that holds no certificate is a wrong request.
    let authority = bench.write("ca.pem", "pa55").display().to_string();
    let source = image.image();
    let arguments = ["push", "--ca-cert", &authority, &source, &foreign];
    let run = bench.finish(&mut tool(&bench, &arguments));
    refused(&run, USAGE, &["ca.pem", "hint: "]);
    assert_eq!(registry.uploads(), []);
}

#[test]
fn files_of_logins_that_are_malformed() {
    let bench = Bench::current();
    let Some(registry) = Registry::with_login(Login::Password) else {
        return;
    };
    let image = small(&bench);
    let name = registry.reference("team/image:1");
    for text in [
        "{\n  \"auths\": {\n    pa55\n",
        "[]",
        "{\"auths\": {\"HOST\": {\"auth\": \"***pa55\"}}}",
        "{\"auths\": {\"HOST\": {\"auth\": \"bm9jb2xvbg==\"}}}",
        "{\"credHelpers\": {\"HOST\": \"../pa/th\"}}",
        "{\"credHelpers\": {\"HOST\": \"no-such-helper\"}}",
    ] {
        let text = text.replace("HOST", &registry.host());
        let file = bench.write("auth.json", &text).display().to_string();
        let options = ["--authfile", file.as_str()];
        push_refused(
            &bench,
            &options,
            &image,
            (&registry, &name),
            &["auth.json", "hint: "],
        );
    }
    let options = ["--authfile", "no-such-file"];
    push_refused(
        &bench,
        &options,
        &image,
        (&registry, &name),
        &["no-such-file"],
    );
}

#[test]
fn bodies_that_a_gateway_refuses() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let Some(gate) = Gate::start(&registry, Way::Narrow(100_000)) else {
        return;
    };
    let image = small(&bench);
    let name = format!("{}/team/image:1", gate.host());
    let words = ["413", image.layers[2].as_str()];
    push_refused(&bench, &[], &image, (&registry, &name), &words);
}

#[test]
fn a_manifest_that_is_too_large() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = noise(&bench.path("noise"), "1", &[(1, 100)]);
    // Its manifest gets an annotation of five megabytes, which no registry takes.
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).expect("JSON");
    manifest["annotations"] = serde_json::json!({"note": "x".repeat(5 << 20)});
    let image = image.with_manifest(&manifest);
    let name = registry.reference("team/image:1");
    push_refused(
        &bench,
        &[],
        &image,
        (&registry, &name),
        &["manifest", "larger than 4 MiB"],
    );
}

#[test]
fn requests_that_are_wrong() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    let source = image.image();
    let long = registry.reference(&format!("{}:1", "x".repeat(300)));
    let upper = registry.reference("Team/image:1");
    let good = registry.reference("team/image:1");
    for (arguments, words) in [
        (&["push"][..], &[][..]),
        (&["push", &source, &long], &["hint: "]),
        (&["push", &source, &upper], &["`", "hint: "]),
        (
            &["push", &source, &good, "--creds", "nocolon"],
            &["--creds"],
        ),
        (&["push", &source, &good, "-j", "0"], &[]),
    ] {
        let run = bench.finish(&mut tool(&bench, arguments));
        refused(&run, USAGE, words);
    }
    let other = format!("oci:{}:missing", image.layout.display());
    for (image, words) in [
        (other.as_str(), &["missing"][..]),
        ("oci:no-such-folder", &["no-such-folder"]),
        ("no-such-image:1", &["no-such-image", "hint: "]),
        ("oci-archive:no-such-file", &["no-such-file"]),
    ] {
        let run = bench.finish(&mut tool(&bench, &["push", image, &good]));
        assert!(matches!(run.status(), Some(FAILED | USAGE)), "{image}");
        let said = run.stderr();
        assert!(
            words.iter().all(|word| said.contains(word)),
            "{image}: {said}"
        );
    }
    assert_eq!(registry.tagged("team/image", "1"), None);
}

/// Each file of a layout in turn is a link to the right bytes elsewhere, which may be somebody's secret.
#[test]
fn links_are_not_followed_out_of_a_layout() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let name = registry.reference("team/image:1");
    for at in [
        "index.json",
        "oci-layout",
        "manifest",
        "layer",
        "blobs",
        "blobs/sha256",
    ] {
        let _ = fs::remove_dir_all(bench.path("noise"));
        // What is in the store is not asked for again.
        let _ = fs::remove_dir_all(bench.store());
        let image = small(&bench);
        let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
        let entry = match at {
            "manifest" => blob(&image.digest),
            "layer" => blob(&image.layers[2]),
            entry => entry.to_owned(),
        };
        let (there, elsewhere) = (image.layout.join(&entry), bench.path("elsewhere"));
        let _ = fs::remove_dir_all(&elsewhere);
        let _ = fs::remove_file(&elsewhere);
        fs::rename(&there, &elsewhere).expect("ours");
        symlink(&elsewhere, &there).expect("ours");
        let words = ["is a link to a file outside of it", "hint: "];
        push_refused(&bench, &[], &image, (&registry, &name), &words);
        let source = image.image();
        for command in [&["inspect", &source][..], &["run", &source, "/noise"]] {
            refused(&bench.finish(&mut tool(&bench, command)), FAILED, &words);
        }
        refused(&pull_run(&bench, &[], &source), FAILED, &words);
        // A link that stays inside is fine.
        fs::remove_file(&there).expect("ours");
        fs::rename(&elsewhere, image.layout.join("inside")).expect("ours");
        let up = "../".repeat(entry.split('/').count() - 1);
        symlink(format!("{up}inside"), &there).expect("ours");
        bench
            .finish(&mut tool(&bench, &["inspect", &source]))
            .stdout();
    }
}

/// Whatever a captive portal is asked for, it answers with its page, and with success.
#[test]
fn a_web_page_is_no_registry() {
    let bench = Bench::current();
    let image = small(&bench);
    let page = "<!DOCTYPE html><html><title>Log in to the network</title></html>";
    let location = format!("location /v2/ {{ default_type text/html; return 200 '{page}'; }}");
    let Some(web) = Web::start_with(&location) else {
        return;
    };
    let url = web.url("team/image:1");
    let reference = url.strip_prefix("http://").expect("plain HTTP").to_owned();
    let (host, _) = reference.split_once('/').expect("a host");
    let words = ["sent a web page for", host, "captive portal"];
    refused(&pull_run(&bench, &[], &reference), FAILED, &words);
    let arguments = ["push", &image.image(), &reference];
    refused(&bench.finish(&mut tool(&bench, &arguments)), FAILED, &words);
}

#[test]
fn an_image_that_is_damaged_is_not_pushed() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    let blob = |image: &Noise| {
        image
            .layout
            .join("blobs")
            .join(image.layers[2].replace(':', "/"))
    };
    let sound = fs::read(blob(&image)).expect("it was made here");
    let name = registry.reference("team/image:1");
    let mut flipped = sound.clone();
    flipped[1000] ^= 1;
    for bytes in [&flipped[..], &sound[..1000]] {
        fs::write(blob(&image), bytes).expect("ours");
        let words = [&image.layers[2]["sha256:".len()..][..12]];
        push_refused(&bench, &[], &image, (&registry, &name), &words);
        let mut requests = registry.requests().into_iter();
        let is_sent = requests.any(|one| {
            one.method != "HEAD" && one.path.contains(&image.layers[2]["sha256:".len()..])
        });
        assert!(!is_sent, "{:?}", registry.requests());
    }
    fs::remove_file(blob(&image)).expect("ours");
    push_refused(&bench, &[], &image, (&registry, &name), &[]);
}
