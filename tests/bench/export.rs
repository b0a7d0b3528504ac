//! Writes a tree as one layer into a new store: `export TREE STORE [COMPRESSION]`. Prints the size of its blob in bytes.
//!
//! For `bench.py`: an image that is in the store is compressed already, which would say nothing of other tools that
//! compress when they export.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;

use pyats_image_builder::layer::{self, Compression, Times};
use pyats_image_builder::store::Store;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (tree, store, compression) = match &arguments[..] {
        [tree, store] => (tree, store, Compression::default()),
        [tree, store, compression] => (tree, store, compression.parse()?),
        _ => return Err("usage: export TREE STORE [COMPRESSION]".into()),
    };
    let times = Times {
        fixed_under: Vec::new(),
        fixed: 0,
        clamp: None,
    };
    let store = Store::open(Path::new(store))?;
    let layer = layer::write_tree(Path::new(tree), &times, compression, &store)?;
    writeln!(std::io::stdout(), "{}", layer.descriptor.size)?;
    Ok(())
}
