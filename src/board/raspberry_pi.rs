//! The 40-pin header of the Raspberry Pi, the same on every board since the B+.
//!
//! Lines: `gpio-line-names` of linux 6.12 `arch/arm/boot/dts/broadcom/bcm2711-rpi-4-b.dts`. A GPIO's
//! number is its line offset on all three SoCs: on the bcm2835 family by `pinctrl-bcm2835.c`, on the
//! Pi 5 by the RP1's driver (`raspberrypi/linux` pull request 6144 shows its chip, issue 6878 there
//! its lines).

use super::pin::{BoardPin, Place};

const EEPROM: &str = "the ID EEPROM of an add-on board is on it, which the firmware reads at start";
const CONSOLE: &str = "the serial console is on it where that is enabled";

const fn pin(header: u8, name: &'static str, offset: u32, functions: &'static str) -> BoardPin {
    BoardPin { place: Place::Header(header), name, chip: None, offset, functions, reserved: None }
}

const fn reserved(pin: BoardPin, reason: &'static str) -> BoardPin {
    BoardPin { reserved: Some(reason), ..pin }
}

/// In the order of the header.
pub const PINS: &[BoardPin] = &[
    pin(3, "GPIO2", 2, "SDA1, 1.8 kΩ pull-up on the board"),
    pin(5, "GPIO3", 3, "SCL1, 1.8 kΩ pull-up on the board"),
    pin(7, "GPIO4", 4, "GPCLK0, w1 and dht11 overlays"),
    reserved(pin(8, "GPIO14", 14, "TXD0"), CONSOLE),
    reserved(pin(10, "GPIO15", 15, "RXD0"), CONSOLE),
    pin(11, "GPIO17", 17, ""),
    pin(12, "GPIO18", 18, "PCM_CLK, PWM0"),
    pin(13, "GPIO27", 27, ""),
    pin(15, "GPIO22", 22, ""),
    pin(16, "GPIO23", 23, ""),
    pin(18, "GPIO24", 24, ""),
    pin(19, "GPIO10", 10, "SPI0_MOSI"),
    pin(21, "GPIO9", 9, "SPI0_MISO"),
    pin(22, "GPIO25", 25, ""),
    pin(23, "GPIO11", 11, "SPI0_SCLK"),
    pin(24, "GPIO8", 8, "SPI0_CE0"),
    pin(26, "GPIO7", 7, "SPI0_CE1"),
    reserved(pin(27, "GPIO0", 0, "ID_SD"), EEPROM),
    reserved(pin(28, "GPIO1", 1, "ID_SC"), EEPROM),
    pin(29, "GPIO5", 5, ""),
    pin(31, "GPIO6", 6, ""),
    pin(32, "GPIO12", 12, "PWM0"),
    pin(33, "GPIO13", 13, "PWM1"),
    pin(35, "GPIO19", 19, "PCM_FS, PWM1"),
    pin(36, "GPIO16", 16, ""),
    pin(37, "GPIO26", 26, ""),
    pin(38, "GPIO20", 20, "PCM_DIN"),
    pin(40, "GPIO21", 21, "PCM_DOUT"),
];
