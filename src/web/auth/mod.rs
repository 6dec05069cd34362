//! Authentication: which user sends a request, and what that user may do.

pub mod authenticator;
pub mod same_origin;
