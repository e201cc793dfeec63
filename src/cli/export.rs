//! `rust-eland export`.

use std::path::PathBuf;

use clap::Args;

use super::arguments::ModelArguments;
use crate::bundle::Bundle;
use crate::error::Error;
use crate::models::AttentionForm;
use crate::progress::Progress;

#[derive(Debug, Args)]
#[command(mut_arg("hub_model_id", |argument| argument.required(true)))]
pub(super) struct ExportArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// The folder to write ID.pt, ID.vocab.json and ID.metadata.json to
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
}

impl ExportArguments {
    pub(super) async fn execute(self, progress: Progress) -> Result<(), Error> {
        let source = self.model.source()?;
        let (model_id, title) = (self.model.model_id()?, self.model.title()?);
        // The form that every release from 8.7 on runs, since nobody says which will take it.
        let conversion = self.model.convert(&source, AttentionForm::Plain, progress).await?;
        let (_, metadata) = Bundle::export(&conversion, model_id, &title, &self.output, progress)?;
        println!("{}", metadata.display());
        Ok(())
    }
}
