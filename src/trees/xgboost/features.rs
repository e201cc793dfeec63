//! Names, types and categories of XGBoost's features.

use super::document::{Categories, Encoding};
use super::malformed;
use crate::trees::TreeError;
use crate::trees::ensemble::{CategorySet, Feature, FeatureKind, Label, features_named};

/// The features in the order of the training columns.
pub(super) fn features_of(
    names: Vec<String>,
    types: &[String],
    count: usize,
    categories: Option<&Categories>,
    sets: &[CategorySet],
    notes: &mut Vec<String>,
) -> Result<Vec<Feature>, TreeError> {
    if !names.is_empty() && names.len() != count {
        let named = names.len();
        return Err(malformed(format!("{named} feature names for {count} features")));
    }
    let mut features = features_named(names, count);
    for (feature, kind) in features.iter_mut().zip(types) {
        if kind == "i" {
            feature.kind = FeatureKind::Boolean;
        }
    }
    let categorical =
        types.iter().enumerate().filter(|(_, kind)| *kind == "c").map(|(index, _)| index);
    let categorical = categorical.chain(sets.iter().map(|set| set.feature as usize));
    for index in categorical {
        if let Some(feature) = features.get_mut(index) {
            feature.kind = FeatureKind::Category(None);
        }
    }
    for (feature, encoding) in
        features.iter_mut().zip(categories.map_or(&[][..], |categories| &categories.enc))
    {
        match encoding.names()? {
            Names::Numeric => {}
            Names::Listed(names) => feature.kind = FeatureKind::Category(Some(names)),
            Names::NotAscii => notes.push(format!(
                "XGBoost stores names of categories that are not ASCII incorrectly. Documents must hold the codes of the categories in {}.",
                feature.name
            )),
        }
    }
    Ok(features)
}

/// What the file says about a feature's categories.
enum Names {
    /// The feature is a number.
    Numeric,
    /// The names, in the order of the codes.
    Listed(Vec<Label>),
    /// XGBoost 3.1 and 3.2 cut the names of a pandas frame at character counts instead of byte counts, and lose the last bytes.
    NotAscii,
}

impl Encoding {
    fn names(&self) -> Result<Names, TreeError> {
        if self.values.is_empty() {
            return Ok(Names::Numeric);
        }
        if self.offsets.is_empty() {
            return Ok(Names::Listed(
                self.values.iter().map(|&value| Label::Number(value)).collect(),
            ));
        }
        // The bytes of the strings, one number each; signed in some releases.
        #[allow(clippy::cast_possible_truncation)]
        let bytes: Vec<u8> = self.values.iter().map(|&value| (value as i64) as u8).collect();
        if !bytes.is_ascii() {
            return Ok(Names::NotAscii);
        }
        let names = self.offsets.windows(2).map(|bounds| {
            let name = bytes.get(bounds[0]..bounds[1])?;
            Some(Label::Text(String::from_utf8_lossy(name).into_owned()))
        });
        let names: Option<_> = names.collect();
        names
            .map(Names::Listed)
            .ok_or_else(|| malformed("the name of a category is not in the file"))
    }
}
