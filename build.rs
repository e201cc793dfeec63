//! With the feature `torch`, compiles the C++ files of src/torchscript and sets the run path of libtorch. Without it, does nothing.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "torch")]
    torch::build();
}

#[cfg(feature = "torch")]
mod torch {
    use std::env;
    use std::path::PathBuf;

    pub(super) fn build() {
        const SOURCES: [&str; 2] = ["src/torchscript/inspect.cpp", "src/torchscript/native.cpp"];
        for source in SOURCES.into_iter().chain(["src/torchscript/guarded.h"]) {
            println!("cargo:rerun-if-changed={source}");
        }
        println!("cargo:rerun-if-env-changed=LIBTORCH");

        // torch-sys publishes where it found libtorch; its own run path does not reach the final program.
        let library = PathBuf::from(
            env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys publishes libtorch_lib"),
        );
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

        // Where the program searches for libtorch: where it was built, or in a release beside itself (scripts/dist).
        println!("cargo:rerun-if-env-changed=RUST_ELAND_RUN_PATH");
        let run_path =
            env::var("RUST_ELAND_RUN_PATH").unwrap_or_else(|_| library.display().to_string());
        println!("cargo:rustc-link-arg=-Wl,-rpath,{run_path}");
        // For the build scripts of dependents: DEP_RUST_ELAND_NATIVE_LIBTORCH.
        println!("cargo:libtorch={}", library.display());
    }
}
