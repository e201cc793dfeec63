//! Answers of a served model: the text is tokenized, the graph evaluated, the output made a result (contract, 3.4 and 8).

mod classification;
mod embedding;
mod fill_mask;
#[cfg(torch)]
mod graph;
mod ner;
mod output;
mod probabilities;
mod question_answering;
mod request;

#[cfg(torch)]
pub(crate) use graph::evaluate;
pub(crate) use output::{Evaluation, Output};
pub(crate) use request::InferRequest;

use serde_json::Value;

use crate::configuration::task::Task;
use crate::deployment::ServedModel;
use crate::errors::ApiError;
use crate::tokenization::Row;

/// The member of a result that holds the prediction.
const DEFAULT_FIELD: &str = "predicted_value";

/// The result for one text.
pub(crate) fn infer(
    model: &ServedModel,
    request: &InferRequest,
    text: &str,
) -> Result<Value, ApiError> {
    let tokenizer = &model.tokenizer;
    let settings = &request.inference.tokenization;
    let field = request.inference.results_field.as_deref().unwrap_or(DEFAULT_FIELD);
    let first_text = request.first_text.as_deref().unwrap_or_default();
    let single = || tokenizer.single(text, settings.truncate, settings.span);
    let pair = || tokenizer.pair_windows(first_text, text, settings.truncate, settings.span);
    let evaluate = |rows: &[Row]| {
        model
            .evaluate(rows)
            .map_err(|error| ApiError::internal(format!("Error in inference process: [{error}]")))
    };
    let rows;
    let mut result = match &request.inference.task {
        Task::PassThrough => {
            rows = single()?;
            embedding::pass_through(&evaluate(&rows)?, field)
        }
        Task::TextEmbedding { .. } => {
            rows = single()?;
            embedding::text_embedding(&evaluate(&rows)?, field)?
        }
        Task::TextExpansion { expansion } => {
            rows = single()?;
            embedding::text_expansion(&evaluate(&rows)?, *expansion, tokenizer, field)?
        }
        Task::TextClassification { labels, num_top_classes } => {
            rows = single()?;
            classification::text_classification(&evaluate(&rows)?, labels, *num_top_classes, field)?
        }
        Task::Ner { labels } => {
            rows = single()?;
            let lower_case = settings.do_lower_case;
            ner::ner(&evaluate(&rows)?, &rows[0], text, labels.as_deref(), lower_case, field)?
        }
        Task::FillMask { num_top_classes } => {
            fill_mask::check_text(text, tokenizer)?;
            rows = single()?;
            fill_mask::fill_mask(
                &evaluate(&rows)?,
                &rows[0],
                text,
                tokenizer,
                *num_top_classes,
                field,
            )?
        }
        Task::TextSimilarity { span_score } => {
            rows = pair()?;
            embedding::text_similarity(&evaluate(&rows)?, *span_score, field)?
        }
        Task::QuestionAnswering { num_top_classes, max_answer_length } => {
            rows = pair()?;
            question_answering::question_answering(
                &evaluate(&rows)?,
                &rows,
                text,
                *num_top_classes,
                *max_answer_length,
                field,
            )?
        }
        Task::ZeroShotClassification(zero_shot) => {
            let labels = zero_shot.labels.as_deref().unwrap_or_default();
            rows = labels
                .iter()
                .map(|label| {
                    let hypothesis = zero_shot.hypothesis_template.replacen("{}", label, 1);
                    tokenizer.pair(text, &hypothesis, settings.truncate)
                })
                .collect::<Result<_, _>>()?;
            let output = evaluate(&rows)?;
            classification::zero_shot(&output, zero_shot, labels, zero_shot.multi_label, field)?
        }
    };
    if rows.iter().any(|row| row.is_truncated) {
        result.insert("is_truncated".into(), true.into());
    }
    Ok(result.into())
}

/// A place in a text as Java counts: in UTF-16 units.
fn utf16(text: &str, at: usize) -> usize {
    text[..at].encode_utf16().count()
}
