//! The comparison of Elasticsearch's tokenizer with the model's own. It builds both tokenizers, which takes as long as the trace for a large
//! vocabulary, and can run on another thread.

use super::tokenization_notes::{self, Comparison};
use super::{Conversion, ConversionError, model_card};
use crate::source::ModelFiles;
use crate::tokenizer::{Adaptation, Tokenizer};

/// A comparison that has not run.
pub(super) struct PendingComparison {
    /// The folder with the model's own tokenizer.
    folder: ModelFiles,
    /// Languages of the model card.
    languages: Vec<String>,
    reads_pairs: bool,
    /// Place of the comparison's notes among the notes of the conversion.
    place: usize,
}

impl PendingComparison {
    /// The comparison for a model in `files`, whose own tokenizer is in `folder`.
    pub(super) fn of(conversion: &Conversion, files: &ModelFiles, folder: ModelFiles) -> Self {
        Self {
            folder,
            languages: model_card::languages(files),
            reads_pairs: conversion.task.pair(),
            place: conversion.notes.len(),
        }
    }

    /// Compares the tokenizers.
    ///
    /// # Errors
    /// When `tokenizer.json` cannot be read.
    pub(super) fn run(&self, tokenizer: &Tokenizer) -> Result<Comparison, ConversionError> {
        tokenization_notes::compare(&self.folder, tokenizer, self.reads_pairs, &self.languages)
    }
}

impl Conversion {
    /// Adds the result of a comparison.
    pub(super) fn add(&mut self, pending: PendingComparison, comparison: Comparison) {
        let place = pending.place.min(self.notes.len());
        self.token_notes = place..place + comparison.notes.len();
        self.notes.splice(place..place, comparison.notes);
        self.tokenizer_difference = comparison.difference;
    }

    /// Checks that Elasticsearch follows the model's tokenizer closely enough, or that the options accept the difference.
    ///
    /// # Errors
    /// [`ConversionError::InexactTokenizer`] if the difference is too large, or [`ConversionError::UnmeasuredTokenizer`] if the tokenizer
    /// is approximated and has no `tokenizer.json`.
    pub fn check_tokenizer(&self) -> Result<(), ConversionError> {
        if !self.needs_exact_tokenizer || self.options.allow_inexact_tokenizer {
            return Ok(());
        }
        match &self.tokenizer_difference {
            Some(difference) if difference.is_too_large() => {
                Err(ConversionError::InexactTokenizer(difference.clone()))
            }
            None if self.tokenizer.adaptation == Adaptation::Approximated => {
                Err(ConversionError::UnmeasuredTokenizer)
            }
            _ => Ok(()),
        }
    }
}
