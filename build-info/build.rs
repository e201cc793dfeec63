//! Finds out the commit and the version of libtorch. A package of its own, so that a new commit does not compile any C++ anew.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Names the commit where there is no repository, as in a container's build.
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

/// The root of the source.
fn root() -> PathBuf {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    here.parent().map(Path::to_owned).unwrap_or_default()
}

/// The commit that is checked out. This script runs again when another one is.
fn of_repository() -> Option<String> {
    let root = root();
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(&root).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // Not that of a repository into which the source was unpacked.
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // The reflog has a line for every commit and every change of branch. A file that is not there would be a change each time.
    for name in ["logs/HEAD", "HEAD"] {
        let path = root.join(git(&["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
            break;
        }
    }
    git(&["rev-parse", "HEAD"]).filter(|commit| is_commit(commit))
}

/// What `git archive` has written into a file of the source (.gitattributes).
fn of_archive() -> Option<String> {
    let text = fs::read_to_string(root().join("build-info/COMMIT")).ok()?;
    Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
}

/// The version of libtorch, or `none` in a build without it.
fn libtorch_version() -> String {
    if env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return "none".into();
    }
    libtorch().unwrap_or_else(|| "unknown".into())
}

/// libtorch's version, from its header.
fn libtorch() -> Option<String> {
    let library = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB")?);
    let header = library.parent()?.join("include/torch/csrc/api/include/torch/version.h");
    println!("cargo:rerun-if-changed={}", header.display());
    let text = fs::read_to_string(header).ok()?;
    let part = |name: &str| {
        let start = format!("#define TORCH_VERSION_{name} ");
        text.lines().find_map(|line| Some(line.strip_prefix(&start)?.trim().to_owned()))
    };
    Some(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}
