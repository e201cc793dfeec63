//! Runs the fuzz targets' functions on the inputs in fuzz/corpus: they must neither panic nor hang.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/targets.rs"]
pub mod targets;

#[test]
fn fuzz_corpus_is_read_without_a_panic() {
    for (name, target) in targets::ALL {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut paths: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() > 1, "{name} has no corpus");
        for path in paths {
            let input = fs::read(&path).unwrap();
            std::panic::catch_unwind(|| target(&input))
                .unwrap_or_else(|_| panic!("{name}: {}", path.display()));
        }
    }
}
