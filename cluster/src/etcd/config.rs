//! Dynamic configuration: names and texts that all processes follow while they run.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::mirror::{self, Entries};
use super::{Etcd, EtcdError};

impl Etcd {
    /// Follows all dynamic settings; the receiver holds those known now. While etcd is away the last known
    /// ones stay. Ends when all receivers are dropped.
    ///
    /// # Errors
    /// [`EtcdError::Unavailable`] when etcd does not answer.
    pub async fn watch_config(
        &self,
    ) -> Result<watch::Receiver<BTreeMap<String, String>>, EtcdError> {
        let view = |entries: &Entries| {
            entries.iter().map(|(name, entry)| (name.clone(), entry.value.clone())).collect()
        };
        Ok(mirror::start(self, self.shared.names.configs(), view).await?.value)
    }

    /// Sets a dynamic setting; its name may have several parts, such as `drain/gateway-1`.
    ///
    /// # Errors
    /// [`EtcdError::Unavailable`] when etcd does not answer, [`EtcdError::Invalid`] for a name that cannot be.
    pub async fn put_config(&self, name: &str, value: &str) -> Result<(), EtcdError> {
        let (key, value) = (self.shared.names.config(name)?, value.to_owned());
        let put = self.shared.pool.call("setting a dynamic setting", |mut client| async move {
            client.put(key, value, None).await
        });
        put.await.map(drop)
    }

    /// Removes a dynamic setting; whether there was one.
    ///
    /// # Errors
    /// As [`Etcd::put_config`].
    pub async fn remove_config(&self, name: &str) -> Result<bool, EtcdError> {
        let key = self.shared.names.config(name)?;
        let delete = self.shared.pool.call("removing a dynamic setting", |mut client| async move {
            client.delete(key, None).await
        });
        Ok(delete.await?.deleted() > 0)
    }
}
