//! A CDR database that was not there at the start: opened behind the scenes, while the spool takes the records.

use super::{CdrPage, CdrStore, Missing, StoreError, Task, cdrs_at};
use crate::config::DbUrl;
use std::mem::replace;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::task::JoinHandle;

/// What all calls say until it is open; each sees to it that somebody tries.
pub struct LateCdrs {
    url: DbUrl,
    store: Arc<OnceLock<Box<dyn CdrStore>>>,
    /// The last try, which may take longer than a call has time.
    opening: Mutex<Option<JoinHandle<()>>>,
    /// Why the last one failed.
    why: Arc<Mutex<String>>,
}

impl LateCdrs {
    /// Of a database that could not be opened, for that reason.
    #[must_use]
    pub fn new(url: DbUrl, why: &StoreError) -> LateCdrs {
        let why = Arc::new(Mutex::new(why.to_string()));
        LateCdrs { url, store: Arc::default(), opening: Mutex::default(), why }
    }

    fn store(&self) -> Result<&dyn CdrStore, StoreError> {
        if let Some(store) = self.store.get() {
            return Ok(&**store);
        }
        let mut opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if opening.as_ref().is_none_or(JoinHandle::is_finished) {
            let (url, store, why) = (self.url.clone(), Arc::clone(&self.store), Arc::clone(&self.why));
            *opening = Some(tokio::spawn(async move {
                match cdrs_at(&url, Missing::Create).await {
                    // One try at a time: nobody else has set it.
                    Ok(opened) => drop(store.set(opened)),
                    Err(error) => {
                        let told = error.to_string();
                        let before = replace(&mut *why.lock().unwrap_or_else(PoisonError::into_inner), told.clone());
                        if before != told && !error.may_pass() {
                            tracing::error!(%error, "the CDR database is there, but does not fit");
                        }
                    }
                }
            }));
        }
        Err(StoreError::Failed(self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}

impl CdrStore for LateCdrs {
    fn write<'a>(&'a self, batch: &'a [strowger_engine::CdrRow]) -> Task<'a, usize> {
        Box::pin(async move { self.store()?.write(batch).await })
    }

    fn count(&self) -> Task<'_, u64> {
        Box::pin(async move { self.store()?.count().await })
    }

    fn read<'a>(&'a self, after: Option<&'a str>, max: usize) -> Task<'a, CdrPage> {
        Box::pin(async move { self.store()?.read(after, max).await })
    }

    fn back(&self, records: usize) -> Task<'_, Option<String>> {
        Box::pin(async move { self.store()?.back(records).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::cdr;
    use strowger_engine::CdrRow;

    #[tokio::test]
    async fn it_says_why_it_is_not_open_until_it_is() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = dir.path().join("later");
        let url = DbUrl::Sqlite(folder.join("s.db"));
        let store = LateCdrs::new(url, &StoreError::Failed("nobody there".to_owned()));
        let rows = [CdrRow::from(&cdr(1, "carl"))];
        let first = store.write(&rows).await.unwrap_err();
        assert!(matches!(&first, StoreError::Failed(what) if what == "nobody there"), "{first}");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let again = async || {
            assert!(std::time::Instant::now() < until);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            store.write(&rows).await
        };
        while !again().await.unwrap_err().to_string().contains("create its directory") {}
        std::fs::create_dir(&folder).unwrap();
        while again().await.is_err() {}
        assert_eq!(store.count().await.unwrap(), 1);
    }
}
