//! MQTT packets: no bytes panic, how the network cuts them makes no difference, each frame takes a bounded amount of
//! memory, and mqtt-proto reads the same.

#![no_main]

use humidor::mqtt::codec::probe;
use humidor_fuzz::oracle;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = probe::read(bytes, bytes.len());
    assert_eq!(whole, probe::read(bytes, 1), "byte by byte");
    assert_eq!(whole, probe::read(bytes, 7), "by seven bytes");
    oracle::stream(bytes);
});
