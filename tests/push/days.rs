//! Bad days: cuts, lies, lost sessions, tokens that end. The image arrives whole, or not at all.

use super::{arrived, policy, push, small, tool};
use crate::support::{Bench, Faults, Kind, Login, Plan, Registry, Tokens, noise, verify};

/// All that sends bytes of blobs.
const SENDS: &str = "PATCH|PUT";

#[test]
fn a_token_that_ends_in_the_middle_is_renewed() {
    let bench = Bench::current();
    // These hold for two seconds, and claim more.
    let Some(tokens) = Tokens::start(policy(58)) else {
        return;
    };
    let Some(registry) = Registry::with_login(Login::Tokens(&tokens)) else {
        return;
    };
    let faults = Faults::start(registry.port(), Plan::quiet());
    let image = small(&bench);
    faults.expect(SENDS, "/blobs/uploads/", Kind::Slow, 3500);
    let reference = format!("{}/team/image:1", faults.host());
    let login = ["--creds", "writer:pa55-w", "-j", "1"];
    push(&bench, &login, &image, &reference);
    assert_eq!(registry.tagged("team/image", "1"), Some(image.digest));
    let requests = registry.requests();
    let late = requests.iter().position(|one| {
        one.status == 401 && SENDS.contains(&one.method) && one.path.contains("/blobs/uploads/")
    });
    let late = late.expect("a token ended while blobs were sent");
    assert!(requests[late..].iter().any(|one| one.status == 201));
    let asked = tokens.asked();
    let renewals = asked.iter().filter(|one| one.status == 200).count();
    assert!((2..=4).contains(&renewals), "{asked:?}");
}

#[test]
fn an_upload_goes_on_where_it_was_cut() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let size = 6_000_000;
    let image = noise(&bench.path("noise"), "1", &[(9, size)]);
    for (tag, kind) in [("1", Kind::Kept), ("2", Kind::CutRequest)] {
        let faults = Faults::start(registry.port(), Plan::quiet());
        let reference = format!("{}/{tag}/image:1", faults.host());
        faults.expect(SENDS, "/blobs/uploads/", kind, 4_500_000);
        push(&bench, &["-j", "1"], &image, &reference);
        arrived(
            &bench,
            &image,
            &registry.reference(&format!("{tag}/image:1")),
        );
        assert_eq!(faults.done()[&kind], 1);
        let most = match kind {
            // What was under way when it was cut is lost.
            Kind::Kept => size as u64 + 1_000_000,
            _ => 2 * size as u64,
        };
        assert!(faults.sent() < most, "{kind:?}: {} bytes", faults.sent());
    }
}

#[test]
fn each_kind_of_trouble_passes() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    let methods = ["HEAD", "POST", SENDS];
    for (number, kind) in [
        Kind::CutRequest,
        Kind::CutAnswer,
        Kind::Busy,
        Kind::Unwell,
        Kind::Expired,
        Kind::Lost,
        Kind::OutOfRange,
    ]
    .into_iter()
    .enumerate()
    {
        let faults = Faults::start(registry.port(), Plan::quiet());
        let mut expected = 0;
        for method in methods {
            let lost = matches!(kind, Kind::Lost | Kind::OutOfRange);
            if !lost || method == SENDS {
                faults.expect(method, "/blobs/", kind, 77);
                expected += 1;
            }
        }
        faults.expect("PUT", "/manifests/", Kind::Unwell, 1);
        let repository = format!("team/kind{number}");
        let reference = format!("{}/{repository}:1", faults.host());
        push(&bench, &[], &image, &reference);
        arrived(
            &bench,
            &image,
            &registry.reference(&format!("{repository}:1")),
        );
        assert_eq!(faults.total(), expected + 1, "{kind:?} {:?}", faults.done());
    }
}

#[test]
fn trouble_that_does_not_end_is_told_and_leaves_nothing_under_the_tag() {
    let bench = Bench::current();
    let Some(registry) = Registry::start() else {
        return;
    };
    let image = small(&bench);
    let older = noise(&image.layout, "older", &[(5, 100)]);
    for (kind, place, words) in [
        (Kind::Unwell, "/manifests/", "500"),
        (Kind::Lie, "/manifests/", "`sha256:00000000"),
    ] {
        let faults = Faults::start(registry.port(), Plan::quiet());
        let reference = format!("{}/team/image:1", faults.host());
        push(&bench, &[], &older, &reference);
        for _ in 0..20 {
            faults.expect("PUT", place, kind, 0);
        }
        let run = bench.finish(&mut tool(&bench, &["push", &image.image(), &reference]));
        super::refused(&run, super::FAILED, &[&faults.host(), words]);
        if kind == Kind::Unwell {
            assert_eq!(
                registry.tagged("team/image", "1"),
                Some(older.digest.clone())
            );
        }
    }
    assert_eq!(verify(&image.layout, "1").digest, image.digest);
}
