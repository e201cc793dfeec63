//! Determines the commit and the version of libtorch. This is a separate package, so that a new commit does not recompile any C++.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Sets the commit if there is no repository, as in a container build.
const GIVEN: &str = "RUST_ELAND_COMMIT";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed={GIVEN}");
    let given = env::var(GIVEN).ok().filter(|commit| is_commit(commit));
    let commit = given.or_else(of_repository).or_else(of_archive);
    println!("cargo:rustc-env=COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=LIBTORCH_VERSION={}", libtorch_version());
    println!("cargo:rustc-env=TARGET={}", env::var("TARGET").unwrap_or_default());
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Root folder of the source.
fn root() -> PathBuf {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    here.parent().map(Path::to_owned).unwrap_or_default()
}

/// The commit that is checked out. This script runs again when it changes.
fn of_repository() -> Option<String> {
    let root = root();
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(&root).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // Ignore a repository that only contains the folder into which the source was unpacked.
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // The reflog gets a line for every commit and every change of branch. Cargo treats a missing file as changed in every build.
    for name in ["logs/HEAD", "HEAD"] {
        let path = root.join(git(&["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
            break;
        }
    }
    git(&["rev-parse", "HEAD"]).filter(|commit| is_commit(commit))
}

/// Text that `git archive` writes into a file of the source (.gitattributes).
fn of_archive() -> Option<String> {
    let text = fs::read_to_string(root().join("build-info/COMMIT")).ok()?;
    Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
}

/// Version of libtorch, or `none` in a build without it.
fn libtorch_version() -> String {
    if env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return "none".into();
    }
    libtorch().unwrap_or_else(|| "unknown".into())
}

/// Version of libtorch, from its header.
fn libtorch() -> Option<String> {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let folder = PathBuf::from(env::var_os("LIBTORCH")?);
    let header = folder.join("include/torch/csrc/api/include/torch/version.h");
    println!("cargo:rerun-if-changed={}", header.display());
    let text = fs::read_to_string(header).ok()?;
    let part = |name: &str| {
        let start = format!("#define TORCH_VERSION_{name} ");
        text.lines().find_map(|line| Some(line.strip_prefix(&start)?.trim().to_owned()))
    };
    Some(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}
