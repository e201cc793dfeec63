//! Repositories of the hub.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The callers that can read a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Everybody can list it. Callers with access can read its files.
    Gated,
    /// Only callers with access.
    Private,
}

/// A file.
#[derive(Debug, Clone)]
pub struct File {
    /// Its bytes.
    pub content: Bytes,
    /// Whether the file is in LFS, and therefore on the CDN.
    pub large: bool,
    /// Whether the file is in Xet. The CDN serves such files too.
    pub xet: bool,
}

/// A repository with one commit.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its canonical id.
    pub id: String,
    /// Other ids that redirect to it: old ids of one word, and ids in other letter case.
    pub aliases: Vec<String>,
    /// Who may read it.
    pub access: Access,
    /// Branches and tags that point to the commit.
    pub revisions: Vec<String>,
    /// The files, by path.
    pub files: BTreeMap<String, File>,
}

impl File {
    /// The git blob hash of the content.
    #[must_use]
    pub fn blob(&self) -> String {
        git_blob(&self.content)
    }

    /// SHA-256 of the content.
    #[must_use]
    pub fn sha256(&self) -> String {
        hexadecimal(&Sha256::digest(&self.content))
    }

    /// The name of the blob in a cache.
    #[must_use]
    pub fn etag(&self) -> String {
        if self.large { self.sha256() } else { self.blob() }
    }

    /// A stand-in for the Xet hash: 64 digits that are not the SHA-256. huggingface_hub only uses it as a name.
    #[must_use]
    pub fn xet_hash(&self) -> String {
        hexadecimal(&Sha256::digest([b"xet", &*self.content].concat()))
    }

    /// The Git LFS pointer that git stores in place of a large file.
    #[must_use]
    pub fn pointer(&self) -> String {
        format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
            self.sha256(),
            self.content.len()
        )
    }
}

impl Repository {
    /// An empty repository with the branch `main`.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            aliases: Vec::new(),
            access: Access::Public,
            revisions: vec!["main".into()],
            files: BTreeMap::new(),
        }
    }

    /// A repository with the files of a folder. As on the hub, weights and SentencePiece models are large.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn of_folder(id: &str, folder: &Path) -> io::Result<Self> {
        let mut repository = Self::new(id);
        let mut folders = vec![(folder.to_owned(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.file_type()?.is_dir() {
                    folders.push((entry.path(), format!("{name}/")));
                    continue;
                }
                let content = Bytes::from(fs::read(entry.path())?);
                let large =
                    [".safetensors", ".bin", ".model"].iter().any(|end| name.ends_with(end));
                repository.files.insert(name, File { content, large, xet: false });
            }
        }
        Ok(repository)
    }

    /// Adds a small file.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Bytes>) -> Self {
        let file = File { content: content.into(), large: false, xet: false };
        self.files.insert(path.to_owned(), file);
        self
    }

    /// Adds a large file.
    #[must_use]
    pub fn large(mut self, path: &str, content: impl Into<Bytes>) -> Self {
        let file = File { content: content.into(), large: true, xet: false };
        self.files.insert(path.to_owned(), file);
        self
    }

    /// Moves all large files to Xet.
    #[must_use]
    pub fn all_in_xet(mut self) -> Self {
        for file in self.files.values_mut() {
            file.xet = file.large;
        }
        self
    }

    /// Adds a file in Xet.
    #[must_use]
    pub fn xet(mut self, path: &str, content: impl Into<Bytes>) -> Self {
        let file = File { content: content.into(), large: true, xet: true };
        self.files.insert(path.to_owned(), file);
        self
    }

    /// Sets who can read the repository.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Adds a branch or tag.
    #[must_use]
    pub fn revision(mut self, name: &str) -> Self {
        self.revisions.push(name.to_owned());
        self
    }

    /// Adds an id that redirects to the repository.
    #[must_use]
    pub fn alias(mut self, id: &str) -> Self {
        self.aliases.push(id.to_owned());
        self
    }

    /// The commit hash, which depends on the content.
    #[must_use]
    pub fn commit(&self) -> String {
        let mut tree = self.id.clone();
        for (path, file) in &self.files {
            tree += &format!("\n{path} {}", file.etag());
        }
        hexadecimal(&Sha1::digest(tree.as_bytes()))
    }
}

pub(crate) fn git_blob(content: &[u8]) -> String {
    let mut hash = Sha1::new_with_prefix(format!("blob {}\0", content.len()));
    hash.update(content);
    hexadecimal(&hash.finalize())
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
