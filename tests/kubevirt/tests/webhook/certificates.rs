//! The certificate that replicas share: made by whoever comes first, replaced while machines are created.

use crate::install::{NAME, NAMESPACE};
use crate::replica::{Replica, client_of, post, trusted};
use crate::stage::{PATIENCE, Stage, claim, machine};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use holdfast_cluster::{Plane, until};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) async fn replicas_share_one_certificate(plane: &mut Plane) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "two")?;
    stage.bound_claim("data", "csi.holdfast.dev")?;
    write(plane, &[]).await?;

    // More than a release has: all find the Secret empty at the same moment.
    let replicas = try_join_all((0..6).map(|_| Replica::start(plane))).await?;

    let bundle = trusted(plane)?;
    for (number, replica) in replicas.iter().enumerate() {
        client_answers(replica, &bundle).await?;
        stage.point_to(replica).await?;
        let vm = machine(&format!("vm-{number}"), &[claim("data")]);
        stage.create(&vm).await?.has_only_our_hook()?;
    }
    // One that comes later finds it, and writes nothing.
    let before = version(plane).await?;
    let third = Replica::start(plane).await?;
    client_answers(&third, &bundle).await?;
    ensure!(version(plane).await? == before, "the Secret was written");
    ensure!(trusted(plane)? == bundle, "the trust was changed");
    Ok(())
}

pub(crate) async fn secret_that_holds_nonsense_is_filled_anew(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "nonsense")?;
    let nonsense = ["tls.crt", "tls.key", "ca.crt"].map(|key| (key, "nonsense".to_owned()));
    write(plane, &nonsense).await?;

    let replica = Replica::start(plane).await?;

    stage.point_to(&replica).await?;
    ensure!(!held(plane, "tls.key").await?.contains("nonsense"));
    Ok(())
}

pub(crate) async fn certificate_is_replaced_without_a_machine_left_out(
    plane: &mut Plane,
) -> anyhow::Result<()> {
    let stage = Stage::set(plane, "replaced")?;
    stage.bound_claim("data", "csi.holdfast.dev")?;
    let replica = Replica::start(plane).await?;
    stage.point_to(&replica).await?;

    // What another replica would write: a new certificate, and trust in the old one beside it.
    let next = made(365 * DAY, &held(plane, "ca.crt").await?)?;
    write(plane, &next.1).await?;
    let told = base64(&next.1[2].1);
    until("the API server is told to trust it", PATIENCE, || async {
        let bundle = trusted(plane)?;
        Ok(if bundle == told { Ok(()) } else { Err(bundle) })
    })
    .await?;
    let early = client_answers(&replica, &base64(&next.0)).await;
    ensure!(
        early.is_err(),
        "served before every API server can have heard"
    );
    until_served(&stage, &replica, &next.0).await?;

    // One that is about to end is replaced by the replica itself.
    let old = made(30 * DAY, &held(plane, "ca.crt").await?)?;
    write(plane, &old.1).await?;
    let vm = machine("vm", &[claim("data")]);
    let fresh = until("a fresh one is made", PATIENCE, || async {
        stage.dry_run(&vm).await?.has_only_our_hook()?;
        let now = held(plane, "tls.crt").await?;
        Ok(if now == old.1[0].1 { Err(now) } else { Ok(()) })
    });
    fresh.await?;
    let bundle = held(plane, "ca.crt").await?;
    let authority = first(&bundle)?;
    ensure!(
        bundle.contains(&old.0),
        "the former one is not trusted any more"
    );
    until_only_served(&replica, &authority).await
}

/// Creates machines until the replica serves what `authority` signed; each must get the hook.
async fn until_served(stage: &Stage<'_>, replica: &Replica, authority: &str) -> anyhow::Result<()> {
    let vm = machine("vm", &[claim("data")]);
    let bundle = base64(authority);
    until("the new certificate is served", PATIENCE, || async {
        stage.dry_run(&vm).await?.has_only_our_hook()?;
        Ok(client_answers(replica, &bundle)
            .await
            .map_err(|why| why.to_string()))
    })
    .await?;
    stage.dry_run(&vm).await?.has_only_our_hook()
}

async fn until_only_served(replica: &Replica, authority: &str) -> anyhow::Result<()> {
    let bundle = base64(authority);
    until("the fresh certificate is served", PATIENCE, || async {
        Ok(client_answers(replica, &bundle)
            .await
            .map_err(|why| why.to_string()))
    })
    .await
}

/// Whether somebody who trusts only these certificates gets an answer, whatever it is.
async fn client_answers(replica: &Replica, authorities: &str) -> anyhow::Result<()> {
    let client = client_of(replica.port(), authorities).await?;
    let (status, said) = post(&client, "text/plain", Vec::new()).await?;
    ensure!(status == 415, "{status}: {said}");
    Ok(())
}

type Data = [(&'static str, String); 3];

/// An authority, and what the Secret has of a certificate that it signed; `former` is trusted as well.
fn made(life: Duration, former: &str) -> anyhow::Result<(String, Data)> {
    // Both began so long ago that a year is the whole life of either.
    let until = SystemTime::now() + life;
    let lasting = |mut params: CertificateParams| {
        params.not_before = (until - 366 * DAY).into();
        params.not_after = until.into();
        params
    };
    let mut authority = lasting(CertificateParams::default());
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority
        .distinguished_name
        .push(DnType::CommonName, "another replica");
    let authority_key = KeyPair::generate()?;
    let trusted = authority.self_signed(&authority_key)?.pem();
    let served = lasting(CertificateParams::new([format!("{NAME}.{NAMESPACE}.svc")])?);
    let key = KeyPair::generate()?;
    let served = served.signed_by(&key, &Issuer::new(authority, authority_key))?;
    let both = trusted.clone() + &first(former)?;
    let data = [
        ("tls.crt", served.pem()),
        ("tls.key", key.serialize_pem()),
        ("ca.crt", both),
    ];
    Ok((trusted, data))
}

fn first(pem: &str) -> anyhow::Result<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let (first, _) = pem.split_once(END).context("it holds a certificate")?;
    Ok(first.to_owned() + END)
}

fn base64(pem: &str) -> String {
    let text = json!(ByteString(pem.as_bytes().to_vec()));
    text.as_str().unwrap_or_default().to_owned()
}

/// Puts these into the Secret in place of all that is there.
async fn write(plane: &Plane, data: &[(&str, String)]) -> anyhow::Result<()> {
    let empty = json!({"data": {"tls.crt": null, "tls.key": null, "ca.crt": null}});
    let data: serde_json::Map<_, _> = data
        .iter()
        .map(|(key, text)| ((*key).to_owned(), json!(base64(text))))
        .collect();
    let patch = if data.is_empty() {
        empty
    } else {
        json!({"data": data})
    };
    let (how, patch) = (PatchParams::default(), Patch::Merge(patch));
    secrets(plane).patch(NAME, &how, &patch).await?;
    Ok(())
}

async fn held(plane: &Plane, key: &str) -> anyhow::Result<String> {
    let secret = secrets(plane).get(NAME).await?;
    let bytes = secret.data.unwrap_or_default().remove(key);
    Ok(String::from_utf8(bytes.context("it is there")?.0)?)
}

async fn version(plane: &Plane) -> anyhow::Result<Option<String>> {
    Ok(secrets(plane).get(NAME).await?.metadata.resource_version)
}

fn secrets(plane: &Plane) -> Api<Secret> {
    Api::namespaced(plane.client(), NAMESPACE)
}
