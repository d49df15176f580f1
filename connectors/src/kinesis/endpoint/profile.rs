//! Profiles of the AWS tools: `~/.aws/credentials` and `~/.aws/config`.
//!
//! Only static keys and the region are read. A profile that gets its keys in another way is an error that says so, never
//! passed over: other credentials than those meant would be used.

use super::super::options::endpoint::ProfileOptions;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes of a file of profiles; larger ones are not read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A profile's keys.
pub(super) struct Keys {
    pub(super) access_key_id: String,
    pub(super) secret_key: String,
    pub(super) session_token: Option<String>,
}

/// What makes a profile one that we cannot use.
const UNSUPPORTED: [&str; 6] = [
    "role_arn",
    "source_profile",
    "credential_process",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
];

/// Names a profile and its file, for messages.
pub(super) fn describe(options: &ProfileOptions) -> String {
    let files: Vec<String> = files(options).iter().map(|path| path.display().to_string()).collect();
    format!("profile {} in {}", name(options), files.join(" or "))
}

/// Reads the keys of a profile; `None` when there is no such profile, or no keys in it.
///
/// # Errors
/// When the profile gets its keys in a way that is not supported, or a file cannot be read.
pub(super) fn keys(options: &ProfileOptions) -> Result<Option<Keys>, String> {
    let profile = read(options)?;
    // A role goes before keys, as for the AWS tools.
    if !profile.contains_key("role_arn")
        && let (Some(id), Some(secret)) = (profile.get("aws_access_key_id"), profile.get("aws_secret_access_key"))
    {
        return Ok(Some(Keys {
            access_key_id: id.clone(),
            secret_key: secret.clone(),
            session_token: profile.get("aws_session_token").cloned(),
        }));
    }
    match UNSUPPORTED.iter().find(|key| profile.contains_key(**key)) {
        Some(key) => Err(format!(
            "{} has '{key}', which is not supported: use static keys, or put temporary ones into the environment, for \
             example with `aws configure export-credentials`",
            describe(options)
        )),
        None => Ok(None),
    }
}

/// Reads the region of a profile.
pub(super) fn region(options: &ProfileOptions) -> Option<String> {
    read(options).ok()?.remove("region")
}

fn name(options: &ProfileOptions) -> String {
    let of_environment = || std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
    options
        .name
        .clone()
        .or_else(of_environment)
        .unwrap_or_else(|| "default".to_owned())
}

/// The files of profiles, the one of keys first.
fn files(options: &ProfileOptions) -> Vec<PathBuf> {
    if let Some(path) = &options.path {
        return vec![PathBuf::from(path)];
    }
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    let file = |variable: &str, name: &str| match std::env::var_os(variable) {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => Some(home()?.join(".aws").join(name)),
    };
    [
        file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
        file("AWS_CONFIG_FILE", "config"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Reads a profile from all files; what stands in the file of keys counts more.
fn read(options: &ProfileOptions) -> Result<BTreeMap<String, String>, String> {
    let name = name(options);
    let mut found = BTreeMap::new();
    for path in files(options) {
        let Some(text) = text(&path)? else { continue };
        for (key, value) in section(&text, &name) {
            found.entry(key).or_insert(value);
        }
    }
    Ok(found)
}

fn text(path: &Path) -> Result<Option<String>, String> {
    let error = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Err(format!("{} is too large", path.display())),
        Ok(_) => std::fs::read_to_string(path).map(Some).map_err(error),
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(error(other)),
    }
}

/// Returns the settings of a section `[name]` or `[profile name]`.
fn section(text: &str, name: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut is_ours = false;
    for line in text.lines() {
        // Lines of a nested setting are indented.
        if line.starts_with([' ', '\t']) || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let header = header.trim();
            let header = header.strip_prefix("profile ").unwrap_or(header);
            is_ours = header.trim() == name;
        } else if let Some((key, value)) = line.split_once('=')
            && is_ours
            && !value.trim().is_empty()
        {
            settings.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_among_others() {
        let text = "[default]\nregion = us-east-1\n\n# remark\n[profile ours]\nregion=eu-west-1\ns3 =\n  region = no\n\
                    Aws_Access_Key_Id = x=y\n[sso-session ours]\nregion = other\n";
        assert_eq!(section(text, "default")["region"], "us-east-1");
        assert_eq!(section(text, "ours")["region"], "eu-west-1");
        assert_eq!(section(text, "ours")["aws_access_key_id"], "x=y");
        assert!(section(text, "nobody").is_empty());
    }

    #[test]
    fn a_profile_that_takes_a_role_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        std::fs::write(&path, "[profile ours]\nrole_arn = arn:x\nsource_profile = default\n").unwrap();
        let options = ProfileOptions {
            path: Some(path.to_string_lossy().into_owned()),
            name: Some("ours".to_owned()),
        };
        let error = keys(&options).err().unwrap();
        assert!(error.contains("'role_arn', which is not supported"), "{error}");
    }
}
