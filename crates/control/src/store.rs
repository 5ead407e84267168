//! Stores: sources of objects. `objects` is what was applied, `directory` a watched folder.

pub mod applier;
pub(crate) mod directory;
pub mod objects;
