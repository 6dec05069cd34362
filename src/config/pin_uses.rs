//! Whether the pins of a configuration are there, each for one name: on the board where it is known, else on any.

use std::collections::HashMap;

use super::layers::Layers;
use crate::board::{Board, Recognised};
use crate::gpio::Pin;
use crate::node::{InputConfig, OutputConfig, SensorConfig};
use crate::reading::Id;

/// Name and pin of each sensor, input and output, list by list.
pub(super) fn uses(
    sensors: &[SensorConfig],
    inputs: &[InputConfig],
    outputs: &[OutputConfig],
) -> [Vec<(String, Pin)>; 3] {
    let of = |name: &Id, pin: &Pin| (name.to_string(), pin.clone());
    [
        sensors.iter().map(|sensor| of(&sensor.name, &sensor.pin)).collect(),
        inputs.iter().map(|input| of(&input.name, &input.pin)).collect(),
        outputs.iter().map(|output| of(&output.name, &output.pin)).collect(),
    ]
}

/// Notes each pin that the board does not have, and each line with two names. A pin that one list has twice is a mistake
/// that was noted with the list.
pub(super) fn check(layers: &mut Layers, board: &Recognised, uses: &[Vec<(String, Pin)>; 3]) {
    let mut taken: HashMap<String, (usize, &str, &Pin)> = HashMap::new();
    let uses =
        uses.iter().enumerate().flat_map(|(list, uses)| uses.iter().map(move |it| (list, it)));
    for (list, (name, pin)) in uses {
        let line = match board.board {
            Some(board) => board.resolve(pin).map(|(line, _)| line.to_string()),
            None => Board::any_has(pin).map(|()| pin.to_string()),
        };
        match line {
            Err(error) => layers.problem(format!("`{name}`: {error}")),
            Ok(line) => {
                if let Some((first_list, first, first_pin)) =
                    taken.insert(line.clone(), (list, name, pin))
                    && (first_list, first_pin) != (list, pin)
                {
                    layers.problem(format!(
                        "`{first}@{first_pin}` and `{name}@{pin}` are both on {line}: use another pin for one of them"
                    ));
                }
            }
        }
    }
}
