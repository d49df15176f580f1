//! What the sinks share: the option `sink.delivery-guarantee`.

use crate::error::ConnectorError;
use crate::options::Options;
use tidemill_engine::sink::DeliveryGuarantee;

const OPTION: &str = "sink.delivery-guarantee";

/// Reads `sink.delivery-guarantee`.
///
/// # Errors
/// When it is neither `exactly-once` nor `at-least-once`.
pub(crate) fn delivery_guarantee(options: &Options<'_>) -> Result<Option<DeliveryGuarantee>, ConnectorError> {
    if options.text(OPTION) == Some("none") {
        let message = "'none' is not offered: no sink here is faster by losing rows; leave the option out";
        return Err(ConnectorError::option(OPTION, message));
    }
    let choices = [
        ("exactly-once", DeliveryGuarantee::ExactlyOnce),
        ("at-least-once", DeliveryGuarantee::AtLeastOnce),
    ];
    options.choice(OPTION, &choices)
}

/// Refuses `exactly-once` for a sink whose output cannot be held back.
///
/// # Errors
/// When it is asked for.
pub(crate) fn at_least_once_only(options: &Options<'_>) -> Result<(), ConnectorError> {
    match delivery_guarantee(options)? {
        Some(DeliveryGuarantee::ExactlyOnce) => Err(ConnectorError::option(
            OPTION,
            "this sink writes at once and cannot take back: it is at-least-once",
        )),
        _ => Ok(()),
    }
}
