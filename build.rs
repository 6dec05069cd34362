//! Compresses the page's files for the binary, which sends them to a browser as they are.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;

const ASSETS: &str = "src/web/assets";
/// Licences lie beside the files and are not sent.
const SENT: [&str; 4] = ["html", "css", "js", "json"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={ASSETS}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names a folder"));
    for entry in fs::read_dir(ASSETS).expect(ASSETS) {
        let path = entry.expect(ASSETS).path();
        if path.extension().is_some_and(|kind| SENT.iter().any(|sent| kind == *sent)) {
            compress(&path, &out);
        }
    }
}

fn compress(path: &Path, out: &Path) {
    let name = path.file_name().expect("a file").to_str().expect("a name in ASCII");
    let content = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Neither name nor time of the file: the same content gives the same bytes.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let compressed = encoder.write_all(&content).and_then(|()| encoder.finish());
    fs::write(out.join(format!("{name}.gz")), compressed.expect("a vector takes every write"))
        .unwrap_or_else(|error| panic!("{}: {error}", out.display()));
}
