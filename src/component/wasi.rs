//! Any other host with WASI 0.3: the environment and the store of `wasi:keyvalue`. Nothing here
//! depends on Spin.

use std::cell::RefCell;
use std::env;
use std::rc::Rc;

use self::wasi::keyvalue::store::{Bucket, Error, open};
use super::log::warn;

wasip3::wit_bindgen::generate!({
    runtime_path: "wasip3::wit_bindgen::rt",
    generate_all,
    // The part of the draft that is used here, in the version that hosts implement. None of it
    // is `async`: while the store works, all requests of the instance wait, and no deadline
    // applies.
    inline: "
        package officernd:token-broker;

        world store {
            import wasi:keyvalue/store@0.2.0-draft;
        }

        package wasi:keyvalue@0.2.0-draft {
            interface store {
                variant error {
                    no-such-store,
                    access-denied,
                    other(string),
                }
                open: func(identifier: string) -> result<bucket, error>;
                resource bucket {
                    get: func(key: string) -> result<option<list<u8>>, error>;
                    set: func(key: string, value: list<u8>) -> result<_, error>;
                }
            }
        }
    ",
});

/// Name of the bucket, the same as that of the store on Spin.
const BUCKET: &str = "default";

/// Most records that an instance keeps if the host has no store. The record that was written
/// longest ago makes room. That is never lease, ledger or index, which every call writes.
const RECORDS_KEPT: usize = 1024;

#[derive(Default)]
pub(super) struct Host {
    /// The open store, kept between requests.
    store: RefCell<Option<Store>>,
}

/// A key and its value.
type Record = (String, Vec<u8>);

#[derive(Clone)]
enum Store {
    Shared(Rc<Bucket>),
    /// The host has no store, so this instance keeps its own records, the last written one at
    /// the end.
    InMemory(Rc<RefCell<Vec<Record>>>),
}

impl Host {
    /// No yields before the timer: while an instance yields, `wasmtime serve` starts another
    /// one, which would keep its own count of the call quota.
    pub(super) const YIELDS_BEFORE_TIMER: usize = 0;

    pub(super) async fn variable(&self, name: &'static str) -> Result<Option<String>, String> {
        Ok(env::var(name.to_uppercase()).ok())
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        match self.store()? {
            Store::Shared(bucket) => self.reopen_after_failure(bucket.get(key)),
            Store::InMemory(records) => {
                let records = records.borrow();
                Ok(records.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone()))
            }
        }
    }

    pub(super) async fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        match self.store()? {
            Store::Shared(bucket) => self.reopen_after_failure(bucket.set(key, value)),
            Store::InMemory(records) => {
                let mut records = records.borrow_mut();
                records.retain(|(other, _)| other != key);
                if records.len() >= RECORDS_KEPT {
                    records.remove(0);
                }
                records.push((key.to_owned(), value.to_owned()));
                Ok(())
            }
        }
    }

    pub(super) fn degradation(&self) -> Option<&'static str> {
        matches!(&*self.store.borrow(), Some(Store::InMemory(_))).then_some("budget_per_instance")
    }

    fn store(&self) -> Result<Store, String> {
        if let Some(store) = &*self.store.borrow() {
            return Ok(store.clone());
        }
        let store = match open(BUCKET) {
            Err(Error::NoSuchStore) => {
                warn(
                    "the host has no key-value store `default`: this instance keeps its own tokens and its own count of calls",
                );
                Store::InMemory(Rc::default())
            }
            opened => Store::Shared(Rc::new(opened.map_err(|error| error.to_string())?)),
        };
        self.store.replace(Some(store.clone()));
        Ok(store)
    }

    /// Makes the next operation open the store again after a failure.
    fn reopen_after_failure<T>(&self, result: Result<T, Error>) -> Result<T, String> {
        result.map_err(|error| {
            self.store.replace(None);
            error.to_string()
        })
    }
}
