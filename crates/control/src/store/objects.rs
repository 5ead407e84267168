//! The applied objects, on disk: several objects change in one transaction, durable before it is
//! acknowledged. An error (a full disk) leaves everything as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_api::parse::{ParseOptions, parse};
use mesh_api::{Object, ObjectKey};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

/// `Kind/namespace/name` to a `Record`.
const OBJECTS: TableDefinition<&str, &str> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");
const RESOURCE_VERSION: &str = "resource_version";

/// Why the store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk, most likely.
    #[error("{path}: {reason}")]
    Storage {
        /// The store's file.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// Written by a newer release, or damaged.
    #[error("{path}: the stored object {key} is not understood: {reason}")]
    Record {
        /// The store's file.
        path: PathBuf,
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// One change of a transaction.
#[derive(Debug, Clone)]
pub enum Change {
    /// Create or replace.
    Put(Arc<Object>),
    /// Delete, if it is there.
    Delete(ObjectKey),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    file: String,
    line: u32,
    resource_version: u64,
    created: i64,
    object: serde_json::Value,
}

/// The store. Calls block on the disk: keep them off async threads.
pub struct ObjectStore {
    path: PathBuf,
    /// `None` after a failed write, until it can be opened again.
    database: Option<Database>,
    objects: BTreeMap<ObjectKey, Arc<Object>>,
}

impl ObjectStore {
    /// Opens or creates the file and reads all objects.
    pub fn open(path: &Path) -> Result<ObjectStore, StoreError> {
        let mut store = ObjectStore {
            path: path.to_owned(),
            database: None,
            objects: BTreeMap::new(),
        };
        store.objects = store.read()?;
        Ok(store)
    }

    /// What is stored now.
    pub fn objects(&self) -> &BTreeMap<ObjectKey, Arc<Object>> {
        &self.objects
    }

    /// All changes or none. Returns the objects as they are stored (with their versions) and the
    /// keys that were deleted.
    pub fn commit(
        &mut self,
        changes: &[Change],
        now: i64,
    ) -> Result<(Vec<Arc<Object>>, Vec<ObjectKey>), StoreError> {
        let known = &self.objects;
        let result = match self.database.as_ref() {
            Some(database) => write(database, known, changes, now),
            None => {
                let database = open(&self.path).map_err(|error| self.storage(error))?;
                write(self.database.insert(database), known, changes, now)
            }
        };
        let (stored, deleted) = match result {
            Ok(done) => done,
            Err(error) => {
                // After an IO error the handle is of no more use; the file is as it was.
                self.database = None;
                return Err(self.storage(error));
            }
        };
        for object in &stored {
            self.objects.insert(object.key(), object.clone());
        }
        for key in &deleted {
            self.objects.remove(key);
        }
        Ok((stored, deleted))
    }

    fn read(&mut self) -> Result<BTreeMap<ObjectKey, Arc<Object>>, StoreError> {
        let database = open(&self.path).map_err(|error| self.storage(error))?;
        let database = self.database.insert(database);
        let mut objects = BTreeMap::new();
        for (key, text) in read_all(database).map_err(|error| self.storage(error))? {
            let object = decode(&text).map_err(|reason| StoreError::Record {
                path: self.path.clone(),
                key,
                reason,
            })?;
            objects.insert(object.key(), Arc::new(object));
        }
        Ok(objects)
    }

    fn storage(&self, error: redb::Error) -> StoreError {
        StoreError::Storage {
            path: self.path.clone(),
            reason: error.to_string(),
        }
    }
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    let database = Database::create(path)?;
    let transaction = database.begin_write()?;
    transaction.open_table(OBJECTS)?;
    transaction.open_table(COUNTERS)?;
    transaction.commit()?;
    Ok(database)
}

fn read_all(database: &Database) -> Result<Vec<(String, String)>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(OBJECTS)?;
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, text) = entry?;
        records.push((key.value().to_owned(), text.value().to_owned()));
    }
    Ok(records)
}

type Written = (Vec<Arc<Object>>, Vec<ObjectKey>);

fn write(
    database: &Database,
    known: &BTreeMap<ObjectKey, Arc<Object>>,
    changes: &[Change],
    now: i64,
) -> Result<Written, redb::Error> {
    let transaction = database.begin_write()?;
    let (mut stored, mut deleted) = (Vec::new(), Vec::new());
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        let mut counters = transaction.open_table(COUNTERS)?;
        let mut version = counters
            .get(RESOURCE_VERSION)?
            .map_or(0, |value| value.value());
        for change in changes {
            version += 1;
            match change {
                Change::Put(object) => {
                    let mut object = Object::clone(object);
                    let key = object.key();
                    let before = known
                        .get(&key)
                        .and_then(|object| object.meta.creation_timestamp);
                    object.meta.creation_timestamp = Some(before.unwrap_or(now));
                    object.meta.resource_version = version;
                    objects.insert(key.to_string().as_str(), encode(&object).as_str())?;
                    stored.push(Arc::new(object));
                }
                Change::Delete(key) => {
                    if objects.remove(key.to_string().as_str())?.is_some() {
                        deleted.push(key.clone());
                    }
                }
            }
        }
        counters.insert(RESOURCE_VERSION, version)?;
    }
    transaction.commit()?;
    Ok((stored, deleted))
}

fn encode(object: &Object) -> String {
    let record = Record {
        file: object.origin.file.to_string(),
        line: object.origin.line,
        resource_version: object.meta.resource_version,
        created: object.meta.creation_timestamp.unwrap_or_default(),
        object: object.to_json(),
    };
    serde_json::to_string(&record).expect("BUG: a record of strings and numbers is always JSON")
}

fn decode(text: &str) -> Result<Object, String> {
    let mut record: Record = serde_json::from_str(text).map_err(|error| error.to_string())?;
    // What the server wrote is kept beside the object; users may not write it.
    if let Some(meta) = record
        .object
        .get_mut("metadata")
        .and_then(|meta| meta.as_object_mut())
    {
        meta.remove("resourceVersion");
        meta.remove("creationTimestamp");
    }
    let parsed = parse(
        &record.file,
        &record.object.to_string(),
        &ParseOptions::default(),
    );
    if let Some(diagnostic) = parsed.diagnostics.iter().find(|d| d.is_error()) {
        return Err(diagnostic.to_string());
    }
    let mut objects = parsed.objects.into_iter();
    let mut object = objects.next().ok_or_else(|| "no object".to_owned())?;
    object.meta.resource_version = record.resource_version;
    object.meta.creation_timestamp = Some(record.created);
    // Lines of the stored JSON would mean nothing to anyone.
    object.origin = mesh_api::Origin::new(&record.file, record.line);
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::Kind;

    fn virtual_service(name: &str, host: &str) -> Arc<Object> {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: {name}, namespace: a, labels: {{app: web}}}}\n\
             spec:\n  hosts: [{host}]\n  http:\n  - route:\n    - destination: {{host: {host}}}\n"
        );
        let parsed = parse("rules.yaml", &text, &ParseOptions::default());
        Arc::new(parsed.objects.into_iter().next().expect("parses"))
    }

    #[test]
    fn survives_a_restart_with_versions_and_creation_time() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("objects.redb");
        let key = ObjectKey::new(Kind::VirtualService, "a", "one");
        {
            let mut store = ObjectStore::open(&path).expect("creates");
            let put = |name: &str, host: &str| Change::Put(virtual_service(name, host));
            store
                .commit(&[put("one", "a.com"), put("two", "b.com")], 100)
                .expect("commits");
            store.commit(&[put("one", "c.com")], 200).expect("commits");
            let delete = Change::Delete(ObjectKey::new(Kind::VirtualService, "a", "two"));
            let (_, deleted) = store
                .commit(&[delete.clone(), delete], 300)
                .expect("commits");
            assert_eq!(deleted.len(), 1, "deleted once");
        }
        let store = ObjectStore::open(&path).expect("opens");
        assert_eq!(store.objects().len(), 1);
        let object = &store.objects()[&key];
        assert_eq!(
            object.spec,
            virtual_service("one", "c.com").spec,
            "the newest spec"
        );
        assert_eq!(object.meta.labels["app"], "web");
        assert_eq!(
            (object.meta.creation_timestamp, object.meta.resource_version),
            (Some(100), 3)
        );
        assert_eq!(
            (&*object.origin.file, object.origin.line),
            ("rules.yaml", 1)
        );
    }

    #[test]
    fn a_file_that_is_no_store_is_an_error() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("objects.redb");
        std::fs::write(&path, "nonsense").expect("writes");
        let error = ObjectStore::open(&path).err().expect("refused").to_string();
        assert!(error.contains("objects.redb"), "{error}");
    }
}
