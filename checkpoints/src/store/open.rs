//! Opens an object store by its URL: the one place for checkpoints and for the tier of the shard store.
//!
//! | file | URLs |
//! |---|---|
//! | `open.rs` | which store a URL means; `file://`, `memory://`; what is refused |
//! | `open/aws.rs` | `s3://` and its other spellings |
//! | `open/google.rs` | `gs://` |
//! | `open/azure.rs` | `az://` and its other spellings |
//! | `open/environment.rs` | the variables that credentials come from, and that no secret gets into a message |
//! | `open/credentials.rs` | what is told when a machine has no credentials |
//!
//! No cloud is contacted here. What a store cannot do although the protocol needs it is refused here, not at the first checkpoint:
//! create-if-absent is `If-None-Match: *` for S3 and Azure and `x-goog-if-generation-match: 0` for Google; WebDAV has none.

mod aws;
mod azure;
mod credentials;
mod environment;
mod google;

use super::local;
use super::retry::Retry;
use crate::limits::{REMOTE_REQUEST_TIME_MAX, REMOTE_RETRY_TIMEOUT, REMOTE_TRIES, STORE_TRIES};
use crate::{Error, Result, SnapshotStore};
use environment::Environment;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;
use url::Url;

/// How a store is opened.
#[derive(Clone)]
pub struct OpenOptions {
    /// Environment variables, by name. Empty ones count as not set.
    pub environment: BTreeMap<String, String>,
    /// How long one request to a cloud may take with its upload or download, unless `AWS_TIMEOUT`, `GOOGLE_TIMEOUT` or
    /// `AZURE_TIMEOUT` says otherwise.
    pub request_time_max: Duration,
}

impl OpenOptions {
    /// The process's own environment variables, and the time for requests that snapshots are made for.
    pub fn from_process() -> Self {
        let variables = std::env::vars_os();
        Self {
            environment: variables
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            request_time_max: REMOTE_REQUEST_TIME_MAX,
        }
    }
}

impl std::fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secret.
        f.debug_struct("OpenOptions")
            .field("environment", &self.environment.keys())
            .field("request_time_max", &self.request_time_max)
            .finish()
    }
}

impl SnapshotStore {
    /// Opens a store by its URL, with the process's environment variables:
    ///
    /// * `file:///path`: a directory on this machine, created if it is not there. Every object is synced to disk.
    /// * `s3://bucket/prefix` (also `s3a://`, and `https://` with a host of S3 or R2): S3 or what speaks its protocol, with
    ///   the usual variables: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`,
    ///   `AWS_ALLOW_HTTP` (needed for an `http://` endpoint), and the others of [`object_store::aws::AmazonS3ConfigKey`]. The
    ///   store must support `If-None-Match: *`.
    /// * `gs://bucket/prefix`: Google Cloud Storage, with `GOOGLE_APPLICATION_CREDENTIALS`, `GOOGLE_SERVICE_ACCOUNT` and the others
    ///   of [`object_store::gcp::GoogleConfigKey`].
    /// * `az://container/prefix` (also `azure://`, `adl://`, `abfs://`, `abfss://`, `container@account.…` in them, and `https://` with
    ///   a host of Azure or Fabric): Azure Blob Storage, with `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT_KEY` and the
    ///   others of [`object_store::azure::AzureConfigKey`].
    /// * `memory://name`: the store of that name in this process; for tests. It ends with the process.
    ///
    /// Where no variable names credentials, the machine's own are asked for, which clouds give to what runs in them.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] says what is wrong with the URL or the variables. A cloud is not contacted.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_with(url, OpenOptions::from_process())
    }

    /// Opens a store as [`SnapshotStore::open`] does, with these options.
    ///
    /// # Errors
    /// As [`SnapshotStore::open`].
    pub fn open_with(text: &str, options: OpenOptions) -> Result<Self> {
        let text = text.trim();
        let url = Url::parse(text).map_err(|error| Error::InvalidUrl {
            url: environment::without_credentials(text),
            reason: format!("{error}; {FORMS}"),
        })?;
        let invalid = |reason: String| Error::InvalidUrl {
            url: environment::without_credentials(text),
            reason,
        };
        let scheme = scheme(&url).map_err(invalid)?;
        // In the URLs of one cloud the container stands where others have a user.
        if url.password().is_some() || !url.username().is_empty() && scheme != Scheme::Azure {
            return Err(invalid(format!(
                "credentials do not belong into the URL; use {}",
                scheme.variables()
            )));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid(format!(
                "it has options after ? or #, and there are none; keys and tokens belong into {}",
                scheme.variables()
            )));
        }
        if url.port().is_some() {
            return Err(invalid(match scheme.endpoint() {
                Some(variable) => format!("it has a port; a server of your own is named by {variable}"),
                None => format!("it has a port; {FORMS}"),
            }));
        }
        let environment = Environment::new(options.environment);
        let cloud = |open: fn(&Url, &Environment, Client) -> Result<Opened, String>| {
            install_crypto_provider();
            let opened = open(&url, &environment, Client::new(options.request_time_max));
            let opened = opened.map_err(|reason| invalid(environment.without_secrets(reason)))?;
            Ok(SnapshotStore {
                objects: opened.objects,
                retry: Retry::with_backoff(REMOTE_TRIES),
                directory: None,
                is_cloud: true,
            })
        };
        match scheme {
            Scheme::File => open_directory(text, &url).map_err(invalid),
            Scheme::Memory => open_memory(&url).map_err(invalid),
            Scheme::Aws => cloud(aws::open),
            Scheme::Google => cloud(google::open),
            Scheme::Azure => cloud(azure::open),
        }
    }
}

const FORMS: &str = "write file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";

/// What kind of store a URL means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    File,
    Memory,
    Aws,
    Google,
    Azure,
}

impl Scheme {
    /// Where credentials belong.
    fn variables(self) -> &'static str {
        match self {
            Scheme::File | Scheme::Memory => "no credentials at all",
            Scheme::Aws => "the AWS_* variables",
            Scheme::Google => "the GOOGLE_* variables",
            Scheme::Azure => "the AZURE_* variables",
        }
    }

    /// The variable that names a server other than the cloud's.
    fn endpoint(self) -> Option<&'static str> {
        match self {
            Scheme::File | Scheme::Memory => None,
            Scheme::Aws => Some("AWS_ENDPOINT_URL"),
            Scheme::Google => Some("GOOGLE_BASE_URL"),
            Scheme::Azure => Some("AZURE_STORAGE_ENDPOINT"),
        }
    }
}

fn scheme(url: &Url) -> Result<Scheme, String> {
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "file" => Ok(Scheme::File),
        "memory" => Ok(Scheme::Memory),
        "s3" | "s3a" => Ok(Scheme::Aws),
        "gs" => Ok(Scheme::Google),
        "az" | "azure" | "adl" | "abfs" | "abfss" => Ok(Scheme::Azure),
        "https" if host.ends_with(".amazonaws.com") || host.ends_with(".r2.cloudflarestorage.com") => Ok(Scheme::Aws),
        "https" if host.ends_with(".core.windows.net") || host.ends_with(".fabric.microsoft.com") => Ok(Scheme::Azure),
        // What such a server is told with PUT replaces what is there: two owners of a job would not notice each other.
        "http" | "https" => Err(format!(
            "{host} is not known as a cloud's store, and a WebDAV server cannot create an object only if it is not there, which \
             checkpoints and tiers rely on; {FORMS}, where a variable names a server of your own (AWS_ENDPOINT_URL for S3)"
        )),
        other => Err(format!("there is no store for {other}://; {FORMS}")),
    }
}

/// A cloud's store, before a prefix is put before its names.
struct Opened {
    objects: Arc<dyn ObjectStore>,
}

impl Opened {
    fn new(objects: impl ObjectStore, prefix: Path) -> Self {
        let objects: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
            Arc::new(objects)
        } else {
            Arc::new(PrefixStore::new(objects, prefix))
        };
        Self { objects }
    }
}

/// What the clients of all clouds have in common.
struct Client {
    options: ClientOptions,
    retry: RetryConfig,
}

impl Client {
    fn new(request_time_max: Duration) -> Self {
        Self {
            options: ClientOptions::new().with_timeout(request_time_max),
            retry: RetryConfig {
                max_retries: 5,
                retry_timeout: REMOTE_RETRY_TIMEOUT,
                ..RetryConfig::default()
            },
        }
    }
}

/// The prefix that a path of a URL names.
fn prefix(path: &str) -> Result<Path, String> {
    Path::from_url_path(path).map_err(|error| format!("its path cannot be a prefix: {error}"))
}

fn open_directory(text: &str, url: &Url) -> Result<SnapshotStore, String> {
    let directory = match url.to_file_path() {
        Ok(path)
            if url.host_str().is_none()
                && text
                    .get(..8)
                    .is_some_and(|start| start.eq_ignore_ascii_case("file:///")) =>
        {
            path
        }
        _ => return Err("a directory is named by an absolute path, with three slashes: file:///path".to_owned()),
    };
    let objects = local::open(&directory)
        .map_err(|error| format!("the directory {} cannot be used: {error}", directory.display()))?;
    Ok(SnapshotStore {
        objects: Arc::new(objects),
        retry: Retry::with_backoff(STORE_TRIES),
        directory: Some(directory),
        is_cloud: false,
    })
}

/// The HTTP client is built without a TLS provider of its own. Another part of the process may have installed one: that is fine.
fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn open_memory(url: &Url) -> Result<SnapshotStore, String> {
    static STORES: Mutex<BTreeMap<String, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
    let name = url.host_str().unwrap_or_default();
    if name.is_empty() || !matches!(url.path(), "" | "/") {
        return Err("a store in memory has a name and no path: memory://name".to_owned());
    }
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let objects = Arc::clone(stores.entry(name.to_owned()).or_default());
    Ok(SnapshotStore {
        objects,
        retry: Retry::immediate(),
        directory: None,
        is_cloud: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::store::Creation;

    fn open(url: &str, env: &[(&str, &str)]) -> Result<SnapshotStore> {
        let environment = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let options = OpenOptions {
            environment: environment.collect(),
            request_time_max: Duration::from_secs(30),
        };
        SnapshotStore::open_with(url, options)
    }

    /// Asserts that opening says what is wrong, and nothing secret.
    fn refused(url: &str, env: &[(&str, &str)], told: &str) {
        let error = open(url, env).err().unwrap_or_else(|| panic!("{url} is opened"));
        assert!(error.to_string().contains(told), "{url}: {error}");
        assert!(!error.to_string().contains("hush"), "{error}");
        assert_eq!(error.kind(), ErrorKind::User);
    }

    #[test]
    fn a_wrong_url_is_told_what_is_wrong() {
        for (url, told) in [
            ("", "write file:///path"),
            ("/data", "write file:///path"),
            ("ftp://host/x", "no store for ftp://"),
            ("file://data/x", "three slashes"),
            ("file:data/x", "three slashes"),
            ("file:///proc/none", "cannot be used"),
            ("s3://", "no bucket"),
            ("s3://bucket:9000/x", "AWS_ENDPOINT_URL"),
            ("s3://me:hush@bucket", "AWS_* variables"),
            ("s3://hush@bucket", "AWS_* variables"),
            ("s3://bucket?x=hush", "options"),
            ("s3://bucket/a//b", "cannot be a prefix"),
            ("https://s3.eu-west-1.amazonaws.com/", "no bucket"),
            ("https://dynamodb.eu-west-1.amazonaws.com/x", "did not match"),
            ("gs://", "no bucket"),
            ("gs://hush@bucket/x", "GOOGLE_* variables"),
            ("gs://bucket:80/x", "GOOGLE_BASE_URL"),
            ("az://", "no container"),
            ("az://container/x", "AZURE_STORAGE_ACCOUNT_NAME"),
            ("az://container:80/x", "AZURE_STORAGE_ENDPOINT"),
            ("az://c:hush@account.blob.core.windows.net/x", "AZURE_* variables"),
            ("az://c@account.example.com/x", "AZURE_STORAGE_ENDPOINT"),
            ("az://account.blob.core.windows.net/x", "no container's name"),
            ("adl://c@account/x", "takes no account"),
            ("https://account.blob.core.windows.net/", "no container"),
            (
                "https://account.blob.core.windows.net/c/x?sv=1&sig=hush",
                "AZURE_* variables",
            ),
            ("https://account.queue.core.windows.net/c", "no server of Azure's"),
            ("https://c@account.blob.core.windows.net/x", "into the path"),
            ("https://dav.example.com/x", "WebDAV server cannot create"),
            ("http://127.0.0.1:9000/bucket", "AWS_ENDPOINT_URL"),
            ("memory://", "memory://name"),
            ("memory://a/b", "memory://name"),
            ("https://acc:hush?sig=hush", "invalid port"),
        ] {
            refused(url, &[], told);
        }
    }

    #[test]
    fn variables_that_are_missing_or_contradict_are_named() {
        let id = ("AWS_ACCESS_KEY_ID", "id");
        let account = ("AZURE_STORAGE_ACCOUNT_NAME", "account");
        for (url, env, told) in [
            ("s3://b", &[id][..], "AWS_SECRET_ACCESS_KEY is not; set both"),
            (
                "s3://b",
                &[id, ("AWS_SECRET_ACCESS_KEY", "")],
                "AWS_SECRET_ACCESS_KEY is not; set both",
            ),
            (
                "s3://b",
                &[("AWS_SECRET_ACCESS_KEY", "hush")],
                "AWS_ACCESS_KEY_ID is not; set both",
            ),
            ("s3://b", &[("AWS_WEB_IDENTITY_TOKEN_FILE", "f")], "AWS_ROLE_ARN is not"),
            ("s3://b", &[("AWS_PROFILE", "x")], "profiles are not read"),
            ("s3://b", &[("AWS_CONDITIONAL_PUT", "disabled")], "create-if-absent"),
            ("s3://b", &[("AWS_ALLOW_HTTP", "perhaps")], "AWS_* variables"),
            (
                "s3://b",
                &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")],
                "AWS_ALLOW_HTTP",
            ),
            (
                "https://b.s3.eu-west-1.amazonaws.com/x",
                &[("AWS_ENDPOINT_URL", "https://host")],
                "so does AWS_ENDPOINT_URL",
            ),
            (
                "gs://b",
                &[("GOOGLE_BASE_URL", "http://127.0.0.1:9000")],
                "GOOGLE_ALLOW_HTTP",
            ),
            (
                "gs://b",
                &[("STORAGE_EMULATOR_HOST", "127.0.0.1:9000")],
                "GOOGLE_BASE_URL",
            ),
            (
                "gs://b",
                &[("GOOGLE_APPLICATION_CREDENTIALS", "/none/a.json")],
                "/none/a.json",
            ),
            (
                "gs://b",
                &[("GOOGLE_SERVICE_ACCOUNT_KEY", "\"hush hush\"")],
                "GOOGLE_* variables",
            ),
            (
                "gs://b",
                &[("GOOGLE_SERVICE_ACCOUNT_KEY", "{\"private_key\": 7}")],
                "GOOGLE_* variables",
            ),
            (
                "az://c",
                &[("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=hush")],
                "AccountName and AccountKey",
            ),
            (
                "az://c",
                &[account, ("AZURE_STORAGE_ACCOUNT_KEY", "hush!")],
                "AZURE_* variables",
            ),
            (
                "az://c",
                &[account, ("AZURE_CLIENT_SECRET", "hush")],
                "AZURE_CLIENT_ID is not; set both",
            ),
            (
                "az://c",
                &[account, ("AZURE_CLIENT_ID", "i"), ("AZURE_FEDERATED_TOKEN_FILE", "f")],
                "AZURE_TENANT_ID is not; set both",
            ),
            (
                "az://c",
                &[account, ("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1")],
                "AZURE_ALLOW_HTTP",
            ),
            (
                "abfss://c@account.dfs.core.windows.net/x",
                &[("AZURE_STORAGE_ENDPOINT", "https://host")],
                "so does AZURE_STORAGE_ENDPOINT",
            ),
        ] {
            refused(url, env, told);
        }
    }

    #[test]
    fn every_spelling_of_a_cloud_is_opened_where_it_says() {
        let azure = &[("AZURE_STORAGE_ACCOUNT", "account"), ("AZURE_STORAGE_KEY", "a2V5")][..];
        let key = &azure[1..];
        let aws = &[("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "hush")][..];
        let google = &[("GOOGLE_BEARER_TOKEN", "hush")][..];
        for (url, env, shown) in [
            ("s3://bucket/a/b", aws, "PrefixObjectStore(a/b)"),
            ("S3A://bucket", aws, "AmazonS3(bucket)"),
            ("https://s3.eu-west-1.amazonaws.com/bucket", aws, "AmazonS3(bucket)"),
            (
                "https://s3-b.s3.eu-west-1.amazonaws.com/a/b",
                aws,
                "PrefixObjectStore(a/b)",
            ),
            (
                "https://acc.r2.cloudflarestorage.com/bucket/a/",
                aws,
                "PrefixObjectStore(a)",
            ),
            ("gs://bucket/a%20b/c", google, "PrefixObjectStore(a b/c)"),
            ("gs://my_bucket.x", google, "GoogleCloudStorage(my_bucket.x)"),
            ("az://c", azure, "account: account, container: c"),
            ("azure://c", azure, "account: account, container: c"),
            ("adl://c/", azure, "account: account, container: c"),
            ("abfs://c/a", azure, "PrefixObjectStore(a)"),
            (
                "abfss://c@other.dfs.core.windows.net",
                azure,
                "account: other, container: c",
            ),
            ("az://c@other/", key, "account: other, container: c"),
            (
                "https://other.blob.core.windows.net/c",
                key,
                "account: other, container: c",
            ),
            (
                "https://other.blob.core.windows.net/c/a/b",
                key,
                "PrefixObjectStore(a/b)",
            ),
            (
                "https://onelake.dfs.fabric.microsoft.com/w/i/a",
                key,
                "PrefixObjectStore(i/a)",
            ),
        ] {
            let store = open(url, env).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert!(format!("{store:?}").contains(shown), "{url}: {store:?}");
        }
    }

    #[tokio::test]
    async fn a_machine_without_credentials_is_told_which_variables_name_them() {
        // Nobody answers there.
        let nobody = [("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")];
        let azure = [
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_MSI_ENDPOINT", "http://127.0.0.1:9"),
        ];
        for (url, env, told) in [
            (
                "s3://b",
                &nobody[..],
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set",
            ),
            ("az://c", &azure, "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN"),
        ] {
            let mut store = open(url, env).unwrap();
            store.retry = Retry::immediate();
            let error = store.get("x").await.unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
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
        assert_eq!(store.directory(), Some(temp.path().join("a b/c").as_path()));
        store.create("j/gen/1.json", "1".into()).await.unwrap();
        let read = tokio::task::spawn_blocking(move || std::fs::read(temp.path().join("a b/c/j/gen/1.json")))
            .await
            .unwrap();
        assert_eq!(read.unwrap(), b"1");
    }
}
