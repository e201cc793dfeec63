//! Sets `cfg(torch)` if rust-eland is built with libtorch.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(torch)");
    if std::env::var_os("DEP_RUST_ELAND_NATIVE_LIBTORCH").is_some() {
        println!("cargo:rustc-cfg=torch");
    }
}
