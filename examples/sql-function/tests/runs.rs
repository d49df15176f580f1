//! Runs the example as a user does.

#![allow(clippy::disallowed_methods, reason = "tests start their program")]

#[test]
fn the_function_is_called_by_the_text() {
    let directory = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_example-sql-function"))
        .args(["--data-dir", directory.path().to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert_eq!(text, "+I[2, 222]\n+I[3, 334]\n", "{errors}");
}
