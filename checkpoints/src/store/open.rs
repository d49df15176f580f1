//! Opens a snapshot store by its URL.

use super::local;
use super::retry::Retry;
use crate::limits::{REMOTE_RETRY_TIMEOUT, REMOTE_TRIES, STORE_TRIES};
use crate::{Error, Result, SnapshotStore};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Once, PoisonError};
use url::Url;

impl SnapshotStore {
    /// Opens a store by its URL, with the process's environment variables:
    ///
    /// * `file:///path`: a directory on this machine, created if it is not there. Every object is synced to disk.
    /// * `s3://bucket/prefix`: S3 or what speaks its protocol, with the usual variables: `AWS_ACCESS_KEY_ID`,
    ///   `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP` (needed for an `http://`
    ///   endpoint), and the others of [`AmazonS3ConfigKey`]. The store must support `If-None-Match: *`.
    /// * `memory://name`: the store of that name in this process; for tests. It ends with the process.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] says what is wrong with the URL. An S3 store is not contacted.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_with_env(
            url,
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// Opens a store as [`SnapshotStore::open`] does, with these environment variables.
    ///
    /// # Errors
    /// As [`SnapshotStore::open`].
    pub fn open_with_env(text: &str, env: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let url = Url::parse(text).map_err(|error| invalid(text, format!("{error}; {FORMS}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            let mut shown = url.clone();
            let _ = shown.set_username("");
            let _ = shown.set_password(None);
            return Err(invalid(
                shown.as_str(),
                "credentials do not belong into the URL; use the AWS_* variables".to_owned(),
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid(
                text,
                "it has options after ? or #, and there are none".to_owned(),
            ));
        }
        match url.scheme() {
            "file" => open_directory(text, &url),
            "s3" => open_s3(text, &url, env),
            "memory" => open_memory(text, &url),
            other => Err(invalid(text, format!("there is no store for {other}://; {FORMS}"))),
        }
    }
}

const FORMS: &str = "write file:///path or s3://bucket/prefix";

fn invalid(url: &str, reason: String) -> Error {
    Error::InvalidUrl {
        url: url.to_owned(),
        reason,
    }
}

fn open_directory(text: &str, url: &Url) -> Result<SnapshotStore> {
    let directory = match url.to_file_path() {
        Ok(path) if url.host_str().is_none() && text.starts_with("file:///") => path,
        _ => {
            return Err(invalid(
                text,
                "a directory is named by an absolute path, with three slashes: file:///path".to_owned(),
            ));
        }
    };
    let objects = local::open(&directory).map_err(|error| {
        invalid(
            text,
            format!("the directory {} cannot be used: {error}", directory.display()),
        )
    })?;
    Ok(SnapshotStore {
        objects: Arc::new(objects),
        retry: Retry::with_backoff(STORE_TRIES),
        directory: Some(directory),
    })
}

fn open_s3(text: &str, url: &Url, env: impl IntoIterator<Item = (String, String)>) -> Result<SnapshotStore> {
    let bucket = url.host_str().filter(|host| !host.is_empty());
    let bucket = bucket.ok_or_else(|| invalid(text, "it names no bucket; write s3://bucket/prefix".to_owned()))?;
    if url.port().is_some() {
        return Err(invalid(
            text,
            "it has a port; the server is named by AWS_ENDPOINT_URL".to_owned(),
        ));
    }
    let prefix = Path::from_url_path(url.path()).map_err(|error| invalid(text, error.to_string()))?;

    install_crypto_provider();
    let mut builder = AmazonS3Builder::new();
    for (key, value) in env {
        // Variables of other AWS tools are not ours to refuse.
        if key.starts_with("AWS_")
            && let Ok(key) = key.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()
        {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let endpoint = endpoint.iter().find_map(|key| builder.get_config_value(key));
    let allow_http = builder.get_config_value(&AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp));
    if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.starts_with("http://"))
        && allow_http.as_deref() != Some("true")
    {
        let reason = format!("the endpoint {endpoint} is not encrypted; set AWS_ALLOW_HTTP=true if that is meant");
        return Err(invalid(text, reason));
    }
    let retry = RetryConfig {
        max_retries: 5,
        retry_timeout: REMOTE_RETRY_TIMEOUT,
        ..RetryConfig::default()
    };
    let s3 = builder
        .with_bucket_name(bucket)
        .with_retry(retry)
        .build()
        .map_err(|error| invalid(text, format!("{error}; check the AWS_* variables")))?;
    let objects: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
        Arc::new(s3)
    } else {
        Arc::new(PrefixStore::new(s3, prefix))
    };
    Ok(SnapshotStore {
        objects,
        retry: Retry::with_backoff(REMOTE_TRIES),
        directory: None,
    })
}

/// The HTTP client is built without a TLS provider of its own. Another part of the process may have installed one: that is fine.
fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn open_memory(text: &str, url: &Url) -> Result<SnapshotStore> {
    static STORES: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
    let name = url.host_str().unwrap_or_default();
    if name.is_empty() || !matches!(url.path(), "" | "/") {
        return Err(invalid(
            text,
            "a store in memory has a name and no path: memory://name".to_owned(),
        ));
    }
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let objects = Arc::clone(stores.entry(name.to_owned()).or_default());
    Ok(SnapshotStore {
        objects,
        retry: Retry::immediate(),
        directory: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::store::Creation;

    fn open(url: &str, env: &[(&str, &str)]) -> Result<SnapshotStore> {
        SnapshotStore::open_with_env(url, env.iter().map(|(key, value)| (key.to_string(), value.to_string())))
    }

    #[test]
    fn a_wrong_url_is_told_what_is_wrong() {
        for (url, told) in [
            ("", "write file:///path"),
            ("/data", "write file:///path"),
            ("gs://bucket", "no store for gs://"),
            ("file://data/x", "three slashes"),
            ("file:data/x", "three slashes"),
            ("file:///proc/none", "cannot be used"),
            ("s3://", "no bucket"),
            ("s3://bucket:9000/x", "AWS_ENDPOINT_URL"),
            ("s3://me:secret@bucket", "AWS_* variables"),
            ("s3://bucket?x=y", "options"),
            ("memory://", "memory://name"),
            ("memory://a/b", "memory://name"),
        ] {
            let error = open(url, &[]).unwrap_err();
            assert!(error.to_string().contains(told), "{url}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            assert_eq!(error.kind(), ErrorKind::User);
        }
    }

    #[test]
    fn s3_takes_the_usual_variables() {
        let http = [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_PROFILE", "x"),
        ];
        let error = open("s3://bucket/a/b", &http).unwrap_err();
        assert!(error.to_string().contains("AWS_ALLOW_HTTP"), "{error}");
        let store = open("s3://bucket/a/b", &[&http[..], &[("AWS_ALLOW_HTTP", "true")]].concat()).unwrap();
        assert!(format!("{store:?}").contains("a/b"), "{store:?}");
        let error = open("s3://bucket", &[("AWS_ALLOW_HTTP", "perhaps")]).unwrap_err();
        assert!(error.to_string().contains("AWS_* variables"), "{error}");
    }

    #[tokio::test]
    async fn a_memory_store_is_the_same_under_the_same_name() {
        let [a, again, b] = ["one", "one", "two"].map(|name| open(&format!("memory://test-{name}"), &[]).unwrap());
        assert_eq!(a.create("x", "1".into()).await.unwrap(), Creation::Created);
        assert_eq!(again.get("x").await.unwrap().unwrap(), "1");
        assert_eq!(b.get("x").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_directory_is_created_with_everything_above_it() {
        let temp = tempfile::tempdir().unwrap();
        let url = format!("file://{}/a b/c", temp.path().display()).replace(' ', "%20");
        let store = open(&url, &[]).unwrap();
        store.create("j/gen/1.json", "1".into()).await.unwrap();
        let read = tokio::task::spawn_blocking(move || std::fs::read(temp.path().join("a b/c/j/gen/1.json")))
            .await
            .unwrap();
        assert_eq!(read.unwrap(), b"1");
    }
}
