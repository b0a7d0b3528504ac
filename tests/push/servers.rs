//! The servers of these tests, with skopeo and curl as their clients: a server that lets everything pass
//! would prove nothing.

use std::process::{Command, Output};
use std::time::Duration;

use super::policy;
use crate::support::{
    Bench, Failure, Gate, Login, Mode, Noise, Registry, Settings, Tokens, Way, have, noise,
    skopeo_manifest, verify,
};

/// A small image.
pub(super) fn image(bench: &Bench) -> Noise {
    let image = noise(&bench.path("noise"), "1", &[(1, 5000), (2, 70_000)]);
    assert_eq!(verify(&image.layout, "1").digest, image.digest);
    image
}

/// Copies with skopeo; `options` come before the names.
fn copy(options: &[&str], from: &str, to: &str) -> Output {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet"]);
    let output = command.args(options).args([from, to]).output();
    output.expect("skopeo starts")
}

/// The same over plain HTTP, or TLS with anybody.
pub(super) fn copies(options: &[&str], from: &str, to: &str) -> bool {
    let open = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    copy(&[&open, options].concat(), from, to).status.success()
}

/// What curl gets: the body, and the status on a line of its own.
pub(super) fn curl(arguments: &[&str]) -> (String, u16) {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--noproxy",
        "*",
        "--write-out",
        "\n%{http_code}",
    ]);
    let output = command.args(arguments).output().expect("curl starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').expect("two parts");
    (body.to_owned(), status.parse().expect("a status"))
}

#[test]
fn a_registry_with_a_password_lets_in_who_knows_it() {
    let bench = Bench::current();
    let Some(registry) = Registry::with_login(Login::Password) else {
        return;
    };
    let image = image(&bench);
    let target = format!("docker://{}", registry.reference("team/image:1"));
    assert!(!copies(&[], &image.image(), &target));
    assert!(!copies(
        &["--dest-creds", "tester:no"],
        &image.image(),
        &target
    ));
    assert_eq!(registry.tagged("team/image", "1"), None);
    let login = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    assert!(copies(&["--dest-creds", &login], &image.image(), &target));
    assert_eq!(registry.tagged("team/image", "1"), Some(image.digest));
    let requests = registry.requests();
    let of = |status| requests.iter().filter(|one| one.status == status).count();
    assert!(of(401) >= 2 && of(201) >= 4, "{requests:?}");
}

#[test]
fn a_token_server_gives_rights_to_those_who_have_them() {
    let bench = Bench::current();
    let Some(tokens) = Tokens::start(policy(0)) else {
        return;
    };
    let Some(registry) = Registry::with_login(Login::Tokens(&tokens)) else {
        return;
    };
    let image = image(&bench);
    let target = format!("docker://{}", registry.reference("team/image:1"));
    for (login, may) in [
        ("reader:pa55-r", false),
        ("writer:wrong", false),
        ("writer:pa55-w", true),
    ] {
        let option = ["--dest-creds", login];
        assert_eq!(copies(&option, &image.image(), &target), may, "{login}");
        assert_eq!(registry.tagged("team/image", "1").is_some(), may);
    }
    let back = format!("oci:{}:1", bench.path("back").display());
    assert!(!copies(&[], &target, &back));
    assert!(copies(&["--src-creds", "reader:pa55-r"], &target, &back));
    let other = format!("docker://{}", registry.reference("other/image:1"));
    assert!(!copies(&["--dest-creds", "writer:pa55-w"], &target, &other));

    let asked = tokens.asked();
    let has = |by, user: Option<&str>, status| {
        asked
            .iter()
            .any(|one| one.by == by && one.user.as_deref() == user && one.status == status)
    };
    assert!(has("basic", Some("writer"), 200), "{asked:?}");
    assert!(has("basic", Some("reader"), 200), "{asked:?}");
    assert!(has("basic", None, 401), "{asked:?}");
    let scope = "repository:team/image:pull,push".to_owned();
    assert!(asked.iter().any(|one| one.scopes.contains(&scope)));
    assert!(!format!("{asked:?}").contains("pa55"));
}

/// The token of an answer.
fn token(answer: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(answer).expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}

#[test]
fn tokens_are_had_in_every_way_and_end() {
    if !have(&["curl"]) {
        return;
    }
    let Some(tokens) = Tokens::start(policy(58)) else {
        return;
    };
    let Some(registry) = Registry::with_login(Login::Tokens(&tokens)) else {
        return;
    };
    let list = format!("http://{}/v2/team/image/tags/list", registry.host());
    let ask = |token: &str| {
        let header = format!("Authorization: Bearer {token}");
        curl(&["-H", &header, &list]).1
    };
    let (realm, scope) = (tokens.realm(), "scope=repository:team/image:pull");
    let identity = format!("refresh_token={}", Tokens::identity("reader"));
    let get = format!("{realm}?{scope}&offline_token=true");
    let ways: [&[&str]; 3] = [
        &["-u", "reader:pa55-r", &get],
        &[
            "-d",
            "grant_type=password&username=reader&password=pa55-r",
            "-d",
            scope,
            &realm,
        ],
        &[
            "-d",
            "grant_type=refresh_token",
            "-d",
            &identity,
            "-d",
            scope,
            &realm,
        ],
    ];
    for way in ways {
        let (answer, status) = curl(way);
        assert_eq!(status, 200, "{answer}");
        // The repository is not there, and who may not know that gets 401.
        assert_eq!(ask(&token(&answer)), 404, "{way:?}");
    }
    let (answer, _) = curl(&["-u", "reader:pa55-r", &get]);
    assert!(answer.contains(&Tokens::identity("reader")), "{answer}");
    let short = token(&answer);
    std::thread::sleep(Duration::from_millis(3100));
    assert_eq!(ask(&short), 401, "its time is over, whatever was said");
    let (answer, _) = curl(&[&format!("{realm}?{scope}")]);
    assert_eq!(ask(&token(&answer)), 401, "nobody in particular may not");
    assert_eq!(curl(&["-u", "reader:wrong", &get]).1, 401);

    tokens.fail(Failure::Status(503));
    assert_eq!(curl(&["-u", "reader:pa55-r", &get]).1, 503);
    tokens.fail(Failure::NoPost);
    assert_eq!(curl(&["-d", "grant_type=refresh_token", &realm]).1, 405);
    assert_eq!(curl(&["-u", "reader:pa55-r", &get]).1, 200);
    tokens.fail(Failure::Slow(Duration::from_millis(1200)));
    assert_eq!(curl(&["--max-time", "1", "-u", "reader:pa55-r", &get]).1, 0);
    tokens.fail(Failure::Rubbish);
    assert!(curl(&["-u", "reader:pa55-r", &get]).0.contains("<html>"));
}

#[test]
fn what_is_read_only_and_what_is_a_mirror_refuse_pushes() {
    let bench = Bench::current();
    let Some(origin) = Registry::start() else {
        return;
    };
    let image = image(&bench);
    origin.push(&image.layout, "1", "team/image:1");
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
        let source = format!("docker://{}", registry.reference("team/image:1"));
        assert_eq!(skopeo_manifest(&bench, &source), image.manifest);
        let target = format!("docker://{}", registry.reference("team/other:1"));
        assert!(!copies(&[], &image.image(), &target));
        assert!(registry.requests().iter().any(|one| one.status == 405));
    }
}

#[test]
fn gateways_lead_to_registries_under_every_path() {
    let bench = Bench::current();
    let image = image(&bench);
    for relative in [false, true] {
        for way in [
            Way::Straight,
            Way::Below("/registry/"),
            Way::Namespace("artifacts/docker"),
        ] {
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
            let name = match way {
                Way::Namespace(name) => format!("{name}/team/image:1"),
                _ => "team/image:1".to_owned(),
            };
            for host in [gate.host(), gate.tls_host()] {
                let target = format!("docker://{host}/{name}");
                assert!(
                    copies(&[], &image.image(), &target),
                    "{target} {}",
                    gate.log()
                );
                assert_eq!(skopeo_manifest(&bench, &target), image.manifest);
            }
            assert_eq!(
                registry.tagged("team/image", "1"),
                Some(image.digest.clone())
            );
            // A relative address is one of the gateway's.
            if let (Way::Below(path), false) = (way, relative) {
                assert!(gate.log().contains(&format!("http PATCH {path}v2/team/")));
            }
        }
    }
}

#[test]
fn a_gateway_is_trusted_by_its_authority_and_may_be_narrow() {
    let bench = Bench::current();
    let image = image(&bench);
    let Some(registry) = Registry::start() else {
        return;
    };
    let Some(gate) = Gate::start(&registry, Way::Narrow(10_000)) else {
        return;
    };
    let trust = bench.path("trust");
    fs_err::create_dir(&trust).expect("ours");
    fs_err::copy(gate.authority(), trust.join("ca.crt")).expect("ours");
    let trust = ["--dest-cert-dir", trust.to_str().expect("plain")];
    let small = noise(&bench.path("noise"), "small", &[(1, 5000)]);
    let name = |host: String| format!("docker://{host}/team/image:1");
    let says = |options: &[&str], image: &Noise, host: String| {
        let output = copy(options, &image.image(), &name(host));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), errors)
    };
    let (fine, errors) = says(&[], &small, gate.tls_host());
    assert!(!fine && errors.contains("x509"), "{errors}");
    let (fine, errors) = says(&trust, &small, gate.expired_host());
    assert!(!fine && errors.contains("expired"), "{errors}");
    let (fine, errors) = says(&trust, &small, gate.strange_host());
    assert!(
        !fine && errors.contains("HTTP response to HTTPS"),
        "{errors}"
    );
    let (fine, errors) = says(&trust, &image, gate.tls_host());
    assert!(!fine && errors.contains("413"), "{errors}");
    assert_eq!(registry.tagged("team/image", "1"), None);
    let (fine, errors) = says(&trust, &small, gate.tls_host());
    assert!(fine, "{errors}");
    assert_eq!(registry.tagged("team/image", "1"), Some(small.digest));
}
