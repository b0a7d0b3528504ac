//! Upload sessions that outlive a cut.
//!
//! docker-registry keeps what it got of a request that was cut, but gives the whole session up when it is
//! asked about it, since the client cannot know the signed state that goes with the bytes. Other registries
//! go on from there, and so does this one: a request with an older state gets the newest.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;

use super::http::{Body, Head, parameter, pass};

/// The newest states of sessions whose clients do not know them, by path.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, String>>);

impl Sessions {
    /// Gives a request the newest state.
    pub(crate) fn renew(&self, head: &mut Head) {
        let target = head.target().to_owned();
        let Some((path, query)) = target.split_once('?') else {
            return;
        };
        let states = self.0.lock().expect("no thread panics");
        let Some(state) = states.get(path) else {
            return;
        };
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs.filter(|(name, _)| name != "_state"))
            .append_pair("_state", state)
            .finish();
        head.first = format!("{} {path}?{query} HTTP/1.1", head.method());
    }

    /// The client has got the newest state with the answer to a request that sent bytes.
    pub(crate) fn forget(&self, request: &Head) {
        if matches!(request.method(), "PATCH" | "PUT") {
            let path = request.target().split('?').next().unwrap_or_default();
            self.0.lock().expect("no thread panics").remove(path);
        }
    }

    /// Passes on the beginning of an upload, `length` bytes, as if it was all.
    pub(crate) fn keep(
        &self,
        head: &Head,
        from: &mut impl BufRead,
        upstream: &TcpStream,
        length: u64,
        seen: &mut impl FnMut(u64),
    ) {
        let (path, query) = head.target().split_once('?').unwrap_or_default();
        let state = parameter(query, "_state").unwrap_or_default();
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("_state", &state)
            .finish();
        let mut part = head.clone();
        part.first = format!("PATCH {path}?{query} HTTP/1.1");
        part.remove("content-range");
        part.set("content-length", &length.to_string());
        let mut to = upstream;
        if to.write_all(&part.bytes()).is_err()
            || pass(from, &mut to, Body::Length(length), seen).is_err()
        {
            return;
        }
        let answer = Head::read(&mut BufReader::new(upstream));
        let location = answer.as_ref().and_then(|answer| answer.field("location"));
        let state = location.and_then(|location| parameter(location.split_once('?')?.1, "_state"));
        if let Some(state) = state {
            let mut states = self.0.lock().expect("no thread panics");
            states.insert(path.to_owned(), state);
        }
    }
}
