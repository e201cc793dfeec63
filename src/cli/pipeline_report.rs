//! What an ingest pipeline does, and how to use it, as requests to copy.

use serde::Serialize;
use serde_json::{Value, json};

use super::report::Report;
use super::suggestions::Request;
use crate::elasticsearch::{CreatedPipeline, PipelineOutcome};

/// A pipeline, and how to use it.
#[derive(Debug, Serialize)]
pub(super) struct PipelineReport {
    #[serde(flatten)]
    created: CreatedPipeline,
    /// Requests that use the pipeline.
    usage: Usage,
}

/// Requests that use a pipeline. The names of the indices are examples.
#[derive(Debug, Serialize)]
struct Usage {
    /// Creates an index whose mapping has the type that the result needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    create_index: Option<Request>,
    /// Runs the pipeline for each document of an index.
    default_pipeline: Request,
    /// Runs the pipeline for documents that exist already.
    reindex: Request,
}

impl PipelineReport {
    pub(super) fn of(created: CreatedPipeline) -> Self {
        const INDEX: &str = "my-index";
        const NEW_INDEX: &str = "my-new-index";
        let id = created.pipeline_id.as_str();
        let create_index = created.mapping.as_ref().map(|field| {
            let nested = |inner: Value, name: &str| json!({"properties": {name: inner}});
            let mapping = created.result_field.rsplit('.').fold(field.clone(), nested);
            Request::new("PUT", NEW_INDEX.into(), json!({ "mappings": mapping }))
        });
        let default_pipeline = Request::new(
            "PUT",
            format!("{INDEX}/_settings"),
            json!({"index.default_pipeline": id}),
        );
        // Small batches, because each document takes an inference.
        let reindex = Request::new(
            "POST",
            "_reindex?wait_for_completion=false".into(),
            json!({"source": {"index": INDEX, "size": 50}, "dest": {"index": NEW_INDEX, "pipeline": id}}),
        );
        Self { created, usage: Usage { create_index, default_pipeline, reindex } }
    }

    /// What happened, in one line.
    pub(super) fn line(&self) -> String {
        let CreatedPipeline { pipeline_id, model_id, state, input_field, result_field, .. } =
            &self.created;
        let state = match state {
            PipelineOutcome::Created => "created",
            PipelineOutcome::Replaced => "replaced",
            PipelineOutcome::Unchanged => "already exists",
        };
        let input = match input_field {
            Some(field) => format!("of {field}"),
            None => "of the features".to_owned(),
        };
        format!("{pipeline_id} {state}: stores the result {input} by {model_id} in {result_field}")
    }

    /// How to use the pipeline.
    pub(super) fn paragraphs(&self) -> Vec<String> {
        let Usage { create_index, default_pipeline, reindex } = &self.usage;
        let error_field = &self.created.error_field;
        let paragraph = |what: &str, request: &Request| format!("{what}:\n  {request}");
        let mapped = create_index.as_ref().map(|request| {
            paragraph("Create an index with the right type for the result", request)
        });
        let others = [
            paragraph("Run the pipeline for each new document of an index", default_pipeline),
            paragraph("Run the pipeline for existing documents", reindex),
            format!("A document whose inference fails is stored with the reason in {error_field}"),
        ];
        mapped.into_iter().chain(others).collect()
    }
}

impl Report for PipelineReport {
    fn text(&self) -> String {
        let lines: Vec<_> = std::iter::once(self.line()).chain(self.paragraphs()).collect();
        lines.join("\n")
    }
}
