//! `humidor config`: prints every setting with its value and origin, and reports every mistake.

use std::io::Write;

use super::failure::Failure;
use crate::config::{self, Effective, Layers};

/// Prints the table; exit 78 with every mistake when there is one.
pub fn run(layers: &Layers) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let rows: Vec<(String, String, String)> = layers
        .effective()
        .map(|Effective { setting, value }| {
            let (value, origin) = value.map_or_else(
                || ("–".to_owned(), "not set".to_owned()),
                |(value, origin)| (value, origin.to_string()),
            );
            (setting.variable(), value, origin)
        })
        .collect();
    let width = |column: fn(&(String, String, String)) -> &str| {
        rows.iter().map(|row| column(row).chars().count()).max().unwrap_or_default()
    };
    let (name, value) = (width(|row| &row.0), width(|row| &row.1).min(60));
    for row in &rows {
        writeln!(out, "{:<name$}  {:<value$}  {}", row.0, row.1, row.2)?;
    }
    for warning in layers.warnings() {
        eprintln!("humidor: warning: {warning}");
    }
    let problems = config::validate_all(layers);
    if problems.0.is_empty() { Ok(()) } else { Err(problems.into()) }
}
