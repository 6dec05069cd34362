//! MQTT packets: no bytes panic, and how the network cuts them makes no difference.

#![no_main]

use humidor::broker::probe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = probe::read(bytes, bytes.len());
    assert_eq!(whole, probe::read(bytes, 1), "byte by byte");
    assert_eq!(whole, probe::read(bytes, 7), "by seven bytes");
});
