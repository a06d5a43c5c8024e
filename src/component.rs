//! Entry point of the component: takes a request from the host, and returns the core's answer.
//!
//! It uses `wasi:http` directly. Conversions to the types of the crate `http` exist, but they
//! would copy and parse all of a request's twenty headers for the three that the core reads,
//! and copy an answer twice (docs/performance.md).

mod clock;
mod host;
mod http;
mod log;
mod spawn;
#[cfg(feature = "spin")]
mod spin;
#[cfg(feature = "wasi")]
mod wasi;
mod world;

use std::rc::Rc;
use std::time::Duration;

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{self, ErrorCode};
use wasip3::random::random::get_random_u64;

use crate::broker::{Broker, Instance, Ports};
use crate::endpoint;

#[cfg(all(feature = "spin", feature = "wasi"))]
compile_error!("a component is for one kind of host: `wasi` is built with --no-default-features");

thread_local! {
    /// The broker of this instance, which serves many requests concurrently.
    static BROKER: Rc<Broker<world::World>> = Rc::new(Broker {
        ports: world::World { host: Rc::default(), stdout: Rc::new(log::Stdout::open()) },
        instance: Rc::new(Instance::new(get_random_u64())),
    });
}

struct Component;

wasip3::http::service::export!(Component);

impl Guest for Component {
    async fn handle(request: types::Request) -> Result<types::Response, ErrorCode> {
        let broker = BROKER.with(Rc::clone);
        let arrived = broker.ports.now();
        let (mut incoming, length) = http::head(&request).ok_or(ErrorCode::HttpRequestUriInvalid)?;
        if endpoint::needs_body(&incoming) {
            *incoming.body_mut() = http::read_body(request, length).await;
        }
        let handled = endpoint::handle(&broker, &incoming, arrived).await;
        if let Some(followup) = handled.followup {
            spawn::spawn(async {
                // Let the answer leave first.
                clock::sleep(Duration::from_millis(1)).await;
                followup.await;
            });
        }
        http::outgoing(handled.response)
    }
}
