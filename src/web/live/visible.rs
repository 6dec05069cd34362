//! What an identity sees of the boards: each value of a board is the message of one topic, and the rules of that topic
//! decide.

use std::borrow::Cow;

use super::boards::{BoardState, Boards};
use crate::reading::Id;
use crate::web::auth::Identity;
use crate::wire::NodeTopics;

/// The boards of which `identity` may see anything, with what it may see.
pub fn visible_boards<'a>(
    boards: &'a Boards,
    identity: &Identity,
) -> impl Iterator<Item = (&'a Id, Cow<'a, BoardState>)> {
    boards.iter().filter_map(|(node, board)| Some((node, visible(node, board, identity)?)))
}

/// What `identity` may see of a board; `None`: nothing.
pub fn visible<'a>(
    node: &Id,
    board: &'a BoardState,
    identity: &Identity,
) -> Option<Cow<'a, BoardState>> {
    if identity.reads_all() {
        return (*board != BoardState::default()).then_some(Cow::Borrowed(board));
    }
    let topics = NodeTopics::new(node.clone());
    let mut board = board.clone();
    if !identity.may_read_topic(&topics.status()) {
        (board.status, board.status_at) = (None, None);
    }
    if !identity.may_read_topic(&topics.health()) {
        (board.health, board.health_at) = (None, None);
    }
    board.inputs.retain(|input, _| identity.may_read_topic(&topics.input(input)));
    board.outputs.retain(|output, _| identity.may_read_topic(&topics.output(output)));
    (board != BoardState::default()).then_some(Cow::Owned(board))
}
