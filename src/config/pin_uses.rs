//! Whether the pins of a configuration are there, each for one name: on the board where it is known, else on any.

use std::collections::HashMap;

use super::layers::Layers;
use crate::board::{Board, Recognised};
use crate::gpio::Pin;
use crate::node::{InputConfig, OutputConfig, SensorConfig};

/// Name and pin of each sensor, input and output.
pub(super) fn uses(
    sensors: &[SensorConfig],
    inputs: &[InputConfig],
    outputs: &[OutputConfig],
) -> Vec<(String, Pin)> {
    let sensors = sensors.iter().map(|sensor| (&sensor.name, &sensor.pin));
    let inputs = inputs.iter().map(|input| (&input.name, &input.pin));
    let outputs = outputs.iter().map(|output| (&output.name, &output.pin));
    let all = sensors.chain(inputs).chain(outputs);
    all.map(|(name, pin)| (name.to_string(), pin.clone())).collect()
}

/// Notes each pin that the board does not have, and each line with two names.
pub(super) fn check(layers: &mut Layers, board: &Recognised, uses: &[(String, Pin)]) {
    let mut taken: HashMap<String, String> = HashMap::new();
    for (name, pin) in uses {
        let line = match board.board {
            Some(board) => board.resolve(pin).map(|(line, _)| line.to_string()),
            None => Board::any_has(pin).map(|()| pin.to_string()),
        };
        match line {
            Err(error) => layers.problem(format!("`{name}`: {error}")),
            Ok(line) => {
                let owner = format!("{name}@{pin}");
                if let Some(first) = taken.insert(line.clone(), owner.clone()) {
                    layers.problem(format!(
                        "`{first}` and `{owner}` are both on {line}: use another pin for one of them"
                    ));
                }
            }
        }
    }
}
