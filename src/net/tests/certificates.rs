//! Certificates for one host, against Debian's registry: a private authority, and a client certificate that
//! is demanded.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::header::HeaderMap;
use reqwest::{Method, Url};

use super::super::{Client, Error, Fault, Options, Request, Trust};
use crate::progress::Progress;

/// A registry with TLS, and the files that its certificates were made from.
struct Registry {
    child: Child,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// Starts it with the `server` pair of `directory`; `more` are lines of its configuration of TLS.
    fn start(directory: &Path, more: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let at = directory.display();
        let config = directory.join(format!("{port}.yml"));
        let text = format!(
            "version: 0.1\nstorage:\n  inmemory:\nhttp:\n  addr: 127.0.0.1:{port}\n  tls:\n    \
             certificate: {at}/server.pem\n    key: {at}/server.key\n{more}"
        );
        fs_err::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        crate::base::tests::wait_for(port);
        Self { child, port }
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn url(&self) -> Url {
        format!("https://{}/v2/", self.host()).parse().unwrap()
    }
}

/// Makes an authority, and certificates of it for the server and for clients; `other` is of nobody.
fn certificates(at: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(at)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for name in ["authority", "other"] {
        openssl(&format!(
            "req -x509 -days 2 -subj /CN={name} {key} -keyout {name}.key -out {name}.pem"
        ));
    }
    fs_err::write(
        at.join("extensions"),
        "subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n",
    )
    .unwrap();
    for name in ["server", "client"] {
        openssl(&format!(
            "req -subj /CN={name} {key} -keyout {name}.key -out {name}.csr"
        ));
        openssl(&format!(
            "x509 -req -days 2 -in {name}.csr -CA authority.pem -CAkey authority.key -CAcreateserial \
             -extfile extensions -out {name}.pem"
        ));
    }
}

/// Folders of certificates, as in `certs.d`.
struct Folders {
    directory: tempfile::TempDir,
}

impl Folders {
    fn new() -> Option<Self> {
        if !crate::base::tests::has(&["docker-registry", "openssl"]) {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        certificates(directory.path());
        Some(Self { directory })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Puts a file made by openssl into the folder of a host.
    fn put(&self, folder: &str, host: &str, name: &str, from: &str) -> PathBuf {
        let to = self.path().join(folder).join(host).join(name);
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        fs_err::copy(self.path().join(from), &to).unwrap();
        to
    }

    fn client(&self, folders: &[&str]) -> Client {
        Client::new(Options {
            certificates: folders.iter().map(|name| self.path().join(name)).collect(),
            ..Options::default()
        })
    }

    fn ask(&self, folders: &[&str], registry: &Registry) -> Result<u16, Error> {
        let request = Request::get(registry.url());
        let response = self.client(folders).request(request, &Progress::silent())?;
        Ok(response.status().as_u16())
    }
}

fn fault(result: Result<u16, Error>) -> Fault {
    let error = result.unwrap_err();
    assert!(error.hint().unwrap().contains("certs.d"), "{error}");
    match error {
        Error::Unreachable { fault, .. } => fault,
        error => panic!("{error:?}"),
    }
}

#[test]
fn a_host_may_have_an_authority_of_its_own() {
    let Some(folders) = Folders::new() else {
        return;
    };
    let registry = Registry::start(folders.path(), "");
    let host = registry.host();
    folders.put("other-host", "127.0.0.1", "ca.crt", "authority.pem");
    for unknown in [&[][..], &["missing"], &["other-host"]] {
        let fault = fault(folders.ask(unknown, &registry));
        assert!(matches!(fault, Fault::Certificate(_)), "{fault:?}");
    }
    folders.put("right", &host, "ca.crt", "authority.pem");
    folders.put("right", &host, "read.me", "extensions");
    assert_eq!(folders.ask(&["missing", "right"], &registry).unwrap(), 200);
    // The first folder counts, and the others are not looked at.
    folders.put("wrong", &host, "ca.crt", "other.pem");
    assert_eq!(folders.ask(&["right", "wrong"], &registry).unwrap(), 200);
    let fault = fault(folders.ask(&["wrong", "right"], &registry));
    assert!(matches!(fault, Fault::Certificate(_)), "{fault:?}");
}

#[test]
fn a_client_certificate_is_shown_to_its_host() {
    let Some(folders) = Folders::new() else {
        return;
    };
    let authorities = format!(
        "    clientcas:\n      - {}/authority.pem\n",
        folders.path().display()
    );
    let registry = Registry::start(folders.path(), &authorities);
    let host = registry.host();
    folders.put("none", &host, "ca.crt", "authority.pem");
    folders.put("other", &host, "ca.crt", "authority.pem");
    for folder in ["right", "other"] {
        let name = if folder == "right" { "client" } else { "other" };
        folders.put(folder, &host, "me.cert", &format!("{name}.pem"));
        folders.put(folder, &host, "me.key", &format!("{name}.key"));
    }
    folders.put("right", &host, "ca.crt", "authority.pem");
    assert_eq!(folders.ask(&["right"], &registry).unwrap(), 200);
    for folder in ["none", "other"] {
        let error = folders.ask(&[folder], &registry).unwrap_err();
        // What the server says may be lost when it closes the connection at once.
        let is_expected = match &error {
            Error::Unreachable { fault, .. } => matches!(fault, Fault::ClientCertificate(_)),
            error => matches!(error, Error::Broken { .. }),
        };
        assert!(is_expected && error.hint().is_some(), "{folder}: {error:?}");
    }
    // Where nobody is verified, clients are still.
    let client = folders.client(&["right"]);
    for trust in [Trust::Unverified, Trust::Local] {
        let request = Request {
            trust,
            ..Request::get(registry.url())
        };
        let response = client.request(request, &Progress::silent()).unwrap();
        assert_eq!(response.status().as_u16(), 200, "{trust:?}");
    }
}

#[test]
fn authorities_hold_where_a_registry_leads_and_client_certificates_do_not() {
    let Some(folders) = Folders::new() else {
        return;
    };
    let demanding = format!(
        "    clientcas:\n      - {}/authority.pem\n",
        folders.path().display()
    );
    let demanding = Registry::start(folders.path(), &demanding);
    let open = Registry::start(folders.path(), "");
    let home = "https://home.example:5000/".parse().unwrap();
    folders.put("of-home", "home.example:5000", "ca.crt", "authority.pem");
    folders.put("of-home", "home.example:5000", "me.cert", "client.pem");
    folders.put("of-home", "home.example:5000", "me.key", "client.key");
    let client = folders.client(&["of-home"]);
    let ask = |home: &Url, registry: &Registry| {
        client.block(&Progress::silent(), async {
            let judge = |_: &Url, _: &Url| Err("");
            let (headers, url) = (HeaderMap::new(), registry.url());
            let body = crate::net::Body::none();
            let content = (&headers, &body);
            let answer = client.follow_for(
                home,
                Method::GET,
                url,
                content,
                None,
                (Trust::Verified, &judge),
            );
            Ok::<_, Error>(answer.await?.0.status().as_u16())
        })
    };
    assert_eq!(ask(&home, &open).unwrap(), 200);
    let fault = fault(ask(&open.url(), &open));
    assert!(matches!(fault, Fault::Certificate(_)), "{fault:?}");
    assert!(ask(&home, &demanding).is_err());
}

#[test]
fn what_is_wrong_in_a_folder_is_named() {
    let Some(folders) = Folders::new() else {
        return;
    };
    let url: Url = "https://registry.example/v2/".parse().unwrap();
    let host = "registry.example";
    let ask = |folder: &str| {
        let client = folders.client(&[folder]);
        client.http(&url, Trust::Verified).unwrap_err()
    };
    let path = folders.put("a", host, "ca.crt", "extensions");
    let error = ask("a");
    assert!(
        matches!(&error, Error::Authority { path: at } if *at == path),
        "{error:?}"
    );
    let path = folders.put("b", "registry.example:443", "x.cert", "client.pem");
    let error = ask("b");
    assert!(
        matches!(&error, Error::NoKey { path: at } if *at == path),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("`x.key`"));
    let path = folders.put("c", host, "x.key", "client.key");
    let error = ask("c");
    assert!(
        matches!(&error, Error::NoCertificate { path: at } if *at == path),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("`x.cert`"));
    for (folder, certificate, key) in [
        ("d", "client.pem", "server.key"),
        ("e", "extensions", "client.key"),
        ("f", "client.pem", "extensions"),
    ] {
        let path = folders.put(folder, host, "x.cert", certificate);
        folders.put(folder, host, "x.key", key);
        let error = ask(folder);
        assert!(
            matches!(&error, Error::Identity { path: at } if *at == path),
            "{folder}: {error:?}"
        );
        assert!(error.hint().is_some());
    }
    for name in ["x", "y"] {
        folders.put("g", host, &format!("{name}.cert"), "client.pem");
        folders.put("g", host, &format!("{name}.key"), "client.key");
    }
    assert!(matches!(ask("g"), Error::Identities { .. }));
    // Nothing of it matters to others, and without TLS.
    let client = folders.client(&["a"]);
    for other in [
        "https://registry.example:5000/",
        "https://example/",
        "http://registry.example/",
    ] {
        client
            .http(&other.parse().unwrap(), Trust::Verified)
            .unwrap();
    }
}

#[test]
fn docker_hub_is_named_as_in_references() {
    let Some(folders) = Folders::new() else {
        return;
    };
    folders.put("hub", "docker.io", "ca.crt", "extensions");
    let client = folders.client(&["hub"]);
    let url = "https://registry-1.docker.io/v2/".parse().unwrap();
    let error = client.http(&url, Trust::Verified).unwrap_err();
    assert!(matches!(error, Error::Authority { .. }), "{error:?}");
}
