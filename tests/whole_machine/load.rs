//! The load of `cargo run --package tests --example load`, for a moment.

use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn mixed_load_gets_documented_answers_and_flat_memory() {
    let _alone = tests::crowd().await;
    // As long as it takes until every way in which OfficeRnD fails has been met, and a call has been well again.
    let load = tests::load(Duration::from_secs(30), 16).await.unwrap();
    println!("{load:?}");
    assert_eq!(load.wrong, [""; 0], "{load:?}");
    let is_there = |what, status| load.answers.keys().any(|answer| *answer == (what, status));
    assert!(is_there("token", 200) && is_there("token", 503) && is_there("no form", 400), "{load:?}");
}
