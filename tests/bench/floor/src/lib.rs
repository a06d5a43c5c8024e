//! The floor: reads the body of a POST and answers a constant token, as a component with
//! spin-sdk usually would.

#![cfg(target_family = "wasm")]

use bytes::Bytes;
use http_body_util::BodyExt;
use spin_sdk::http::{FullBody, IntoResponse, Request, Response};
use spin_sdk::http_service;

const ANSWER: &str =
    r#"{"access_token":"0123456789abcdef0123456789abcdef01234567","token_type":"Bearer","expires_in":3599}"#;

#[http_service]
async fn handle(request: Request) -> impl IntoResponse {
    let answer = match request.into_body().collect().await {
        Ok(_) => ANSWER,
        Err(_) => "",
    };
    Response::builder()
        .header("content-type", "application/json")
        .header("content-length", answer.len())
        .body(FullBody::new(Bytes::from_static(answer.as_bytes())))
}
