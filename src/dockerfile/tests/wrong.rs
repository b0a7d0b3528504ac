//! What is said of instructions that are wrong.

use insta::assert_snapshot;

use super::*;

#[test]
fn wrong_instructions_are_refused() {
    assert_snapshot!(bad("RNU a\nFROM x\napt-get install y\nrun\nHEALTHCHECK"), @r#"
    1:1: unknown instruction `RNU` (3) -- did you mean `RUN`?
    2:1: `FROM` cannot stand here: the image has one base and one stage (4) -- name the base by the key `base` of the build file, or by `python`
    3:1: unknown instruction `apt-get` (7) -- write `RUN` in front of a command; a line that goes on ends with a backslash
    4:1: `RUN` has no arguments (3) -- write `RUN COMMAND`, such as `RUN apt-get update`
    5:1: `HEALTHCHECK` has no arguments (11) -- write `HEALTHCHECK CMD COMMAND` or `HEALTHCHECK NONE`
    "#);
    assert_snapshot!(bad("RUN --mout=x a\nCOPY --link=maybe a b\nCOPY --chown a b\nUSER --x y\nRUN --network=none --network=host a\nRUN --network=bridge a"), @r#"
    1:5: `RUN` has no flag `--mout` (8) -- did you mean `--mount`?
    2:6: the flag `--link` is `true` or `false` (12) -- write `--link` alone
    3:6: the flag `--chown` has no value (7) -- write `--chown=…`
    4:6: `USER` has no flag `--x` (3) -- it takes none; write `USER -- …` if it begins the arguments
    5:20: the flag `--network` is there twice (14) -- keep one of them
    6:5: there is no network `bridge` (16) -- the networks are `default`, `none` and `host`
    "#);
    assert_snapshot!(bad("RUN --security=insecure a\nCOPY --from=x a b\nCOPY a\nCOPY --chmod=u+y a b\nADD --checksum=md5:x a b\nCOPY <<a <<b\na\nb"), @r#"
    1:5: a step cannot have more privileges than others (19) -- leave `--security` out
    2:6: `COPY --from` cannot stand here: the image has one stage (8) -- copy from the context, or fetch with `files`, `repositories` or `ADD`
    3:6: `COPY` has no destination (1) -- write `COPY SOURCE DESTINATION`
    4:6: `u+y` is not a mode (11) -- write an octal number up to `7777`, or symbols, such as `--chmod=0755` or `--chmod=u=rwX,go=rX`
    5:5: `md5:x` is not a digest (16) -- write `--checksum=sha256:` and 64 digits, or for a repository the id of a commit
    6:10: a heredoc cannot be a destination (3) -- write the file's path behind it
    "#);
    assert_snapshot!(bad("ENV A\nENV A=b C\nENV =x\nENV A='b\nENV A=b \\\n  C=${\nARG =x\nLABEL \"a"), @r#"
    1:5: `A` has no value (1) -- write `ENV NAME=VALUE`
    2:9: `C` has no `=` (1) -- write `NAME=VALUE`, and put a value with blanks in quotes
    3:5: there is no name before the `=` (2) -- write `ENV NAME=VALUE`
    4:7: the quote `'` is not closed (2) -- close it by another one, or put a backslash before it
    6:5: `${` is not closed by `}` (2) -- write `\$` for a dollar sign that is meant literally
    7:5: there is no name before the `=` (2) -- write `ARG NAME` or `ARG NAME=DEFAULT`
    8:7: `"a` has no value (2) -- write `LABEL NAME=VALUE`
    "#);
    assert_snapshot!(bad("EXPOSE a:80 x 70000 9-8 80/icmp\nVOLUME []\nSHELL a\nCMD [1]\nRUN []\nSTOPSIGNAL SIGNOT"), @r#"
    1:8: `a:80` is not a port (4) -- write a port, or a range, with or without its protocol: `80`, `53/udp`, `8000-8010/tcp`
    1:13: `x` is not a port (1) -- write a port, or a range, with or without its protocol: `80`, `53/udp`, `8000-8010/tcp`
    1:15: `70000` is not a port (5) -- write a port, or a range, with or without its protocol: `80`, `53/udp`, `8000-8010/tcp`
    1:21: `9-8` is not a port (3) -- write a port, or a range, with or without its protocol: `80`, `53/udp`, `8000-8010/tcp`
    1:25: `80/icmp` is not a port (7) -- write a port, or a range, with or without its protocol: `80`, `53/udp`, `8000-8010/tcp`
    2:8: a path is missing (2) -- write `VOLUME DIRECTORY`, or `VOLUME ["DIRECTORY"]`
    3:7: `SHELL` takes a JSON array of words (1) -- write `SHELL ["/bin/bash", "-c"]`
    4:5: the array holds something else than strings (3) -- put each word in double quotes
    5:5: the array is empty (2) -- write `RUN COMMAND`, such as `RUN apt-get update`
    6:12: `SIGNOT` is not a signal (6) -- write the name or the number of a signal, such as `STOPSIGNAL SIGTERM`
    "#);
    assert_snapshot!(bad("HEALTHCHECK --interval=1 CMD a\nHEALTHCHECK --timeout=1us --retries=-1 CMD\nHEALTHCHECK NONE a\nHEALTHCHECK RUN a"), @r#"
    1:13: `1` is not a duration (12) -- write numbers with units, such as `1m30s` or `500ms`
    2:13: `--timeout` is shorter than a millisecond (13) -- write a longer time, such as `30s`
    2:27: `-1` is not a number of retries (12) -- write a number, such as `--retries=3`
    2:40: there is no command behind `HEALTHCHECK CMD` (3) -- write `HEALTHCHECK CMD COMMAND` or `HEALTHCHECK NONE`
    3:18: `HEALTHCHECK NONE` takes no arguments (1) -- leave them out
    4:13: `HEALTHCHECK` has no `RUN` (3) -- write `HEALTHCHECK CMD COMMAND` or `HEALTHCHECK NONE`
    "#);
    assert_snapshot!(bad("ONBUILD FROM x\nONBUILD RNU x\nWORKDIR ${A\nUSER \"\nCOPY --chown='a b c"), @r#"
    1:9: `ONBUILD FROM` is not allowed (4) -- it takes `ADD`, `ARG`, `CMD`, `COPY`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`, `LABEL`, `RUN`, `SHELL`, `STOPSIGNAL`, `USER`, `VOLUME`, `WORKDIR`
    2:9: unknown instruction `RNU` (3) -- did you mean `RUN`?
    3:9: `${` is not closed by `}` (3) -- write `\$` for a dollar sign that is meant literally
    4:6: the quote `"` is not closed (1) -- close it by another one, or put a backslash before it
    5:14: the quote `'` is not closed (6) -- close it by another `'`, or write `\'`
    "#);
    assert_snapshot!(bad("# escape=x\n# escape=`\nRUN a"), @r#"
    1:1: `x` cannot be the escape character (10) -- it is a backslash, or a backtick
    2:1: the parser directive `escape` is there twice (10) -- keep one of them
    "#);
    assert_snapshot!(bad("RUN a\nRUN cat <<EOF\nUSER x\n"), @"2:9: the heredoc `EOF` is not closed (5) -- end it by a line that holds `EOF` alone");
    assert_snapshot!(bad("COPY <<EOF /x\n${A\nEOF\n"), @"1:6: in the heredoc `EOF`: `${A …}` has no meaning (5) -- write `<<'EOF'` to keep all of its text");
}

#[test]
fn wrong_mounts_are_refused() {
    let mount = |options: &str| bad(&format!("RUN --mount={options} x"));
    for (options, message) in [
        (
            "type=chache,target=/x",
            "there is no mount of type `chache`",
        ),
        ("type=ssh", "mounts of type `ssh` are not supported"),
        (
            "from=x,target=/x",
            "a mount cannot come from another image or stage",
        ),
        ("type=bind", "a mount of type `bind` needs `target`"),
        ("source=x", "a mount of type `bind` needs `target`"),
        ("type=secret", "a mount of type `secret` needs `id`"),
        ("targt=/x", "a mount has no option `targt`"),
        (
            "type=tmpfs,target=/x,id=y",
            "a mount of type `tmpfs` has no option `id`",
        ),
        (
            "target=/x,dst=/y",
            "the option `target` of the mount is there twice",
        ),
        ("target", "the option `target` of the mount has no value"),
        (
            "type=cache,target=/x,mode=9",
            "`9` is no value for the option `mode` of a mount",
        ),
        (
            "type=cache,target=/x,sharing=y",
            "`y` is no value for the option `sharing` of a mount",
        ),
        (
            "type=secret,id=a,src=b",
            "`id` and `source` both name the secret",
        ),
        ("target=/x/..", "nothing can be mounted on `/`"),
        ("target=$A,ro=${", "`${` is not closed by `}`"),
        (
            "type=tmpfs,target=/x,size=much",
            "`much` is no value for the option `size` of a mount",
        ),
    ] {
        let said = mount(options);
        let said = said.strip_prefix("1:5: ").expect("the flag is pointed at");
        assert!(said.starts_with(message), "{options}: {said}");
        let hint = said.split_once(" -- ").map(|(_, hint)| hint);
        assert!(
            hint.is_some_and(|hint| !hint.is_empty()),
            "{options}: {said}"
        );
    }
    assert!(mount("type=chache,target=/x").ends_with("did you mean `cache`?"));
    assert!(mount("type=cache,targt=/x").ends_with("did you mean `target`?"));
}
