//! Stores: sources of objects. `objects` is what was applied, `directory` a watched folder,
//! `mesh_config` the one file of settings.

pub mod applier;
pub(crate) mod directory;
pub(crate) mod mesh_config;
pub mod objects;
