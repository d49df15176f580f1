//! Google Cloud Storage.

use super::credentials::OfMachine;
use super::environment::Environment;
use super::{Client, Opened, prefix};
use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use std::sync::Arc;
use url::Url;

/// Variables that say where credentials come from.
const CREDENTIALS: [&str; 6] = [
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_SKIP_SIGNATURE",
];

const HINT: &str = "GOOGLE_APPLICATION_CREDENTIALS is not set, and the file of `gcloud auth application-default login` or this machine's \
                    metadata service gave no token";

pub(super) fn open(url: &Url, environment: &Environment, client: Client) -> Result<Opened, String> {
    let bucket = url.host_str().filter(|host| !host.is_empty());
    let bucket = bucket.ok_or("it names no bucket; write gs://bucket/prefix")?;
    if environment.get("STORAGE_EMULATOR_HOST").is_some() && environment.get("GOOGLE_BASE_URL").is_none() {
        return Err(
            "STORAGE_EMULATOR_HOST is set, but not read here; unset it, or name the emulator with GOOGLE_BASE_URL, \
                    GOOGLE_ALLOW_HTTP=true and GOOGLE_SKIP_SIGNATURE=true"
                .to_owned(),
        );
    }
    // Plain HTTP is what the metadata service speaks.
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_client_options(client.options.with_allow_http(true))
        .with_retry(client.retry);
    for (name, value) in environment.beginning("GOOGLE_") {
        if let Ok(key) = name.parse::<GoogleConfigKey>()
            && name != "google_allow_http"
        {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(base) = builder.get_config_value(&GoogleConfigKey::BaseUrl) {
        if base.starts_with("http://") && !environment.says_yes("GOOGLE_ALLOW_HTTP") {
            return Err(format!(
                "GOOGLE_BASE_URL {base} is not encrypted; set GOOGLE_ALLOW_HTTP=true if that is meant"
            ));
        }
        builder = builder.with_base_url(base.trim_end_matches('/'));
    }
    if environment.says_yes("GOOGLE_SKIP_SIGNATURE") {
        // By itself the client leaves the signature out of reads only; an empty token leaves it out of all requests.
        let nobody = GcpCredential { bearer: String::new() };
        builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
    }
    let builder = builder.with_bucket_name(bucket);
    let build = |builder: GoogleCloudStorageBuilder| {
        let built = builder.build();
        built.map_err(|error| format!("{}; check the GOOGLE_* variables", without_values(&error.to_string())))
    };
    let mut google = build(builder.clone())?;
    if environment.first(&CREDENTIALS).is_none() {
        google = build(builder.with_credentials(OfMachine::new(google.credentials(), HINT)))?;
    }
    Ok(Opened::new(google, prefix(url.path())?))
}

/// A parser's error about a file of credentials may cite what it has found there.
fn without_values(message: &str) -> &str {
    let cut = ["invalid type", "invalid value"]
        .iter()
        .filter_map(|part| message.find(part))
        .min();
    cut.map_or(message, |at| message[..at].trim_end_matches([' ', ':', ',']))
}
