//! Recognises the board from files of the kernel.

use std::fmt;
use std::path::Path;

use super::boards::{BOARDS, Board, NoSuchPin};
use super::pin::BoardPin;
use crate::gpio::{LineAddress, Pin};

/// The device tree's list of what the board is, the most exact first, each ended by a zero byte
/// (Devicetree Specification §2.3.1).
const COMPATIBLE: &str = "proc/device-tree/compatible";
/// Raspberry Pi's kernels put the model's name here, also where a container engine hides the device
/// tree (Docker masks `/sys/firmware`, to which `/proc/device-tree` points).
const CPUINFO: &str = "proc/cpuinfo";
/// Bytes read of each of these files, at most.
const FILE_MAX_BYTES: usize = 64 * 1024;

/// The board, or the reason why it is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// The board, if it is one that we know.
    pub board: Option<&'static Board>,
    /// How it was recognised, or why not.
    pub reason: String,
}

impl Recognised {
    /// A board that the user named.
    #[must_use]
    pub fn set(board: &'static Board) -> Self {
        Self { board: Some(board), reason: "set by HUMIDOR_BOARD".to_owned() }
    }

    /// The line of `pin`. Without a board only a `chip:line` has one.
    ///
    /// # Errors
    /// [`NoSuchPin`].
    pub fn resolve(
        &self,
        pin: &Pin,
    ) -> Result<(LineAddress, Option<&'static BoardPin>), NoSuchPin> {
        match (self.board, pin) {
            (Some(board), pin) => board.resolve(pin),
            (None, Pin::Line { chip, offset }) => {
                Ok((LineAddress { chip: chip.clone(), offset: *offset }, None))
            }
            (None, pin) => Err(NoSuchPin::NoBoard {
                pin: pin.to_string(),
                why: self.reason.clone(),
                known: Board::ids().collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

impl fmt::Display for Recognised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.board.map_or("unknown board", |board| board.name), self.reason)
    }
}

/// Recognises the board from the files under `root` (`/`, or a test's folder).
#[must_use]
pub fn recognise(root: &Path) -> Recognised {
    let compatible = read(root, COMPATIBLE).unwrap_or_default();
    let names: Vec<&str> =
        compatible.split('\0').map(str::trim).filter(|name| !name.is_empty()).collect();
    if let Some((board, name)) = by_compatible(&names) {
        return Recognised { board: Some(board), reason: format!("the device tree says {name}") };
    }
    let cpuinfo = read(root, CPUINFO).unwrap_or_default();
    let model = cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "Model")
        .map(|(_, model)| model.trim());
    if let Some(model) = model
        && let Some(board) = by_model(model)
    {
        let reason = format!("/proc/cpuinfo says {model}");
        return Recognised { board: Some(board), reason };
    }
    let reason = match (names.first(), model) {
        (Some(name), _) => format!("the device tree says {name}, which is not a known board"),
        (None, Some(model)) => format!("/proc/cpuinfo says {model}, which is not a known board"),
        (None, None) => {
            "no device tree is visible; container engines hide it, and a PC has none".to_owned()
        }
    };
    Recognised { board: None, reason }
}

fn by_compatible<'a>(names: &[&'a str]) -> Option<(&'static Board, &'a str)> {
    names.iter().find_map(|name| {
        let board = BOARDS.iter().find(|board| board.compatible.contains(name))?;
        Some((board, *name))
    })
}

/// `Raspberry Pi 4 Model B Rev 1.5`: the name, then the model and its revision. `Raspberry Pi 400`
/// is another name, so a word has to end there.
fn by_model(model: &str) -> Option<&'static Board> {
    BOARDS.iter().find(|board| {
        model
            .strip_prefix(board.name)
            .is_some_and(|rest| rest.starts_with(" Model") || rest.is_empty())
    })
}

fn read(root: &Path, file: &str) -> Option<String> {
    let bytes = std::fs::read(root.join(file)).ok()?;
    Some(String::from_utf8_lossy(bytes.get(..FILE_MAX_BYTES).unwrap_or(&bytes)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recognised(compatible: Option<&str>, cpuinfo: &str) -> Recognised {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/device-tree")).unwrap();
        if let Some(compatible) = compatible {
            std::fs::write(root.path().join(COMPATIBLE), compatible).unwrap();
        }
        std::fs::write(root.path().join(CPUINFO), cpuinfo).unwrap();
        recognise(root.path())
    }

    #[test]
    fn a_board_is_recognised_by_its_device_tree() {
        for (compatible, id) in [
            ("raspberrypi,4-model-b\0brcm,bcm2711\0", "raspberry-pi-4"),
            ("raspberrypi,3-model-b-plus\0brcm,bcm2837\0", "raspberry-pi-3"),
            ("xunlong,orangepi-zero\0allwinner,sun8i-h2-plus\0", "orange-pi-zero"),
            ("xunlong,orangepi-zero3\0allwinner,sun50i-h618\0", "orange-pi-zero-3"),
        ] {
            let found = recognised(Some(compatible), "");
            assert_eq!(found.board.map(|board| board.id), Some(id), "{}", found.reason);
        }
    }

    #[test]
    fn where_the_device_tree_is_hidden_a_raspberry_pi_is_known_by_its_model() {
        let cpuinfo =
            "processor\t: 0\nRevision\t: c03115\nModel\t\t: Raspberry Pi 4 Model B Rev 1.5\n";
        assert_eq!(recognised(None, cpuinfo).board.unwrap().id, "raspberry-pi-4");
        let other = recognised(None, "Model : Raspberry Pi 40 Model B\n");
        assert_eq!(other.board, None);
    }

    #[test]
    fn an_unknown_board_takes_chip_and_line_alone_and_says_what_to_set() {
        let pc = recognised(None, "model name : some x86\n");
        assert_eq!(pc.board, None);
        assert!(pc.resolve(&"gpio-dhtsim:4".parse().unwrap()).is_ok());
        let error = pc.resolve(&"7".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("HUMIDOR_BOARD") && error.contains("orange-pi-zero-3"), "{error}");
        let foreign = recognised(Some("vendor,teapot\0"), "");
        assert!(foreign.reason.contains("vendor,teapot"), "{}", foreign.reason);
    }
}
