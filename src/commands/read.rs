//! `humidor read`: decodes recorded pulse trains. It is how a user looks at a bad frame, and sends it
//! to us.

use std::io::{self, Read as _, Write};
use std::path::Path;

use anyhow::anyhow;
use serde_json::{Value, json};

use crate::cli::{Read, ReadFormat};
use crate::dht::recording::{self, Recording};
use crate::dht::{self, Decoded, Fault};
use crate::exit::{Code, Failure};
use crate::gpio::Level;

/// Largest file of recordings, in bytes: some 10,000 frames.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Prints each recording's reading or cause; exit 65 when one was refused.
pub fn run(options: &Read) -> Result<(), Failure> {
    let text = text(&options.from)?;
    let recordings = recording::parse(&text).map_err(|error| {
        Failure::new(Code::Data, anyhow!("{}: {error}", options.from.display()))
    })?;
    let mut out = io::stdout().lock();
    let mut refused = 0;
    for (index, recording) in recordings.iter().enumerate() {
        let verdict = verdict(recording);
        refused += usize::from(verdict.is_err());
        let label = recording.id.clone().unwrap_or_else(|| format!("#{index}"));
        let written = match options.format {
            ReadFormat::Json => {
                writeln!(out, "{}", as_json(recording, &label, &verdict, options.raw))
            }
            ReadFormat::Text => write_text(&mut out, recording, &label, &verdict, options.raw),
        };
        written?;
    }
    if refused == 0 {
        Ok(())
    } else {
        Err(Failure::new(Code::Data, anyhow!("{refused} of {} refused", recordings.len())))
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    let io_error = |error: io::Error| {
        let code = Failure::from(io::Error::from(error.kind())).code();
        Failure::new(code, anyhow!("{}: {error}", path.display()))
    };
    let mut bytes = Vec::new();
    let mut limited: Box<dyn io::Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(io_error)?)
    };
    limited.by_ref().take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(Failure::new(
            Code::Data,
            anyhow!("{}: more than {FILE_MAX_BYTES} bytes", path.display()),
        ));
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(Code::Data, anyhow!("{}: not UTF-8 text", path.display())))
}

/// Why a recording is no reading.
struct Refusal {
    name: &'static str,
    detail: String,
}

/// What the node's sampler would make of it: a weak frame is read again, never believed.
fn verdict(recording: &Recording) -> Result<Decoded, Refusal> {
    let fault = |fault: Fault| Refusal { name: fault.name(), detail: fault.to_string() };
    let decoded = dht::decode(&recording.edges, recording.model).map_err(fault)?;
    match decoded.weak {
        None => Ok(decoded),
        Some(weakness) => Err(Refusal { name: "weak", detail: weakness.to_string() }),
    }
}

fn as_json(
    recording: &Recording,
    label: &str,
    verdict: &Result<Decoded, Refusal>,
    raw: bool,
) -> Value {
    let mut object = match verdict {
        Ok(decoded) => json!({
            "id": label,
            "model": recording.model.as_str(),
            "bytes": decoded.bytes,
            "humidity": decoded.measurement.humidity(),
            "temperature": decoded.measurement.temperature(),
        }),
        Err(refusal) => json!({
            "id": label,
            "model": recording.model.as_str(),
            "error": refusal.name,
            "detail": refusal.detail,
        }),
    };
    if raw {
        object["pulses"] =
            widths(recording).into_iter().map(|(level, us)| json!([level, us])).collect();
    }
    object
}

fn write_text(
    out: &mut impl Write,
    recording: &Recording,
    label: &str,
    verdict: &Result<Decoded, Refusal>,
    raw: bool,
) -> io::Result<()> {
    if raw {
        let pulses: Vec<String> = widths(recording)
            .iter()
            .map(|(level, us)| format!("{:<9}", format!("{level} {us}")))
            .collect();
        for row in pulses.chunks(8) {
            writeln!(out, "    {}", row.join(" "))?;
        }
    }
    match verdict {
        Ok(decoded) => {
            let hex: Vec<String> = decoded.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            if raw {
                let bits: Vec<String> =
                    decoded.bytes.iter().map(|byte| format!("{byte:08b}")).collect();
                writeln!(out, "    {}", bits.join(" "))?;
            }
            writeln!(
                out,
                "{label}: {:.1} °C  {:.1} %  [{}]",
                decoded.measurement.temperature(),
                decoded.measurement.humidity(),
                hex.join(" ")
            )
        }
        Err(refusal) => writeln!(out, "{label}: refused, {}: {}", refusal.name, refusal.detail),
    }
}

/// Level and width in µs of each pulse between two edges.
fn widths(recording: &Recording) -> Vec<(&'static str, f64)> {
    recording
        .edges
        .windows(2)
        .filter_map(|pair| match pair {
            [from, to] => {
                let level = if from.level == Level::Low { "low" } else { "high" };
                // Recordings are bounded to 10,000 widths of 10 s: exact in an f64.
                #[allow(clippy::cast_precision_loss)]
                Some((level, to.at_ns.saturating_sub(from.at_ns) as f64 / 1000.0))
            }
            _ => None,
        })
        .collect()
}
