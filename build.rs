//! Compiles the small C++ files beside torch-sys' own and sets the run path of libtorch.

use std::env;
use std::path::PathBuf;

fn main() {
    const SOURCES: [&str; 2] = ["src/torchscript/inspect.cpp", "src/torchscript/native.cpp"];
    for source in SOURCES.into_iter().chain(["src/torchscript/guarded.h"]) {
        println!("cargo:rerun-if-changed={source}");
    }
    println!("cargo:rerun-if-env-changed=LIBTORCH");

    // torch-sys publishes where it found libtorch; its own run path does not reach the final program.
    let library =
        PathBuf::from(env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys publishes libtorch_lib"));
    let library = library.canonicalize().unwrap_or(library);
    let include = library.parent().map(|root| root.join("include")).unwrap_or_default();

    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(SOURCES)
        .compile("rust_eland_native");

    // Where the program looks for libtorch: where it was built with it or, in a release, beside itself (scripts/dist).
    println!("cargo:rerun-if-env-changed=RUST_ELAND_RUN_PATH");
    let run_path =
        env::var("RUST_ELAND_RUN_PATH").unwrap_or_else(|_| library.display().to_string());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{run_path}");
}
