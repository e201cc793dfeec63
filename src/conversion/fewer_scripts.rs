//! Suggestion to leave out the tokens of other scripts.

use super::quantization::LARGE;
use super::{Conversion, PlannedScripts};
use crate::scripts::Scripts;
use crate::tasks::Task;

/// The scripts that are suggested.
const SUGGESTED: &str = "latin";

impl Conversion {
    /// The tokens for texts in Latin script, if a model with a large vocabulary has many tokens for these texts and many others.
    pub(super) fn fewer_scripts(&self) -> Option<PlannedScripts> {
        let [rows, width] = self.word_table;
        // These tasks return a number for each token.
        let needs_all = matches!(self.task, Task::FillMask | Task::TextExpansion);
        if rows <= LARGE || needs_all || self.tokenizer.kept.is_some() {
            return None;
        }
        let scripts: Scripts = SUGGESTED.parse().ok()?;
        let mut tokenizer = self.tokenizer.clone();
        tokenizer.keep_scripts(&scripts, 0).ok()?;
        let kept = tokenizer.kept?;
        let (of, left) = (kept.of, kept.ids().len());
        // Fewer tokens are those of other languages, such as Chinese, with a few words in Latin script.
        if !(of / 5..=of / 10 * 9).contains(&left) {
            return None;
        }
        let left_out = rows.saturating_sub(left as u64);
        Some(PlannedScripts {
            names: scripts.names().collect(),
            kept: left,
            of,
            left_out_bytes: left_out.saturating_mul(width).saturating_mul(4),
        })
    }

    /// Logs how much memory fewer tokens would save.
    pub(super) fn log_fewer_scripts(&self) {
        let Some(PlannedScripts { kept, of, left_out_bytes, .. }) = self.fewer_scripts() else {
            return;
        };
        // The server reserves twice the size of a definition.
        let saved = 2 * left_out_bytes / 1_000_000;
        tracing::info!(
            "{kept} of the {of} tokens are for texts in Latin script; --scripts {SUGGESTED} would save about {saved} MB on a node, and \
             --languages names other languages"
        );
    }
}
