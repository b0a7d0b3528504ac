//! The long tests: much, and many.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fs_err as fs;

use super::{Setup, listing};
use crate::support::{peak, sha256, succeed};

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
    let largest = peak(&mut setup.command(&[&setup.url("large")], &[]));
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
