//! Flink's statements that are not here, and what to do instead.

const CATALOGS: &str = "a job has one name space and no catalogs: write the tables' names alone";
const TEXT: &str = "every text begins without tables: change the statement that makes it";
const JARS: &str = "functions come from a Rust crate, compiled into the job: see docs/SQL.md, functions of your own";

/// Returns what to do instead of the statement that begins with a word (upper case); `None` when no statement does.
pub(super) fn hint(word: &str) -> Option<&'static str> {
    Some(match word {
        "USE" | "LOAD" | "UNLOAD" => CATALOGS,
        "ALTER" => TEXT,
        "ADD" | "REMOVE" => JARS,
        "ANALYZE" => "there are no statistics to gather: plans do not depend on them",
        "CALL" => "there are no procedures; the command and the HTTP API do what they do",
        "STOP" => "stop a job with: tidemill job stop",
        "COMPILE" => "plans are made of the text each time; operators keep their state by what they compute",
        "TRUNCATE" | "UPDATE" | "DELETE" | "MERGE" | "COPY" => "a job appends: use INSERT INTO ... SELECT",
        "QUIT" | "EXIT" | "CLEAR" | "HELP" | "SOURCE" => "that is a command of Flink's client, not SQL; remove it",
        _ => return None,
    })
}
