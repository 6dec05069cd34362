//! Payloads: telemetry that is accepted survives its own wire form, numbers are finite and few, commands are bounded.

#![no_main]

use humidor::wire::{Command, FOR_MAX_MS, Telemetry, numbers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(telemetry) = Telemetry::parse(bytes) {
        let again = Telemetry::parse(&telemetry.to_json()).expect("what we write we read");
        assert_eq!(telemetry, again);
    }
    if let Ok(numbers) = numbers(bytes) {
        assert!((1..=32).contains(&numbers.len()));
        assert!(numbers.iter().all(|(field, value)| value.is_finite() && field.len() <= 64));
    }
    if let Ok(Command { hold: Some(hold), .. }) = Command::parse(bytes) {
        assert!((1..=u128::from(FOR_MAX_MS)).contains(&hold.as_millis()));
    }
});
