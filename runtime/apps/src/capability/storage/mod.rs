//! `storage`: the app's own keys and values. Runs of the same app share one open store.

mod key_value;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use wasmtime::Result;
use wasmtime::component::HasData;

use self::key_value::{KeyValue, KvError};
use super::{Access, to_wit_bytes};
use crate::bindings::storage as wit;
use crate::bindings::types::Error;

/// An open store, shared by the runs of its app.
#[derive(Debug, Clone)]
pub(crate) struct Store(Arc<Mutex<KeyValue>>);

impl Store {
    /// Runs `work` where blocking is allowed.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut KeyValue) -> std::result::Result<T, KvError> + Send + 'static,
    ) -> std::result::Result<T, Error> {
        let store = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut store.lock().unwrap_or_else(PoisonError::into_inner)));
        match done.await {
            Ok(outcome) => outcome.map_err(to_wit),
            Err(error) => Err(Error::Internal(format!("the storage failed: {error}"))),
        }
    }
}

fn to_wit(error: KvError) -> Error {
    let text = error.to_string();
    match error {
        KvError::Key(_) => Error::InvalidRequest(text),
        KvError::Quota { .. } | KvError::Keys => Error::QuotaExceeded(text),
        KvError::Damaged(_) => Error::Internal(text),
        KvError::Io(error) => {
            // Paths of the host are not for apps.
            tracing::error!(%error, "the storage of an app");
            Error::Internal("the storage cannot be read or written; see the host's log".to_owned())
        }
    }
}

/// The stores of all apps below one folder; each is opened once while anybody uses it.
#[derive(Debug)]
pub(crate) struct Stores {
    root: PathBuf,
    open: Mutex<HashMap<String, Weak<Mutex<KeyValue>>>>,
}

impl Stores {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, open: Mutex::default() }
    }

    /// Where the app's values are.
    pub(crate) fn path(&self, app: &str) -> PathBuf {
        self.root.join(Path::new(app))
    }

    /// The store of an app, whose id is a valid file name (the manifest sees to that).
    pub(crate) fn open(&self, app: &str, quota: u64) -> std::io::Result<Store> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(app).and_then(Weak::upgrade) {
            store.lock().unwrap_or_else(PoisonError::into_inner).set_quota(quota);
            return Ok(Store(store));
        }
        let store = Arc::new(Mutex::new(KeyValue::open(&self.path(app), quota)?));
        open.retain(|_, store| store.strong_count() > 0);
        open.insert(app.to_owned(), Arc::downgrade(&store));
        Ok(Store(store))
    }
}

/// The open store of the app; `None` where storage is not granted, and then the interface is not linked.
pub(crate) struct StorageState(pub(crate) Option<Store>);

/// The quota is the store's own.
pub(crate) struct StoragePolicy;

/// `storage` of one host call.
pub(crate) type StorageAccess<'a> = Access<'a, StorageState, StoragePolicy>;

/// Names [`StorageAccess`] to wasmtime.
pub(crate) struct HasStorage;

impl HasData for HasStorage {
    type Data<'a> = StorageAccess<'a>;
}

impl StorageAccess<'_> {
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut KeyValue) -> std::result::Result<T, KvError> + Send + 'static,
    ) -> Result<std::result::Result<T, Error>> {
        self.charge()?;
        match &self.state.0 {
            Some(store) => Ok(store.with(work).await),
            None => Ok(Err(Error::Internal("storage is linked but not open".to_owned()))),
        }
    }
}

impl wit::Host for StorageAccess<'_> {
    async fn get(&mut self, key: String) -> Result<std::result::Result<Option<Vec<u8>>, Error>> {
        self.with(move |store| store.get(&key)).await
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> Result<std::result::Result<(), Error>> {
        self.with(move |store| store.set(&key, &value)).await
    }

    async fn delete(&mut self, key: String) -> Result<std::result::Result<bool, Error>> {
        self.with(move |store| store.delete(&key)).await
    }

    async fn keys(&mut self, prefix: String) -> Result<std::result::Result<Vec<String>, Error>> {
        self.with(move |store| Ok(store.keys(&prefix))).await
    }

    async fn usage(&mut self) -> Result<(f64, f64)> {
        let usage = self.with(|store| Ok(store.usage())).await?;
        Ok(usage.map_or((0.0, 0.0), |(used, quota)| (to_wit_bytes(used), to_wit_bytes(quota))))
    }
}
