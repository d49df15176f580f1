//! A SQL text that calls a function written in Rust: how far apart two places on the earth are.
//!
//! ```text
//! cargo run --release -p example-sql-function -- --data-dir DIR
//! ```
//! The text makes up rides and prints the long ones; `job.sql` declares the function with `LANGUAGE RUST`. Functions of many
//! rows are registered in the same way, with `UserFunctions::row_aggregate`.

use arrow::datatypes::DataType;
use std::process::ExitCode;
use tidemill::sql::{UserFunctions, Value};

/// The mean radius of the earth.
const RADIUS_KM: f64 = 6_371.0;

fn main() -> ExitCode {
    let places = [
        DataType::Float64,
        DataType::Float64,
        DataType::Float64,
        DataType::Float64,
    ];
    let functions = UserFunctions::new().row_function("distance_km", &places, &DataType::Float64, |values| {
        Ok(match values {
            [Value::Double(a), Value::Double(b), Value::Double(c), Value::Double(d)] => {
                Value::Double(distance_km((*a, *b), (*c, *d)))
            }
            _ => Value::Null,
        })
    });
    tidemill::run_sql_job(include_str!("job.sql"), functions)
}

/// The length of the great circle between two places, given as latitude and longitude in degrees (haversine formula).
fn distance_km(from: (f64, f64), to: (f64, f64)) -> f64 {
    let half_sine = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
    let h = half_sine(from.0, to.0) + from.0.to_radians().cos() * to.0.to_radians().cos() * half_sine(from.1, to.1);
    2.0 * RADIUS_KM * h.sqrt().asin()
}
