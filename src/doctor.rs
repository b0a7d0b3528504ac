//! What this machine allows: the runners, the store, the kernel, and the machines that a build needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fs_err as fs;
use reqwest::Url;
use serde::Serialize;

use crate::access::Access;
use crate::error::Error;
use crate::net::{self, Proxies, Timing};
use crate::progress::Progress;
use crate::registry::{self, Reference};
use crate::runner::{self, Refusal, Runner};
use crate::store::{self, Store};

/// Where pip looks for packages unless it is told otherwise.
const INDEX: &str = "https://pypi.org/simple";
/// A person waits for the answers.
const TIMING: Timing = Timing {
    connect: Duration::from_secs(5),
    stall: Duration::from_secs(10),
    backoff: Duration::from_millis(100),
    pause: Duration::from_secs(10),
    attempts: 2,
};

/// What to look at.
#[derive(Debug, Clone)]
pub struct Options {
    /// The store's folder.
    pub store: PathBuf,
    /// Forces a runner.
    pub runner: Option<Runner>,
    /// The base that a registry is asked for.
    pub base: Reference,
    /// How other machines are reached.
    pub access: Access,
    /// Whether other machines are left alone.
    pub offline: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// Of this program.
    pub version: &'static str,
    /// The runner that a build would use.
    pub runner: Option<Runner>,
    /// What it does not isolate.
    pub isolation: Option<&'static str>,
    /// What each runner said, from the first to the last.
    pub runners: Vec<Tried>,
    /// The machine.
    pub system: System,
    /// Where images and bases are kept.
    pub storage: Storage,
    /// Where the base comes from, and the packages; none if they were left alone.
    pub machines: Vec<Machine>,
}

/// What came of trying a runner.
#[derive(Debug, Serialize)]
pub struct Tried {
    /// Which one.
    pub runner: Runner,
    /// Whether it works.
    pub works: bool,
    /// Why not.
    pub refusal: Option<Refusal>,
}

/// What limits processes here.
#[derive(Debug, Serialize)]
pub struct System {
    /// `Linux 6.1.0 x86_64`
    pub kernel: String,
    /// The effective user.
    pub user: u32,
    /// What tells that this is a container, if anything does.
    pub container: Option<&'static str>,
    /// Whether a filter for system calls is installed.
    pub seccomp: bool,
    /// Whether setuid programs have no effect.
    pub no_new_privileges: bool,
    /// The profile of `AppArmor` or `SELinux` that holds, if one does.
    pub profile: Option<String>,
}

/// Where the store is.
#[derive(Debug, Serialize)]
pub struct Storage {
    /// The folder.
    pub path: PathBuf,
    /// Free for this user, in bytes; absent if the folder cannot be had.
    pub free: Option<u64>,
    /// Why it cannot be had.
    pub problem: Option<String>,
    /// Why steps work on a copy of the base; absent if they work on an overlay.
    pub copy: Option<Refusal>,
}

/// Another machine that a build needs.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// What it is for.
    pub what: &'static str,
    /// What was asked for.
    pub address: String,
    /// How long the answer took, in seconds.
    pub seconds: f64,
    /// Why there was none.
    pub problem: Option<String>,
    /// What the user can do.
    pub hint: Option<String>,
}

/// Looks at everything. What does not work is a finding, and no error.
pub fn examine(options: &Options, progress: &Progress) -> Result<Findings, Error> {
    let store = Store::open(&options.store);
    let directory = match &store {
        Ok(store) => store.scratch_root(),
        Err(_) => std::env::temp_dir(),
    };
    let tried = runner::probe(&directory).runners.into_iter();
    let runners: Vec<_> = tried
        .map(|(runner, result)| Tried {
            runner,
            works: result.is_ok(),
            refusal: result.err(),
        })
        .collect();
    let mut working = runners.iter().filter(|tried| tried.works);
    let runner = working
        .find(|tried| options.runner.is_none_or(|forced| forced == tried.runner))
        .map(|tried| tried.runner);
    let machines = if options.offline {
        Vec::new()
    } else {
        machines(options, progress)?
    };
    Ok(Findings {
        version: env!("CARGO_PKG_VERSION"),
        runner,
        isolation: runner.map(runner::isolation),
        runners,
        system: system(),
        storage: storage(&options.store, store, runner),
        machines,
    })
}

fn system() -> System {
    let name = rustix::system::uname();
    let words = [name.sysname(), name.release(), name.machine()];
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_set = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key));
        value.is_some_and(|value| !matches!(value.trim(), "" | "0"))
    };
    let profile = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let profile = profile.trim_matches(['\n', '\0']);
    let marks = [
        ("/.dockerenv", "Docker"),
        ("/run/.containerenv", "Podman"),
        ("/var/run/secrets/kubernetes.io", "Kubernetes"),
    ];
    System {
        kernel: words.map(|word| word.to_string_lossy()).join(" "),
        user: rustix::process::geteuid().as_raw(),
        container: marks
            .into_iter()
            .find(|(mark, _)| Path::new(mark).exists())
            .map(|(_, name)| name),
        seccomp: is_set("Seccomp:"),
        no_new_privileges: is_set("NoNewPrivs:"),
        profile: (!matches!(profile, "" | "unconfined")).then(|| profile.to_owned()),
    }
}

fn storage(path: &Path, store: Result<Store, store::Error>, runner: Option<Runner>) -> Storage {
    let mut storage = Storage {
        path: path.to_owned(),
        free: None,
        problem: None,
        copy: None,
    };
    match store {
        Ok(store) => {
            let disk = rustix::fs::statvfs(store.root()).ok();
            storage.free = disk.map(|disk| disk.f_bavail * disk.f_frsize);
            storage.copy = runner
                .and_then(|runner| runner::probe_overlay(runner, &store.scratch_root()).err());
        }
        Err(error) => storage.problem = Some(error.to_string()),
    }
    storage
}

fn machines(options: &Options, progress: &Progress) -> Result<Vec<Machine>, Error> {
    let proxies = Proxies::from_env()?;
    let net = Arc::new(net::Client::with_timing(
        options.access.net(proxies)?,
        TIMING,
    ));
    let registry = options.access.registry(1, &[options.base.registry()])?;
    let registries = registry::Client::new(registry, net.clone());
    let base = ask("base", options.base.to_string(), || {
        let found = registries.head(&options.base, progress);
        found
            .map(drop)
            .map_err(|error| (error.to_string(), error.hint()))
    });
    let index = std::env::var("PIP_INDEX_URL").ok();
    let index = index.filter(|url| !url.is_empty());
    let index = index.unwrap_or_else(|| INDEX.to_owned());
    let packages = ask("packages", crate::secret::mask(&index), || {
        // The list of all packages has megabytes.
        let page = format!("{}/pip/", index.trim_end_matches('/'));
        let url: Url = page
            .parse()
            .map_err(|_| ("it is no URL".to_owned(), None))?;
        match net.request(net::Request::get(url), progress) {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err((format!("it answered {}", answer.status()), None)),
            Err(error) => Err((error.to_string(), error.hint())),
        }
    });
    progress.check()?;
    Ok(vec![base, packages])
}

impl Findings {
    /// All of it, for a person: about one screen.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let System {
            kernel,
            user,
            container,
            ..
        } = &self.system;
        let place = container.map_or(String::new(), |name| format!(", in a container ({name})"));
        let mut lines = vec![format!(
            "pyats-image-build {} on {kernel}, user {user}{place}",
            self.version
        )];
        for Tried {
            runner, refusal, ..
        } in &self.runners
        {
            lines.push(match refusal {
                None if self.runner == Some(*runner) => format!("{runner}: works, and is chosen"),
                None => format!("{runner}: works"),
                Some(refusal) => format!("{runner}: {refusal}{}", number(refusal.errno)),
            });
            let remedy = refusal.as_ref().map(|refusal| refusal.remedy.as_str());
            if let Some(remedy) = remedy.filter(|remedy| !remedy.is_empty()) {
                lines.push(format!("    remedy: {remedy}"));
            }
        }
        lines.extend(self.isolation.map(|text| format!("isolation: {text}")));
        lines.push(self.system.line());
        lines.extend(self.storage.lines());
        for machine in &self.machines {
            let Machine {
                what,
                address,
                seconds,
                ..
            } = machine;
            match &machine.problem {
                None => lines.push(format!("{what}: {address} answers, in {seconds:.1} s")),
                Some(problem) => lines.push(format!("{what}: {address}: {problem}")),
            }
            let hint = machine.hint.as_ref();
            lines.extend(hint.map(|hint| format!("    remedy: {hint}")));
        }
        lines
    }
}

impl System {
    fn line(&self) -> String {
        let has = |is: bool| if is { "yes" } else { "no" };
        format!(
            "limits: filter of system calls: {}; no-new-privileges: {}; security profile: {}",
            has(self.seccomp),
            has(self.no_new_privileges),
            self.profile.as_deref().unwrap_or("none"),
        )
    }
}

impl Storage {
    fn lines(&self) -> Vec<String> {
        let path = self.path.display();
        if let Some(problem) = &self.problem {
            return vec![
                format!("store: {path}: {problem}"),
                "    remedy: choose another place with `--store DIR`".to_owned(),
            ];
        }
        let free = self.free.unwrap_or_default();
        let mut lines = vec![format!(
            "store: {path}, {}.{} GB free; steps work on {}",
            free / 1_000_000_000,
            free / 100_000_000 % 10,
            if self.copy.is_some() {
                "a copy of the base"
            } else {
                "an overlay"
            },
        )];
        if let Some(refusal) = &self.copy {
            lines.push(format!("    since {refusal}{}", number(refusal.errno)));
            // Without mounts no other place helps.
            if refusal.errno != 0 && !refusal.remedy.is_empty() {
                lines.push(format!("    remedy: {}", refusal.remedy));
            }
        }
        lines
    }
}

/// The number of an error, for those who look it up.
fn number(errno: i32) -> String {
    if errno == 0 {
        String::new()
    } else {
        format!(" (errno {errno})")
    }
}

fn ask(
    what: &'static str,
    address: String,
    question: impl FnOnce() -> Result<(), (String, Option<String>)>,
) -> Machine {
    let began = Instant::now();
    let (problem, hint) = match question() {
        Ok(()) => (None, None),
        Err((problem, hint)) => (Some(problem), hint),
    };
    Machine {
        what,
        address,
        seconds: began.elapsed().as_secs_f64(),
        problem,
        hint,
    }
}
