//! Phases of a server, from which connections and instances learn that the server ends.

use tokio::sync::watch;

/// Phase of a server. Each connection and each instance holds a receiver as long as it lives,
/// so the sender notices when all of them have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// No new connection or request is accepted; present ones go on.
    Draining,
    Ended,
}

/// Waits until `phase` is `wanted` or a later phase.
pub(super) async fn reached(mut phase: watch::Receiver<Phase>, wanted: Phase) {
    // An error means that the sender was dropped, together with the server.
    drop(phase.wait_for(|now| *now >= wanted).await);
}

/// Waits until the server has ended or its instances are told to end.
pub(super) async fn ended(phase: watch::Receiver<Phase>, mut ending: watch::Receiver<()>) {
    tokio::select! {
        () = reached(phase, Phase::Ended) => {}
        _ = ending.changed() => {}
    }
}
