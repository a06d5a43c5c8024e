//! The rows, by what they are about.

mod authentication;
mod message;
mod metadata_and_health;
mod revocation;
mod routes;
mod scope;
mod token_request;

use super::table::Row;

/// In this order: a token comes from OfficeRnD at the first request for it, and is there for the rest.
pub(super) static GROUPS: [&[Row]; 7] = [
    token_request::ROWS,
    scope::ROWS,
    authentication::ROWS,
    message::ROWS,
    routes::ROWS,
    revocation::ROWS,
    metadata_and_health::ROWS,
];
