//! Stores: sources of objects. `objects` is what was applied, `directory` a watched folder.

pub(crate) mod directory;
pub mod applier;
pub mod objects;
