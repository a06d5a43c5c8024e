//! What a server is about, and how its connections and instances learn that it ends.

use tokio::sync::watch;

/// What a server is about. Connections and instances hold a receiver while they live, so the sender knows when all
/// are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// No new connection or request; what is under way goes on.
    Draining,
    Ended,
}

/// Resolves once `phase` is `wanted` or a later one.
pub(super) async fn reached(mut phase: watch::Receiver<Phase>, wanted: Phase) {
    // An error means that the sender is gone, and with it the server.
    drop(phase.wait_for(|now| *now >= wanted).await);
}

/// Resolves once the server has ended, or somebody wants the instances to end.
pub(super) async fn ended(phase: watch::Receiver<Phase>, mut ending: watch::Receiver<()>) {
    tokio::select! {
        () = reached(phase, Phase::Ended) => {}
        _ = ending.changed() => {}
    }
}
