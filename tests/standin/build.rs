//! Sets the run path of libtorch, which a dependency's build script cannot do for us.

fn main() {
    let library = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys publishes libtorch_lib");
    let library = std::fs::canonicalize(&library).unwrap_or_else(|_| library.into());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", library.display());
}
