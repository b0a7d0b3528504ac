//! What goes wrong next: by a generator with a seed, so that a failure can be had again, and never more
//! than a few times in a row.

use std::time::Duration;

use super::http::{Body, Head};

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The connection is reset at some byte of the request.
    CutRequest,
    /// The same for an upload, and the registry keeps what it got: the upload can go on from there.
    Kept,
    /// The connection is reset at some byte of the answer.
    CutAnswer,
    /// 429, now and then with a time to wait.
    Busy,
    /// 500, 502, 503 or 408.
    Unwell,
    /// Another digest than that of what was sent or stored.
    Lie,
    /// The body ends before its announced length.
    Short,
    /// More is announced than comes.
    Long,
    /// One bit of a blob is another.
    Flip,
    /// Nothing more comes.
    Stall,
    /// The upload session is gone: 404.
    Lost,
    /// The same, in the words of other registries: 416.
    OutOfRange,
    /// 401, as if a token's time were over.
    Expired,
    /// The blob is on another host.
    Redirect,
    /// Some milliseconds pass before the request reaches the registry. Never by chance.
    Slow,
}

/// What goes wrong, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The same seed and the same requests make the same faults.
    pub(crate) seed: u64,
    /// Of a thousand requests that could go wrong, how many do.
    pub(crate) chance: u64,
    /// What may happen.
    pub(crate) kinds: Vec<Kind>,
    /// How many requests pass at least after faults in a row: enough for what was disturbed to end well.
    pub(crate) calm: u32,
    /// How long a silence lasts: longer than the client's patience.
    pub(crate) silence: Duration,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Where, or how exactly: any number.
    pub(crate) at: u64,
}

/// Decides.
#[derive(Debug)]
pub(crate) struct Chance {
    plan: Plan,
    state: u64,
    expected: Vec<(&'static str, String, Fault)>,
    /// Faults in a row so far.
    row: u32,
    /// Requests that still pass.
    calm: u32,
}

/// More faults in a row than these are more than a client has to bear.
const MOST: u32 = 3;

impl Kind {
    /// All that come by chance.
    pub(crate) const ALL: [Self; 14] = [
        Self::CutRequest,
        Self::Kept,
        Self::CutAnswer,
        Self::Busy,
        Self::Unwell,
        Self::Lie,
        Self::Short,
        Self::Long,
        Self::Flip,
        Self::Stall,
        Self::Lost,
        Self::OutOfRange,
        Self::Expired,
        Self::Redirect,
    ];

    /// Whether a client may believe it after a few times: these do not come in a row.
    fn is_grave(self) -> bool {
        matches!(
            self,
            Self::Lie | Self::Short | Self::Long | Self::Flip | Self::Expired
        )
    }

    fn applies(self, head: &Head, is_elsewhere: bool) -> bool {
        let (method, path) = (head.method(), head.target());
        let is_upload = path.contains("/blobs/uploads/");
        let is_get = method == "GET" && !is_upload;
        let is_manifest = path.contains("/manifests/");
        let is_blob = path.contains("/blobs/");
        match self {
            Self::CutRequest | Self::CutAnswer | Self::Busy | Self::Unwell | Self::Stall => true,
            Self::Expired => !is_elsewhere,
            Self::Lie => (is_manifest && method != "HEAD") || (is_upload && method == "PUT"),
            Self::Short | Self::Long => is_get && (is_blob || is_manifest),
            Self::Flip => is_get && is_blob,
            Self::Slow => false,
            Self::Redirect => is_get && is_blob && !is_elsewhere,
            Self::Lost | Self::OutOfRange | Self::Kept => {
                is_upload && matches!(method, "PATCH" | "PUT")
            }
        }
    }
}

impl Plan {
    /// Nothing but what a test asks for.
    pub(crate) fn quiet() -> Self {
        Self {
            seed: 1,
            chance: 0,
            kinds: Vec::new(),
            calm: 0,
            silence: Duration::ZERO,
        }
    }
}

impl Fault {
    /// A place within a message: before its first byte, after its last, or between.
    pub(crate) fn within(&self, head: usize, body: Body) -> u64 {
        let body = match body {
            Body::Length(length) => length,
            // Nobody knows how much there will be.
            Body::Chunked | Body::Close => 1 << 10,
        };
        // A stop at the very beginning is one byte late, so that there is a beginning.
        1 + self.at % (head as u64 + body)
    }
}

impl Fault {
    /// A cut that is to come far in waits for a body that is so long.
    fn has_room(&self, head: &Head) -> bool {
        let cuts = matches!(self.kind, Kind::CutRequest | Kind::Kept);
        match head.body() {
            Body::Length(length) if cuts && self.at > 1 << 12 => self.at < length,
            _ => true,
        }
    }
}

impl Chance {
    pub(crate) fn new(plan: Plan) -> Self {
        let state = plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            plan,
            state,
            expected: Vec::new(),
            row: 0,
            calm: 0,
        }
    }

    pub(crate) fn expect(&mut self, method: &'static str, part: &str, fault: Fault) {
        self.expected.push((method, part.to_owned(), fault));
    }

    pub(crate) fn calm(&mut self, requests: u32) {
        self.plan.calm = requests;
    }

    pub(crate) fn rest(&mut self) {
        self.plan.chance = 0;
        self.expected.clear();
    }

    /// What happens to a request; `None` if it passes.
    pub(crate) fn decide(&mut self, head: &Head, is_elsewhere: bool) -> Option<Fault> {
        let is_next = |(method, part, fault): &(&str, String, Fault)| {
            method.split('|').any(|method| method == head.method())
                && head.target().contains(part.as_str())
                && fault.has_room(head)
        };
        if let Some(at) = self.expected.iter().position(is_next) {
            return Some(self.expected.remove(at).2);
        }
        if self.calm > 0 {
            self.calm -= 1;
            return None;
        }
        // Where something went wrong once it is likely to go wrong again.
        let chance = match (self.plan.chance, self.row) {
            (0, _) => return None,
            (chance, 0) => chance,
            (_, MOST..) => 0,
            (_, _) => 500,
        };
        if self.next() % 1000 >= chance {
            self.end_row();
            return None;
        }
        let row = self.row;
        let is_possible =
            |kind: &Kind| kind.applies(head, is_elsewhere) && (row == 0 || !kind.is_grave());
        let kinds: Vec<Kind> = self
            .plan
            .kinds
            .iter()
            .copied()
            .filter(is_possible)
            .collect();
        let Some(last) = u64::try_from(kinds.len()).ok().filter(|count| *count > 0) else {
            self.end_row();
            return None;
        };
        let mut draw = || kinds[usize::try_from(self.next() % last).expect("it is small")];
        let kind = match draw() {
            // Silence takes more time than anything else.
            Kind::Stall => draw(),
            kind => kind,
        };
        let at = self.next();
        match kind {
            // Nothing went wrong yet.
            Kind::Redirect => {}
            kind if kind.is_grave() => self.row = MOST,
            _ => self.row += 1,
        }
        Some(Fault { kind, at })
    }

    fn end_row(&mut self) {
        if self.row > 0 {
            // The request that is decided about is the first of them.
            self.calm = self.plan.calm.saturating_sub(1);
        }
        self.row = 0;
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        // The lowest bits of such generators are the weakest.
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}
