//! The interface `spin:key-value`, implemented on an instance.

use wasmtime::component::{Accessor, FutureReader, HasSelf, Resource, StreamReader};

use super::bindings::spin::key_value::key_value::{self, Error};
use super::bindings::{OpenStore, StoreError};
use super::instance::Instance;
use crate::counts::Counts;
use crate::store::{Call, Running};

/// Most stores that one instance may hold open, as in Spin.
const MAX_OPEN_STORES: usize = 256;

fn other(error: anyhow::Error) -> Error {
    Error::Other(format!("{error:#}"))
}

/// Begins an operation on an open store: counts it, and applies the faults to it.
async fn begin<T: Send>(
    accessor: &Accessor<T, HasSelf<Instance>>,
    store: &Resource<OpenStore>,
    call: Call<'_>,
    count: fn(&mut Counts),
) -> Result<(OpenStore, Running), StoreError> {
    let store = accessor.with(|mut access| {
        let instance = access.get();
        instance.shared.counters.add(count);
        instance.table.get(store).cloned().map_err(StoreError::trap)
    })?;
    let running = store.key_value.begin(call).await.map_err(other)?;
    Ok((store, running))
}

impl key_value::Host for Instance {
    fn convert_error(&mut self, error: StoreError) -> wasmtime::Result<Error> {
        error.downcast()
    }
}

impl key_value::HostStore for Instance {
    fn drop(&mut self, store: Resource<OpenStore>) -> wasmtime::Result<()> {
        self.table.delete(store)?;
        self.open_stores -= 1;
        Ok(())
    }
}

impl<T: Send + 'static> key_value::HostStoreWithStore<T> for HasSelf<Instance> {
    async fn open(accessor: &Accessor<T, Self>, label: String) -> Result<Resource<OpenStore>, StoreError> {
        let shared = accessor.with(|mut access| access.get().shared.clone());
        shared.counters.add(|counts| counts.open += 1);
        if !shared.manifest.key_value_stores.contains(&label) {
            return Err(Error::AccessDenied.into());
        }
        let _running = shared.key_value.begin(Call::Open).await.map_err(other)?;
        shared.key_value.open().await.map_err(other)?;
        accessor.with(|mut access| {
            let instance = access.get();
            if instance.open_stores == MAX_OPEN_STORES {
                return Err(Error::StoreTableFull.into());
            }
            let store = OpenStore { label: label.into(), key_value: shared.key_value.clone() };
            let store = instance.table.push(store).map_err(StoreError::trap)?;
            instance.open_stores += 1;
            Ok(store)
        })
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let (store, _running) =
            begin(accessor, &store, Call::Read { key: Some(&key) }, |counts| counts.get += 1).await?;
        Ok(store.key_value.get(&store.label, &key).await.map_err(other)?)
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), StoreError> {
        let (store, _running) = begin(accessor, &store, Call::Write { key: &key }, |counts| counts.set += 1).await?;
        Ok(store.key_value.set(&store.label, &key, value).await.map_err(other)?)
    }

    async fn delete(accessor: &Accessor<T, Self>, store: Resource<OpenStore>, key: String) -> Result<(), StoreError> {
        let (store, _running) = begin(accessor, &store, Call::Write { key: &key }, |counts| counts.delete += 1).await?;
        Ok(store.key_value.delete(&store.label, &key).await.map_err(other)?)
    }

    async fn exists(accessor: &Accessor<T, Self>, store: Resource<OpenStore>, key: String) -> Result<bool, StoreError> {
        let (store, _running) =
            begin(accessor, &store, Call::Read { key: Some(&key) }, |counts| counts.exists += 1).await?;
        Ok(store.key_value.exists(&store.label, &key).await.map_err(other)?)
    }

    /// The keys arrive on a stream. A future then says whether they are complete, so a failure
    /// is not an error of the call itself.
    async fn get_keys(
        accessor: &Accessor<T, Self>,
        store: Resource<OpenStore>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), Error>>)> {
        let listed = match begin(accessor, &store, Call::Read { key: None }, |counts| counts.get_keys += 1).await {
            Ok((store, _running)) => store.key_value.keys(&store.label).await.map_err(other),
            Err(error) => Err(error.downcast()?),
        };
        let (keys, end) = match listed {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        accessor.with(|mut access| {
            let keys = StreamReader::new(&mut access, keys)?;
            let end = FutureReader::new(&mut access, async move { wasmtime::error::Ok(end) })?;
            Ok((keys, end))
        })
    }
}
