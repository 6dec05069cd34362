//! `/api/v1/export`: streams the log as CSV or JSON lines. Each export reads page by page on a blocking thread and
//! stays a bounded number of pages ahead of its client.

use std::io;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing::warn;

use super::state::ApiState;
use crate::export_format::{ExportFormat, READING_COLUMNS, RowWriter};
use crate::reading::Id;
use crate::store::{Log, Pages, Reading, Selection};
use crate::web::auth::Identity;
use crate::web::http_error::HttpError;

/// Pages read ahead of a slow client.
const PAGES_AHEAD: usize = 2;
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
    format: ExportFormat,
}

/// Streams the selected readings. The response begins before the last page is read.
pub async fn export(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(Parameters { node, sensor, from, to, format }) = parameters?;
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        let error = format!("the range is empty: `from` ({from}) must be before `to` ({to})");
        return Err(HttpError::bad_request(&error));
    }
    if let (Some(node), Some(sensor)) = (&node, &sensor)
        && !identity.may_read_sensor(node.as_str(), sensor.as_str())
    {
        return Ok(identity.refuse("read this sensor"));
    }
    let permit = state.exports.acquire(identity.user.clone())?;
    let selection = Selection { from_ms: from, to_ms: to, node, sensor };
    let (chunks, receiver) = mpsc::channel(PAGES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let written = state.log.open().and_then(|log| {
            let mut pages = log.pages(&selection)?;
            write(&log, &mut pages, format, &identity, &chunks)
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
        ExportFormat::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"humidor.csv\""),
        ExportFormat::Jsonl => ("application/x-ndjson", "attachment; filename=\"humidor.jsonl\""),
    };
    Ok(([(CONTENT_TYPE, content), (CONTENT_DISPOSITION, name)], Body::from_stream(stream))
        .into_response())
}

fn write(
    log: &Log,
    pages: &mut Pages,
    format: ExportFormat,
    identity: &Identity,
    chunks: &mpsc::Sender<io::Result<Bytes>>,
) -> rusqlite::Result<()> {
    let mut header = Vec::new();
    let mut rows = RowWriter::new(format, &mut header);
    let written = rows.header(READING_COLUMNS).and_then(|()| rows.flush()).map(|()| drop(rows));
    // An error of the channel means that the client has disconnected.
    if chunks.blocking_send(written.map(|()| header.into())).is_err() {
        return Ok(());
    }
    let mut sensors = VisibleSensors { identity, latest: None };
    loop {
        let mut page = log.next_page(pages)?;
        if page.is_empty() {
            return Ok(());
        }
        if identity.is_withdrawn() {
            let error = io::Error::other("the permissions of this user have changed; export again");
            let _ = chunks.blocking_send(Err(error));
            return Ok(());
        }
        page.retain(|reading| sensors.contain(reading));
        if !page.is_empty() && chunks.blocking_send(chunk(&mut page, format)).is_err() {
            return Ok(());
        }
    }
}

/// The sensors that an identity may read. An export goes sensor by sensor, so the latest answer is kept.
struct VisibleSensors<'a> {
    identity: &'a Identity,
    latest: Option<(String, String, bool)>,
}

impl VisibleSensors<'_> {
    fn contain(&mut self, Reading { node, sensor, .. }: &Reading) -> bool {
        if self.identity.reads_all() {
            return true;
        }
        match &self.latest {
            Some((known, of, visible)) if known == node && of == sensor => *visible,
            _ => {
                let visible = self.identity.may_read_sensor(node, sensor);
                self.latest = Some((node.clone(), sensor.clone(), visible));
                visible
            }
        }
    }
}

fn chunk(page: &mut [Reading], format: ExportFormat) -> io::Result<Bytes> {
    let mut out = Vec::new();
    let mut rows = RowWriter::new(format, &mut out);
    page.iter_mut().try_for_each(|reading| rows.row(reading))?;
    rows.flush()?;
    drop(rows);
    Ok(out.into())
}
