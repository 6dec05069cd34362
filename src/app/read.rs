//! `humidor read`: reads sensors now, or decodes recorded pulse trains. A user sees a bad frame with it, and can send it
//! in a bug report.

use std::io::{self, Read as _, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::anyhow;
use serde_json::{Value, json};

use super::failure::{self, Failure};
use super::start_log;
use crate::cli::{Read, ReadFormat};
use crate::config;
use crate::dht::recording::{self, Recording};
use crate::dht::{self, Decoded, Fault};
use crate::exit::Code;
use crate::gpio::Level;
use crate::node::{LISTEN, Lines, SETTLE, Sensor};
use crate::reading::IdError;

/// Largest file of recordings, in bytes: some 10,000 frames.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Reads the sensors, or the recordings.
pub fn run(options: &Read) -> Result<(), Failure> {
    match &options.from {
        Some(file) => recorded(options, file),
        None => live(options),
    }
}

/// Reads each sensor `count` times, and prints every exchange that gave no reading with its cause. When a reading failed in
/// all its tries, the exit code is 69 for a sensor that does not answer and 65 for an answer that is not understood.
fn live(options: &Read) -> Result<(), Failure> {
    let layers = super::layers(&options.settings.flags);
    start_log(&layers.logging().quiet());
    let probe = config::probe(layers, options.sensor.as_deref())?;
    let node = "read".parse().map_err(|error: IdError| Failure::new(Code::Internal, error))?;
    let sensors =
        Lines::new(&node, &probe.board, probe.backend).open(&probe.sensors, &[], &[])?.sensors;
    std::thread::sleep(SETTLE);
    let mut silent = None;
    for sensor in sensors {
        let name = sensor.name.clone();
        let stale = sensor.model.returns_previous();
        let mut sensor = Patient { sensor, asked: None, stale };
        for _ in 0..options.count {
            if let Err(refusal) = sensor.reading(options)? {
                silent = Some((name.clone(), refusal));
            }
        }
    }
    let Some((name, refusal)) = silent else { return Ok(()) };
    let code = if ["no-response", "stuck-low"].contains(&refusal.name) {
        Code::Unavailable
    } else {
        Code::Data
    };
    Err(Failure::new(code, anyhow!("no reading of `{name}`: {}: {}", refusal.name, refusal.detail)))
}

/// Tries of [`once`] for one reading, as by default on the command line.
const TRIES: u32 = 5;

/// One reading of a sensor, or the cause of the last failure in words.
pub fn once(sensor: Sensor) -> Result<String, Failure> {
    let stale = sensor.model.returns_previous();
    let mut patient = Patient { sensor, asked: None, stale };
    let mut last = String::new();
    let mut tries = 0;
    while tries < TRIES {
        let recording = patient.exchange()?;
        match verdict(&recording) {
            Ok(_) if std::mem::take(&mut patient.stale) => {}
            Ok(decoded) => {
                let measured = decoded.measurement;
                return Ok(format!(
                    "{:.1} °C, {:.1} %",
                    measured.temperature(),
                    measured.humidity()
                ));
            }
            Err(refusal) => {
                tries += 1;
                last = format!("{}: {}", refusal.name, refusal.detail);
            }
        }
    }
    Err(Failure::new(Code::Unavailable, anyhow!("{last}")))
}

/// A sensor with the time of its last exchange: the model sets the least time between two.
struct Patient {
    sensor: Sensor,
    asked: Option<Instant>,
    /// Whether the next answer is of unknown age: a DHT22 returns its measurement at the read before.
    stale: bool,
}

impl Patient {
    fn exchange(&mut self) -> Result<Recording, Failure> {
        let model = self.sensor.model;
        if let Some(asked) = self.asked {
            std::thread::sleep(model.min_interval().saturating_sub(asked.elapsed()));
        }
        let edges = self.sensor.line.exchange(model.start_signal(), LISTEN)?;
        self.asked = Some(Instant::now());
        Ok(Recording { id: None, model, edges })
    }

    /// One reading within the allowed tries, or the last cause.
    fn reading(&mut self, options: &Read) -> Result<Result<(), Refusal>, Failure> {
        let mut tries = 0;
        loop {
            let recording = self.exchange()?;
            let verdict = verdict(&recording);
            if verdict.is_ok() && std::mem::take(&mut self.stale) {
                continue;
            }
            tries += 1;
            let out = &mut io::stdout().lock();
            write(out, &recording, self.sensor.name.as_str(), &verdict, options)?;
            match verdict {
                Ok(_) => return Ok(Ok(())),
                Err(refusal) if tries >= options.tries => return Ok(Err(refusal)),
                Err(_) => {}
            }
        }
    }
}

/// Prints each recording's reading or cause; exit 65 when one was refused.
fn recorded(options: &Read, file: &Path) -> Result<(), Failure> {
    let text = text(file)?;
    let recordings = recording::parse(&text)
        .map_err(|error| Failure::new(Code::Data, anyhow!("{}: {error}", file.display())))?;
    let mut out = io::stdout().lock();
    let mut refused = 0;
    for (index, recording) in recordings.iter().enumerate() {
        let verdict = verdict(recording);
        refused += usize::from(verdict.is_err());
        let label = recording.id.clone().unwrap_or_else(|| format!("#{index}"));
        write(&mut out, recording, &label, &verdict, options)?;
    }
    if refused == 0 {
        Ok(())
    } else {
        Err(Failure::new(
            Code::Data,
            anyhow!("{refused} of {} recordings refused", recordings.len()),
        ))
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    let io_error = |error: io::Error| {
        let code = failure::of_io(&error);
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
            anyhow!("{}: the file is larger than {FILE_MAX_BYTES} bytes", path.display()),
        ));
    }
    String::from_utf8(bytes).map_err(|_| {
        Failure::new(Code::Data, anyhow!("{}: the file is not UTF-8 text", path.display()))
    })
}

/// The cause that makes a recording no reading.
struct Refusal {
    name: &'static str,
    detail: String,
}

/// Decides as the node's sampler does: a weak frame is no reading.
fn verdict(recording: &Recording) -> Result<Decoded, Refusal> {
    let fault = |fault: Fault| Refusal { name: fault.name(), detail: fault.to_string() };
    let decoded = dht::decode(&recording.edges, recording.model).map_err(fault)?;
    match decoded.weak {
        None => Ok(decoded),
        Some(weakness) => Err(Refusal { name: "weak", detail: weakness.to_string() }),
    }
}

fn write(
    out: &mut impl Write,
    recording: &Recording,
    label: &str,
    verdict: &Result<Decoded, Refusal>,
    options: &Read,
) -> io::Result<()> {
    match options.format {
        ReadFormat::Json => writeln!(out, "{}", as_json(recording, label, verdict, options.raw)),
        ReadFormat::Text => write_text(out, recording, label, verdict, options.raw),
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
