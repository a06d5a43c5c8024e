//! The interface `spin:variables`, implemented on an instance.

use broker_operator::spin::Error;
use wasmtime::component::{Accessor, HasSelf};

use super::bindings::spin::variables::variables;
use super::instance::Instance;
use crate::variable_faults::Refused;

impl variables::Host for Instance {}

impl<T: Send> variables::HostWithStore<T> for HasSelf<Instance> {
    async fn get(accessor: &Accessor<T, Self>, name: String) -> wasmtime::Result<Result<String, variables::Error>> {
        let shared = accessor.with(|mut access| access.get().shared.clone());
        shared.counters.add(|counts| counts.variables += 1);
        let delay = match shared.variables.begin_read() {
            Ok(delay) => delay,
            Err(Refused) => return Ok(Err(variables::Error::Provider("too many requests".into()))),
        };
        // A timer has a granularity of 1 ms, so even a delay of zero would cost that much.
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Ok(shared.manifest.component_variable(&name, &shared.variables).map_err(|error| match error {
            Error::InvalidName(text) => variables::Error::InvalidName(text),
            Error::Undefined(text) => variables::Error::Undefined(text),
            Error::Provider(text) => variables::Error::Provider(text),
        }))
    }
}
