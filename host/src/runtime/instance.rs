//! The host's side of one instance: its WASI context, its clock and its memory.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::clocks::HostWallClock;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::outbound::Outbound;
use super::shared::Shared;

/// The host's side of one instance.
pub(crate) struct Instance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) table: ResourceTable,
    /// Number of key-value stores that the instance holds open.
    pub(crate) open_stores: usize,
    pub(super) memory: Memory,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound: Outbound,
}

impl Instance {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        // The context grants nothing by default: no files, no sockets, no environment.
        let mut wasi = WasiCtxBuilder::new();
        wasi.wall_clock(WallClock(shared.clone()));
        shared.output.connect(&mut wasi, &shared.counters);
        Self {
            table: ResourceTable::new(),
            open_stores: 0,
            memory: Memory(shared.clone()),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            outbound: Outbound(shared.clone()),
            shared,
        }
    }
}

/// Records how far the linear memory grows, and limits nothing.
pub(super) struct Memory(Arc<Shared>);

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.0.counters.add(|counts| counts.memory_bytes = counts.memory_bytes.max(desired));
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }
}

impl WasiView for Instance {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Instance {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outbound }
    }
}

/// The wall clock of the host, with its readings counted.
struct WallClock(Arc<Shared>);

impl HostWallClock for WallClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        self.0.counters.add(|counts| counts.clock += 1);
        self.0.clock.now()
    }
}
