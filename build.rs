//! With the feature `torch`, builds the shared library with the C++ files of src/torchscript, and the entry points through which the
//! program calls it. Without the feature, does nothing.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "torch")]
    torch::build();
}

#[cfg(feature = "torch")]
mod torch {
    use std::fmt::Write;
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    /// The major and minor version of libtorch whose functions torch-sys declares.
    const VERSION: &str = "2.7";

    const SOURCES: [&str; 4] = [
        "src/torchscript/inspect.cpp",
        "src/torchscript/native.cpp",
        "src/torchscript/quantize.cpp",
        "src/torchscript/tensors.cpp",
    ];

    pub(super) fn build() {
        const INCLUDED: [&str; 2] = ["src/torchscript/guarded.h", "src/torchscript/calls.S"];
        for source in SOURCES.into_iter().chain(INCLUDED) {
            println!("cargo:rerun-if-changed={source}");
        }
        let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let libtorch = libtorch();
        let functions: Vec<String> = SOURCES.iter().flat_map(|source| functions(source)).collect();
        write_lists(&functions, &out);
        // Where the program searches for libtorch: where it was built, or in a release beside itself (scripts/dist.py).
        println!("cargo:rerun-if-env-changed=RUST_ELAND_RUN_PATH");
        let run_path = env::var("RUST_ELAND_RUN_PATH")
            .unwrap_or_else(|_| libtorch.join("lib").display().to_string());
        println!("cargo:rustc-env=RUST_ELAND_RUN_PATH={run_path}");
        link_library(&libtorch, &run_path, &out);

        cc::Build::new()
            .file("src/torchscript/calls.S")
            .include(&out)
            .define("FUNCTIONS", functions.len().to_string().as_str())
            .compile("rust_eland_calls");

        // For the build scripts of dependents: DEP_RUST_ELAND_NATIVE_LIBTORCH.
        println!("cargo:libtorch={}", libtorch.display());
    }

    /// The folder of libtorch, which contains `include` and `lib`.
    fn libtorch() -> PathBuf {
        println!("cargo:rerun-if-env-changed=LIBTORCH");
        println!("cargo:rerun-if-env-changed=LIBTORCH_BYPASS_VERSION_CHECK");
        let Some(folder) = env::var_os("LIBTORCH").map(PathBuf::from) else {
            panic!(
                "LIBTORCH is not set: set it to the folder of libtorch {VERSION}, with include and lib"
            );
        };
        let header = folder.join("include/torch/csrc/api/include/torch/version.h");
        println!("cargo:rerun-if-changed={}", header.display());
        let text = fs::read_to_string(&header).unwrap_or_else(|error| {
            panic!(
                "{} is not a libtorch: {error}; run make libtorch, or set LIBTORCH to the folder of libtorch {VERSION}",
                folder.display()
            )
        });
        let part = |name: &str| {
            let start = format!("#define TORCH_VERSION_{name} ");
            text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().trim()
        };
        let found = format!("{}.{}", part("MAJOR"), part("MINOR"));
        assert!(
            found == VERSION || env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some(),
            "{} is libtorch {found}; set LIBTORCH to the folder of libtorch {VERSION}",
            folder.display()
        );
        folder.canonicalize().unwrap_or(folder)
    }

    /// Names of the C functions that a file defines: at the beginning of a line, a declaration or the macro TENSOR.
    fn functions(source: &str) -> Vec<String> {
        const PREFIXES: [&str; 6] = ["re_", "at_", "atg_", "atm_", "ats_", "get_and_reset_"];
        let text = fs::read_to_string(source).expect("a source file of this package");
        let name = |line: &str| {
            if !line.starts_with(|first: char| first.is_ascii_alphabetic()) {
                return None;
            }
            let (before, rest) = line.split_once('(')?;
            let name = match before {
                "TENSOR" => rest.split_once(',')?.0,
                _ => before.rsplit([' ', '*']).next()?,
            };
            PREFIXES.iter().any(|prefix| name.starts_with(prefix)).then(|| name.to_owned())
        };
        text.lines().filter_map(name).collect()
    }

    /// Writes the entry points for calls.S, the table of the library, and the number of functions for library.rs, in one order.
    fn write_lists(functions: &[String], out: &Path) {
        let (mut entries, mut declarations, mut table) =
            (String::new(), String::new(), String::new());
        for (index, name) in functions.iter().enumerate() {
            let _ = writeln!(entries, "entry {index}, SYMBOL({name})");
            let _ = writeln!(declarations, "void {name}();");
            let _ = writeln!(table, "  reinterpret_cast<void*>({name}),");
        }
        let table = format!(
            "extern \"C\" {{\n{declarations}\n__attribute__((visibility(\"default\"))) extern void* const rust_eland_functions[];\n\
             void* const rust_eland_functions[] = {{\n{table}}};\n}}\n"
        );
        let count = format!("const FUNCTIONS: usize = {};\n", functions.len());
        for (name, text) in
            [("entries.inc", entries), ("table.cpp", table), ("functions.rs", count)]
        {
            let path = out.join(name);
            // An unchanged file keeps its time.
            if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
                fs::write(&path, text).expect("OUT_DIR is writable");
            }
        }
    }

    /// Links the C++ files and libtorch to the shared library `rust_eland_torch` in `out`.
    fn link_library(libtorch: &Path, run_path: &str, out: &Path) {
        let include = libtorch.join("include");
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++17")
            .pic(true)
            .warnings(false)
            .flag("-fvisibility=hidden")
            .flag("-ffunction-sections")
            .include(&include)
            .include(include.join("torch/csrc/api/include"))
            .files(SOURCES)
            .file(out.join("table.cpp"));
        let objects = build.compile_intermediates();
        let is_apple = env::var("CARGO_CFG_TARGET_VENDOR").is_ok_and(|vendor| vendor == "apple");
        let mut link = build.get_compiler().to_command();
        link.args(objects)
            .args(["-shared", "-o"])
            .arg(out.join("rust_eland_torch"))
            .arg("-L")
            .arg(libtorch.join("lib"))
            .args(["-ltorch_cpu", "-lc10"]);
        if is_apple {
            // The library is loaded from a temporary file, so its own folder is not that of the program.
            let run_path = run_path.replace("@loader_path", "@executable_path");
            link.arg("-Wl,-dead_strip").arg(format!("-Wl,-rpath,{run_path}"));
        } else {
            link.args(["-Wl,--gc-sections", "-Wl,-z,defs", "-Wl,--strip-all"]);
        }
        let status = link.status().expect("the C++ compiler links");
        assert!(status.success(), "{link:?} failed");
    }
}
