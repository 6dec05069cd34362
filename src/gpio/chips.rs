//! The GPIO devices of this machine, found by label.

use std::error::Error as _;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use gpio_cdev::Chip;

use super::{LineAddress, LineError};

/// Where device files are.
pub const DEVICES: &str = "/dev";

/// A device that this process may not open, and the group that may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The device file.
    pub device: PathBuf,
    /// Its group.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
    /// The hardware behind it, as the kernel names it. Many drivers label their chip so.
    pub hardware: Option<String>,
}

impl Denied {
    /// The options or commands that give the permission, ready to be pasted.
    #[must_use]
    pub fn remedy(&self) -> String {
        let (device, gid) = (self.device.display(), self.gid);
        if self.mode & 0o060 == 0 {
            // Group 0 without rights: what a board has whose distribution ships no udev rule.
            return format!(
                "its mode {:04o} gives nothing to its group; on the board run `groupadd -f gpio`, put `SUBSYSTEM==\"gpio\", KERNEL==\"gpiochip*\", GROUP=\"gpio\", MODE=\"0660\"` into /etc/udev/rules.d/60-gpio.rules, `udevadm trigger`, and start the container with `--device {device} --group-add \"$(getent group gpio | cut -d: -f3)\"`",
                self.mode & 0o7777
            );
        }
        format!(
            "start the container with `--device {device} --group-add {gid}`, or without a container run as a member of that group: `usermod -aG {gid} USER`, and log in anew"
        )
    }
}

impl From<&Denied> for LineError {
    fn from(denied: &Denied) -> Self {
        Self::Permission { device: denied.device.clone(), remedy: denied.remedy() }
    }
}

/// The chips of this machine.
#[derive(Debug)]
pub struct Chips {
    folder: PathBuf,
    /// Chips that are open.
    pub open: Vec<Chip>,
    /// Chips that may not be opened.
    pub denied: Vec<Denied>,
}

impl Chips {
    /// No chip at all.
    #[must_use]
    pub fn none() -> Self {
        Self { folder: DEVICES.into(), open: Vec::new(), denied: Vec::new() }
    }

    /// Opens every chip under `folder` (`/dev`, or a test's). Skips files that are no GPIO chip.
    #[must_use]
    pub fn scan(folder: &Path) -> Self {
        let mut chips = Self { folder: folder.to_owned(), ..Self::none() };
        let mut devices: Vec<(u32, PathBuf)> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.strip_prefix("gpiochip")?.parse().ok()?;
                Some((number, entry.path()))
            })
            .collect();
        devices.sort();
        for (_, device) in devices {
            match Chip::new(&device) {
                Ok(chip) => chips.open.push(chip),
                Err(error) if io_error(&error).kind() == io::ErrorKind::PermissionDenied => {
                    let (gid, mode) = std::fs::metadata(&device)
                        .map_or((0, 0), |metadata| (metadata.gid(), metadata.mode()));
                    let hardware = hardware(&device);
                    chips.denied.push(Denied { device, gid, mode, hardware });
                }
                Err(error) => tracing::debug!(device = %device.display(), %error, "no GPIO chip"),
            }
        }
        chips
    }

    /// The chip with this label.
    ///
    /// # Errors
    /// [`LineError::NoChips`], [`LineError::NoChip`], or [`LineError::Permission`] where a chip that may
    /// not be opened could be the one.
    pub fn by_label(&self, label: &str) -> Result<&Chip, LineError> {
        if let Some(chip) = self.open.iter().find(|chip| chip.label() == label) {
            return Ok(chip);
        }
        let likely = self.denied.iter().find(|denied| denied.hardware.as_deref() == Some(label));
        if let Some(denied) = likely.or(self.denied.first()) {
            return Err(denied.into());
        }
        if self.open.is_empty() {
            return Err(LineError::NoChips { folder: self.folder.display().to_string() });
        }
        let present: Vec<String> =
            self.open.iter().map(|chip| format!("{} `{}`", chip.name(), chip.label())).collect();
        Err(LineError::NoChip { label: label.to_owned(), present: present.join(", ") })
    }

    /// The line at this address; `written` is how the user names it.
    ///
    /// # Errors
    /// As [`Chips::by_label`], and [`LineError::NoLine`].
    pub fn line(&self, address: &LineAddress, written: &str) -> Result<gpio_cdev::Line, LineError> {
        let chip = self.by_label(&address.chip)?;
        let line = chip.lines().nth(address.offset as usize);
        line.ok_or_else(|| LineError::NoLine {
            line: written.to_owned(),
            chip: address.chip.clone(),
            last: chip.num_lines().saturating_sub(1),
        })
    }
}

/// `/sys/bus/gpio/devices/gpiochip0` is a link into the folder of the hardware.
fn hardware(device: &Path) -> Option<String> {
    let chip = Path::new("/sys/bus/gpio/devices").join(device.file_name()?).canonicalize().ok()?;
    Some(chip.parent()?.file_name()?.to_str()?.to_owned())
}

/// The line's consumer, if it has one. The kernel shows a consumer without a name as `?`.
pub fn consumer(line: &gpio_cdev::Line) -> Option<String> {
    let info = line.info().ok()?;
    let named = info.consumer().map(str::to_owned);
    named.or_else(|| info.is_kernel().then(|| "the kernel".to_owned()))
}

/// The system's error, out of gpio-cdev's, which keeps it as its source.
#[must_use]
pub fn io_error(error: &gpio_cdev::Error) -> io::Error {
    let code = error.source().and_then(|source| {
        let errno = source.downcast_ref::<nix::errno::Errno>().map(|errno| *errno as i32);
        errno.or_else(|| source.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error))
    });
    code.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_for_a_permission_names_device_and_group() {
        let mut denied =
            Denied { device: "/dev/gpiochip1".into(), gid: 997, mode: 0o20660, hardware: None };
        assert!(denied.remedy().contains("`--device /dev/gpiochip1 --group-add 997`"));
        assert!(denied.remedy().contains("`usermod -aG 997 USER`"));
        (denied.gid, denied.mode) = (0, 0o20600);
        let rule = denied.remedy();
        assert!(rule.contains("0600") && rule.contains("udev") && !rule.contains("--group-add 0"));
    }

    #[test]
    fn a_machine_without_chips_says_so() {
        let folder = tempfile::tempdir().unwrap();
        // Neither a device nor a chip's name.
        for name in ["gpiochip0", "gpiochipX", "gpiochip"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let chips = Chips::scan(folder.path());
        assert!(matches!(chips.by_label("x"), Err(LineError::NoChips { .. })));
    }

    #[test]
    fn a_chip_that_may_be_the_one_is_asked_for_before_the_label_is_doubted() {
        let denied = |number: u32, hardware: &str| Denied {
            device: format!("/dev/gpiochip{number}").into(),
            gid: number,
            mode: 0o660,
            hardware: Some(hardware.to_owned()),
        };
        let denied = vec![denied(0, "1f02c00.pinctrl"), denied(1, "1c20800.pinctrl")];
        let chips = Chips { denied, ..Chips::none() };
        for (label, remedy) in [
            ("pinctrl-bcm2711", "gpiochip0 --group-add 0"),
            ("1c20800.pinctrl", "gpiochip1 --group-add 1"),
        ] {
            let error = chips.by_label(label).unwrap_err();
            assert!(matches!(&error, LineError::Permission { .. }), "{error}");
            assert!(error.to_string().contains(remedy), "{error}");
        }
    }
}
