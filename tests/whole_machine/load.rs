//! The load of `cargo run --example load`, for 30 s.

use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn mixed_load_gets_documented_answers_and_flat_memory() {
    let _alone = tests::crowd().await;
    // 30 s are enough for every failure of OfficeRnD to meet a call, and for a successful call
    // after them.
    let load = tests::load(Duration::from_secs(30), 16).await.unwrap();
    println!("{load:?}");
    assert_eq!(load.wrong, [""; 0], "{load:?}");
    let is_there = |what, status| load.answers.keys().any(|answer| *answer == (what, status));
    assert!(is_there("token", 200) && is_there("token", 503) && is_there("no form", 400), "{load:?}");
}
