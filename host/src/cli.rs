//! The operator's subcommands: `broker caller` and `broker check`.

mod caller;
mod check;

pub(crate) use self::caller::Caller;
pub(crate) use self::check::Check;
