//! docs/kubevirt.md, followed to the letter on each of its three ways: with the Plugin, with the hook, and with the hook that a
//! machine names itself. Its commands are run, the chart's controller runs as a process, and KubeVirt's part is done here: an instance
//! and a pod for the machine.

use crate::deployment::Deployed;
use crate::document::{APPLY_STRICTLY, example_with};
use crate::page::{blocks, code, section};
use crate::reader::{REGISTRY, Reader};
use crate::stage::{PATIENCE, Stage};
use anyhow::{Context, ensure};
use holdfast_cluster::{Plane, until};
use kube::ResourceExt;
use serde_json::{Value, json};

const INSTALL: &str = include_str!("../../../../docs/install.md");
const SIDECARS: &str = "hooks.kubevirt.io/hookSidecars";
/// A gate that the cluster has before, and must keep.
const GATE: &str = "Snapshot";

pub(crate) async fn commands_of_the_page_set_kubevirt_and_the_chart_up(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let way = Way::follow(plane, "plugin", "KubeVirt 1.9").await?;

    ensure!(
        way.gates()? == format!(r#"["{GATE}","Plugins"]"#),
        "{}",
        way.gates()?
    );
    let hooks = "-o=jsonpath={.spec.domainHooks[*].cel.expression}";
    let hooks = plane.kubectl(&["get", "plugin", "holdfast", hooks])?;
    ensure!(hooks.contains("v.sock"), "{hooks}");
    let look = way.first_machine().await?;
    ensure!(look == "data\n\n", "the machine shows {look:?}");
    for command in inline_commands() {
        way.reader.run(&command.replace("NAME", "first"))?;
    }
    Ok(())
}

pub(crate) async fn commands_of_the_page_give_an_older_kubevirts_machine_the_hook(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let way = Way::follow(plane, "hook", "KubeVirt 1.1 to 1.8").await?;

    ensure!(
        way.gates()? == format!(r#"["{GATE}","Sidecar"]"#),
        "{}",
        way.gates()?
    );
    let promised = blocks(section("The first machine")?, "json");
    let promised = promised.concat().replace("REGISTRY", REGISTRY);
    way.until_webhook_is_asked().await?;
    let look = way.first_machine().await?;
    ensure!(
        look == format!("data\n{promised}"),
        "the machine shows {look:?}"
    );
    let hook: Value = serde_json::from_str(&promised)?;
    ensure!(hook[0]["image"] == way.controller.image(), "{promised}");
    let counted = r#"holdfast_controller_webhook_requests_total{outcome="added"}"#;
    let metrics = way.controller.metrics().await?;
    ensure!(metrics.contains(counted), "{metrics}");
    // A machine that names the hook itself has it already.
    let mut named = instance(&way.machine_that_names_the_hook()?);
    named["metadata"]["name"] = json!("second");
    let created = way.stage.try_out(&named).await?;
    let written = &named["metadata"]["annotations"];
    ensure!(json!(created.annotations()) == *written, "{created:?}");
    Ok(())
}

pub(crate) async fn machine_of_the_page_that_names_the_hook_itself_is_taken_as_it_is(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let way = Way::follow(plane, "alone", "The hook of older KubeVirt").await?;

    let webhooks = plane.kubectl(&["get", "mutatingwebhookconfigurations", "--output=name"])?;
    ensure!(!webhooks.contains("holdfast"), "{webhooks}");
    let machine = way.machine_that_names_the_hook()?;
    let written = machine["spec"]["template"]["metadata"]["annotations"][SIDECARS].as_str();
    let written = written.context("the page's machine names sidecars")?;
    let hook: Value = serde_json::from_str(written)?;
    ensure!(hook[0]["image"] == way.controller.image(), "{hook}");
    way.reader
        .run("kubectl apply -f deploy/examples/claim.yaml")?;
    way.apply(&machine)?;
    let look = way.machine_runs().await?;
    ensure!(
        look == format!("data\n{written}\n"),
        "the machine shows {look:?}"
    );
    Ok(())
}

/// A reader who has come as far as to have a first machine.
struct Way<'p> {
    plane: &'p Plane,
    stage: Stage,
    reader: Reader,
    controller: Deployed,
}

impl Way<'_> {
    /// Installs, and runs the commands below a heading.
    async fn follow<'p>(plane: &'p Plane, name: &str, heading: &str) -> anyhow::Result<Way<'p>> {
        let stage = Stage::set(plane, name).await?;
        let reader = Reader::arrive(plane, stage.namespace())?;
        begin_anew(plane, &reader)?;
        let commands = blocks(section(heading)?, "console");
        ensure!(!commands.is_empty(), "no commands below {heading}");
        for block in commands {
            reader.run(block)?;
        }
        let controller = Deployed::start(plane, name).await?;
        ensure!(
            controller.argument("--kubevirt") == Some(""),
            "the controller marks no machine"
        );
        let node = plane.kubectl(&[
            "-n",
            "holdfast",
            "get",
            "daemonset/holdfast-node",
            "-o=yaml",
        ])?;
        ensure!(node.contains("- --kubevirt\n"), "{node}");
        Ok(Way {
            plane,
            stage,
            reader,
            controller,
        })
    }

    fn gates(&self) -> anyhow::Result<String> {
        let gates = "-o=jsonpath={.spec.configuration.developerConfiguration.featureGates}";
        self.plane
            .kubectl(&["-n", "kubevirt", "get", "kubevirt", "kubevirt", gates])
    }

    /// The rest of the set-up; returns what the last commands print.
    async fn first_machine(&self) -> anyhow::Result<String> {
        let commands = blocks(section("The first machine")?, "console");
        let [replace, apply, _] = commands[..] else {
            anyhow::bail!("other commands than expected: {commands:?}");
        };
        let replaced = self.reader.run(replace)?;
        ensure!(
            replaced.contains("holdfast-node-"),
            "no pod of a node is replaced: {replaced}"
        );
        self.reader.run(apply)?;
        self.machine_runs().await
    }

    /// What KubeVirt, the provisioner and the scheduler do with the machine and its claim; then the page's look at it.
    async fn machine_runs(&self) -> anyhow::Result<String> {
        let machine = self.reader.run("kubectl get vm first -o json")?;
        self.apply(&instance(&serde_json::from_str(&machine)?))?;
        self.stage
            .volume("data", "csi.holdfast.dev", "Filesystem")
            .await?;
        // A pod gets its node only once all its claims are bound.
        self.reader
            .run("kubectl wait pvc/data --for=jsonpath={.status.phase}=Bound --timeout=60s")?;
        self.stage.launcher("pod", Some("first"), &["data"]).await?;
        self.stage.until_admitted("pod", "data").await?;
        let commands = blocks(section("The first machine")?, "console");
        self.reader.run(commands.last().context("it has commands")?)
    }

    fn apply(&self, object: &Value) -> anyhow::Result<()> {
        let space = ["--namespace", self.stage.namespace()];
        let words = [&APPLY_STRICTLY[..], &space].concat();
        self.plane
            .kubectl_with(&words, &object.to_string())
            .map(drop)
    }

    /// An API server needs a moment to see a new webhook, and there is no rollout here that would take it.
    async fn until_webhook_is_asked(&self) -> anyhow::Result<()> {
        let mut probe = instance(&example_with("{}")?);
        probe["metadata"]["annotations"] = json!({"holdfast.dev/volumes": "data"});
        until("the API server asks the webhook", PATIENCE, || async {
            let created = self.stage.try_out(&probe).await?;
            let hooks = created.annotations().get(SIDECARS);
            Ok(hooks.map(drop).ok_or_else(|| "no hook".to_owned()))
        })
        .await
    }

    fn machine_that_names_the_hook(&self) -> anyhow::Result<Value> {
        let shown = blocks(section("The hook of older KubeVirt")?, "yaml").concat();
        ensure!(shown.contains("REGISTRY/"), "it names no image: {shown}");
        example_with(&shown.replace("REGISTRY", REGISTRY))
    }
}

/// A cluster with KubeVirt and, as docs/install.md says, with Holdfast; whatever was there before.
fn begin_anew(plane: &Plane, reader: &Reader) -> anyhow::Result<()> {
    let uninstall = "helm uninstall holdfast --namespace holdfast --no-hooks --ignore-not-found";
    reader.run(uninstall)?;
    for space in ["kubevirt", "holdfast"] {
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}});
        plane.kubectl_with(&APPLY_STRICTLY, &space.to_string())?;
    }
    plane.kubectl(&["-n", "kubevirt", "delete", "kubevirt", "--all"])?;
    let configuration = json!({"developerConfiguration": {"featureGates": [GATE]}});
    let kubevirt = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "spec": {"configuration": configuration},
        "metadata": {"name": "kubevirt", "namespace": "kubevirt"}
    });
    plane.kubectl_with(&APPLY_STRICTLY, &kubevirt.to_string())?;
    let mut install = INSTALL
        .lines()
        .filter(|line| line.starts_with("helm install "));
    reader.run(install.next().context("docs/install.md installs")?)?;
    Ok(())
}

/// What KubeVirt makes of a VirtualMachine: an instance of its template.
fn instance(machine: &Value) -> Value {
    let template = &machine["spec"]["template"];
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": machine["metadata"]["name"], "annotations": template["metadata"]["annotations"]},
        "spec": template["spec"],
    })
}

fn inline_commands() -> Vec<String> {
    let commands = code().filter(|text| text.starts_with("kubectl "));
    let commands: Vec<String> = commands
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert!(commands.len() > 2, "the page helps with {commands:?} only");
    commands
}
