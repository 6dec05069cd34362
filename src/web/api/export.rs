//! `/api/v1/export`: the log as CSV or JSON lines, as it is read: page by page on a thread of its own, with a
//! bounded number of chunks between it and the socket.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::warn;

use crate::reading::Id;
use crate::store::{Log, Pages, Reading, Selection};
use crate::web::Web;
use crate::web::http_error::HttpError;

/// Exports at once. Each reads as fast as its client takes.
pub const EXPORTS: usize = 2;
/// Chunks, of a page each, that wait for a slow client.
const CHUNKS: usize = 2;
/// First line of a CSV file, and the columns of the view `readings`.
const CSV_HEADER: &str = "node,sensor,boot,seq,at,clock,temperature,humidity\n";

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// With a header line.
    #[default]
    Csv,
    /// An object a line.
    Jsonl,
}

/// What is exported.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    node: Option<Id>,
    sensor: Option<Id>,
    from: Option<i64>,
    to: Option<i64>,
    #[serde(default)]
    format: Format,
}

/// The answer, which begins before the last reading was looked for.
pub async fn export(
    State(web): State<Web>,
    asked: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(asked) = asked?;
    if let (Some(from), Some(to)) = (asked.from, asked.to)
        && from >= to
    {
        return Err(HttpError::bad_request(&format!(
            "the range is empty: {from} must be before {to}"
        )));
    }
    let busy =
        |_| HttpError::unavailable(format!("{EXPORTS} exports are under way; come again later"));
    let place = Arc::clone(&web.exports).try_acquire_owned().map_err(busy)?;
    let format = asked.format;
    let selection =
        Selection { from_ms: asked.from, to_ms: asked.to, node: asked.node, sensor: asked.sensor };
    let log_reader = web.log_reader.clone();
    let (chunks, taken) = mpsc::channel(CHUNKS);
    tokio::task::spawn_blocking(move || {
        let _place: OwnedSemaphorePermit = place;
        let written = log_reader.open().and_then(|log| {
            let mut pages = log.pages(&selection)?;
            write(&log, &mut pages, format, &chunks)
        });
        if let Err(error) = written {
            warn!(%error, "an export over HTTP was cut off");
            // The client sees a broken answer and not a short file.
            let _ = chunks.blocking_send(Err(io::Error::other(error)));
        }
    });
    let stream = futures_util::stream::unfold(taken, async |mut taken| {
        let chunk = taken.recv().await?;
        Some((chunk, taken))
    });
    let (content, name) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"humidor.csv\""),
        Format::Jsonl => ("application/x-ndjson", "attachment; filename=\"humidor.jsonl\""),
    };
    Ok(([(CONTENT_TYPE, content), (CONTENT_DISPOSITION, name)], Body::from_stream(stream))
        .into_response())
}

/// The places for exports.
pub fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(EXPORTS))
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
        // An error of the channel: the client is gone.
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
