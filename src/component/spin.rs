//! Spin as host: its variables and its key-value store. No other file names `spin_sdk`.

use std::cell::RefCell;
use std::rc::Rc;

use spin_sdk::key_value::{self, Store};
use spin_sdk::variables;

#[derive(Default)]
pub(super) struct Host {
    /// The open store, kept between requests.
    store: RefCell<Option<Rc<Store>>>,
}

impl Host {
    /// How often to yield to the host for a request's body before setting a timer. A timer
    /// costs half as much as a whole request.
    pub(super) const YIELDS_BEFORE_TIMER: usize = 4;

    pub(super) async fn variable(&self, name: &'static str) -> Result<Option<String>, String> {
        match variables::get(name).await {
            // The manifest does not declare the variable: it is older than the component.
            Err(variables::Error::Undefined(_)) => Ok(None),
            result => result.map(Some).map_err(|error| error.to_string()),
        }
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let result = async { self.store().await?.get(key).await }.await;
        self.reopen_after_failure(result)
    }

    pub(super) async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let result = async { self.store().await?.set(key, value).await }.await;
        self.reopen_after_failure(result)
    }

    pub(super) fn degradation(&self) -> Option<&'static str> {
        None
    }

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

    /// Makes the next operation open the store again after a failure.
    fn reopen_after_failure<T>(&self, result: Result<T, key_value::Error>) -> Result<T, String> {
        result.map_err(|error| {
            self.store.replace(None);
            error.to_string()
        })
    }
}
