//! The floor with one read of the key-value store before its answer: a store hit is compared
//! with it.

#![cfg(target_family = "wasm")]

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::BodyExt;
use spin_sdk::http::{FullBody, IntoResponse, Request, Response};
use spin_sdk::http_service;
use spin_sdk::key_value::{Error, Store};

const ANSWER: &str =
    r#"{"access_token":"0123456789abcdef0123456789abcdef01234567","token_type":"Bearer","expires_in":3599}"#;

/// A key as long as the broker's keys.
const KEY: &str = "token/0/0000000000000000000000000000000000000000000000000000000000000000";

thread_local! {
    /// Opened once per instance, as in the broker.
    static STORE: RefCell<Option<Rc<Store>>> = const { RefCell::new(None) };
}

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    let is_good = request.into_body().collect().await.is_ok() && matches!(read().await, Ok(Some(_)));
    Response::builder()
        .status(if is_good { 200 } else { 500 })
        .header("content-type", "application/json")
        .header("content-length", ANSWER.len())
        .body(FullBody::new(Bytes::from_static(ANSWER.as_bytes())))
}

async fn read() -> Result<Option<Vec<u8>>, Error> {
    let open = STORE.with_borrow(Clone::clone);
    let store = match open {
        Some(store) => store,
        None => {
            let store = Rc::new(Store::open_default().await?);
            STORE.set(Some(store.clone()));
            store
        }
    };
    store.get(KEY).await
}
