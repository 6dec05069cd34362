//! Authentication and permissions of HTTP requests. A user logs in once for a session, or sends name and password
//! with each request; a guest is judged by the client's address. Permissions are the broker's own rules for MQTT topics.

mod authenticator;
mod guests;
pub mod host_names;
mod identity;
mod login;
mod middleware;
pub mod refusal_page;
pub mod same_origin;
mod sessions;

pub use authenticator::Authenticator;
pub use guests::{Guests, is_local};
pub use identity::Identity;
pub use login::routes;
pub use middleware::{authenticate, require_read};
