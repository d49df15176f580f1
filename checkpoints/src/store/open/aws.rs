//! S3, and what speaks its protocol.

use super::credentials::OfMachine;
use super::environment::Environment;
use super::{Client, Opened, prefix};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use url::Url;

/// Variables that say where credentials come from.
const CREDENTIALS: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
];

const HINT: &str =
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, and asking this machine for a role's keys failed";

pub(super) fn open(url: &Url, environment: &Environment, client: Client) -> Result<Opened, String> {
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client.options)
        .with_retry(client.retry);
    for (name, value) in environment.beginning("AWS_") {
        // Variables of other AWS tools are not ours to refuse.
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    check_pairs(environment)?;
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
    let endpoint = endpoint.iter().find_map(|key| builder.get_config_value(key));
    if let Some(endpoint) = endpoint.as_ref().filter(|endpoint| endpoint.starts_with("http://"))
        && !environment.says_yes("AWS_ALLOW_HTTP")
    {
        return Err(format!(
            "the endpoint {endpoint} is not encrypted; set AWS_ALLOW_HTTP=true if that is meant"
        ));
    }
    let conditional = builder.get_config_value(&AmazonS3ConfigKey::ConditionalPut);
    if conditional.is_some_and(|value| value.trim() == "disabled") {
        return Err(
            "AWS_CONDITIONAL_PUT=disabled takes away create-if-absent, which nothing works without; unset it"
                .to_owned(),
        );
    }
    let path = match url.scheme() {
        "https" => {
            if endpoint.is_some() {
                return Err(
                    "the URL names a server, and so does AWS_ENDPOINT_URL; write s3://bucket/prefix".to_owned(),
                );
            }
            let (bucket, path) = bucket_of_host(url)?;
            builder = builder.with_url(format!("https://{}/{bucket}", url.host_str().unwrap_or_default()));
            path
        }
        _ => {
            let bucket = url.host_str().filter(|host| !host.is_empty());
            builder = builder.with_bucket_name(bucket.ok_or("it names no bucket; write s3://bucket/prefix")?);
            url.path()
        }
    };
    let build = |builder: AmazonS3Builder| {
        let built = builder.build();
        built.map_err(|error| format!("{error}; check the AWS_* variables"))
    };
    let mut s3 = build(builder.clone())?;
    if environment.first(&CREDENTIALS).is_none() {
        s3 = build(builder.with_credentials(OfMachine::new(s3.credentials(), HINT)))?;
    }
    Ok(Opened::new(s3, prefix(path)?))
}

/// Refuses variables of which only a part is set, and those that would be passed over.
fn check_pairs(environment: &Environment) -> Result<(), String> {
    for (set, missing) in [
        ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        ),
    ] {
        if environment.get(set).is_some() && environment.get(missing).is_none() {
            return Err(format!("{set} is set and {missing} is not; set both"));
        }
    }
    let has_role = environment.get("AWS_ROLE_ARN").is_some();
    if environment.first(&CREDENTIALS) == Some("AWS_WEB_IDENTITY_TOKEN_FILE") && !has_role {
        return Err("AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not; set both".to_owned());
    }
    if environment.first(&CREDENTIALS).is_none()
        && let Some(name) = environment.first(&["AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"])
    {
        return Err(format!(
            "{name} is set, but profiles are not read here; put the keys into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for \
             example with `aws configure export-credentials`"
        ));
    }
    Ok(())
}

/// Where the host is the service's the bucket begins the path; else it begins the host.
fn bucket_of_host(url: &Url) -> Result<(&str, &str), String> {
    let host = url.host_str().unwrap_or_default();
    let path = url.path().trim_start_matches('/');
    if !host.starts_with("s3.") && !host.ends_with(".r2.cloudflarestorage.com") {
        return Ok(("", path));
    }
    let (bucket, path) = path.split_once('/').unwrap_or((path, ""));
    if bucket.is_empty() {
        return Err(format!("it names no bucket; write https://{host}/bucket/prefix"));
    }
    Ok((bucket, path))
}
