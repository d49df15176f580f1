//! A stream behind an endpoint: `aws.*`, and how it is polled.

use crate::error::ConnectorError;
use crate::options::Options;
use std::fmt;
use std::time::Duration;

const ENDPOINT: &str = "aws.endpoint";
/// The value of `aws.endpoint` for Amazon's own.
const AMAZON: &str = "aws";
/// Flink's default, and the service's limit.
const GET_RECORDS_MAX: i32 = 10_000;
/// Flink's default.
const EMPTY_INTERVAL: Duration = Duration::from_millis(250);
/// A shard answers 5 GetRecords a second. Flink's default is not to wait.
const NONEMPTY_INTERVAL: Duration = Duration::from_millis(200);

/// Where a stream is, and who asks.
#[derive(Clone, Debug)]
pub(in crate::kinesis) struct EndpointOptions {
    /// `None` is Amazon's own for the region.
    pub(in crate::kinesis) url: Option<String>,
    pub(in crate::kinesis) credentials: CredentialsOptions,
    pub(in crate::kinesis) polling: PollingOptions,
}

/// How a shard is polled.
#[derive(Clone, Copy, Debug)]
pub(in crate::kinesis) struct PollingOptions {
    pub(in crate::kinesis) records_max: i32,
    pub(in crate::kinesis) empty_interval: Duration,
    pub(in crate::kinesis) nonempty_interval: Duration,
}

/// Where credentials come from.
#[derive(Clone, Debug)]
pub(in crate::kinesis) enum CredentialsOptions {
    /// The environment, a web identity token, the profile, the container, the instance: the first that has some.
    Auto { profile: ProfileOptions },
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
    Environment,
    /// The shared files.
    Profile(ProfileOptions),
    /// The table's own options.
    Basic { access_key_id: String, secret_key: Secret },
    /// A token that is exchanged for a role.
    WebIdentity {
        role_arn: Option<String>,
        session_name: Option<String>,
        token_file: Option<String>,
    },
}

/// Which profile of which file.
#[derive(Clone, Debug, Default)]
pub(in crate::kinesis) struct ProfileOptions {
    pub(in crate::kinesis) path: Option<String>,
    pub(in crate::kinesis) name: Option<String>,
}

/// A text that is never shown.
#[derive(Clone)]
pub(in crate::kinesis) struct Secret(String);

impl Secret {
    /// Returns the text.
    pub(in crate::kinesis) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// Reads the options; `None` is the embedded store, for which those of a client are refused.
///
/// # Errors
/// When one is not valid or has no effect.
pub(super) fn parse(options: &Options<'_>) -> Result<Option<EndpointOptions>, ConnectorError> {
    for prefix in ["aws.http", "aws.retry", "sink.http-client."] {
        options.refuse_prefix(prefix, "the client's protocol and retries cannot be set; leave it out")?;
    }
    if options
        .boolean("aws.trust.all.certificates", crate::options::Flag::Off)?
        .is_on()
    {
        let message = "certificates are always checked; add yours to the system's store, or SSL_CERT_FILE";
        return Err(ConnectorError::option("aws.trust.all.certificates", message));
    }
    if options.choice("source.reader.type", &[("POLLING", true), ("EFO", false)])? == Some(false) {
        let message =
            "EFO is not supported: the embedded store pushes without it, and an endpoint is polled; leave it out";
        return Err(ConnectorError::option("source.reader.type", message));
    }
    options.refuse_prefix("source.efo.", "enhanced fan-out is not supported; leave it out")?;
    let Some(endpoint) = options.text(ENDPOINT) else {
        for prefix in [
            "aws.credentials.",
            "source.shard.get-records.",
            "source.reader.empty-records",
            "source.reader.nonempty-records",
            "sink.batch.",
            "sink.requests.",
            "sink.flush-buffer.",
            "sink.fail-on-error",
        ] {
            options.refuse_prefix(prefix, super::NO_CLIENT)?;
        }
        return Ok(None);
    };
    let url = if endpoint == AMAZON { None } else { Some(url(endpoint)?) };
    Ok(Some(EndpointOptions {
        url,
        credentials: credentials(options)?,
        polling: polling(options)?,
    }))
}

fn url(text: &str) -> Result<String, ConnectorError> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_url = rest.is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        !host.is_empty() && !host.contains('@') && !text.contains(char::is_whitespace)
    });
    if !is_url {
        let message = format!("'{text}' is not an endpoint");
        return Err(ConnectorError::option(ENDPOINT, message)
            .with_hint("write http://127.0.0.1:4566, https://kinesis.eu-west-1.amazonaws.com, or 'aws' for Amazon's of 'aws.region'"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn polling(options: &Options<'_>) -> Result<PollingOptions, ConnectorError> {
    const COUNT: &str = "source.shard.get-records.max-record-count";
    let records_max = options
        .parsed(COUNT, "a whole number such as 1000")?
        .unwrap_or(GET_RECORDS_MAX);
    if !(1..=GET_RECORDS_MAX).contains(&records_max) {
        return Err(options.out_of_range(COUNT, &format!("1 to {GET_RECORDS_MAX}")));
    }
    Ok(PollingOptions {
        records_max,
        empty_interval: options
            .duration("source.reader.empty-records-fetch-interval")?
            .unwrap_or(EMPTY_INTERVAL),
        nonempty_interval: options
            .duration("source.reader.nonempty-records-fetch-interval")?
            .unwrap_or(NONEMPTY_INTERVAL),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Provider {
    Auto,
    Environment,
    Profile,
    Basic,
    WebIdentity,
    Unsupported,
}

fn credentials(options: &Options<'_>) -> Result<CredentialsOptions, ConnectorError> {
    const PROVIDER: &str = "aws.credentials.provider";
    let choices = [
        ("AUTO", Provider::Auto),
        ("ENV_VAR", Provider::Environment),
        ("PROFILE", Provider::Profile),
        ("BASIC", Provider::Basic),
        ("WEB_IDENTITY_TOKEN", Provider::WebIdentity),
        ("SYS_PROP", Provider::Unsupported),
        ("ASSUME_ROLE", Provider::Unsupported),
        ("CUSTOM", Provider::Unsupported),
    ];
    let provider = options.choice(PROVIDER, &choices)?.unwrap_or(Provider::Auto);
    let text = |name: &str| options.text(name).map(str::to_owned);
    let of = |name: &str, wanted: &[Provider]| match options.text(name) {
        Some(_) if !wanted.contains(&provider) => {
            let message = format!("has no effect with this '{PROVIDER}'; leave it out, or choose its provider");
            Err(ConnectorError::option(name, message))
        }
        _ => Ok(text(name)),
    };
    for name in ["role.externalId", "role.stsEndpoint", "role.provider", "custom.class"] {
        let name = format!("aws.credentials.{name}");
        options.refuse(
            &name,
            "assuming roles and custom providers are not supported; leave it out",
        )?;
    }
    let profile = ProfileOptions {
        path: of("aws.credentials.profile.path", &[Provider::Profile, Provider::Auto])?,
        name: of("aws.credentials.profile.name", &[Provider::Profile, Provider::Auto])?,
    };
    let access_key_id = of("aws.credentials.basic.accesskeyid", &[Provider::Basic])?;
    let secret_key = of("aws.credentials.basic.secretkey", &[Provider::Basic])?;
    let role_arn = of("aws.credentials.role.arn", &[Provider::WebIdentity])?;
    let session_name = of("aws.credentials.role.sessionName", &[Provider::WebIdentity])?;
    let token_file = of("aws.credentials.webIdentityToken.file", &[Provider::WebIdentity])?;
    match provider {
        Provider::Auto => Ok(CredentialsOptions::Auto { profile }),
        Provider::Environment => Ok(CredentialsOptions::Environment),
        Provider::Profile => Ok(CredentialsOptions::Profile(profile)),
        Provider::WebIdentity => Ok(CredentialsOptions::WebIdentity {
            role_arn,
            session_name,
            token_file,
        }),
        Provider::Basic => {
            let missing = |name: &str| ConnectorError::option(name, "must be set for the provider BASIC");
            Ok(CredentialsOptions::Basic {
                access_key_id: access_key_id
                    .filter(|text| !text.is_empty())
                    .ok_or_else(|| missing("aws.credentials.basic.accesskeyid"))?,
                secret_key: Secret(
                    secret_key
                        .filter(|text| !text.is_empty())
                        .ok_or_else(|| missing("aws.credentials.basic.secretkey"))?,
                ),
            })
        }
        Provider::Unsupported => Err(ConnectorError::option(
            PROVIDER,
            "SYS_PROP, ASSUME_ROLE and CUSTOM are not supported",
        )
        .with_hint("use AUTO, ENV_VAR, PROFILE, BASIC or WEB_IDENTITY_TOKEN")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let options = CredentialsOptions::Basic {
            access_key_id: "AKIA".to_owned(),
            secret_key: Secret("hush".to_owned()),
        };
        assert!(!format!("{options:?}").contains("hush"));
    }

    #[test]
    fn endpoints_are_urls() {
        assert_eq!(url("http://127.0.0.1:4566/"), Ok("http://127.0.0.1:4566".to_owned()));
        for wrong in [
            "",
            "127.0.0.1:4566",
            "ftp://x",
            "http://",
            "https:///x",
            "http://user:hush@x",
            "http://a b",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
