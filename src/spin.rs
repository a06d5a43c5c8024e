//! The broker on Spin: the entry point, and the core's ports on Spin's interfaces. No other file names `spin_sdk`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use spin_sdk::key_value::{self, Store};
use spin_sdk::variables;
use wasip3::exports::http::handler::Guest;
use wasip3::http::types;

use crate::broker::{Broker, Instance, Ports, SendError};
use crate::time::Timestamp;
use crate::wasi;

thread_local! {
    /// The only static: the broker of this component instance, which serves many requests, several at the same time.
    static BROKER: Broker<Spin> = Broker {
        ports: Spin { store: Rc::default() },
        instance: Rc::new(Instance::new(wasi::random())),
    };
}

struct Component;

wasip3::http::service::export!(Component);

impl Guest for Component {
    async fn handle(request: types::Request) -> Result<types::Response, types::ErrorCode> {
        wasi::handle(&BROKER.with(Broker::clone), request).await
    }
}

/// Spin's interfaces as the core's ports.
#[derive(Clone)]
struct Spin {
    /// The open store, which is not opened again for every request.
    store: Rc<RefCell<Option<Rc<Store>>>>,
}

impl Spin {
    async fn store(&self) -> Result<Rc<Store>, key_value::Error> {
        let open = self.store.borrow().clone();
        match open {
            Some(store) => Ok(store),
            None => {
                let store = Rc::new(Store::open_default().await?);
                self.store.replace(Some(store.clone()));
                Ok(store)
            }
        }
    }

    /// After a failure the next operation opens the store again.
    fn note<T>(&self, result: Result<T, key_value::Error>) -> Result<T, String> {
        result.map_err(|error| {
            self.store.replace(None);
            error.to_string()
        })
    }
}

impl Ports for Spin {
    fn now(&self) -> Timestamp {
        wasi::now()
    }

    fn random(&self) -> u64 {
        wasi::random()
    }

    async fn sleep(&self, duration: Duration) {
        wasi::sleep(duration).await;
    }

    async fn variable(&self, name: &'static str) -> Result<String, String> {
        match variables::get(name).await {
            Err(variables::Error::Undefined(_)) => Ok(String::new()),
            result => result.map_err(|error| error.to_string()),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let result = async { self.store().await?.get(key).await }.await;
        self.note(result)
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let result = async { self.store().await?.set(key, value).await }.await;
        self.note(result)
    }

    async fn send(&self, request: Request<String>, limit: usize) -> Result<Response<Vec<u8>>, SendError> {
        wasi::send(request, limit).await
    }

    fn audit(&self, line: &str) {
        wasi::audit(line);
    }

    fn warn(&self, line: &str) {
        wasi::warn(line);
    }
}
