//! Azure Blob Storage.

use super::credentials::OfMachine;
use super::environment::Environment;
use super::{Client, Opened, prefix};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use url::Url;

/// Variables that say where credentials come from, all of a kind together.
const CREDENTIALS: [&str; 16] = [
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_USE_AZURE_CLI",
    "AZURE_CREDENTIAL_TYPE",
    "AZURE_FABRIC_SESSION_TOKEN",
    "AZURE_SKIP_SIGNATURE",
    "AZURE_STORAGE_USE_EMULATOR",
    "IDENTITY_ENDPOINT",
];

/// Names of the AWS tools' kind, of the command `az`, which `object_store` has other names for.
const OF_AZ: [(&str, AzureConfigKey); 3] = [
    ("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName),
    ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
    ("IDENTITY_ENDPOINT", AzureConfigKey::MsiEndpoint),
];

const HINT: &str = "AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN and AZURE_CLIENT_SECRET are not set, and asking for this machine's \
                    managed identity failed";

pub(super) fn open(url: &Url, environment: &Environment, client: Client) -> Result<Opened, String> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(client.options)
        .with_retry(client.retry);
    for (name, key) in OF_AZ {
        if let Some(value) = environment.get(name) {
            builder = builder.with_config(key, value);
        }
    }
    for (name, value) in environment.beginning("AZURE_") {
        if let Ok(key) = name.parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let place = Place::of(url)?;
    let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
    if let Some(endpoint) = endpoint {
        if place.server.is_some() {
            return Err(
                "the URL names a server, and so does AZURE_STORAGE_ENDPOINT; write az://container/prefix".to_owned(),
            );
        }
        if endpoint.starts_with("http://") && !environment.says_yes("AZURE_ALLOW_HTTP") {
            return Err(format!(
                "the endpoint {endpoint} is not encrypted; set AZURE_ALLOW_HTTP=true if that is meant"
            ));
        }
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    builder = builder.with_container_name(place.container);
    if let Some(account) = place.account {
        builder = builder.with_account(account);
    }
    if let Some(server) = place.server {
        builder = builder.with_url(format!("https://{server}/{}", place.container));
    } else if builder.get_config_value(&AzureConfigKey::AccountName).is_none()
        && !environment.says_yes("AZURE_STORAGE_USE_EMULATOR")
    {
        return Err(if environment.get("AZURE_STORAGE_CONNECTION_STRING").is_some() {
            "AZURE_STORAGE_CONNECTION_STRING is set, but not read here; set AZURE_STORAGE_ACCOUNT_NAME and \
             AZURE_STORAGE_ACCOUNT_KEY to its AccountName and AccountKey"
                .to_owned()
        } else {
            "the storage account is missing; set AZURE_STORAGE_ACCOUNT_NAME, or write \
             abfss://container@account.dfs.core.windows.net/prefix"
                .to_owned()
        });
    }
    check_pairs(environment)?;
    let build = |builder: MicrosoftAzureBuilder| {
        let built = builder.build();
        built.map_err(|error| format!("{error}; check the AZURE_* variables"))
    };
    let mut azure = build(builder.clone())?;
    if environment.first(&CREDENTIALS).is_none() {
        azure = build(builder.with_credentials(OfMachine::new(azure.credentials(), HINT)))?;
    }
    Ok(Opened::new(azure, prefix(place.path)?))
}

/// Refuses a secret without what it belongs to: the machine's identity would be used instead of the one that is meant.
fn check_pairs(environment: &Environment) -> Result<(), String> {
    let client = ["AZURE_CLIENT_ID", "AZURE_STORAGE_CLIENT_ID"];
    let tenant = [
        "AZURE_TENANT_ID",
        "AZURE_STORAGE_TENANT_ID",
        "AZURE_AUTHORITY_ID",
        "AZURE_STORAGE_AUTHORITY_ID",
    ];
    let secret = [
        "AZURE_CLIENT_SECRET",
        "AZURE_STORAGE_CLIENT_SECRET",
        "AZURE_FEDERATED_TOKEN_FILE",
    ];
    let Some(secret) = environment.first(&secret) else {
        return Ok(());
    };
    for needed in [&client[..], &tenant[..]] {
        if environment.first(needed).is_none() {
            return Err(format!("{secret} is set and {} is not; set both", needed[0]));
        }
    }
    Ok(())
}

/// What a URL says.
struct Place<'a> {
    container: &'a str,
    account: Option<&'a str>,
    /// The host, where it is a server's.
    server: Option<&'a str>,
    path: &'a str,
}

impl<'a> Place<'a> {
    fn of(url: &'a Url) -> Result<Self, String> {
        let host = url.host_str().unwrap_or_default();
        let missing = || format!("it names no container; write {}", Self::form(url));
        let (container, account, path) = match url.scheme() {
            "https" => {
                if !url.username().is_empty() {
                    return Err(format!(
                        "the container belongs into the path; write {}",
                        Self::form(url)
                    ));
                }
                let path = url.path().trim_start_matches('/');
                let (container, path) = path.split_once('/').unwrap_or((path, ""));
                (container, Some(host), path)
            }
            _ if url.username().is_empty() => (host, None, url.path()),
            "adl" | "azure" => {
                let scheme = url.scheme();
                return Err(format!(
                    "{scheme}:// takes no account; write abfss:// or {scheme}://container/prefix"
                ));
            }
            _ => (url.username(), Some(host), url.path()),
        };
        if container.is_empty() {
            return Err(missing());
        }
        let is_server = account.is_some_and(|account| account.contains('.'));
        if account.is_none() && container.contains('.') {
            return Err(format!("{container} is no container's name; write {}", Self::form(url)));
        }
        if is_server && !is_known(host) {
            return Err(format!(
                "{host} is no server of Azure's that is known here; write az://container/prefix, and name the server with \
                 AZURE_STORAGE_ENDPOINT"
            ));
        }
        Ok(Self {
            container,
            account: account.filter(|_| !is_server),
            server: account.filter(|_| is_server),
            path,
        })
    }

    fn form(url: &Url) -> String {
        match url.scheme() {
            "https" => format!("https://{}/container/prefix", url.host_str().unwrap_or_default()),
            scheme => format!("{scheme}://container/prefix"),
        }
    }
}

/// Whether a host has one of the forms that `object_store` takes apart.
fn is_known(host: &str) -> bool {
    let servers = [
        "dfs.core.windows.net",
        "blob.core.windows.net",
        "dfs.fabric.microsoft.com",
        "blob.fabric.microsoft.com",
    ];
    host.split_once('.').is_some_and(|(account, rest)| {
        let of_workspace = rest.starts_with('z') && rest.ends_with(".fabric.microsoft.com");
        !account.is_empty() && (servers.contains(&rest) || of_workspace)
    })
}
