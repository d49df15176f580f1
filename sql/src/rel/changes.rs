//! What cannot read a result that changes.

use super::{RelId, Rels};
use crate::error::{Position, Result, SqlError};

/// Refuses what understands only rows that stay.
///
/// # Errors
/// When the relation changes; `what` is the subject of the message.
pub(crate) fn check_append_only(rels: &Rels, id: RelId, what: &str, at: Option<Position>) -> Result<()> {
    if rels.get(id).changes {
        Err(refusal(what, at))
    } else {
        Ok(())
    }
}

/// Makes the refusal of something over a result that changes.
pub(crate) fn refusal(what: &str, at: Option<Position>) -> SqlError {
    SqlError::at(at, format!("{what} over a result that changes is not supported yet")).hint(
        "what it reads takes rows back, as a GROUP BY without a window does; aggregate by windows there, whose results are \
         final",
    )
}
