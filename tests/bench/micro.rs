//! What a build does with each file, apart from the rest of it: `cargo bench`, or `cargo bench --bench micro -- key` for one.
//!
//! The trees are made here, the same each time. Measure in memory (`TMPDIR=/dev/shm`): ext4 without a journal takes long to
//! make files where others were removed a moment ago, and says nothing of a build then.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fs_err as fs;
use pyats_image_builder::layer::{
    self, Changes, ChangesRequest, Compression, Times, UnpackRequest,
};
use pyats_image_builder::store::Store;
use pyats_image_builder::{cache, progress::Progress};

/// Files of a virtual environment that layers are made of, and of a large workspace.
const LAYER: usize = 5_000;
const WORKSPACE: usize = 50_000;

criterion_group! {
    name = benches;
    // Trees are large, so a few times are enough.
    config = Criterion::default().sample_size(10).warm_up_time(Duration::from_secs(1));
    targets = layers, changes, key
}
criterion_main!(benches);

/// A tree, and a store beside it.
struct Bench {
    directory: tempfile::TempDir,
    store: Store,
    bytes: u64,
}

impl Bench {
    fn new(files: usize, size: usize) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(&directory.path().join("store")).expect("it is new");
        let root = directory.path().join("tree");
        let mut bytes = 0;
        for number in 0..files {
            let text = source(number, size);
            bytes += text.len() as u64;
            let folder = root.join(format!(
                "lib/package{}/part{}",
                number / 500,
                number / 25 % 20
            ));
            fs::create_dir_all(&folder).expect("its name is free");
            fs::write(folder.join(format!("module{number}.py")), text).expect("there is room");
        }
        Self {
            directory,
            store,
            bytes,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, compression: Compression) -> pyats_image_builder::manifest::Layer {
        layer::write_tree(&self.path("tree"), &times(), compression, &self.store)
            .expect("the tree stays as it is")
    }
}

/// Text that compresses about as well as programs do; sizes are between a half and one and a half of `size`.
fn source(number: usize, size: usize) -> String {
    let mut state = u32::try_from(number).expect("there are few");
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let words = [
        "self",
        "return",
        "device",
        "import",
        "parse",
        "output",
        "result",
        "interface",
        "for",
        "in",
    ];
    let wanted = size / 2 + next() as usize % size;
    let mut text = String::new();
    while text.len() < wanted {
        let name = words[next() as usize % words.len()];
        let verb = words[next() as usize % words.len()];
        let value = next() % 5_000;
        writeln!(
            text,
            "    {name}.{verb}_{value} = {verb}({name}, {})",
            next()
        )
        .expect("a string takes all");
    }
    text
}

fn times() -> Times {
    Times {
        fixed_under: vec![PathBuf::new()],
        fixed: 315_619_200,
        clamp: None,
    }
}

/// Directory to blob, and back.
fn layers(criterion: &mut Criterion) {
    let bench = Bench::new(LAYER, 12_000);
    let mut group = criterion.benchmark_group("layer");
    group.throughput(Throughput::Bytes(bench.bytes));
    for compression in [
        Compression::None,
        Compression::default(),
        Compression::Zstd(3),
    ] {
        group.bench_function(format!("tar+{compression}"), |bencher| {
            bencher.iter(|| black_box(bench.write(compression)));
        });
    }
    let layer = bench.write(Compression::default());
    let is_root = rustix::process::geteuid().is_root();
    let mut number = 0;
    group.bench_function("unpack", |bencher| {
        let prepare = || {
            number += 1;
            let rootfs = bench.path(&format!("rootfs-{number}"));
            fs::create_dir(&rootfs).expect("its name is free");
            UnpackRequest {
                layers: vec![(
                    bench.store.blob_path(&layer.descriptor.digest),
                    layer.clone(),
                )],
                owners: (!is_root).then(|| rootfs.with_extension("owners")),
                rootfs,
                coming: None,
                is_alone: false,
            }
        };
        let unpack = |request: UnpackRequest| {
            layer::unpack(&request).expect("the layer is sound");
            // Removed after the time is taken.
            Removed(request.rootfs)
        };
        bencher.iter_batched(prepare, unpack, BatchSize::PerIteration);
    });
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        layer::remove(&self.0).expect("it is ours");
    }
}

/// What a step changed, found by both ways: nothing of a tree, and all of an upper directory.
fn changes(criterion: &mut Criterion) {
    let bench = Bench::new(LAYER, 12_000);
    let (tree, snapshot, empty) = (
        bench.path("tree"),
        bench.path("snapshot"),
        bench.path("empty"),
    );
    fs::create_dir(&empty).expect("its name is free");
    layer::snapshot(&tree, &snapshot).expect("the tree stays as it is");
    let request = |changes| ChangesRequest {
        changes,
        ignore: Vec::new(),
        owners: None,
        times: times(),
        compression: Compression::None,
        store: bench.path("store"),
    };
    let mut group = criterion.benchmark_group("changes");
    group.throughput(Throughput::Elements(LAYER as u64));
    for (name, changes) in [
        (
            "walk",
            Changes::Walk {
                root: tree.clone(),
                snapshot,
            },
        ),
        (
            "overlay",
            Changes::Overlay {
                lower: vec![empty],
                upper: tree,
            },
        ),
    ] {
        let request = request(changes);
        group.bench_function(name, |bencher| {
            bencher.iter(|| layer::write_changes(&request).expect("the tree stays as it is"));
        });
    }
}

/// The key of an unchanged build.
fn key(criterion: &mut Criterion) {
    let bench = Bench::new(WORKSPACE, 2_000);
    let tree = bench.path("tree");
    let digest = |path: &Path| cache::digest_of(path, &Progress::silent());
    let mut group = criterion.benchmark_group("key");
    group.throughput(Throughput::Elements(WORKSPACE as u64));
    group.bench_function("of 50,000 files", |bencher| {
        bencher.iter(|| digest(&tree).expect("the tree stays as it is"));
    });
}
