//! Every kind of registry, and every kind of image: what is pushed arrives byte for byte, and comes back.

use fs_err as fs;

use super::{arrived, policy, pull, push, small, tool};
use crate::support::{
    Bench, Faults, Gate, Kind, Login, Mode, Plan, Registry, Settings, Tokens, Way, skopeo_copy,
    verify,
};

#[test]
fn an_open_registry() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    let reference = registry.reference("team/image:1");
    push(&bench, &[], &image, &reference);
    arrived(&bench, &image, &reference);
    pull(&[], &image, &reference);
    // skopeo reads every byte of it.
    let copy = bench.path("copy");
    let target = format!("oci:{}:1", copy.display());
    skopeo_copy(&bench, &format!("docker://{reference}"), &target);
    assert_eq!(verify(&copy, "1").digest, image.digest);
}

#[test]
fn what_skopeo_pushes_is_pulled() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    pull(
        &[],
        &image,
        &registry.push(&image.layout, "1", "team/image:1"),
    );
}

#[test]
fn a_registry_with_a_password() {
    let bench = Bench::current();
    let Some(registry) = Registry::with_login(Login::Password) else {
        return;
    };
    let Some(open) = Registry::beside(&registry) else {
        return;
    };
    let image = small(&bench);
    let reference = registry.reference("team/image:1");
    let login = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    let login = ["--creds", login.as_str()];
    push(&bench, &login, &image, &reference);
    arrived(&bench, &image, &open.reference("team/image:1"));
    pull(&login, &image, &reference);
}

#[test]
fn a_registry_with_a_token_server() {
    let bench = Bench::current();
    let Some(tokens) = Tokens::start(policy(0)) else {
        return;
    };
    let Some(registry) = Registry::with_login(Login::Tokens(&tokens)) else {
        return;
    };
    let Some(open) = Registry::beside(&registry) else {
        return;
    };
    let image = small(&bench);
    let reference = registry.reference("team/image:1");
    push(&bench, &["--creds", "writer:pa55-w"], &image, &reference);
    arrived(&bench, &image, &open.reference("team/image:1"));
    pull(&["--creds", "reader:pa55-r"], &image, &reference);
    // One token serves all requests of a run but the first, which has none yet.
    let asked = tokens.asked();
    assert!(asked.len() <= 4, "{asked:?}");
    // Without a login, what is public is to be had.
    push(&bench, &[], &image, &open.reference("public/image:1"));
    pull(&[], &image, &registry.reference("public/image:1"));
}

#[test]
fn what_is_read_only_and_what_is_a_mirror_can_be_pulled_from() {
    let bench = Bench::current();
    let Some(origin) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    push(&bench, &[], &image, &origin.reference("team/image:1"));
    let modes = [Mode::ReadOnly, Mode::MirrorOf(&origin)];
    for (mode, data) in modes.into_iter().zip([Some(&origin), None]) {
        let settings = Settings {
            mode,
            data,
            ..Settings::default()
        };
        let Some(registry) = Registry::with(&settings) else {
            return;
        };
        pull(&[], &image, &registry.reference("team/image:1"));
    }
}

#[test]
fn registries_under_every_path() {
    let bench = Bench::current();
    let image = small(&bench);
    for relative in [false, true] {
        for way in [Way::Below("/registry/"), Way::Namespace("artifacts/docker")] {
            let settings = Settings {
                relative,
                prefix: if let Way::Below(path) = way { path } else { "" },
                ..Settings::default()
            };
            let Some(registry) = Registry::with(&settings) else {
                return;
            };
            let Some(gate) = Gate::start(&registry, way) else {
                return;
            };
            let reference = match way {
                Way::Namespace(name) => format!("{}/{name}/team/image:1", gate.host()),
                _ => format!("{}/team/image:1", gate.host()),
            };
            push(&bench, &[], &image, &reference);
            arrived(&bench, &image, &reference);
            pull(&[], &image, &reference);
        }
    }
}

#[test]
fn tls_by_a_private_authority() {
    let bench = Bench::current();
    let image = small(&bench);
    let Some(registry) = Registry::start() else {
        return;
    };
    let Some(gate) = Gate::start(&registry, Way::Straight) else {
        return;
    };
    let authority = gate.authority().display().to_string();
    let trust = ["--ca-cert", authority.as_str()];
    let host = gate.tls_host();
    push(&bench, &trust, &image, &format!("{host}/team/image:1"));
    pull(&trust, &image, &format!("{host}/team/image:1"));
    let insecure = ["--insecure-registry", host.as_str()];
    push(&bench, &insecure, &image, &format!("{host}/team/image:2"));

    let source = image.image();
    let reference = format!("{host}/team/image:3");
    let mut command = tool(&bench, &["push", &source, &reference]);
    let run = bench.finish(command.env("SSL_CERT_FILE", &authority));
    assert_eq!(run.line(), format!("{reference}@{}", image.digest));

    let folder = bench
        .root()
        .join("home/.config/containers/certs.d")
        .join(&host);
    fs::create_dir_all(&folder).expect("the home is ours");
    fs::copy(&authority, folder.join("ca.crt")).expect("the home is ours");
    push(&bench, &[], &image, &format!("{host}/team/image:4"));
    for tag in 1..=4 {
        arrived(
            &bench,
            &image,
            &registry.reference(&format!("team/image:{tag}")),
        );
    }
}

#[test]
fn a_plain_registry_on_a_strange_host_has_to_be_allowed() {
    let bench = Bench::current();
    let image = small(&bench);
    let Some(registry) = Registry::start() else {
        return;
    };
    let Some(gate) = Gate::start(&registry, Way::Straight) else {
        return;
    };
    let host = gate.strange_host();
    let reference = format!("{host}/team/image:1");
    push(&bench, &["--insecure-registry", &host], &image, &reference);
    arrived(&bench, &image, &registry.reference("team/image:1"));
}

#[test]
fn blobs_on_another_host_are_fetched_without_the_login() {
    let bench = Bench::current();
    let Some(registry) = Registry::with_login(Login::Password) else {
        return;
    };
    let image = small(&bench);
    let login = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    let login = ["--creds", login.as_str()];
    let faults = Faults::start(registry.port(), Plan::quiet());
    let reference = format!("{}/team/image:1", faults.host());
    push(&bench, &login, &image, &reference);
    for _ in 0..image.layers.len() {
        faults.expect("GET", "/blobs/", Kind::Redirect, 0);
    }
    pull(&login, &image, &reference);
    assert_eq!(faults.done()[&Kind::Redirect] as usize, image.layers.len());
    assert_eq!(faults.leaks(), 0);
}
