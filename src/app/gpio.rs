//! `humidor gpio`: the lines of this machine and the header of this board, with the consumer of each line.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::anyhow;
use gpio_cdev::LineDirection;

use super::failure::Failure;
use super::start_log;
use crate::board::{Board, BoardPin, Place, Recognised};
use crate::cli::GpioTask;
use crate::config::{self, Layers, Wiring};
use crate::exit::Code;
use crate::gpio::chips::{self, Chips};
use crate::gpio::{LineAddress, LineError};

/// Lists the lines, or draws the header.
pub fn run(task: Option<&GpioTask>, layers: Layers) -> Result<(), Failure> {
    start_log(&layers.logging().quiet());
    let Wiring { board, uses } = config::wiring(layers)?;
    let chips = Chips::scan(Path::new(chips::DEVICES));
    match task {
        Some(GpioTask::List(_)) => list(&chips),
        None if board.board.is_none() => list(&chips),
        None | Some(GpioTask::Header(_)) => match board.board {
            Some(known) => {
                let header = header(known, &board, &claims(&chips, &board, &uses));
                Ok(io::stdout().lock().write_all(header.as_bytes())?)
            }
            None => Err(Failure::new(
                Code::Config,
                anyhow!(
                    "the board was not recognised ({}): set HUMIDOR_BOARD to one of {}",
                    board.reason,
                    Board::ids().collect::<Vec<_>>().join(", ")
                ),
            )),
        },
    }
}

fn list(chips: &Chips) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for chip in &chips.open {
        let (path, label) = (chip.path().display(), chip.label());
        writeln!(out, "{path} `{label}`, {} lines", chip.num_lines())?;
        for line in chip.lines() {
            let Ok(info) = line.info() else { continue };
            let direction = if info.direction() == LineDirection::Out { "out" } else { "in" };
            let name = info.name().unwrap_or("-");
            let user = chips::consumer(&line).unwrap_or_else(|| "-".to_owned());
            let address = format!("{}:{}", chip.label(), line.offset());
            writeln!(out, "  {address:<24} {name:<16} {direction:<3}  {user}")?;
        }
    }
    for denied in &chips.denied {
        writeln!(out, "{}: permission denied: {}", denied.device.display(), denied.remedy())?;
    }
    match (chips.open.is_empty(), chips.denied.first()) {
        (false, _) => Ok(()),
        (true, Some(denied)) => Err(LineError::from(denied).into()),
        (true, None) => {
            let error = LineError::NoChips { folder: chips::DEVICES.to_owned() };
            Err(error.into())
        }
    }
}

/// The consumer of each line: the kernel's name for it, else the configured name in brackets.
fn claims(
    chips: &Chips,
    board: &Recognised,
    uses: &[(String, crate::gpio::Pin)],
) -> HashMap<LineAddress, String> {
    let mut claims: HashMap<LineAddress, String> = uses
        .iter()
        .filter_map(|(name, pin)| Some((board.resolve(pin).ok()?.0, format!("({name})"))))
        .collect();
    for chip in &chips.open {
        for line in chip.lines() {
            if let Some(user) = chips::consumer(&line) {
                let address = LineAddress { chip: chip.label().to_owned(), offset: line.offset() };
                claims.insert(address, user);
            }
        }
    }
    claims
}

/// The header seen from above: odd pins on the left, even pins on the right.
fn header(board: &Board, found: &Recognised, claims: &HashMap<LineAddress, String>) -> String {
    let mut text = format!("{found}, lines of `{}`\n\n", board.chip);
    let cell = |number: u8| {
        let pin = board.pins.iter().find(|pin| pin.place == Place::Header(number));
        match pin {
            Some(pin) => (describe(pin), claims.get(&board.address(pin)).cloned()),
            None => (board.power(number).unwrap_or_default().to_owned(), None),
        }
    };
    for odd in (1..board.header_pins).step_by(2) {
        let ((left, left_user), (right, right_user)) = (cell(odd), cell(odd + 1));
        let row = format!(
            "{:>16} {left:>26} {odd:>3} | {:<3} {right:<26} {}",
            left_user.unwrap_or_default(),
            odd + 1,
            right_user.unwrap_or_default()
        );
        let _ = writeln!(text, "{}", row.trim_end());
    }
    let elsewhere = board.pins.iter().filter(|pin| matches!(pin.place, Place::Elsewhere(_)));
    for (index, pin) in elsewhere.enumerate() {
        if index == 0 {
            text.push('\n');
        }
        let user = claims.get(&board.address(pin)).cloned().unwrap_or_default();
        let row = format!(
            "{:>26} {:<18} {user}",
            describe(pin),
            match pin.place {
                Place::Elsewhere(place) => place,
                Place::Header(_) => "",
            }
        );
        let _ = writeln!(text, "{}", row.trim_end());
    }
    text
}

/// `TWI0_SDA PA12 :12`, with a mark on a line that the board needs for itself.
fn describe(pin: &BoardPin) -> String {
    // The first function is the one that pinout cards print.
    let function = pin.functions.split(',').next().unwrap_or_default();
    let mark = if pin.reserved.is_some() { "!" } else { "" };
    format!("{function} {mark}{} :{}", pin.name, pin.offset).trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_is_on_the_drawing_with_its_consumer() {
        for board in crate::board::BOARDS {
            let found = Recognised::set(board);
            let claims =
                HashMap::from([(board.address(&board.pins[2]), "humidor:hall".to_owned())]);
            let drawing = header(board, &found, &claims);
            for pin in board.pins {
                assert!(drawing.contains(&format!("{} :{}", pin.name, pin.offset)), "{drawing}");
            }
            let row = drawing.lines().find(|line| line.contains(" 7 | 8 ")).unwrap();
            assert!(row.contains("humidor:hall"), "{row}");
            assert_eq!(drawing.matches('|').count(), usize::from(board.header_pins / 2));
            assert!(drawing.contains("3.3 V   1 | 2   5 V"), "{drawing}");
        }
    }
}
