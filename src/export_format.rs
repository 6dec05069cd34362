//! Rows of the log as CSV or JSON lines, for `humidor export` and the HTTP API.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Columns of a CSV of readings: those of the view `readings`.
pub const READING_COLUMNS: &[&str] =
    &["node", "sensor", "boot", "seq", "at", "clock", "temperature", "humidity"];
/// Columns of a CSV of other publishers' numbers.
pub const SAMPLE_COLUMNS: &[&str] = &["topic", "field", "at", "value"];

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// Comma-separated values with a header line
    #[default]
    Csv,
    /// One JSON object per line
    Jsonl,
}

/// Writes rows in one format.
pub enum RowWriter<W: Write> {
    /// Comma-separated values (RFC 4180).
    Csv(Box<csv::Writer<W>>),
    /// JSON lines.
    Jsonl(W),
}

impl<W: Write> RowWriter<W> {
    /// Writes to `out`.
    pub fn new(format: ExportFormat, out: W) -> Self {
        match format {
            // The header comes by itself, even when no row follows.
            ExportFormat::Csv => {
                let csv = csv::WriterBuilder::new().has_headers(false).from_writer(out);
                Self::Csv(Box::new(csv))
            }
            ExportFormat::Jsonl => Self::Jsonl(out),
        }
    }

    /// Writes the header line, where the format has one.
    ///
    /// # Errors
    /// What `out` said.
    pub fn header(&mut self, columns: &[&str]) -> io::Result<()> {
        match self {
            Self::Csv(csv) => csv.write_record(columns).map_err(io_error),
            Self::Jsonl(_) => Ok(()),
        }
    }

    /// Writes one row.
    ///
    /// # Errors
    /// What `out` said.
    pub fn row(&mut self, row: &impl Serialize) -> io::Result<()> {
        match self {
            Self::Csv(csv) => csv.serialize(row).map_err(io_error),
            Self::Jsonl(out) => {
                serde_json::to_writer(&mut *out, row)?;
                out.write_all(b"\n")
            }
        }
    }

    /// Hands all that was written to `out`.
    ///
    /// # Errors
    /// What `out` said.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Csv(csv) => csv.flush(),
            Self::Jsonl(out) => out.flush(),
        }
    }
}

/// The error of `out` itself: `io::Error::from` would hide that a pipe was closed.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        topic: &'static str,
        value: Option<f64>,
    }

    #[test]
    fn a_row_is_a_line_in_either_format_and_an_error_stays_what_it_was() {
        let write = |format| {
            let mut out = Vec::new();
            let mut rows = RowWriter::new(format, &mut out);
            rows.header(&["topic", "value"]).unwrap();
            rows.row(&Row { topic: "a,b", value: Some(1.5) }).unwrap();
            rows.row(&Row { topic: "c", value: None }).unwrap();
            rows.flush().unwrap();
            drop(rows);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(write(ExportFormat::Csv), "topic,value\n\"a,b\",1.5\nc,\n");
        assert_eq!(
            write(ExportFormat::Jsonl),
            "{\"topic\":\"a,b\",\"value\":1.5}\n{\"topic\":\"c\",\"value\":null}\n"
        );
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        for format in [ExportFormat::Csv, ExportFormat::Jsonl] {
            let mut rows = RowWriter::new(format, &writer);
            let outcome = rows.row(&Row { topic: "a", value: None }).and_then(|()| rows.flush());
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
