//! What can be tested without a helper process; `tests/runner.rs` has the rest.

use super::*;

fn command() -> Command {
    Command {
        rootfs: RootFs::Directory("/rootfs".into()),
        mounts: vec![],
        tmpfs: vec![],
        user: String::new(),
        network: true,
        placement: None,
        argv: vec!["true".into()],
        env: vec![],
        cwd: "/".into(),
        ca_bundle: None,
        interactive: false,
        inherit_output: false,
        owners: None,
        watch: None,
    }
}

#[test]
fn runners_have_the_names_of_the_command_line() {
    for runner in Runner::ALL {
        assert_eq!(runner.to_string().parse::<Runner>().unwrap(), runner);
        assert_eq!(serde_json::to_value(runner).unwrap(), runner.to_string());
    }
    assert!(matches!(
        "ptrace".parse::<Runner>(),
        Err(Error::UnsupportedRunner { .. })
    ));
    assert!(matches!(
        "docker".parse::<Runner>(),
        Err(Error::UnknownRunner { .. })
    ));
}

#[test]
fn mount_points_are_relative_and_complete() {
    let mut command = command();
    command.cwd = "/work/space".into();
    command.mounts.push(Mount {
        source: "/host".into(),
        below: PathBuf::new(),
        target: "/opt/../a/./b".into(),
        read_only: true,
    });
    let expected = [
        "a",
        "a/b",
        "dev",
        "etc",
        "etc/hosts",
        "etc/resolv.conf",
        "proc",
        "sys",
    ];
    assert_eq!(mount_points(&command), expected.map(PathBuf::from));
}

#[test]
fn a_command_travels_whole_though_its_paths_are_not_text() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(b"/odd\xff".to_vec());
    let mut command = command();
    command.cwd = odd.clone().into();
    command.ca_bundle = Some(odd.clone().into());
    command.rootfs = RootFs::Overlay {
        lower: vec![odd.clone().into()],
        upper: odd.clone().into(),
        work: odd.into(),
    };
    let sent = serde_json::to_vec(&command).unwrap();
    let received: Command = serde_json::from_slice(&sent).unwrap();
    assert_eq!(format!("{received:?}"), format!("{command:?}"));
}

#[test]
fn an_ordinary_start_is_no_helper() {
    assert!(child().is_none());
}

#[test]
fn refusals_are_told_with_their_remedies() {
    let refusal = Failure::new(
        "unshare(CLONE_NEWUSER)",
        io::Error::from_raw_os_error(libc::ENOSPC),
    )
    .refusal(Runner::UsernsSingle);
    assert_eq!(
        refusal.to_string(),
        "`unshare(CLONE_NEWUSER)`: no space left on device"
    );
    let error = Error::Refused {
        runners: vec![(Runner::UsernsSingle, refusal)],
    };
    assert!(error.hint().unwrap().contains("user.max_user_namespaces"));
}

#[test]
fn a_program_that_would_start_itself_for_ever_is_not_started() {
    let place = std::env::temp_dir();
    let error = choose(None, &place).unwrap_err();
    assert!(matches!(error, Error::NoHelper), "{error}");
    assert!(error.hint().unwrap().contains("helper()"));
    let error = call(Runner::UsernsSingle, "x", &[], &AtomicI32::new(0)).unwrap_err();
    assert!(matches!(error, Error::NoHelper), "{error}");
}
