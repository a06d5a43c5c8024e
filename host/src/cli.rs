//! The operator's subcommands: `broker caller` and `broker check`.

mod caller;
mod check;
mod terminal;

pub(crate) use self::caller::Caller;
pub(crate) use self::check::Check;
