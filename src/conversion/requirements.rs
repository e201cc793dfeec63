//! The Elasticsearch versions that can serve a model.

use super::{Conversion, ConversionError};
use crate::version::{Target, Version};

impl Conversion {
    /// Oldest Elasticsearch version that supports the tokenizer and the settings. The graph may need a newer one.
    #[must_use]
    pub fn minimum_version(&self) -> Version {
        self.needs().map(|(version, _)| version).max().unwrap_or(Version::OLDEST)
    }

    /// Checks that the target version supports the model.
    ///
    /// # Errors
    /// [`ConversionError::Target`] if it does not.
    pub fn check_target(&self) -> Result<(), ConversionError> {
        let target = self.options.target;
        let lacks =
            |(version, _): &(Version, String)| target != Target::Any && !target.has(*version);
        match self.needs().filter(lacks).max() {
            Some((needed, what)) => Err(ConversionError::Target { target, needed, what }),
            None => Ok(()),
        }
    }

    /// Features that the oldest supported version lacks, each with the version that introduced it.
    pub(super) fn needs(&self) -> impl Iterator<Item = (Version, String)> {
        let kind = self.tokenizer.kind;
        let prefixed = self.options.ingest_prefix.is_some() || self.options.search_prefix.is_some();
        let prefixes = prefixed.then(|| (Version::PREFIX_STRINGS, "the prefixes".to_owned()));
        let tokenizer = (kind.since(), format!("its tokenizer ({})", kind.name()));
        let expansion = self
            .task
            .since_with(kind)
            .map(|since| (since, format!("{} with its tokenizer ({})", self.task, kind.name())));
        [Some((Version::OLDEST, "its libtorch".to_owned())), Some(tokenizer), expansion, prefixes]
            .into_iter()
            .flatten()
    }
}
