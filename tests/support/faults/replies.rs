//! What the proxy says by itself: refusals, redirects, and what was redirected.

use std::fmt::Write as _;
use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use super::State;
use crate::support::chance::{Fault, Kind};
use crate::support::http::Head;

impl State {
    /// Finds out what was moved here; `false` for what was not.
    pub(super) fn find(&self, head: &mut Head) -> bool {
        if head.field("authorization").is_some() {
            self.leaks.fetch_add(1, Ordering::Relaxed);
        }
        let number = head.target().strip_prefix("/moved/").map(str::parse);
        let moved = self.moved.lock().expect("no thread panics");
        let Some(Some((path, login))) = number.map(|number| moved.get(&number.unwrap_or(u64::MAX)))
        else {
            return false;
        };
        head.first = format!("{} {path} HTTP/1.1", head.method());
        head.remove("authorization");
        if let Some(login) = login {
            head.fields
                .push(("Authorization".to_owned(), login.clone()));
        }
        true
    }

    /// The status, the fields and the body of what is not answered by the registry.
    pub(super) fn own_answer(
        &self,
        head: &Head,
        fault: &Fault,
    ) -> Option<(&'static str, Vec<String>, String)> {
        let error =
            |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"a test"}}]}}"#);
        let plain = |status, code| Some((status, Vec::new(), error(code)));
        match fault.kind {
            Kind::Busy => {
                let fields = match fault.at % 20 {
                    0 => vec!["Retry-After: 1".to_owned()],
                    1..10 => vec!["Retry-After: 0".to_owned()],
                    _ => Vec::new(),
                };
                Some(("429 Too Many Requests", fields, error("TOOMANYREQUESTS")))
            }
            Kind::Unwell => plain(
                [
                    "500 Internal Server Error",
                    "502 Bad Gateway",
                    "503 Service Unavailable",
                    "408 Request Timeout",
                ][usize::try_from(fault.at % 4).expect("it is small")],
                "UNKNOWN",
            ),
            Kind::Expired => {
                let realm = format!("http://{}/token", head.field("host")?);
                let field = format!(r#"WWW-Authenticate: Bearer realm="{realm}",service="faults""#);
                Some(("401 Unauthorized", vec![field], error("UNAUTHORIZED")))
            }
            Kind::Lost => {
                self.delete(head);
                plain("404 Not Found", "BLOB_UPLOAD_UNKNOWN")
            }
            Kind::OutOfRange => {
                self.delete(head);
                plain("416 Requested Range Not Satisfiable", "BLOB_UPLOAD_INVALID")
            }
            Kind::Redirect => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let login = head.field("authorization").map(str::to_owned);
                let mut moved = self.moved.lock().expect("no thread panics");
                moved.insert(number, (head.target().to_owned(), login));
                let location = format!(
                    "Location: http://127.0.0.1:{}/moved/{number}",
                    self.ports[1]
                );
                Some(("307 Temporary Redirect", vec![location], String::new()))
            }
            _ => None,
        }
    }

    /// Takes an upload session from the registry.
    fn delete(&self, head: &Head) {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.upstream)) else {
            return;
        };
        let mut lines = format!("DELETE {} HTTP/1.1\r\nConnection: close\r\n", head.target());
        for name in ["host", "authorization"] {
            if let Some(value) = head.field(name) {
                let _ = write!(lines, "{name}: {value}\r\n");
            }
        }
        let _ = (&stream).write_all(format!("{lines}\r\n").as_bytes());
        // The answer says that it has been done.
        let _ = Head::read(&mut BufReader::new(&stream));
    }
}
