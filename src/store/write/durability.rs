//! How far a commit is on the disk when it returns.

/// How far a commit is on the disk when it returns: `PRAGMA synchronous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Durability {
    /// It survives a power cut.
    Full,
    /// A power cut may undo it, until the next commit with [`Durability::Full`].
    Normal,
    /// A power cut may damage the file.
    Off,
}
