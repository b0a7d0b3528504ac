//! A token server, for a registry that lets in whoever has a token of it: signed JSON web tokens (ES256)
//! that docker-registry checks by itself.
//!
//! Follows the distribution project's token authentication: GET with a Basic login or without any, and
//! POST with OAuth 2's grants `password` and `refresh_token`.

use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fs_err as fs;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::http::{Head, answer, basic, parameter, parameters, read_body};
use super::{have, succeed};

/// A running token server; it ends with the value.
#[derive(Debug)]
pub(crate) struct Tokens {
    directory: tempfile::TempDir,
    port: u16,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

/// Who may do what, and what tokens look like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    /// Who has a password.
    pub(crate) users: Vec<Account>,
    /// What everybody may do.
    pub(crate) anonymous: Vec<Right>,
    /// Tokens are issued when they have been over for so many seconds. A registry lets them in for a
    /// minute more, so 58 makes tokens that hold for two seconds, whatever the answer says.
    pub(crate) past: u64,
}

/// Somebody with a password.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// The user name.
    pub(crate) name: &'static str,
    /// The password.
    pub(crate) password: &'static str,
    /// What this user may do.
    pub(crate) rights: Vec<Right>,
}

/// A repository, or `*` for all, and the actions that are allowed there, such as `pull,push`.
pub(crate) type Right = (&'static str, &'static str);

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// How: `none`, `basic`, `password` or `refresh_token`.
    pub(crate) by: &'static str,
    /// For whom; `None` for nobody in particular, or a login that is wrong.
    pub(crate) user: Option<String>,
    /// As they were asked for.
    pub(crate) scopes: Vec<String>,
    /// The status of the answer.
    pub(crate) status: u16,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing.
    None,
    /// It answers with this status to everything.
    Status(u16),
    /// It knows no POST, as older servers.
    NoPost,
    /// It answers something that is not JSON.
    Rubbish,
    /// It takes this long for an answer.
    Slow(Duration),
}

#[derive(Debug)]
struct State {
    policy: Policy,
    key: EcdsaKeyPair,
    random: SystemRandom,
    /// The certificate's, in Base64.
    certificate: String,
    failure: Mutex<Failure>,
    asked: Mutex<Vec<Asked>>,
    issued: AtomicU64,
    stop: AtomicBool,
}

impl Tokens {
    /// What the server issues tokens for.
    pub(crate) const SERVICE: &str = "registry of tests";
    /// Who it is.
    pub(crate) const ISSUER: &str = "tokens of tests";

    /// Starts a server; `None` (and the test is skipped) if OpenSSL is not there for its certificate.
    pub(crate) fn start(policy: Policy) -> Option<Self> {
        if !have(&["openssl"]) {
            return None;
        }
        let directory = tempfile::Builder::new()
            .prefix("pib-tokens-")
            .tempdir()
            .expect("a folder");
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .expect("there is randomness");
        let path = directory.path().join("key.der");
        fs::write(&path, pkcs8.as_ref()).expect("the folder is ours");
        succeed(
            Command::new("openssl")
                .args(["req", "-x509", "-days", "2", "-subj", "/CN=tokens"])
                .args(["-keyform", "DER", "-key", "key.der", "-out", "tokens.pem"])
                .current_dir(directory.path()),
        );
        let pem = fs::read_to_string(directory.path().join("tokens.pem")).expect("it was made");
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        let state = Arc::new(State {
            policy,
            key: key.expect("it was made here"),
            random,
            certificate: lines.collect(),
            failure: Mutex::new(Failure::None),
            asked: Mutex::default(),
            issued: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let served = state.clone();
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if served.stop.load(Ordering::Relaxed) {
                    break;
                }
                let state = served.clone();
                std::thread::spawn(move || state.serve(&stream));
            }
        });
        Some(Self {
            directory,
            port,
            state,
            thread: Some(thread),
        })
    }

    /// Where tokens are to be had.
    pub(crate) fn realm(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    /// By which a registry knows the tokens.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("tokens.pem")
    }

    /// From now on, this goes wrong.
    pub(crate) fn fail(&self, failure: Failure) {
        *self.state.failure.lock().expect("no thread panics") = failure;
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().expect("no thread panics").clone()
    }

    /// An identity token of a user, which stands for the password.
    pub(crate) fn identity(user: &str) -> String {
        format!("pa55-identity-of-{user}")
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl State {
    fn serve(&self, stream: &TcpStream) {
        let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
        let mut reader = BufReader::new(stream);
        while let Some(head) = Head::read(&mut reader) {
            let body = read_body(&mut reader, &head, 1 << 16);
            let body = String::from_utf8_lossy(&body).into_owned();
            let failure = *self.failure.lock().expect("no thread panics");
            let (mut asked, mut reply) = self.judge(&head, &body);
            match failure {
                Failure::Status(status) => {
                    (asked.status, reply) = (status, "out of tokens".to_owned());
                }
                Failure::NoPost if head.method() == "POST" => {
                    (asked.status, reply) = (405, "no POST here".to_owned());
                }
                Failure::Rubbish => "<html>rubbish</html>".clone_into(&mut reply),
                Failure::Slow(pause) => std::thread::sleep(pause),
                Failure::None | Failure::NoPost => {}
            }
            let status = match asked.status {
                200 => "200 OK",
                401 => "401 Unauthorized",
                405 => "405 Method Not Allowed",
                429 => "429 Too Many Requests",
                503 => "503 Service Unavailable",
                _ => "500 Internal Server Error",
            };
            self.asked.lock().expect("no thread panics").push(asked);
            answer(
                &mut &*stream,
                status,
                &["Content-Type: application/json"],
                reply.as_bytes(),
            );
        }
    }

    fn judge(&self, head: &Head, body: &str) -> (Asked, String) {
        let (_, query) = head.target().split_once('?').unwrap_or_default();
        let is_post = head.method() == "POST";
        let form = if is_post { body } else { query };
        let scopes = parameters(form, "scope");
        let scopes: Vec<String> = scopes
            .iter()
            .flat_map(|scope| scope.split(' '))
            .map(str::to_owned)
            .collect();
        let (by, user) = if is_post {
            let (by, account) = self.oauth(form);
            (by, Some(account))
        } else {
            let login = basic(head);
            let user = login.as_ref().map(|(name, word)| self.login(name, word));
            (if login.is_some() { "basic" } else { "none" }, user)
        };
        let mut asked = Asked {
            by,
            user: user.flatten().map(|account| account.name.to_owned()),
            scopes,
            status: 200,
        };
        if user.is_some_and(|account| account.is_none()) {
            asked.status = 401;
            let reply = r#"{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}],"error":"invalid_grant"}"#;
            return (asked, reply.to_owned());
        }
        let token = self.sign(user.flatten(), &asked.scopes);
        let is_offline = parameter(form, "offline_token").as_deref() == Some("true")
            || parameter(form, "access_type").as_deref() == Some("offline");
        let mut reply = json!({"token": token, "access_token": token, "expires_in": 300});
        if let (true, Some(user)) = (is_offline, &asked.user) {
            reply["refresh_token"] = Tokens::identity(user).into();
        }
        (asked, reply.to_string())
    }

    /// How somebody logs in by OAuth 2, and who.
    fn oauth(&self, form: &str) -> (&'static str, Option<&Account>) {
        let of = |name| parameter(form, name).unwrap_or_default();
        match of("grant_type").as_str() {
            "refresh_token" => {
                let known =
                    |account: &&Account| Tokens::identity(account.name) == of("refresh_token");
                ("refresh_token", self.policy.users.iter().find(known))
            }
            "password" => ("password", self.login(&of("username"), &of("password"))),
            _ => ("none", None),
        }
    }

    fn login(&self, name: &str, password: &str) -> Option<&Account> {
        let known = |account: &&Account| (account.name, account.password) == (name, password);
        self.policy.users.iter().find(known)
    }

    /// A token for what was asked for and is allowed; with nothing in it, maybe.
    fn sign(&self, user: Option<&Account>, scopes: &[String]) -> String {
        let rights = || {
            let own = user.map(|user| user.rights.iter()).into_iter().flatten();
            own.chain(&self.policy.anonymous)
        };
        let granted = |scope: &String| {
            let (kind, rest) = scope.split_once(':')?;
            let (name, wanted) = rest.rsplit_once(':')?;
            let may = |action: &&str| {
                rights().any(|(repository, actions)| {
                    (*repository == "*" || *repository == name)
                        && actions.split(',').any(|known| known == *action)
                })
            };
            let actions: Vec<&str> = wanted.split(',').filter(may).collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        };
        let access: Vec<Value> = scopes.iter().filter_map(granted).collect();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs();
        let ends = match self.policy.past {
            0 => now + 300,
            past => now - past,
        };
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": Tokens::ISSUER, "aud": Tokens::SERVICE, "sub": user.map_or("", |user| user.name),
            "exp": ends, "nbf": ends - 400, "iat": ends - 400, "jti": number.to_string(),
            "access": access,
        });
        let encode = |value: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(value);
        let text = [header, claims].map(|part| encode(part.to_string().as_bytes()));
        let text = text.join(".");
        let signature = self.key.sign(&self.random, text.as_bytes());
        let signature = encode(signature.expect("there is randomness").as_ref());
        format!("{text}.{signature}")
    }
}
