//! Options of an ingest pipeline that `import` creates.

use clap::Args;

use super::option_value::{SetOption, Unset, Value};
use crate::elasticsearch::{FieldName, PipelineId, PipelineRequest};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Ingest pipeline")]
pub(super) struct PipelineOptions {
    /// Create an ingest pipeline with this id, which adds the result of the model to each document. The model must be started: set --start or
    /// --create-endpoint. Tree models need no start
    #[arg(long, value_name = "ID")]
    create_pipeline: Option<PipelineId>,
    /// Field of the documents that contains the text [default: body]
    #[arg(long, value_name = "FIELD", requires = "create_pipeline", conflicts_with = "tree_model")]
    input_field: Option<FieldName>,
    /// Field for the result, which is an object [default: ml. and the id of the model]
    #[arg(long, value_name = "FIELD", requires = "create_pipeline")]
    output_field: Option<FieldName>,
}

impl SetOption for PipelineOptions {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "create-pipeline" => self.create_pipeline = Some(value.parsed()?),
            "input-field" => self.input_field = Some(value.parsed()?),
            "output-field" => self.output_field = Some(value.parsed()?),
            _ => return Err(Unset::UnknownName),
        }
        Ok(())
    }
}

impl PipelineOptions {
    /// The pipeline to create, if one is requested. `force` replaces another pipeline with the same id.
    pub(super) fn request(&self, force: bool) -> Option<PipelineRequest> {
        let mut request = PipelineRequest::new(self.create_pipeline.clone()?);
        request.input_field = self.input_field.clone();
        request.output_field = self.output_field.clone();
        request.force = force;
        Some(request)
    }
}
