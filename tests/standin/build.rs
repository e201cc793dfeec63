//! Sets `cfg(torch)` and the run path of libtorch if rust-eland is built with libtorch.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(torch)");
    if let Ok(library) = std::env::var("DEP_RUST_ELAND_NATIVE_LIBTORCH") {
        println!("cargo:rustc-cfg=torch");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{library}");
    }
}
