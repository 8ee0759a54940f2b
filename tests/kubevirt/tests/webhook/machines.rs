//! What becomes of machines.

use crate::replica::Replica;
use crate::stage::{Stage, claim, data_volume, machine};
use anyhow::ensure;
use holdfast_cluster::Plane;
use serde_json::{Value, json};

const OURS: &str = "csi.holdfast.dev";
const THEIRS: &str = "csi.example.com";

pub(crate) async fn machine_with_our_volume_gets_the_hook_once(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "once")?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    stage.bound_claim("data", OURS)?;
    stage.bound_claim("other", THEIRS)?;
    let cloud_init = json!({"name": "cloudinit", "cloudInitNoCloud": {"userData": "x"}});
    let vm = machine("vm", &[cloud_init, claim("other"), claim("data")]);

    let created = stage.create(&vm).await?;
    created.has_only_our_hook()?;

    // The same machine again, as it stands in the cluster.
    let mut again = vm;
    again["metadata"]["name"] = json!("vm-2");
    again["metadata"]["annotations"] =
        json!({"hooks.kubevirt.io/hookSidecars": created.annotation()});
    let again = stage.create(&again).await?;
    again.has_only_our_hook()?;
    ensure!(again.annotation() == created.annotation());
    Ok(())
}

pub(crate) async fn machine_without_our_volumes_is_untouched(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "without")?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    stage.class("theirs", THEIRS, false)?;
    stage.bound_claim("bound", THEIRS)?;
    stage.unbound_claim("unbound", Some("theirs"))?;
    let disk = json!({"name": "disk", "containerDisk": {"image": "x"}});

    for (name, volumes) in [
        ("claims", vec![claim("bound"), claim("unbound")]),
        ("container", vec![disk]),
        ("nothing", vec![]),
    ] {
        stage
            .create(&machine(name, &volumes))
            .await?
            .is_untouched()?;
    }
    let mut bare = machine("bare", &[]);
    bare["spec"] = json!({});
    stage.create(&bare).await?.is_untouched()
}

pub(crate) async fn claims_and_data_volumes_not_yet_bound_are_judged_by_their_class(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "unbound")?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    stage.class("ours", OURS, false)?;
    stage.class("theirs", THEIRS, false)?;
    stage.unbound_claim("waiting", Some("ours"))?;
    stage.unbound_claim("static", Some(""))?;
    stage.unbound_claim("lost", Some("no-such-class"))?;
    let with_class = |form: &str, class: &str| json!({form: {"storageClassName": class}});
    stage.data_volume("image", with_class("storage", "ours"))?;
    stage.data_volume("older", with_class("pvc", "ours"))?;
    stage.data_volume("foreign", with_class("storage", "theirs"))?;

    for (name, volume) in [
        ("claim", claim("waiting")),
        ("data-volume", data_volume("image")),
        ("data-volume-pvc", data_volume("older")),
        ("claim-of-data-volume", claim("image")),
    ] {
        let created = stage.create(&machine(name, &[volume])).await?;
        created.has_only_our_hook()?;
    }
    let foreign = machine("foreign", &[data_volume("foreign")]);
    stage.create(&foreign).await?.is_untouched()?;
    for (name, volume, words) in [
        (
            "not-there",
            claim("nowhere"),
            "claim nowhere does not exist yet",
        ),
        (
            "no-image",
            data_volume("nowhere"),
            "nowhere does not exist yet",
        ),
        ("static", claim("static"), "has no class and no volume"),
        (
            "lost",
            claim("lost"),
            "StorageClass no-such-class does not exist",
        ),
    ] {
        let created = stage
            .create(&machine(name, std::slice::from_ref(&volume)))
            .await?;
        created.is_created_with_a_warning(words)?;
        ensure!(created.annotation().is_none(), "{name} got a hook");
        // What is unknown of one claim does not matter once another is ours.
        let both = machine(&format!("{name}-and-ours"), &[volume, claim("waiting")]);
        stage.create(&both).await?.has_only_our_hook()?;
    }
    Ok(())
}

pub(crate) async fn default_class_counts(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "default")?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    // A claim that names no class keeps that as long as there is no default.
    stage.unbound_claim("plain", None)?;
    stage.class("no-default", OURS, false)?;
    stage.data_volume("image", json!({"storage": {}}))?;
    let volumes = [("claim", claim("plain")), ("image", data_volume("image"))];
    for (name, volume) in &volumes {
        let created = stage
            .create(&machine(name, std::slice::from_ref(volume)))
            .await?;
        created.is_created_with_a_warning("there is no default StorageClass")?;
    }
    stage.class("our-default", OURS, true)?;
    for (name, volume) in volumes {
        let created = stage
            .create(&machine(&format!("{name}-2"), &[volume]))
            .await;
        created?.has_only_our_hook()?;
    }
    stage.class("our-default", OURS, false)?;
    stage.class("their-default", THEIRS, true)?;
    let foreign = machine("foreign", &[data_volume("image")]);
    stage.create(&foreign).await?.is_untouched()?;
    // KubeVirt's own default beats the cluster's.
    stage.class_for_machines("for-machines", OURS, true)?;
    let ours = machine("ours", &[data_volume("image")]);
    stage.create(&ours).await?.has_only_our_hook()?;
    stage.class_for_machines("for-machines", OURS, false)?;
    stage.class("their-default", THEIRS, false)
}

pub(crate) async fn of_two_default_classes_the_one_that_kubernetes_takes_counts(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "two-defaults")?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    stage.data_volume("image", json!({"storage": {}}))?;
    let vm = machine("vm", &[data_volume("image")]);
    let mut taken = Vec::new();
    for (turn, [first, second]) in [[OURS, THEIRS], [THEIRS, OURS]].into_iter().enumerate() {
        let names = [format!("twin-{turn}-a"), format!("twin-{turn}-b")];
        stage.class(&names[0], first, true)?;
        stage.class(&names[1], second, true)?;
        let class = stage.class_that_kubernetes_gives()?;
        let created = stage.dry_run(&vm).await?;
        let provisioner = if class == names[0] { first } else { second };
        ensure!(names.contains(&class), "Kubernetes took {class}");
        match provisioner {
            OURS => created.has_only_our_hook()?,
            _ => created.is_untouched()?,
        }
        taken.push(class);
        for (name, provisioner) in names.iter().zip([first, second]) {
            stage.class(name, provisioner, false)?;
        }
    }
    println!("  Kubernetes takes {taken:?}");
    Ok(())
}

pub(crate) async fn person_may_name_the_volumes(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "person")?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    let named = |name: &str, written: &str| {
        let mut vm = machine(name, &[claim("later")]);
        vm["metadata"]["annotations"] = json!({"holdfast.dev/volumes": written});
        vm
    };
    stage
        .create(&named("named", "later"))
        .await?
        .has_only_our_hook()?;
    for (name, written) in [("other", "another"), ("nonsense", "a, b")] {
        let created = stage.create(&named(name, written)).await?;
        created.is_created_with_a_warning("later does not exist yet")?;
    }
    Ok(())
}

pub(crate) async fn sidecars_of_others_are_kept(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "kept")?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    stage.bound_claim("data", OURS)?;
    let theirs =
        json!([{"image": "a", "args": ["--version", "v1alpha2"]}, {"image": "b", "new": 1}]);
    let mut vm = machine("vm", &[claim("data")]);
    vm["metadata"]["annotations"] =
        json!({"hooks.kubevirt.io/hookSidecars": theirs.to_string(), "other": "x"});

    let created = stage.create(&vm).await?;

    let sidecars = created.sidecars()?;
    ensure!(Value::from(&sidecars[..2]) == theirs, "{sidecars:?}");
    ensure!(sidecars.len() == 3 && sidecars[2]["args"] == json!(["kubevirt-hook"]));
    Ok(())
}

pub(crate) async fn list_that_cannot_be_read_is_left_with_a_warning(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "malformed")?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    stage.bound_claim("data", OURS)?;
    for (name, written) in [("text", "no JSON"), ("object", "{}"), ("numbers", "[1]")] {
        let mut vm = machine(name, &[claim("data")]);
        vm["metadata"]["annotations"] = json!({"hooks.kubevirt.io/hookSidecars": written});
        let created = stage.create(&vm).await?;
        created.is_created_with_a_warning("is no JSON list of objects")?;
        ensure!(created.annotation() == Some(written), "it was changed");
    }
    Ok(())
}

pub(crate) async fn machines_are_created_while_nobody_answers(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "nobody")?;
    stage.bound_claim("data", OURS)?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    replica.stop().await?;
    let vm = |name: &str| machine(name, &[claim("data")]);

    let created = stage.create(&vm("alone")).await?;
    ensure!(created.annotation().is_none());

    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;
    stage.create(&vm("again")).await?.has_only_our_hook()
}
