//! The application: compiles the component, links it to its imports, and starts instances.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use broker_operator::spin::Manifest;
use sha2::{Digest as _, Sha256};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::p3::bindings::clocks::monotonic_clock;
use wasmtime_wasi_http::handler::Proxy;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use super::bindings;
use super::cache;
use super::instance::Instance;
use super::shared::Shared;
use super::timers::Timers;

/// Time that an instance computes before it yields to others. It must not be much shorter: an
/// instance that yields may receive further requests, which Spin would not send it.
const TICK: Duration = Duration::from_millis(500);

/// Most instances at the same time, counted over all servers of an application.
const MOST_INSTANCES: u32 = 1000;

/// An application that is ready to be served: its manifest and its compiled component. Clones
/// are cheap, because they share the code.
#[derive(Clone)]
pub struct App {
    pub(crate) manifest: Arc<Manifest>,
    service: ServicePre<Instance>,
}

impl App {
    /// Loads the component that `manifest` names. The first time, this compiles it, which takes
    /// several seconds of all cores; later loads find it compiled in Cargo's target folder.
    ///
    /// # Errors
    ///
    /// If the file is missing (see [`build`](crate::build)) or not a component, or if it
    /// imports an interface that the dev host does not have.
    pub fn load(manifest: Manifest) -> anyhow::Result<Self> {
        Self::compile(manifest, false)
    }

    /// Loads the component with its instructions counted, see
    /// [`Counts::fuel`](crate::Counts::fuel). It runs slower.
    ///
    /// # Errors
    ///
    /// As for [`load`](Self::load).
    pub fn load_metered(manifest: Manifest) -> anyhow::Result<Self> {
        Self::compile(manifest, true)
    }

    fn compile(manifest: Manifest, is_metered: bool) -> anyhow::Result<Self> {
        let source = &manifest.source;
        let bytes = fs::read(source).with_context(|| {
            let hint = manifest.digest.as_ref().map_or("", |_| " (the dev host does not download it)");
            format!("cannot read the component {}{hint}", source.display())
        })?;
        check_digest(&manifest, &bytes)?;
        let service = compile(source, &bytes, is_metered)
            .with_context(|| format!("cannot load the component {}", source.display()))?;
        Ok(Self { manifest: Arc::new(manifest), service })
    }

    /// The manifest that the application was loaded from.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Starts an instance whose host side has `shared`.
    pub(crate) async fn instantiate(&self, shared: Arc<Shared>) -> wasmtime::Result<(Store<Instance>, Proxy)> {
        let mut store = Store::new(self.service.engine(), Instance::new(shared));
        store.limiter(|instance| &mut instance.memory);
        // Fails if instructions are not counted, and is then not needed.
        drop(store.set_fuel(u64::MAX));
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let service = self.service.instantiate_async(&mut store).await?;
        Ok((store, Proxy::P3(service)))
    }
}

/// Checks that the component is the one that the manifest means, if it has a digest.
fn check_digest(manifest: &Manifest, bytes: &[u8]) -> anyhow::Result<()> {
    let Some(expected) = &manifest.digest else { return Ok(()) };
    let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == *expected, "{} has the SHA-256 {found}, expected {expected}", manifest.source.display());
    Ok(())
}

fn compile(source: &Path, bytes: &[u8], is_metered: bool) -> anyhow::Result<ServicePre<Instance>> {
    let mut config = Config::new();
    config.consume_fuel(is_metered);
    config.wasm_component_model_async(true);
    config.epoch_interruption(true);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    let engine = Engine::new(&config).or_else(|error| {
        // If the addresses are not available, Spin uses no pool either.
        drop(writeln!(
            io::stderr(),
            "Instances start slower than usual: the 4 TB of addresses for the pool are not available (ulimit -v): {error}"
        ));
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&config)
    })?;
    tick(&engine)?;
    let (component, _) = cache::load(&engine, source, bytes)?;

    let mut linker = Linker::<Instance>::new(&engine);
    // WASI 0.2 for Rust's standard library, WASI 0.3 for wasip3.
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    bindings::Imports::add_to_linker::<_, HasSelf<Instance>>(&mut linker, |instance| instance)?;
    // Replaces wasmtime's timers, so that they are counted.
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<_, Timers>(&mut linker, |instance| instance)?;
    linker.allow_shadowing(false);
    Ok(ServicePre::new(linker.instantiate_pre(&component)?)?)
}

/// The pool of instances, with Spin's defaults for their number and for the memory that each
/// keeps.
fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MOST_INSTANCES)
        .total_memories(MOST_INSTANCES)
        .total_stacks(MOST_INSTANCES)
        .total_tables(2 * MOST_INSTANCES)
        .total_core_instances(4 * MOST_INSTANCES)
        .table_elements(100_000)
        .max_component_instance_size(10 << 20)
        .max_core_instance_size(10 << 20)
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(1 << 19);
    pool
}

/// Makes the instances of `engine` yield at every tick, until the engine is dropped. Otherwise
/// an instance that computes without end would block a thread of the runtime, and sometimes all
/// timers and signals with it.
fn tick(engine: &Engine) -> anyhow::Result<()> {
    let engine = engine.weak();
    let run = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    };
    thread::Builder::new().name("epoch".into()).spawn(run).context("cannot start a thread")?;
    Ok(())
}
