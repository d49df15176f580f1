//! Environment variables that a store is opened with.

use std::collections::BTreeMap;

/// Variables that are set, and not empty: containers often set what they do not know to nothing.
pub(super) struct Environment(BTreeMap<String, String>);

/// Parts of the names of variables whose values are secret, or are texts in which secrets stand.
const SECRET: [&str; 7] = [
    "KEY",
    "SECRET",
    "TOKEN",
    "SAS",
    "PASSWORD",
    "CONNECTION_STRING",
    "CREDENTIAL",
];

impl Environment {
    pub(super) fn new(variables: BTreeMap<String, String>) -> Self {
        Self(
            variables
                .into_iter()
                .filter(|(_, value)| !value.trim().is_empty())
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns the first of these variables that is set.
    pub(super) fn first(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| self.0.contains_key(*name))
    }

    /// Tells whether a variable says yes, in the words that `object_store` takes for it.
    pub(super) fn says_yes(&self, name: &str) -> bool {
        let value = self.get(name).unwrap_or_default().to_ascii_lowercase();
        matches!(value.as_str(), "1" | "true" | "on" | "yes" | "y")
    }

    /// Returns all variables whose name begins so, with their names in lower case.
    pub(super) fn beginning(&self, prefix: &'static str) -> impl Iterator<Item = (String, &str)> {
        let found = self.0.iter().filter(move |(name, _)| name.starts_with(prefix));
        found.map(|(name, value)| (name.to_ascii_lowercase(), value.as_str()))
    }

    /// Takes the values of secret variables out of a message.
    pub(super) fn without_secrets(&self, mut message: String) -> String {
        for (name, value) in &self.0 {
            let is_file = name.ends_with("_FILE") || name == "GOOGLE_APPLICATION_CREDENTIALS";
            let is_secret = SECRET.iter().any(|part| name.contains(part)) && !is_file;
            if is_secret && value.len() > 3 && message.contains(value.as_str()) {
                message = message.replace(value.as_str(), &format!("<{name}>"));
            }
        }
        message
    }
}

/// Returns a URL, or what was meant to be one, without what may be secret in it: passwords, and all after `?` or `#`.
pub(super) fn without_credentials(text: &str) -> String {
    let shown = text.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = shown.split_once("://") else {
        return shown.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        // `container@account` is no secret; `user:password@host` is, and keys without a colon may be.
        Some((user, host)) if scheme.starts_with('a') && !user.contains(':') => format!("{user}@{host}"),
        Some((_, host)) => host.to_owned(),
        None => authority.to_owned(),
    };
    // What stands for a port and is none.
    match authority.rsplit_once(':') {
        // A password with a slash in it goes on in what looks like the path.
        Some((host, port)) if !port.bytes().all(|byte| byte.is_ascii_digit()) => match path.rsplit_once('@') {
            Some((_, behind)) => format!("{scheme}://{behind}"),
            None => format!("{scheme}://{host}{path}"),
        },
        _ => format!("{scheme}://{authority}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_in_a_url_is_not_shown() {
        for (url, shown) in [
            ("s3://me:hush@bucket/a", "s3://bucket/a"),
            ("s3://me:hu/hush@bucket/a", "s3://bucket/a"),
            ("s3://hush@bucket", "s3://bucket"),
            (
                "abfss://c@a.dfs.core.windows.net/x",
                "abfss://c@a.dfs.core.windows.net/x",
            ),
            (
                "abfss://c:hush@a.dfs.core.windows.net/x",
                "abfss://a.dfs.core.windows.net/x",
            ),
            (
                "https://a.blob.core.windows.net/c?sv=1&sig=hush",
                "https://a.blob.core.windows.net/c",
            ),
            ("gs://b/x@y#hush", "gs://b/x@y"),
            ("https://a:hush?x", "https://a"),
            ("s3://b:80/x", "s3://b:80/x"),
            ("data?x", "data"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }

    #[test]
    fn values_of_secret_variables_are_taken_out_of_messages() {
        let set = [
            ("AWS_SECRET_ACCESS_KEY", "hush"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_SESSION_TOKEN", " "),
        ];
        let set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = Environment::new(BTreeMap::from(set));
        assert_eq!(environment.get("AWS_SESSION_TOKEN"), None);
        let told = environment.without_secrets("no hush in eu-west-1".to_owned());
        assert_eq!(told, "no <AWS_SECRET_ACCESS_KEY> in eu-west-1");
    }
}
