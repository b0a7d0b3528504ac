//! The long tests: much, and many.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::{Setup, listing};
use crate::support::{sha256, succeed};

/// The largest resident set that the tool may have while it fetches, in KiB.
const MEMORY: u64 = 60 * 1024;

#[test]
#[ignore = "long: a file of two gigabytes comes over an encrypted line"]
fn a_large_file_arrives_in_little_memory() {
    let Some(setup) = Setup::new() else { return };
    let path = setup.serve("large", "");
    // Not compressible, and no two blocks alike.
    let script = "import random, sys\nwith open(sys.argv[1], 'wb') as file:\n    \
                  for number in range(2048): file.write(random.Random(number).randbytes(1 << 20))\n";
    succeed(Command::new("python3").args(["-c", script]).arg(&path));
    let mut command = setup.command(&[&setup.url("large")], &[]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut largest = 0;
    let status = loop {
        largest = largest.max(resident(child.id()).unwrap_or(0));
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success());
    let fetched = setup.bench.path("context/image/workspace/large");
    let digest =
        |path: &Path| sha256(fs::File::open(path).expect("it is there")).expect("readable");
    assert_eq!(digest(&fetched), digest(&path));
    assert!(
        largest > 0 && largest < MEMORY,
        "the largest resident set is {largest} KiB"
    );
}

#[test]
#[ignore = "long: ten thousand files"]
fn many_small_files_arrive() {
    let Some(setup) = Setup::new() else { return };
    let tree = setup.server.path("data/tree");
    for folder in 0..100 {
        let folder = tree.join(format!("folder{folder}"));
        fs::create_dir_all(&folder).expect("ours");
        for file in 0..100 {
            fs::write(folder.join(format!("file{file}")), format!("text {file}\n")).expect("ours");
        }
    }
    let began = Instant::now();
    let (workspace, said) = setup.stage(&[&setup.url("tree")], &[]);
    let first = began.elapsed();
    assert_eq!(listing(&workspace.join("tree")), listing(&tree));
    assert!(first < Duration::from_secs(60), "{said}");
    // The second build reads the tree's sizes and times, and nothing else.
    let (_, said) = setup.stage(&[&setup.url("tree")], &[]);
    assert!(said.contains("unchanged"), "{said}");
}

/// The largest resident set that a process had so far, in KiB.
fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
