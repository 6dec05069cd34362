//! `/api/v1/export`: streams the log as CSV or JSON lines. Each export reads page by page on a blocking thread and
//! stays a bounded number of pages ahead of its client.

use std::io;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::warn;

use super::state::ApiState;
use crate::reading::Id;
use crate::store::{Log, Pages, Reading, Selection};
use crate::web::http_error::HttpError;

/// Pages read ahead of a slow client.
const PAGES_AHEAD: usize = 2;
/// First line of a CSV file: the columns of the view `readings`.
const CSV_HEADER: &str = "node,sensor,boot,seq,at,clock,temperature,humidity\n";

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// CSV with a header line.
    #[default]
    Csv,
    /// One JSON object per line.
    Jsonl,
}

/// Parameters of an export. Without a node, a sensor or a time it contains all of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    node: Option<Id>,
    sensor: Option<Id>,
    /// Inclusive, Unix ms UTC.
    from: Option<i64>,
    /// Exclusive, Unix ms UTC.
    to: Option<i64>,
    #[serde(default)]
    format: Format,
}

/// Streams the selected readings. The response begins before the last page is read.
pub async fn export(
    State(state): State<ApiState>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(Parameters { node, sensor, from, to, format }) = parameters?;
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        let error = format!("the range is empty: `from` ({from}) must be before `to` ({to})");
        return Err(HttpError::bad_request(&error));
    }
    let permit = state.exports.acquire()?;
    let selection = Selection { from_ms: from, to_ms: to, node, sensor };
    let (chunks, receiver) = mpsc::channel(PAGES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let written = state.log.open().and_then(|log| {
            let mut pages = log.pages(&selection)?;
            write(&log, &mut pages, format, &chunks)
        });
        if let Err(error) = written {
            warn!(%error, "an export over HTTP ended early");
            // The error breaks the response off: the client cannot take it for a complete file.
            let _ = chunks.blocking_send(Err(io::Error::other(error)));
        }
    });
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    });
    let (content, name) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"humidor.csv\""),
        Format::Jsonl => ("application/x-ndjson", "attachment; filename=\"humidor.jsonl\""),
    };
    Ok(([(CONTENT_TYPE, content), (CONTENT_DISPOSITION, name)], Body::from_stream(stream))
        .into_response())
}

fn write(
    log: &Log,
    pages: &mut Pages,
    format: Format,
    chunks: &mpsc::Sender<io::Result<Bytes>>,
) -> rusqlite::Result<()> {
    if format == Format::Csv && chunks.blocking_send(Ok(CSV_HEADER.into())).is_err() {
        return Ok(());
    }
    loop {
        let page = log.next_page(pages)?;
        // An error of the channel means that the client has disconnected.
        if page.is_empty() || chunks.blocking_send(chunk(&page, format)).is_err() {
            return Ok(());
        }
    }
}

fn chunk(page: &[Reading], format: Format) -> io::Result<Bytes> {
    let mut out = Vec::new();
    match format {
        Format::Csv => {
            let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(&mut out);
            page.iter().try_for_each(|reading| csv.serialize(reading))?;
            csv.flush()?;
        }
        Format::Jsonl => {
            for reading in page {
                serde_json::to_writer(&mut out, reading)?;
                out.push(b'\n');
            }
        }
    }
    Ok(out.into())
}
