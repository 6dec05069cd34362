//! Rows of the log as CSV or JSON lines, for `humidor export` and the HTTP API.

use std::borrow::Cow;
use std::io::{self, Write};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::visible_text::visible;

/// Columns of a CSV of readings: those of the view `readings`.
pub const READING_COLUMNS: &[&str] =
    &["node", "sensor", "boot", "seq", "at", "clock", "temperature", "humidity"];
/// Columns of a CSV of other publishers' numbers.
pub const SAMPLE_COLUMNS: &[&str] = &["topic", "field", "at", "value"];

/// First characters of a cell that spreadsheets take for a formula (OWASP, CSV injection).
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\t', '\r', '\n', '\0'];

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

/// A row of an export.
pub trait Row: Serialize {
    /// Calls `each` with every text of the row, which may change it.
    fn each_text(&mut self, each: &mut dyn FnMut(&mut String));
}

/// Writes rows in one format.
pub struct RowWriter<W: Write> {
    writer: Writer<W>,
    /// Whether a person reads them on a terminal.
    terminal: bool,
}

enum Writer<W: Write> {
    /// Comma-separated values (RFC 4180).
    Csv(Box<csv::Writer<W>>),
    /// JSON lines.
    Jsonl(W),
}

impl<W: Write> RowWriter<W> {
    /// Writes to `out`.
    pub fn new(format: ExportFormat, out: W) -> Self {
        let writer = match format {
            // The header comes by itself, even when no row follows.
            ExportFormat::Csv => {
                let csv = csv::WriterBuilder::new().has_headers(false).from_writer(out);
                Writer::Csv(Box::new(csv))
            }
            ExportFormat::Jsonl => Writer::Jsonl(out),
        };
        Self { writer, terminal: false }
    }

    /// Whether `out` is a terminal: then characters that would control it, or that nobody sees, are escaped.
    #[must_use]
    pub fn on_terminal(self, terminal: bool) -> Self {
        Self { terminal, ..self }
    }

    /// Writes the header line, where the format has one.
    ///
    /// # Errors
    /// What `out` said.
    pub fn header(&mut self, columns: &[&str]) -> io::Result<()> {
        match &mut self.writer {
            Writer::Csv(csv) => csv.write_record(columns).map_err(io_error),
            Writer::Jsonl(_) => Ok(()),
        }
    }

    /// Writes one row. In CSV what a spreadsheet would take for a formula gets a `'` in front.
    ///
    /// # Errors
    /// What `out` said.
    pub fn row(&mut self, row: &mut impl Row) -> io::Result<()> {
        let (csv, terminal) = (matches!(self.writer, Writer::Csv(_)), self.terminal);
        row.each_text(&mut |text| {
            if csv {
                without_formulas(text);
            }
            if terminal && let Cow::Owned(escaped) = visible(text, None) {
                *text = escaped;
            }
        });
        match &mut self.writer {
            Writer::Csv(csv) => csv.serialize(row).map_err(io_error),
            Writer::Jsonl(out) => {
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
        match &mut self.writer {
            Writer::Csv(csv) => csv.flush(),
            Writer::Jsonl(out) => out.flush(),
        }
    }
}

/// Puts a `'` in front of what would begin a formula: at the begin of `text`, and after each semicolon, which separates cells
/// where the comma stands before decimals, quotes or not.
fn without_formulas(text: &mut String) {
    let begins = |text: &str| text.trim_start_matches([' ', '"']).starts_with(FORMULA);
    let mut from = 0;
    loop {
        if begins(&text[from..]) {
            text.insert(from, '\'');
        }
        match text[from..].find(';') {
            Some(length) => from += length + 1,
            None => break,
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
    struct Sample {
        topic: String,
        value: Option<f64>,
    }

    impl Row for Sample {
        fn each_text(&mut self, each: &mut dyn FnMut(&mut String)) {
            each(&mut self.topic);
        }
    }

    fn sample(topic: &str, value: Option<f64>) -> Sample {
        Sample { topic: topic.to_owned(), value }
    }

    #[test]
    fn a_text_is_no_formula_and_controls_no_terminal() {
        let write = |format, terminal, topic: &str| {
            let mut out = Vec::new();
            let mut rows = RowWriter::new(format, &mut out).on_terminal(terminal);
            rows.row(&mut sample(topic, Some(-1.5))).unwrap();
            rows.flush().unwrap();
            drop(rows);
            String::from_utf8(out).unwrap()
        };
        let csv = |terminal, topic: &str| write(ExportFormat::Csv, terminal, topic);
        for formula in ["=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1+1"] {
            assert_eq!(csv(false, formula), format!("'{formula},-1.5\n"));
        }
        // A spreadsheet of a country with the decimal comma separates at the semicolon.
        assert_eq!(csv(false, "a;=1;b;@c"), "a;'=1;b;'@c,-1.5\n");
        assert_eq!(csv(false, "a; =1"), "a;' =1,-1.5\n");
        assert_eq!(csv(false, ";;-"), ";;'-,-1.5\n");
        assert_eq!(csv(false, "a;b=1;"), "a;b=1;,-1.5\n");
        assert_eq!(write(ExportFormat::Jsonl, false, "=1"), "{\"topic\":\"=1\",\"value\":-1.5}\n");
        assert_eq!(csv(false, "온도/\u{202e}x"), "온도/\u{202e}x,-1.5\n", "a file keeps it");
        assert_eq!(csv(true, "온도/\u{202e}x\u{1b}[2J"), "온도/\\u{202e}x\\u{1b}[2J,-1.5\n");
        let json = write(ExportFormat::Jsonl, true, "a\u{9b}2J\u{2066}");
        assert_eq!(visible(&json, Some('\n')), json);
    }

    #[test]
    fn a_row_is_a_line_in_either_format_and_an_error_stays_what_it_was() {
        let write = |format| {
            let mut out = Vec::new();
            let mut rows = RowWriter::new(format, &mut out);
            rows.header(&["topic", "value"]).unwrap();
            rows.row(&mut sample("a,b", Some(1.5))).unwrap();
            rows.row(&mut sample("c", None)).unwrap();
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
            let outcome = rows.row(&mut sample("a", None)).and_then(|()| rows.flush());
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
