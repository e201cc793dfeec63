//! Folders instead of hub ids: clones with and without Git LFS, and read-only folders.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use ::hub::Repository;
use standin::StandIn;

use super::files_below;
use crate::fixtures::Fixture;
use crate::program::{message, program, says};

fn import(standin: &StandIn, folder: &Path) -> Output {
    let mut program = program();
    program.args(["import", "--url", &standin.url(), "--es-model-id", "m", "--clear-previous"]);
    program.arg("--hub-model-id").arg(folder).output().unwrap()
}

/// Creates a clone of a repository. Without Git LFS, large files are pointers.
fn clone(folder: &Path, lfs: bool) {
    let model = Fixture::named("bert/st-mean").model();
    let repository = Repository::of_folder("org/model", &model).unwrap();
    fs::create_dir_all(folder.join(".git/lfs")).unwrap();
    fs::write(folder.join(".gitattributes"), "*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        .unwrap();
    fs::write(folder.join("README.md"), "---\ntags: [sentence-transformers]\n---\n").unwrap();
    for (path, file) in &repository.files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if file.large && !lfs {
            fs::write(path, file.pointer()).unwrap();
        } else {
            fs::write(path, &file.content).unwrap();
        }
    }
}

#[test]
fn clone_with_lfs_is_imported_and_pointers_are_explained() {
    let standin = StandIn::start(standin::Options::default());
    let root = tempfile::tempdir().unwrap();
    clone(&root.path().join("whole"), true);
    let output = import(&standin, &root.path().join("whole"));
    assert!(output.status.success(), "{}", message(&output));
    let config = standin.configuration("m").unwrap();
    assert!(config["inference_config"].get("text_embedding").is_some());
    assert!(config["metadata"].get("hub_commit").is_none());
    clone(&root.path().join("pointers"), false);
    let output = import(&standin, &root.path().join("pointers"));
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(&message(&output), &["model.safetensors", "Git LFS pointer", "git lfs pull"]);
}

#[test]
fn read_only_folder_is_imported_and_not_changed() {
    let standin = StandIn::start(standin::Options::default());
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("model");
    clone(&folder, true);
    let before = files_below(&folder);
    let mode = |folders: u32, files: u32| {
        for path in before.iter().flat_map(|file| file.ancestors()) {
            if path.starts_with(&folder) {
                let mode = if path.is_dir() { folders } else { files };
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    };
    mode(0o555, 0o444);
    let output = import(&standin, &folder);
    let after = files_below(&folder);
    mode(0o755, 0o644);
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(after, before);
}
