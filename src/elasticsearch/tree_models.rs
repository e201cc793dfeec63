//! Tree models in the cluster: the checks before an import, and predictions. A tree model needs no deployment.

use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

use super::attempts::with_retries;
use super::payload::{Payload, json_bytes};
use super::tree_import::TreeConflict;
use super::{Client, ClientError, Import, ServedId};
use crate::retry::RetryPolicy;
use crate::trees::configuration::LEARNING_TO_RANK_GENERAL;
use crate::trees::{Target, TreeModel};

const ROOT: &str = "_ml/trained_models";

/// Licences that include learning to rank.
const RANKING_LICENCES: [&str; 2] = ["enterprise", "trial"];

impl Client {
    /// Checks privileges, licence, version, memory limits and conflicts. Changes nothing. Returns whether the cluster has the same model,
    /// so that an import would keep it.
    ///
    /// # Errors
    /// When the import cannot succeed.
    pub async fn check_tree_model(
        &self,
        model: &TreeModel,
        import: &Import,
    ) -> Result<bool, ClientError> {
        Ok(self.tree_conflict(model, import).await? == TreeConflict::Unchanged)
    }

    /// Checks the cluster, and what it has under the id of the model.
    pub(super) async fn tree_conflict(
        &self,
        model: &TreeModel,
        import: &Import,
    ) -> Result<TreeConflict, ClientError> {
        self.require(model.minimum_version)?;
        let (privilege, licence) = tokio::join!(
            self.check_privilege(),
            with_retries(import.retry, || self.check_licence())
        );
        privilege.and(licence)?;
        if model.definition.target == Target::Ranking {
            self.check_ranking_licence().await?;
            if !self.supports(LEARNING_TO_RANK_GENERAL) {
                tracing::warn!(
                    "learning to rank is a preview before Elasticsearch {LEARNING_TO_RANK_GENERAL}"
                );
            }
        }
        if let Some(heap) = self.smallest_heap().await {
            let most = heap / 10;
            if model.definition.json_bytes > most {
                return Err(ClientError::DefinitionTooLarge {
                    bytes: model.definition.json_bytes,
                    limit: most,
                });
            }
        }
        let stored = self.stored_tree_model(&model.model_id, import.retry).await?;
        TreeConflict::of(model, stored, import.on_conflict)
    }

    /// Predictions of a tree model for documents.
    ///
    /// # Errors
    /// When the model is not there or the cluster refuses.
    pub async fn infer_documents(
        &self,
        id: &ServedId,
        documents: &[Value],
    ) -> Result<Vec<Value>, ClientError> {
        let path = format!("{ROOT}/{}/_infer", id.segment());
        let body = Bytes::from(json_bytes(&json!({"docs": documents})));
        let request = || {
            let body = Some(Payload::bytes(body.clone()));
            self.call(Method::POST, &path, body, "compute predictions")
        };
        let mut answer = with_retries(RetryPolicy::default(), request).await?;
        match answer.get_mut("inference_results").map(Value::take) {
            Some(Value::Array(results)) if results.len() == documents.len() => Ok(results),
            _ => Err(ClientError::Refused {
                action: "infer".to_owned(),
                status: 200,
                kind: None,
                reason: "the answer does not have one result for each document".to_owned(),
                retry_after: None,
            }),
        }
    }

    /// The configuration of a model, as the cluster has it.
    ///
    /// # Errors
    /// When the model is not there or the cluster refuses.
    pub async fn tree_configuration(&self, id: &ServedId) -> Result<Value, ClientError> {
        let path = format!("{ROOT}/{}", id.segment());
        let mut answer = self.call(Method::GET, &path, None, "show the model").await?;
        Ok(answer["trained_model_configs"][0].take())
    }

    async fn check_ranking_licence(&self) -> Result<(), ClientError> {
        if self.is_serverless() {
            return Ok(());
        }
        let Ok(answer) = self.call(Method::GET, "_license", None, "show its licence").await else {
            return Ok(());
        };
        match answer["license"]["type"].as_str() {
            Some(kind) if !RANKING_LICENCES.contains(&kind) => {
                Err(ClientError::RankingLicence(kind.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// The smallest heap of the nodes that can parse a definition, in bytes. `None` if the cluster does not say.
    async fn smallest_heap(&self) -> Option<u64> {
        if self.is_serverless() {
            return None;
        }
        let answer =
            self.call(Method::GET, "_ml/memory/_stats", None, "show its nodes' memory").await;
        let answer = answer.ok()?;
        let nodes = answer["nodes"].as_object()?.values();
        nodes.filter_map(|node| node["jvm"]["heap_max_in_bytes"].as_u64()).min()
    }
}
