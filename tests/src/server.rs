//! A server of the real binary, on a free port, in a directory of the test's.

use crate::process::signal;
use crate::{Kinesis, binary, eventually};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// An answer of the REST API.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The content type.
    pub content_type: String,
    /// The body as JSON; null when it is none.
    pub body: Value,
}

/// A server. Dropping it kills it, and prints its log when the test has failed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    url: String,
    log: PathBuf,
    http: reqwest::Client,
}

/// Makes an HTTP client that uses no proxy.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("an HTTP client")
}

impl Server {
    /// Starts a server on `directory` and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    /// Starts a server with further arguments.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(directory: &Path, arguments: &[&str]) -> Self {
        Self::start_in(directory, arguments, &[])
    }

    /// Starts a server with further arguments and environment variables, which its jobs' processes get as well.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_in(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_by(command(directory), directory, arguments, environment)
    }

    /// Starts a server that may have only so many files and connections open.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with_descriptors(directory: &Path, descriptors: u32) -> Self {
        let mut limited = Command::new("sh");
        let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        limited.args(["-c", &script]).arg(binary());
        Self::start_by(serving(limited, directory), directory, &[], &[])
    }

    fn start_by(mut command: Command, directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        // Beside the data directory, so that a test can look into that without finding it.
        let log = directory.with_extension("log");
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--json", "--restart-delay-initial", "100ms"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(stderr))
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        let _ = BufReader::new(stdout).read_line(&mut line);
        let announced: Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(url) = announced["url"].as_str() else {
            let status = child.wait();
            panic!(
                "the server did not start ({status:?}):\n{}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
        };
        Self {
            child,
            url: url.to_owned(),
            log,
            http: http_client(),
        }
    }

    /// Starts a server that is expected to refuse; returns its exit code and what it said.
    ///
    /// # Panics
    /// When it cannot be started at all.
    #[must_use]
    pub fn refused(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
        let output = command(directory).args(arguments).output().expect("the binary starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// Returns the server's address, like `http://127.0.0.1:4567`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the server's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Makes a client of the Kinesis API.
    #[must_use]
    pub fn kinesis(&self) -> Kinesis {
        Kinesis::new(&self.url, self.http.clone())
    }

    /// Asks the REST API.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .unwrap_or_else(|error| panic!("{path} was not answered: {error}"));
        let status = response.status().as_u16();
        let content_type = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let bytes = response.bytes().await.unwrap_or_default();
        Answer {
            status,
            content_type,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }

    /// Asks with `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    /// Asks with `POST`.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Submits a job.
    pub async fn post_owned(&self, body: Value) -> Answer {
        self.post("/v1/jobs", &body).await
    }

    /// Shows a job.
    ///
    /// # Panics
    /// When there is none of this name.
    pub async fn job(&self, name: &str) -> Value {
        let answer = self.get(&format!("/v1/jobs/{name}")).await;
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        answer.body
    }

    /// Waits until a job is in a state, and shows it.
    ///
    /// # Panics
    /// When it does not get there.
    pub async fn wait_for_state(&self, name: &str, state: &str) -> Value {
        eventually(&format!("job {name} to be {state}"), || async {
            let job = self.job(name).await;
            (job["state"] == state).then_some(job)
        })
        .await
    }

    /// Kills the server with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("the server can be waited for");
    }

    /// Ends the server with SIGTERM and waits until it is gone.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(self.child.id(), Signal::SIGTERM);
        self.child.wait().expect("the server can be waited for")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = std::fs::read(&self.log).unwrap_or_else(|error| error.to_string().into_bytes());
            eprintln!("---- the server's log ----\n{}", String::from_utf8_lossy(&text));
        }
    }
}

/// The command line of a server on a directory.
fn command(directory: &Path) -> Command {
    serving(Command::new(binary()), directory)
}

/// Completes a command line that begins with the binary.
fn serving(mut command: Command, directory: &Path) -> Command {
    command
        .arg("server")
        .arg("--data-dir")
        .arg(directory)
        .stdin(Stdio::null())
        .env_remove("RUST_LOG");
    command
}
