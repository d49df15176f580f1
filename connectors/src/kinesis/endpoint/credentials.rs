//! Who asks an endpoint: the providers of `aws.credentials.provider`.
//!
//! AUTO asks in the order of the AWS tools: environment, web identity, profile, container, instance. Tokens, containers
//! and instances are `object_store`'s providers, which the tree has for checkpoints on S3.

use super::super::options::endpoint::{CredentialsOptions, ProfileOptions};
use super::profile::{self, Keys};
use aws_credential_types::Credentials as Keyring;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_sdk_kinesis::config::ProvideCredentials;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tidemill_engine::time::TimeSource;

/// Keys are asked for again after this: files are rotated, and a role's keys are good for at least as long.
const KEPT: Duration = Duration::from_secs(240);

/// What the environment says of providers that have to be asked.
const REMOTE: [(&str, AmazonS3ConfigKey); 8] = [
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ),
    (
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
    ),
    ("AWS_METADATA_ENDPOINT", AmazonS3ConfigKey::MetadataEndpoint),
];

/// Finds credentials.
pub(super) struct Credentials {
    options: CredentialsOptions,
    region: String,
    time: Arc<dyn TimeSource>,
    remote: Mutex<Option<AwsCredentialProvider>>,
}

impl Credentials {
    pub(super) fn new(options: CredentialsOptions, region: &str, time: Arc<dyn TimeSource>) -> Self {
        Self {
            options,
            region: region.to_owned(),
            time,
            remote: Mutex::new(None),
        }
    }

    async fn find(&self) -> Result<Keyring, CredentialsError> {
        match &self.options {
            CredentialsOptions::Basic {
                access_key_id,
                secret_key,
            } => Ok(self.keyring(access_key_id, secret_key.expose(), None, "BASIC")),
            CredentialsOptions::Environment => self.of_environment().ok_or_else(|| {
                missing("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set in the job's environment")
            }),
            CredentialsOptions::Profile(options) => self
                .of_profile(options)?
                .ok_or_else(|| missing(&format!("there is no {}", profile::describe(options)))),
            CredentialsOptions::WebIdentity { .. } => self.of_remote("WEB_IDENTITY_TOKEN").await,
            CredentialsOptions::Auto { profile } => {
                if let Some(found) = self.of_environment() {
                    return Ok(found);
                }
                let has_token = is_set("AWS_WEB_IDENTITY_TOKEN_FILE") && is_set("AWS_ROLE_ARN");
                if !has_token && let Some(found) = self.of_profile(profile)? {
                    return Ok(found);
                }
                let has_container =
                    is_set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") || is_set("AWS_CONTAINER_CREDENTIALS_FULL_URI");
                let is_disabled =
                    std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|text| text.eq_ignore_ascii_case("true"));
                if !has_token && !has_container && is_disabled {
                    return Err(missing(
                        "no credentials were found in the environment or the profile, and the instance may not be asked",
                    ));
                }
                self.of_remote("AUTO").await
            }
        }
    }

    fn keyring(&self, id: &str, secret: &str, token: Option<String>, provider: &'static str) -> Keyring {
        let now_ms = u64::try_from(self.time.wall_ms()).unwrap_or(0);
        let expires = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms) + KEPT;
        Keyring::new(id, secret, token, Some(expires), provider)
    }

    fn of_environment(&self) -> Option<Keyring> {
        let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let (id, secret) = (set("AWS_ACCESS_KEY_ID")?, set("AWS_SECRET_ACCESS_KEY")?);
        Some(self.keyring(&id, &secret, set("AWS_SESSION_TOKEN"), "ENV_VAR"))
    }

    fn of_profile(&self, options: &ProfileOptions) -> Result<Option<Keyring>, CredentialsError> {
        let keys = profile::keys(options).map_err(CredentialsError::invalid_configuration)?;
        let keyring = |keys: Keys| self.keyring(&keys.access_key_id, &keys.secret_key, keys.session_token, "PROFILE");
        Ok(keys.map(keyring))
    }

    async fn of_remote(&self, provider: &'static str) -> Result<Keyring, CredentialsError> {
        if is_set("AWS_CONTAINER_CREDENTIALS_FULL_URI") && !is_set("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            return Err(missing(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI is supported together with AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE only",
            ));
        }
        let remote = self.remote()?;
        let found = remote.get_credential().await.map_err(|error| {
            let message = format!(
                "no credentials were found in the environment or the profile, and asking for some failed: {error}"
            );
            CredentialsError::provider_error(message)
        })?;
        Ok(self.keyring(&found.key_id, &found.secret_key, found.token.clone(), provider))
    }

    /// Returns the provider for tokens, containers and instances, which keeps what it has got while it is good.
    fn remote(&self) -> Result<AwsCredentialProvider, CredentialsError> {
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remote) = &*remote {
            return Ok(Arc::clone(remote));
        }
        // The tree's one crypto provider; it may be installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name("credentials")
            .with_region(&self.region);
        // Not all that the environment has: keys were looked for before, and an empty one would count as set.
        for (name, key) in REMOTE {
            if let Ok(value) = std::env::var(name)
                && !value.is_empty()
            {
                builder = builder.with_config(key, value);
            }
        }
        if let CredentialsOptions::WebIdentity {
            role_arn,
            session_name,
            token_file,
        } = &self.options
        {
            let own = [
                (AmazonS3ConfigKey::RoleArn, role_arn),
                (AmazonS3ConfigKey::RoleSessionName, session_name),
                (AmazonS3ConfigKey::WebIdentityTokenFile, token_file),
            ];
            for (key, value) in own {
                if let Some(value) = value {
                    builder = builder.with_config(key, value);
                }
            }
            let needed = [AmazonS3ConfigKey::RoleArn, AmazonS3ConfigKey::WebIdentityTokenFile];
            if needed.iter().any(|key| builder.get_config_value(key).is_none()) {
                return Err(missing(
                    "WEB_IDENTITY_TOKEN needs 'aws.credentials.role.arn' and 'aws.credentials.webIdentityToken.file', or \
                     AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE",
                ));
            }
        }
        let store = builder
            .build()
            .map_err(|error| CredentialsError::invalid_configuration(error.to_string()))?;
        let provider = Arc::clone(store.credentials());
        *remote = Some(Arc::clone(&provider));
        Ok(provider)
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn missing(message: &str) -> CredentialsError {
    CredentialsError::not_loaded(message.to_owned())
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl ProvideCredentials for Credentials {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::new(self.find())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_engine::time::SystemTime as Clock;

    #[test]
    fn a_web_identity_needs_its_role_and_its_token() {
        let error = find(CredentialsOptions::WebIdentity {
            role_arn: Some("arn:aws:iam::000000000000:role/reader".to_owned()),
            session_name: None,
            token_file: None,
        })
        .unwrap_err();
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.contains("webIdentityToken.file"), "{text}");
    }

    fn find(options: CredentialsOptions) -> Result<Keyring, CredentialsError> {
        let credentials = Credentials::new(options, "eu-west-1", Arc::new(Clock::default()));
        crate::conformance::runtime().block_on(credentials.find())
    }

    #[test]
    fn a_profile_is_asked_for_its_keys() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        std::fs::write(
            &path,
            "[default]\naws_access_key_id = A\naws_secret_access_key = hush\n[ours]\naws_access_key_id=B\n\
             aws_secret_access_key=psst\naws_session_token=t\n",
        )
        .unwrap();
        let options = |name: &str| {
            CredentialsOptions::Profile(ProfileOptions {
                path: Some(path.to_string_lossy().into_owned()),
                name: Some(name.to_owned()),
            })
        };
        let found = find(options("ours")).unwrap();
        assert_eq!(
            (found.access_key_id(), found.secret_access_key(), found.session_token()),
            ("B", "psst", Some("t"))
        );
        assert!(found.expiry().is_some());
        let missing = find(options("nobody")).unwrap_err();
        let text = std::error::Error::source(&missing).unwrap().to_string();
        assert!(text.contains("profile nobody"), "{text}");
    }
}
