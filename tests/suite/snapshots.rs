//! Compares the program's output with the files in tests/snapshots, so that changes are visible in reviews.

use std::fmt::Write;
use std::path::Path;
use std::process::Output;

/// If this variable is set, the snapshots are written again.
const UPDATE: &str = "UPDATE_SNAPSHOTS";

/// Compares a text with the snapshot of this name.
#[track_caller]
pub fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if std::env::var_os(UPDATE).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == recorded,
        "{} differs from the output. If the change is intended, update the snapshot with\n  {UPDATE}=1 cargo test --test suite \
         messages\nand review the difference. The output is:\n{text}",
        path.display()
    );
}

/// Formats a run: command line, output, exit code.
pub fn shown(arguments: &[&str], output: &Output) -> String {
    let words: Vec<_> = arguments
        .iter()
        .map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() })
        .collect();
    let mut text = format!("$ rust-eland {}\n", words.join(" "));
    for stream in [&output.stdout, &output.stderr] {
        text += &String::from_utf8_lossy(stream);
    }
    writeln!(text, "exit code {}", output.status.code().unwrap()).unwrap();
    text
}
