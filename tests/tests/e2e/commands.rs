//! The commands themselves.

use std::process::{Command, Stdio};
use tidemill_tests::{Server, binary};

#[test]
fn a_command_whose_reader_went_away_ends_quietly() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let data = directory.path().join("alone");
    let bounded = directory.path().join("bounded.sql");
    std::fs::write(&bounded, super::sql::BOUNDED).unwrap();
    let (data, bounded) = (data.to_str().unwrap(), bounded.to_str().unwrap());
    for arguments in [
        vec!["job", "submit", bounded, "--server", server.url()],
        vec!["job", "list", "--server", server.url()],
        vec!["run", bounded, "--data-dir", data, "--json", "--log-level", "error"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(binary())
            .args(&arguments)
            .env_remove("RUST_LOG")
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{arguments:?} ended with {:?}: {said}",
            output.status
        );
    }
}

#[test]
fn a_server_whose_log_nobody_reads_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut server = Command::new(binary())
        .args(["server", "--listen", "127.0.0.1:0", "--json", "--data-dir"])
        .arg(directory.path().join("data"))
        .stdout(Stdio::piped())
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = server.stdout.take().unwrap();
    let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line);
    let is_alive = server.try_wait().unwrap().is_none();
    let _ = server.kill();
    let _ = server.wait();
    assert!(read.is_ok() && line.contains("http://") && is_alive, "{line}");
}
