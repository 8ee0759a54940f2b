//! Events as people find them: beside their object, and equal ones counted.

use crate::{PATIENCE, empty_store, volume};
use anyhow::ensure;
use holdfast_api::events;
use holdfast_cluster::{Plane, until};
use holdfast_store::{Announcement, Store};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};

/// Whom else an event concerns is found from there as well.
pub(crate) async fn event_names_whom_else_it_concerns(plane: &mut Plane) -> anyhow::Result<()> {
    let store = empty_store(plane).await?;
    let made = store.create(volume("theirs", "n1")).await?;
    let pod = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some("vm-0".to_owned()),
        namespace: Some("team".to_owned()),
        ..Default::default()
    };
    let said = Announcement::warning(events::IO_ERROR, "the drive answered with an error");
    store.announce(&made, said.about(pod.clone())).await;
    let api: Api<Event> = Api::namespaced(plane.client(), "default");
    let found = until("the event is told", PATIENCE, async || {
        let all = api.list(&ListParams::default()).await?.items;
        let about = |event: &&Event| {
            let regarding = event.regarding.as_ref();
            regarding.is_some_and(|object| object.name.as_deref() == Some("theirs"))
        };
        Ok(all.iter().find(about).cloned().ok_or("none".to_owned()))
    })
    .await?;
    ensure!(found.related == Some(pod), "{found:?}");
    let regarding = found.regarding.as_ref();
    ensure!(regarding.and_then(|r| r.uid.clone()) == made.metadata.uid);
    Ok(())
}

pub(crate) async fn equal_events_are_counted_together(plane: &mut Plane) -> anyhow::Result<()> {
    let store = empty_store(plane).await?;
    let mut made = store.create(volume("told", "n1")).await?;
    for size in [128, 256, 512_u64] {
        store
            .announce(
                &made,
                Announcement::normal(events::EXPANDED, "it has grown"),
            )
            .await;
        made.spec.size = holdfast_api::quantity(size << 20);
        made = store.update(made).await?;
    }
    let long = "ü".repeat(2000);
    store
        .announce(&made, Announcement::warning(events::IO_ERROR, long))
        .await;

    let api: Api<Event> = Api::namespaced(plane.client(), "default");
    let found = until("all four are told in two events", PATIENCE, async || {
        let all = api.list(&ListParams::default()).await?.items;
        let about = |event: &Event| {
            let regarding = event.regarding.as_ref();
            regarding.is_some_and(|object| object.name.as_deref() == Some("told"))
        };
        let ours: Vec<Event> = all.into_iter().filter(about).collect();
        let counted = ours
            .iter()
            .any(|event| event.series.as_ref().is_some_and(|s| s.count == 3));
        if ours.len() == 2 && counted {
            return Ok(Ok(ours));
        }
        Ok(Err(format!("{ours:?}")))
    });
    let found = found.await?;
    let warning = found
        .iter()
        .find(|event| event.type_.as_deref() == Some("Warning"));
    ensure!(warning.is_some_and(|event| event.reason.as_deref() == Some("IOError")));
    let said = plane.kubectl(&["describe", "splitvolume", "told"])?;
    ensure!(
        said.contains("Expanded") && said.contains("it has grown"),
        "{said}"
    );
    Ok(())
}
