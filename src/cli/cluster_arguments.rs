//! Options of the cluster for commands that store or delete models: the connection, and Kibana.

use clap::Args;

use super::arguments::ConnectionArguments;
use super::command_error::CommandError;
use super::command_line::UrlArgument;
use super::option_value::{SetOption, Unset, Value};
use crate::elasticsearch::{Connection, KibanaAddress};

/// The connection of a command that changes the models of the cluster.
#[derive(Debug, Clone, Args)]
pub(super) struct ClusterArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    /// Address of Kibana, with /s/SPACE for a space. Kibana gets the credentials of the cluster and lists the change at once [default: you
    /// synchronize saved objects in Kibana]
    #[arg(
        long,
        value_name = "URL",
        env = "KIBANA_URL",
        hide_env_values = true,
        help_heading = "Cluster"
    )]
    kibana_url: Option<UrlArgument>,
}

impl SetOption for ClusterArguments {
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset> {
        match name {
            "kibana-url" => {
                self.kibana_url = Some(UrlArgument(value.parsed()?));
                Ok(())
            }
            _ => self.connection.set(name, value),
        }
    }
}

impl ClusterArguments {
    /// The connection that the options describe. Asks for the password if only a user name is set.
    pub(super) fn connection(&self) -> Result<Connection, CommandError> {
        // An empty environment variable counts as unset.
        let kibana = self.kibana_url.as_ref().map(|it| it.0.as_str()).filter(|it| !it.is_empty());
        let kibana = kibana.map(KibanaAddress::read).transpose()?;
        let mut connection = self.connection.connection()?;
        connection.kibana = kibana;
        Ok(connection)
    }
}
