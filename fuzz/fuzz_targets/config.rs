//! Settings, `key=value` a line: any text is a configuration or a list of mistakes, never a panic.

#![no_main]

use humidor::config::{self, Layers, SETTINGS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let flags: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter_map(|(key, value)| {
            // Files are the file system's business.
            let setting = SETTINGS.iter().find(|setting| setting.key == key && key != "config")?;
            Some((setting.key, value.to_owned()))
        })
        .collect();
    let layers = Layers::new(&flags, []);
    let problems = config::validate_all(&layers);
    if config::node(layers.clone()).is_ok() {
        assert!(!problems.to_string().contains("HUMIDOR_SENSORS:"), "{problems}");
    }
    let _ = config::broker(layers).map_err(|problems| problems.to_string());
});
