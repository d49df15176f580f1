use super::support::{BIDS, explain};

#[test]
#[ignore]
fn show() {
    let sql = std::env::var("SQL").unwrap();
    println!("{}", explain(&format!("{BIDS}{sql}")));
}
