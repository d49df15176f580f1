//! Says what to do where a machine that is asked for credentials has none.

use async_trait::async_trait;
use object_store::CredentialProvider;
use std::fmt::Debug;
use std::sync::Arc;

/// A provider that asks the machine, for want of variables, and says so when that fails.
#[derive(Debug)]
pub(super) struct OfMachine<C: Debug> {
    inner: Arc<dyn CredentialProvider<Credential = C>>,
    hint: &'static str,
}

impl<C: Debug> OfMachine<C> {
    pub(super) fn new(inner: &Arc<dyn CredentialProvider<Credential = C>>, hint: &'static str) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            hint,
        })
    }
}

#[async_trait]
impl<C: Debug + Send + Sync> CredentialProvider for OfMachine<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        let found = self.inner.get_credential().await;
        found.map_err(|error| object_store::Error::Generic {
            store: "credentials",
            source: format!("{}: {error}", self.hint).into(),
        })
    }
}
