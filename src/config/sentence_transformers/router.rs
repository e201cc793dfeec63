//! `router_config.json`: the routes of a Router. Each route is a chain of modules, and so a model of its own.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::lenient;
use super::ModuleClass;
use crate::source::{ModelFiles, SourceError};

/// The route that a model without a choice has, if there is one. A model that encodes documents is deployed first.
const DOCUMENT: &str = "document";

/// The routes of a Router.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Router {
    /// Classes and folders of the modules of each route, by its name.
    pub routes: BTreeMap<String, Vec<(ModuleClass, String)>>,
    /// Name of the route for texts without a task.
    default_route: Option<String>,
}

#[derive(Deserialize)]
struct RawRouter {
    /// The class of each module, by the module's folder.
    types: BTreeMap<String, String>,
    /// The folders of the modules of each route.
    structure: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    parameters: RawParameters,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawParameters {
    #[serde(deserialize_with = "lenient::text")]
    default_route: Option<String>,
}

impl Router {
    /// Reads `router_config.json` in `folder`, the folder of the Router. `None` if there is no such file.
    ///
    /// # Errors
    /// [`SourceError`] if the file is not valid.
    pub fn read(files: &ModelFiles, folder: &str) -> Result<Option<Self>, SourceError> {
        let folder = folder.trim_end_matches('/');
        let Some(raw) = files.sub(folder)?.json::<RawRouter>("router_config.json")? else {
            return Ok(None);
        };
        let module = |name: String| {
            let class = raw.types.get(&name).map_or("no class", String::as_str);
            let class = ModuleClass::of_path(class);
            // Modules can share the folder of the Router.
            let path = match (folder, name.as_str()) {
                (_, "") => folder.to_owned(),
                ("", _) => name,
                _ => format!("{folder}/{name}"),
            };
            (class, path)
        };
        let route = |(name, modules): (String, Vec<String>)| {
            (name, modules.into_iter().map(module).collect())
        };
        Ok(Some(Self {
            routes: raw.structure.into_iter().map(route).collect(),
            default_route: raw.parameters.default_route,
        }))
    }

    /// The name of the route for documents, or else of the route that the library uses for texts without a task.
    pub fn default_route(&self) -> Option<&str> {
        let is_route = |name: &&str| self.routes.contains_key(*name);
        [Some(DOCUMENT), self.default_route.as_deref()].into_iter().flatten().find(is_route)
    }
}
