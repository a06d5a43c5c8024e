//! The rows of the table, one file for each topic.

mod authentication;
mod message;
mod metadata_and_health;
mod revocation;
mod routes;
mod scope;
mod token_request;

use super::table::Row;

/// The order matters: the first request for a token fetches it, and the later rows find it in
/// the cache.
pub(super) static GROUPS: [&[Row]; 7] = [
    token_request::ROWS,
    scope::ROWS,
    authentication::ROWS,
    message::ROWS,
    routes::ROWS,
    revocation::ROWS,
    metadata_and_health::ROWS,
];
