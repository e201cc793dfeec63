//! The last step: a deployment and an inference endpoint.

use serde::Serialize;

use crate::elasticsearch::{
    Client, Deployment, DeploymentError, Endpoint, EndpointOutcome, Interruption, ServedId,
    SmokeTest, StartOptions,
};
use crate::error::Error;
use crate::observer::{Progress, Stage};

/// How to start a model.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StartRequest {
    /// The settings of the deployment.
    pub options: StartOptions,
    /// Whether to send one example text after the start.
    pub smoke_test: bool,
}

/// A model that was started.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Started {
    /// The deployment.
    #[serde(flatten)]
    pub deployment: Deployment,
    /// The response to the smoke test, if one was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smoke_test: Option<SmokeTest>,
}

/// How to serve a model that is stored.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ServeRequest {
    /// How to start the model; `None` to leave it stopped.
    pub start: Option<StartRequest>,
    /// The endpoint to create.
    pub endpoint: Option<Endpoint>,
}

/// How a model is served.
#[derive(Debug)]
#[non_exhaustive]
pub struct Served {
    /// The deployment, if one was requested.
    pub started: Option<Started>,
    /// The endpoint, if one was requested.
    pub endpoint: Option<(Endpoint, EndpointOutcome)>,
}

impl StartRequest {
    /// A start with these settings, without a smoke test.
    #[must_use]
    pub fn new(options: StartOptions) -> Self {
        Self { options, smoke_test: false }
    }

    /// Starts a model and runs the smoke test. An interruption ends the wait and changes nothing in the cluster.
    ///
    /// # Errors
    /// When the model does not start in time, fails the smoke test, or the work is interrupted.
    pub async fn start(
        &self,
        client: &Client,
        model_id: &ServedId,
        progress: &Progress,
        mut interruption: Interruption,
    ) -> Result<Started, DeploymentError> {
        let deployment_id = self.options.deployment_id.as_ref().unwrap_or(model_id);
        let work = async {
            let deployment = self.options.start(client, model_id, progress).await?;
            let smoke_test = match self.smoke_test {
                true => Some(SmokeTest::run(client, model_id, deployment_id).await?),
                false => None,
            };
            Ok(Started { deployment, smoke_test })
        };
        tokio::select! {
            started = work => started,
            () = interruption.requested() => Err(DeploymentError::Interrupted {
                model_id: model_id.clone(),
                deployment_id: deployment_id.clone(),
            }),
        }
    }
}

impl ServeRequest {
    /// Starts the model and creates the endpoint.
    ///
    /// # Errors
    /// When the model does not start, or the endpoint cannot be created.
    pub async fn serve(
        self,
        client: &Client,
        model_id: &ServedId,
        progress: &Progress,
        interruption: Interruption,
    ) -> Result<Served, Error> {
        let started = match &self.start {
            Some(start) => Some(start.start(client, model_id, progress, interruption).await?),
            None => None,
        };
        let endpoint = match self.endpoint {
            Some(endpoint) => {
                let creating = endpoint.create(client);
                let outcome = progress.run_async(Stage::CreateEndpoint, creating).await?;
                Some((endpoint, outcome))
            }
            None => None,
        };
        Ok(Served { started, endpoint })
    }
}
