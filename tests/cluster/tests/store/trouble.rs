//! Troubles of the API server: not there, killed, standing still, forgetful, or with more objects than it tells at once.

use crate::{PATIENCE, SETTLE, empty_store, install, settle, store, volume};
use anyhow::{Context, bail, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use holdfast_api::{SplitVolume, quantity};
use holdfast_cluster::{Plane, until};
use holdfast_store::{Changes, Store, StoreError};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The store gives up a request after 10 s; the rest is for a busy machine.
const GIVES_UP: Duration = Duration::from_secs(20);

fn must_be_unavailable<T>(answer: Result<T, StoreError>) -> anyhow::Result<()> {
    match answer {
        Err(StoreError::Unavailable { .. }) => Ok(()),
        Err(other) => bail!("not Unavailable: {other:?}"),
        Ok(_) => bail!("it worked"),
    }
}

/// Must run before anything installs the kinds.
pub(crate) async fn kind_that_is_not_installed_is_no_absence(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let store = store(plane);
    must_be_unavailable(store.get::<SplitVolume>("a").await)?;
    must_be_unavailable(store.list::<SplitVolume>().await)?;
    must_be_unavailable(store.delete::<SplitVolume>("a").await)?;
    must_be_unavailable(store.create(volume("a", "n1")).await)?;
    // A watch that began too early begins to work when the kind is there.
    let mut changes = store.watch::<SplitVolume>();
    settle(&mut changes).await;
    install(plane).await?;
    timeout(PATIENCE, changes.changed())
        .await
        .context("the watch never came to life")
}

pub(crate) async fn list_is_whole_over_many_pages(plane: &mut Plane) -> anyhow::Result<()> {
    const MANY: usize = 1100;
    let store = empty_store(plane).await?;
    let made =
        stream::iter(0..MANY).map(|number| store.create(volume(&format!("v-{number:04}"), "n1")));
    let _: Vec<SplitVolume> = made.buffer_unordered(16).try_collect().await?;
    let since = Instant::now();
    let found = store.list::<SplitVolume>().await?;
    println!("{} objects listed in {:?}", found.len(), since.elapsed());
    let names: Vec<_> = found
        .iter()
        .filter_map(|volume| volume.metadata.name.as_deref())
        .collect();
    ensure!(
        names.len() == MANY && names.is_sorted(),
        "{} names",
        names.len()
    );
    let gone = stream::iter(names).map(|name| store.delete::<SplitVolume>(name));
    let _: Vec<bool> = gone.buffer_unordered(16).try_collect().await?;
    Ok(())
}

pub(crate) async fn killed_api_server_is_unavailable_and_its_watch_comes_back(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let store = empty_store(plane).await?;
    let made = store.create(volume("a", "n1")).await?;
    let failures: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&failures);
    store.on_watch_failure(move |kind| lock(&told).push(kind.to_owned()));
    let mut changes = store.watch::<SplitVolume>();
    settle(&mut changes).await;
    ensure!(lock(&failures).is_empty(), "{failures:?}");
    plane.stop_api()?;
    must_be_unavailable(store.get::<SplitVolume>("a").await)?;
    must_be_unavailable(store.list::<SplitVolume>().await)?;
    must_be_unavailable(store.update(made.clone()).await)?;
    must_be_unavailable(store.delete::<SplitVolume>("a").await)?;
    until("the failures of the watch are told", PATIENCE, async || {
        let told = lock(&failures).clone();
        let all = told.len() > 1 && told.iter().all(|kind| kind == "SplitVolume");
        Ok(all.then_some(()).ok_or_else(|| format!("{told:?}")))
    })
    .await?;
    plane.start_api().await?;
    let told = lock(&failures).len();
    ensure!(
        told < 50,
        "the watch was tried {told} times in a few seconds"
    );
    write_is_told(&store, made, &mut changes).await
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) async fn watch_whose_past_is_forgotten_starts_over(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let store = empty_store(plane).await?;
    let made = store.create(volume("a", "n1")).await?;
    let mut changes = store.watch::<SplitVolume>();
    settle(&mut changes).await;
    // Others write meanwhile, so that the version at which the watch would go on is among what is forgotten.
    for name in ["b", "c", "d"] {
        store.create(crate::volume(name, "n2")).await?;
        store.delete::<SplitVolume>(name).await?;
    }
    plane.stop_api()?;
    forget_the_past(&plane.etcd_url()).await?;
    settle(&mut changes).await;
    plane.start_api().await?;
    write_is_told(&store, made, &mut changes).await?;
    ensure!(store.list::<SplitVolume>().await?.len() == 1);
    Ok(())
}

pub(crate) async fn frozen_api_server_holds_nobody_up(plane: &mut Plane) -> anyhow::Result<()> {
    let store = empty_store(plane).await?;
    let made = store.create(volume("a", "n1")).await?;
    let mut changes = store.watch::<SplitVolume>();
    settle(&mut changes).await;
    plane.freeze_api()?;
    let since = Instant::now();
    let mut bigger = made.clone();
    bigger.spec.size = quantity(128 << 20);
    let (read, listed, written, created) = tokio::join!(
        store.get::<SplitVolume>("a"),
        store.list::<SplitVolume>(),
        store.update(bigger),
        store.create(volume("b", "n1")),
    );
    let waited = since.elapsed();
    let told_at_once = Instant::now();
    let event = holdfast_store::Announcement::normal("Expanded", "to nobody");
    store.announce(&made, event).await;
    let announced = told_at_once.elapsed();
    plane.thaw_api()?;
    must_be_unavailable(read)?;
    must_be_unavailable(listed)?;
    must_be_unavailable(written)?;
    must_be_unavailable(created)?;
    ensure!(waited < GIVES_UP, "given up after {waited:?}");
    ensure!(
        announced < SETTLE,
        "an event held its caller up for {announced:?}"
    );
    // The requests may have been carried out after the thaw: read before repeating.
    let now = store
        .get::<SplitVolume>("a")
        .await?
        .context("it is there")?;
    write_is_told(&store, now, &mut changes).await
}

/// The API works again, and the watch with it.
async fn write_is_told(
    store: &holdfast_store::KubeStore,
    mut volume: SplitVolume,
    changes: &mut Changes,
) -> anyhow::Result<()> {
    // What the watch has to say about its return is not what is meant.
    settle(changes).await;
    volume.spec.size = quantity(1 << 40);
    let written = store.update(volume).await?;
    timeout(PATIENCE, changes.changed())
        .await
        .context("the write is never told")?;
    ensure!(
        store.get("a").await? == Some(written),
        "what was written is read"
    );
    Ok(())
}

/// Compacts the database up to now: no version but the newest is known any more.
async fn forget_the_past(etcd: &str) -> anyhow::Result<()> {
    let status = post(etcd, "/v3/maintenance/status", &json!({})).await?;
    let revision = status["header"]["revision"]
        .as_str()
        .context("a database has a revision")?;
    let order = json!({ "revision": revision, "physical": true });
    let answer = post(etcd, "/v3/kv/compaction", &order).await?;
    ensure!(answer.get("error").is_none(), "{answer}");
    Ok(())
}

/// One request over a connection of its own; the database speaks JSON too.
async fn post(etcd: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let address = etcd.trim_start_matches("http://");
    let mut line = TcpStream::connect(address).await?;
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    line.write_all(format!("{head}{body}").as_bytes()).await?;
    let mut answer = String::new();
    line.read_to_string(&mut answer).await?;
    let (_, json) = answer
        .split_once("\r\n\r\n")
        .context("an answer has a body")?;
    serde_json::from_str(json).with_context(|| answer.clone())
}
