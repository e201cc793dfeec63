//! Writes an ensemble as an Elasticsearch tree model: the smallest JSON that the server accepts, streamed into gzip.
//!
//! The JSON is never held as a whole. Optional keys are left out, each tree lists only the features that it tests, and numbers are
//! written with the fewest digits that read back as the same double. The output is deterministic.

mod fields;
mod json_output;
mod plan;
mod tree_writer;

use std::str::FromStr;

use super::TreeError;
use super::ensemble::{Ensemble, Totals};
use fields::{UsedFeatures, fields};
use json_output::JsonOutput;
pub use plan::Classes;
use plan::{classes, plan};
use tree_writer::write;

/// Bytes of JSON that Elasticsearch inflates at most, whatever the size of its heap.
pub const MAX_INFLATED: u64 = 1 << 30;

/// Bytes of the body of a request that Elasticsearch accepts by default (`http.max_content_length`).
pub const MAX_BODY: u64 = 100 << 20;

/// What the model predicts in Elasticsearch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A number.
    Regression,
    /// A class.
    Classification,
    /// A relevance score for learning to rank.
    Ranking,
}

impl Target {
    /// The name of the inference configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::Classification => "classification",
            Self::Ranking => "learning_to_rank",
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "regression" => Ok(Self::Regression),
            "classification" => Ok(Self::Classification),
            "ranking" | "learning_to_rank" => Ok(Self::Ranking),
            other => Err(format!(
                "unknown target {other:?}; the targets are regression, classification and ranking"
            )),
        }
    }
}

/// The type in which Elasticsearch returns a class label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelType {
    /// Strings.
    Text,
    /// Numbers.
    Number,
    /// Booleans.
    Boolean,
}

impl LabelType {
    /// The value of `prediction_field_type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

impl FromStr for LabelType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "string" => Ok(Self::Text),
            "number" => Ok(Self::Number),
            "boolean" => Ok(Self::Boolean),
            other => Err(format!(
                "unknown prediction field type {other:?}; the types are string, number and boolean"
            )),
        }
    }
}

/// How to express an ensemble.
#[derive(Debug, Clone, Default)]
pub struct DefinitionOptions {
    /// Names of the document fields, in the order of the features. Default: the names in the file.
    pub feature_names: Option<Vec<String>>,
    /// Class labels, in the order of the classes. Default: the labels in the file, or the numbers of the classes.
    pub labels: Option<Vec<String>>,
    /// Factors by which the probabilities are multiplied before the best class is chosen.
    pub weights: Option<Vec<f64>>,
    /// What the model predicts in Elasticsearch. Default: what it predicts in the library.
    pub target: Option<Target>,
    /// Export the probability of this class as a regression.
    pub output_class: Option<String>,
    /// Write the number of training samples of each node, which feature importance needs.
    pub sample_counts: bool,
    /// Features whose document fields are booleans.
    pub boolean_features: Vec<String>,
    /// The type in which labels are returned. Default: the type of the labels in the file.
    pub label_type: Option<LabelType>,
}

/// A tree model as Elasticsearch stores it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The JSON, compressed with gzip.
    pub compressed: Vec<u8>,
    /// Bytes of the JSON before compression.
    pub json_bytes: u64,
    /// SHA-256 of the JSON, in hexadecimal.
    pub sha256: String,
    /// Trees, nodes and depth of the definition.
    pub totals: Totals,
    /// Number of preprocessors.
    pub preprocessors: usize,
    /// What the model predicts.
    pub target: Target,
    /// The server's aggregation.
    pub aggregation: &'static str,
    /// Names of the document fields: one for each feature, also for features that no tree tests. Elasticsearch predicts for a document
    /// that has one of them. For learning to rank only the features that a tree tests.
    pub fields: Vec<String>,
    /// Class labels, for classification.
    pub labels: Vec<String>,
    /// The type in which labels are returned, for classification.
    pub label_type: LabelType,
    /// Where the served model differs from the library's.
    pub notes: Vec<String>,
}

impl Definition {
    /// Bytes of the request that creates the model, without the configuration: the compressed definition in base64.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        (self.compressed.len() as u64).div_ceil(3) * 4
    }

    /// Checks the definition against the limits that every cluster has by default.
    ///
    /// # Errors
    /// When the definition is larger.
    pub fn check_limits(&self) -> Result<(), TreeError> {
        if self.json_bytes > MAX_INFLATED {
            return Err(TreeError::Limit(format!(
                "its definition has {} bytes of JSON, and Elasticsearch inflates at most {MAX_INFLATED}; train fewer or shallower trees",
                self.json_bytes
            )));
        }
        if self.body_bytes() > MAX_BODY {
            return Err(TreeError::Limit(format!(
                "its request has {} bytes, and Elasticsearch accepts {MAX_BODY} by default (http.max_content_length); train fewer or shallower trees",
                self.body_bytes()
            )));
        }
        Ok(())
    }
}

impl Ensemble {
    /// Checks that the options fit the model, without writing the definition. Returns the classes and what the model predicts.
    ///
    /// # Errors
    /// When the options do not fit the model, or the server cannot express it.
    pub fn check_options(
        &self,
        options: &DefinitionOptions,
    ) -> Result<(Classes, Target), TreeError> {
        let target = plan(self, options)?.target;
        fields(self, options, &UsedFeatures::of(self))?;
        Ok((classes(self, options)?, target))
    }

    /// Writes the definition.
    ///
    /// # Errors
    /// When the options do not fit the model, or the server cannot express it.
    pub fn define(&self, options: &DefinitionOptions) -> Result<Definition, TreeError> {
        let plan = plan(self, options)?;
        let used = UsedFeatures::of(self);
        let fields = fields(self, options, &used)?;
        let mut output = JsonOutput::new();
        let totals = write(self, options, &plan, &fields, &mut output)?;
        let (compressed, json_bytes, sha256) = output.finish()?;
        let read = |index: &usize| {
            used.features.contains(index)
                || used.sets.iter().any(|&set| self.category_sets[set].feature as usize == *index)
        };
        let mut names: Vec<_> = (0..self.features.len())
            .filter(|index| plan.target != Target::Ranking || read(index))
            .map(|index| fields.documents[index].clone())
            .collect();
        if names.is_empty() {
            // The server wants at least one field, even of a model whose prediction is constant.
            names.extend(fields.documents.first().cloned());
        }
        let mut notes = self.notes.clone();
        notes.extend(plan.notes);
        Ok(Definition {
            compressed,
            json_bytes,
            sha256,
            totals,
            preprocessors: fields.preprocessors.len(),
            target: plan.target,
            aggregation: plan.aggregation,
            fields: names,
            labels: plan.labels,
            label_type: plan.label_type,
            notes,
        })
    }
}
