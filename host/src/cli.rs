//! What an operator does apart from running the broker: `broker caller` and `broker check`.

mod caller;
mod check;

pub(crate) use self::caller::Caller;
pub(crate) use self::check::Check;
