//! An object store in memory with faults that a test sets.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::{Arc, Mutex};

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing happens and the request fails, as with a 503.
    Fail,
    /// A write happens, and its answer is lost.
    ApplyThenFail,
    /// A write does not happen, and is answered as if the object existed.
    ClaimExists,
}

/// Decides the fault of a request from its operation (`put`, `get`, `list` or `delete`) and the object's name.
type Rule = Box<dyn FnMut(&str, &str) -> Option<Fault> + Send>;

/// The store. Clones are the same store.
#[derive(Clone, Default)]
pub(crate) struct Faulty {
    pub(crate) inner: Arc<InMemory>,
    rule: Arc<Mutex<Option<Rule>>>,
    /// Names that a listing does not show, by a part of them.
    hidden: Arc<Mutex<Vec<String>>>,
    /// Names that a listing shows though they do not exist.
    ghosts: Arc<Mutex<Vec<String>>>,
}

impl Faulty {
    /// Returns a store of the same objects without the faults.
    pub(crate) fn without_faults(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            ..Self::default()
        }
    }

    /// Sets what goes wrong from now on.
    pub(crate) fn set(&self, rule: impl FnMut(&str, &str) -> Option<Fault> + Send + 'static) {
        *self.rule.lock().unwrap() = Some(Box::new(rule));
    }

    /// Makes the next `times` requests of this operation on names that contain `part` go wrong.
    pub(crate) fn set_next(&self, mut times: u32, operation: &'static str, part: &'static str, fault: Fault) {
        self.set(move |found, name| {
            let hit = times > 0 && found == operation && name.contains(part);
            times -= u32::from(hit);
            hit.then_some(fault)
        });
    }

    /// Takes all faults back.
    pub(crate) fn heal(&self) {
        *self.rule.lock().unwrap() = None;
    }

    /// Hides names from listings.
    pub(crate) fn hide(&self, part: &str) {
        self.hidden.lock().unwrap().push(part.to_owned());
    }

    /// Shows a name in listings.
    pub(crate) fn show_ghost(&self, name: &str) {
        self.ghosts.lock().unwrap().push(name.to_owned());
    }

    fn fault(&self, operation: &str, name: &str) -> Option<Fault> {
        self.rule
            .lock()
            .unwrap()
            .as_mut()
            .and_then(|rule| rule(operation, name))
    }
}

fn failed() -> Error {
    Error::Generic {
        store: "faulty",
        source: "503 slow down".into(),
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match self.fault("put", location.as_ref()) {
            None => self.inner.put_opts(location, payload, options).await,
            Some(Fault::Fail) => Err(failed()),
            Some(Fault::ApplyThenFail) => {
                self.inner.put_opts(location, payload, options).await?;
                Err(failed())
            }
            Some(Fault::ClaimExists) => Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "409".into(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        match self.fault("put", location.as_ref()) {
            None => self.inner.put_multipart_opts(location, options).await,
            Some(_) => Err(failed()),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.fault("get", location.as_ref()) {
            None => self.inner.get_opts(location, options).await,
            Some(_) => Err(failed()),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let checked = locations.map(move |location| {
            let location = location?;
            match store.fault("delete", location.as_ref()) {
                None => Ok(location),
                Some(_) => Err(failed()),
            }
        });
        self.inner.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let shown_prefix = prefix.map(ToString::to_string).unwrap_or_default();
        if self.fault("list", &shown_prefix).is_some() {
            return futures::stream::iter([Err(failed())]).boxed();
        }
        let hidden = self.hidden.lock().unwrap().clone();
        let ghosts = self
            .ghosts
            .lock()
            .unwrap()
            .clone()
            .into_iter()
            .filter(move |name| name.starts_with(&shown_prefix));
        let ghosts = ghosts.map(|name| {
            Ok(ObjectMeta {
                location: Path::from(name),
                last_modified: Default::default(),
                size: 1,
                e_tag: None,
                version: None,
            })
        });
        let listed = self.inner.list(prefix).filter(move |meta| {
            let shown = meta
                .as_ref()
                .is_ok_and(|meta| !hidden.iter().any(|part| meta.location.as_ref().contains(part)));
            std::future::ready(shown)
        });
        listed.chain(futures::stream::iter(ghosts)).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        unreachable!("the protocol does not use it")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unreachable!("the protocol does not use it")
    }
}
