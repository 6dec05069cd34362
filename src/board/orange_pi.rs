//! The headers of the Orange Pi Zero and of the Orange Pi Zero 2 and 3.
//!
//! Zero: `physToGpio_ZERO` of wiringOP and `orangepi/zero.py` of OPi.GPIO; LEDs from linux 6.12
//! `sun8i-h2-plus-orangepi-zero.dts`; the chip's label as Debian's armmp 6.1 shows it with that
//! device tree.
//! Zero 2 and 3 share one table: wiringOP maps both to `physToGpio_ZERO_2`; OPi.GPIO pull request 80
//! was tried on a Zero 3; the label is from `adafruit/Adafruit_Blinka` pull request 749.
//!
//! An offset is 32 for each bank before it (PA = 0) plus the number; bank PL is a chip of its own.

use super::pin::{BoardPin, Place};

/// Bank PL of the H2+, which stays powered when the rest sleeps.
const R_PINCTRL_H2: &str = "1f02c00.pinctrl";
const SIDE: Place = Place::Elsewhere("13-pin header");
const LED: Place = Place::Elsewhere("on the board");

const fn pin(header: u8, name: &'static str, offset: u32, functions: &'static str) -> BoardPin {
    at(Place::Header(header), name, offset, functions)
}

const fn at(place: Place, name: &'static str, offset: u32, functions: &'static str) -> BoardPin {
    BoardPin { place, name, chip: None, offset, functions, reserved: None }
}

const fn reserved(pin: BoardPin, reason: &'static str) -> BoardPin {
    BoardPin { reserved: Some(reason), ..pin }
}

/// Orange Pi Zero, in the order of the header.
pub const ZERO: &[BoardPin] = &[
    pin(3, "PA12", 12, "TWI0_SDA"),
    pin(5, "PA11", 11, "TWI0_SCK"),
    pin(7, "PA6", 6, "PWM1"),
    pin(8, "PG6", 198, "UART1_TX"),
    pin(10, "PG7", 199, "UART1_RX"),
    pin(11, "PA1", 1, "UART2_RX, JTAG"),
    pin(12, "PA7", 7, ""),
    pin(13, "PA0", 0, "UART2_TX"),
    pin(15, "PA3", 3, "UART2_CTS"),
    pin(16, "PA19", 19, "TWI1_SDA, PCM0_CLK"),
    pin(18, "PA18", 18, "TWI1_SCK, PCM0_SYNC"),
    pin(19, "PA15", 15, "SPI1_MOSI, UART3_RTS"),
    pin(21, "PA16", 16, "SPI1_MISO, UART3_CTS"),
    pin(22, "PA2", 2, "UART2_RTS"),
    pin(23, "PA14", 14, "SPI1_CLK, UART3_RX"),
    pin(24, "PA13", 13, "SPI1_CS, UART3_TX"),
    pin(26, "PA10", 10, ""),
    reserved(at(LED, "PA17", 17, "red LED"), "the red status LED is on it"),
    reserved(
        BoardPin { chip: Some(R_PINCTRL_H2), ..at(LED, "PL10", 10, "green LED") },
        "the green power LED is on it",
    ),
    reserved(
        BoardPin { chip: Some(R_PINCTRL_H2), ..at(SIDE, "PL11", 11, "infrared receiver") },
        "an infrared receiver on the 13-pin header drives it: it can only be an input",
    ),
];

/// Orange Pi Zero 2 and Zero 3, in the order of the header.
pub const ZERO_2: &[BoardPin] = &[
    pin(3, "PH5", 229, "TWI3_SDA"),
    pin(5, "PH4", 228, "TWI3_SCK"),
    pin(7, "PC9", 73, ""),
    pin(8, "PH2", 226, "UART5_TX"),
    pin(10, "PH3", 227, "UART5_RX"),
    pin(11, "PC6", 70, ""),
    pin(12, "PC11", 75, ""),
    pin(13, "PC5", 69, ""),
    pin(15, "PC8", 72, ""),
    pin(16, "PC15", 79, ""),
    pin(18, "PC14", 78, ""),
    pin(19, "PH7", 231, "SPI1_MOSI"),
    pin(21, "PH8", 232, "SPI1_MISO"),
    pin(22, "PC7", 71, ""),
    pin(23, "PH6", 230, "SPI1_CLK"),
    pin(24, "PH9", 233, "SPI1_CS"),
    pin(26, "PC10", 74, ""),
    at(SIDE, "PC1", 65, ""),
    reserved(at(SIDE, "PH0", 224, "UART0_TX"), "the serial console is on it"),
    at(SIDE, "PI16", 272, ""),
    reserved(at(SIDE, "PH1", 225, "UART0_RX"), "the serial console is on it"),
    at(SIDE, "PI6", 262, ""),
    reserved(
        at(SIDE, "PH10", 234, "infrared receiver"),
        "an infrared receiver on the 13-pin header drives it: it can only be an input",
    ),
];
