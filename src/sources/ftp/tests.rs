//! Servers that misbehave: cuts, silence, wrong lengths, refusals. Real servers are in `tests/sources_ftp.rs`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::super::ssh;
use super::*;
use crate::buildfile::{BuildFile, Source};
use crate::net::{Client, Options, Timing};
use crate::progress::Progress;

/// What a server does wrong in one session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// It is too busy to greet.
    Busy,
    /// It hangs up after so many bytes of the file.
    Cut(usize),
    /// It gives up after so many bytes, and says so.
    Abort(usize),
    /// It sends so many bytes and calls that all.
    Short(usize),
    /// It falls silent after so many bytes.
    Silent(usize),
    /// It does not even greet.
    Mute,
    /// It sends more than it said.
    Long,
    /// It knows none of these commands.
    Lacks(&'static [&'static str]),
    /// It repeats the password.
    Tells,
}

/// A server for one file, `/dir/file`; one entry of `script` is for one session, the last for all others.
struct Server {
    port: u16,
    content: Vec<u8>,
    /// The commands of all sessions.
    heard: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(script: &'static [Wrong]) -> Self {
        // Of a period that no buffer has.
        let content =
            (0..=250).collect::<Vec<u8>>().repeat(12_000_000 / 251 + 1)[..12_000_000].to_vec();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            content,
            heard: Arc::default(),
        };
        let (content, heard) = (server.content.clone(), server.heard.clone());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let wrong = *script.get(number).or(script.last()).unwrap();
                let (content, heard) = (content.clone(), heard.clone());
                std::thread::spawn(move || session(stream.unwrap(), wrong, &content, &heard));
            }
        });
        server
    }

    fn url(&self) -> String {
        format!("ftp://127.0.0.1:{}/dir/file", self.port)
    }

    fn heard(&self, command: &str) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        let found = heard.iter().filter(|line| line.starts_with(command));
        found.cloned().collect()
    }
}

/// Ends when the other side does, or when there is nothing more to do wrong.
fn session(
    mut control: TcpStream,
    wrong: Wrong,
    content: &[u8],
    heard: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut lines = BufReader::new(control.try_clone().ok()?).lines();
    match wrong {
        Wrong::Busy => return control.write_all(b"421 too many users\r\n").ok(),
        Wrong::Mute => return lines.next().map(drop),
        _ => control.write_all(b"220-hello\r\n220 there\r\n").ok()?,
    }
    let (mut passive, mut start) = (None, 0);
    loop {
        let line = lines.next()?.ok()?;
        heard.lock().unwrap().push(line.clone());
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let reply = match command {
            _ if matches!(wrong, Wrong::Lacks(commands) if commands.contains(&command)) => {
                "502 not here".to_owned()
            }
            "USER" => "331 password?".to_owned(),
            "PASS" if wrong == Wrong::Tells => format!("530 not with\r {argument} \x1b[2J"),
            "PASS" => "230 welcome".to_owned(),
            "TYPE" => "200 well".to_owned(),
            "SIZE" | "RETR" | "MDTM" if argument != "/dir/file" => "550 no such file".to_owned(),
            "SIZE" => format!("213 {}", content.len()),
            "MDTM" => "213 20260102030405".to_owned(),
            "CWD" if argument == "/dir" => "250 there".to_owned(),
            "EPSV" | "PASV" => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                passive = Some(listener);
                if command == "EPSV" {
                    format!("229 (|||{port}|)")
                } else {
                    // An address that leads nowhere.
                    format!("227 (192,0,2,1,{},{})", port >> 8, port & 255)
                }
            }
            "REST" => {
                start = argument.parse().ok()?;
                "350 from there".to_owned()
            }
            "RETR" => {
                control.write_all(b"150 here\r\n").ok()?;
                let (mut data, _) = passive.take()?.accept().ok()?;
                let rest = &content[start..];
                let cut = |length: usize| &rest[..length.min(rest.len())];
                match wrong {
                    Wrong::Cut(length) => return data.write_all(cut(length)).ok(),
                    Wrong::Silent(length) => {
                        data.write_all(cut(length)).ok()?;
                        return lines.next().map(drop);
                    }
                    Wrong::Abort(length) => {
                        data.write_all(cut(length)).ok()?;
                        "426 something came in between".to_owned()
                    }
                    Wrong::Short(length) => {
                        data.write_all(cut(length)).ok()?;
                        "226 that is all".to_owned()
                    }
                    _ => {
                        data.write_all(rest).ok()?;
                        if wrong == Wrong::Long {
                            loop {
                                data.write_all(rest).ok()?;
                            }
                        }
                        "226 that is all".to_owned()
                    }
                }
            }
            _ => "550 no".to_owned(),
        };
        write!(control, "{reply}\r\n").ok()?;
    }
}

/// For servers that talk: a loaded machine gets its time.
const PATIENT: Timing = Timing {
    connect: Duration::from_secs(20),
    stall: Duration::from_secs(20),
    backoff: Duration::from_millis(1),
    pause: Duration::from_secs(20),
    attempts: u32::MAX,
};

/// For servers that do not.
const IMPATIENT: Timing = Timing {
    connect: Duration::from_millis(900),
    stall: Duration::from_millis(500),
    ..PATIENT
};

/// What a server that does this is to be met with.
fn patience(script: &[Wrong]) -> Timing {
    let is_silent = |wrong: &Wrong| matches!(wrong, Wrong::Mute | Wrong::Silent(_));
    if script.iter().any(is_silent) {
        IMPATIENT
    } else {
        PATIENT
    }
}

/// Fetches into a fresh folder; gives what came of it, and the file.
fn get(
    url: &str,
    known: Option<&Validator>,
    progress: &Progress,
    timing: Timing,
) -> (Result<Answer, Error>, Option<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("0");
    let net = Client::with_timing(Options::default(), timing);
    let text = format!("files: ['{url}']");
    let buildfile = BuildFile::parse("x", &text, &|_| None).unwrap();
    let Source::Ftp(location) = &buildfile.files[0].source else {
        panic!("not ftp: {url}");
    };
    let part = progress.start("fetch");
    let options = Fetch {
        net: &net,
        ssh: &ssh::Options::default(),
        progress,
        part: &part,
    };
    let answer = fetch(location, &into, known, options);
    let file = fs::read(&into).ok();
    if file.is_some() {
        let mode = fs::metadata(&into).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o644);
    }
    (answer, file)
}

/// The whole error, with its causes and its hint.
fn failure(url: &str, timing: Timing) -> String {
    let (answer, _) = get(url, None, &Progress::silent(), timing);
    let error = answer.expect_err("it cannot be fetched");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    match error.hint() {
        Some(hint) => format!("{text}\nhint: {hint}"),
        None => text,
    }
}

#[test]
fn a_transfer_that_was_cut_goes_on() {
    for script in [
        &[Wrong::Busy, Wrong::Nothing] as &[Wrong],
        &[Wrong::Cut(1_000_000), Wrong::Nothing],
        &[Wrong::Abort(1_000_000), Wrong::Nothing],
        &[Wrong::Short(1_000_000), Wrong::Nothing],
        &[Wrong::Silent(1_000_000), Wrong::Nothing],
        // Far more cuts than attempts, but each attempt brings something.
        &[Wrong::Cut(2_000_000)],
    ] {
        let server = Server::start(script.to_vec().leak());
        let silent = Progress::silent();
        let (answer, file) = get(&server.url(), None, &silent, patience(script));
        let Ok(Answer::Fetched(known)) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(file.as_ref(), Some(&server.content));
        let resumed = server.heard("REST");
        let expected: &[&str] = match script {
            [Wrong::Busy, ..] => &[],
            [Wrong::Cut(2_000_000)] => &[
                "REST 2000000",
                "REST 4000000",
                "REST 6000000",
                "REST 8000000",
                "REST 10000000",
            ],
            _ => &["REST 1000000"],
        };
        assert_eq!(resumed, expected);

        let server = Server::start(&[Wrong::Nothing]);
        let (answer, file) = get(&server.url(), Some(&known), &Progress::silent(), PATIENT);
        assert!(matches!(answer, Ok(Answer::Unchanged)), "{answer:?}");
        assert!(file.is_none() && server.heard("RETR").is_empty());
    }
}

#[test]
fn servers_may_lack_commands() {
    for lacks in [
        &["SIZE"] as &[&str],
        &["MDTM"],
        &["SIZE", "MDTM"],
        &["EPSV"],
        &["EPSV", "SIZE"],
    ] {
        let server = Server::start(vec![Wrong::Lacks(lacks)].leak());
        let (answer, file) = get(&server.url(), None, &Progress::silent(), PATIENT);
        let Ok(Answer::Fetched(validator)) = answer else {
            panic!("{lacks:?}: {answer:?}");
        };
        assert_eq!(file, Some(server.content.clone()));
        // Without both there is no telling whether it changed.
        let (answer, _) = get(
            &server.url(),
            Some(&validator),
            &Progress::silent(),
            PATIENT,
        );
        let told = !lacks.contains(&"SIZE") && !lacks.contains(&"MDTM");
        assert_eq!(matches!(answer, Ok(Answer::Unchanged)), told, "{lacks:?}");
    }
    // Where nothing can be resumed, it begins anew.
    for lacks in [&["REST"] as &[&str], &["SIZE", "MDTM"]] {
        let script = vec![Wrong::Cut(1_500_000), Wrong::Lacks(lacks)];
        let server = Server::start(script.leak());
        let (answer, file) = get(&server.url(), None, &Progress::silent(), PATIENT);
        assert_eq!(file, Some(server.content.clone()), "{lacks:?}: {answer:?}");
    }
}

#[test]
fn what_does_not_pass_is_reported() {
    let told = |script: &'static [Wrong], login: &str, path: &str| {
        let server = Server::start(script);
        let address = format!("127.0.0.1:{}", server.port);
        failure(&format!("ftp://{login}{address}/{path}"), patience(script))
            .replace(&address, "HOST")
            .replace('\x1b', "␛")
    };
    insta::assert_snapshot!(
        told(&[Wrong::Short(1000), Wrong::Short(0)], "", "dir/file"),
        @"
    failed to fetch `ftp://HOST/dir/file`: the server sent 1000 bytes, and said that the file has 12000000
    "
    );
    insta::assert_snapshot!(told(&[Wrong::Long], "", "dir/file"), @"
    failed to fetch `ftp://HOST/dir/file`: the server sent more than the 12000000 bytes that it said the file has
    ");
    insta::assert_snapshot!(told(&[Wrong::Busy], "", "dir/file"), @"
    failed to fetch `ftp://HOST/dir/file`: the server refused: `421 too many users`
    ");
    insta::assert_snapshot!(told(&[Wrong::Mute], "", "dir/file"), @"
    failed to fetch `ftp://HOST/dir/file`: the server fell silent
    ");
    insta::assert_snapshot!(told(&[Wrong::Silent(1000), Wrong::Silent(0)], "", "dir/file"), @"
    failed to fetch `ftp://HOST/dir/file`: the server fell silent
    ");
    insta::assert_snapshot!(told(&[Wrong::Cut(0)], "", "dir/file"), @"
    failed to fetch `ftp://HOST/dir/file`: the connection was cut: connection closed before the response
    ");
    insta::assert_snapshot!(told(&[Wrong::Nothing], "", "dir"), @"
    failed to fetch `ftp://HOST/dir`: it is a directory
    hint: name one file of it: ftp fetches single files only
    ");
    insta::assert_snapshot!(told(&[Wrong::Nothing], "", "gone"), @"
    failed to fetch `ftp://HOST/gone`: the server does not give the file: `550 no such file`
    hint: the path is absolute, as the server shows it to this user
    ");
    insta::assert_snapshot!(told(&[Wrong::Nothing], "", "a%0Db"), @"
    failed to fetch `ftp://HOST/a%0Db`: the path is not one line of UTF-8 text
    hint: write it as the server shows it, with special characters percent-encoded
    ");
    insta::assert_snapshot!(told(&[Wrong::Tells], "me:pa%20ss@", "dir/file"), @"
    failed to fetch `ftp://***@HOST/dir/file`: the login was refused: `530 not with *** ␛[2J`
    hint: check user and password; special characters in a URL are percent-encoded
    ");
    insta::assert_snapshot!(told(&[Wrong::Lacks(&["RETR"])], "me:pa%20ss@", "dir/file"), @"
    failed to fetch `ftp://***@HOST/dir/file`: the server refused: `502 not here`
    ");
}

#[test]
fn a_mute_server_of_ftps_is_taken_for_an_implicit_one() {
    let server = Server::start(&[Wrong::Mute]);
    let began = Instant::now();
    let text = failure(&server.url().replace("ftp:", "ftps:"), IMPATIENT);
    assert!(text.contains("the connection was cut"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn it_ends_when_the_build_is_told_to_stop() {
    let server = Server::start(&[Wrong::Silent(1000)]);
    let progress = Progress::silent();
    let handle = progress.clone();
    let waiter = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        handle.stop();
    });
    let began = Instant::now();
    let (answer, _) = get(&server.url(), None, &progress, PATIENT);
    waiter.join().unwrap();
    assert!(answer.is_err());
    assert!(progress.check().is_err());
    assert!(began.elapsed() < Duration::from_secs(5), "{answer:?}");
}
