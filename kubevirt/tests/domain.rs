//! The rewriting of a domain: what KubeVirt sends, what comes back to us on later calls, and what nobody should send.
#![allow(clippy::unwrap_used)]

use holdfast_kubevirt::{DomainError, Volumes, rewrite};
use proptest::prelude::*;

/// A machine with two disks of ours and one of somebody else, as KubeVirt 1.9 writes it on the first call.
const FIRST: &str = include_str!("xml/first-call.xml");
/// What KubeVirt hands to the hook on the second call: libvirt's address is there, our socket and memory are gone.
const SECOND: &str = include_str!("xml/second-call.xml");

fn volumes(text: &str) -> Volumes {
    Volumes::parse(text).unwrap()
}

fn rewritten(xml: &str, names: &str) -> String {
    rewrite(xml, &volumes(names)).unwrap()
}

fn refused(xml: &str) -> String {
    rewrite(xml, &volumes("data")).unwrap_err().to_string()
}

/// A domain with the disk `data` made of `attributes` and `parts`.
fn domain(attributes: &str, parts: &str) -> String {
    format!(
        "<domain type=\"kvm\"><vcpu>2</vcpu><devices><disk {attributes}>\
         <source file=\"/var/run/kubevirt-private/vmi-disks/data/disk.img\"/>\
         <alias name=\"ua-data\"/>{parts}</disk></devices></domain>"
    )
}

fn plain() -> String {
    domain(
        r#"type="file" device="disk""#,
        r#"<target bus="virtio" dev="vda"/>"#,
    )
}

/// The disk of `volume`, from its `<disk` to its `</disk>`.
fn disk<'x>(xml: &'x str, volume: &str) -> &'x str {
    let alias = xml.find(&format!("ua-{volume}")).unwrap();
    let start = xml[..alias].rfind("<disk ").unwrap();
    let end = alias + xml[alias..].find("</disk>").unwrap();
    &xml[start..end]
}

#[test]
fn first_call_puts_the_disk_on_its_socket() {
    let out = rewritten(FIRST, "data");
    assert_eq!(
        disk(&out, "data"),
        "<disk type='vhostuser' device='disk' snapshot='no' model='virtio-non-transitional'>\
         <driver name='qemu' type='raw' queues='4'/>\
         <source type='unix' path='/var/run/kubevirt-private/vmi-disks/data/v.sock'>\
         <reconnect enabled='yes' timeout='1'/></source>\
         <target bus=\"virtio\" dev=\"vdb\"></target><boot order=\"2\"></boot><alias name=\"ua-data\"></alias>"
    );
}

#[test]
fn second_call_rebuilds_what_was_stripped_and_keeps_the_address() {
    let out = rewritten(SECOND, "data,root");
    let data = disk(&out, "data");
    assert!(data.contains("path='/var/run/kubevirt-private/vmi-disks/data/v.sock'"));
    assert!(data.contains(r#"<address type="pci" domain="0x0000" bus="0x08""#));
    assert!(out.contains("<source type='memfd'/><access mode='shared'/></memoryBacking>"));
}

#[test]
fn huge_pages_and_other_disks_are_kept() {
    let out = rewritten(FIRST, "data");
    assert!(out.contains("<memoryBacking><hugepages></hugepages><source type='memfd'/>"));
    assert_eq!(disk(&out, "cloudinit"), disk(FIRST, "cloudinit"));
    assert_eq!(disk(&out, "root"), disk(FIRST, "root"));
}

#[test]
fn memory_is_shared_where_nothing_was_said_about_it() {
    let out = rewritten(&plain(), "data");
    let end =
        "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking></domain>";
    assert!(out.ends_with(end), "{out}");
}

#[test]
fn what_stands_between_the_edits_is_kept_byte_by_byte() {
    let out = rewritten(FIRST, "data");
    let (before, rest) = FIRST.split_once("<memoryBacking>").unwrap();
    let (_, rest) = rest.split_once("</memoryBacking>").unwrap();
    let (between, after) = rest.split_once(disk(FIRST, "data")).unwrap();
    assert!(out.starts_with(before));
    assert!(out.ends_with(after));
    assert!(out.contains(between));
}

#[test]
fn rewriting_its_own_words_changes_nothing() {
    for (xml, names) in [(FIRST, "data"), (FIRST, "data,root"), (SECOND, "root")] {
        let once = rewritten(xml, names);
        assert_eq!(rewritten(&once, names), once);
    }
}

#[test]
fn machine_without_volumes_of_ours_is_not_touched() {
    assert_eq!(rewritten(FIRST, ""), FIRST);
    // Not even read.
    assert_eq!(rewritten("<not a domain", ""), "<not a domain");
}

#[test]
fn queues_follow_the_cpus_up_to_what_the_server_offers() {
    let queues = |xml: &str| {
        let out = rewritten(xml, "data");
        let (_, rest) = out.split_once("queues='").unwrap();
        rest.split_once('\'').unwrap().0.to_owned()
    };
    let with_cpus =
        |n: u32| plain().replace("<vcpu>2<", &format!("<vcpu placement='static'> {n}\n<"));
    let asking = |n: u32| {
        let driver = format!("<target bus='virtio'/><driver queues='{n}'/>");
        domain("type='file'", &driver)
    };
    assert_eq!(queues(&with_cpus(1)), "1");
    assert_eq!(queues(&with_cpus(200)), "16");
    assert_eq!(queues(&asking(3)), "3");
    assert_eq!(queues(&asking(64)), "16");
}

#[test]
fn settings_of_the_block_layer_are_left_out() {
    let parts = r#"<driver name="qemu" type="raw" cache="none" io="native" iothread="1" error_policy="stop"
        discard="unmap" queue_size="256"/><target bus="virtio" dev="vda"/><serial>abc</serial>
        <blockio logical_block_size="4096"/><capacity>1</capacity><backingStore/>"#;
    let out = rewritten(&domain(r#"type="file""#, parts), "data");
    assert!(
        out.contains("<driver name='qemu' type='raw' queues='2' queue_size='256'/>"),
        "{out}"
    );
    for gone in [
        "serial",
        "blockio",
        "capacity",
        "cache",
        "iothread",
        "discard",
        "backingStore",
    ] {
        assert!(!out.contains(gone), "{gone} is still there: {out}");
    }
}

#[test]
fn disk_that_a_socket_cannot_be_is_refused_with_the_remedy() {
    let virtio = r#"<target bus="virtio"/>"#;
    let cases = [
        (
            domain("device='lun'", virtio),
            "it is a lun; make it a disk",
        ),
        (
            domain("device='cdrom'", virtio),
            "it is a cdrom; make it a disk",
        ),
        (
            domain("", "<target bus='sata'/>"),
            "its bus is sata; set bus: virtio",
        ),
        (domain("", ""), "its bus is not said; set bus: virtio"),
        (
            domain("", &format!("{virtio}<readonly/>")),
            "it says readonly; remove readOnly",
        ),
        (
            domain("", &format!("{virtio}<shareable/>")),
            "it says shareable; remove",
        ),
        (
            domain("", &format!("{virtio}<encryption/>")),
            "it says encryption",
        ),
        (
            domain("", &format!("{virtio}<driver queues='0'/>")),
            "its queues are",
        ),
        (domain("model='a b'", virtio), "is no setting of a disk"),
    ];
    for (xml, words) in cases {
        let said = refused(&xml);
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn encrypted_memory_is_refused() {
    let xml = plain().replace("<vcpu>", "<launchSecurity type='sev'/><vcpu>");
    assert!(refused(&xml).contains("encrypted memory (sev)"));
}

#[test]
fn volume_that_is_not_a_mounted_claim_is_refused() {
    let disk_of =
        |path: &str| plain().replace("/var/run/kubevirt-private/vmi-disks/data/disk.img", path);
    for path in [
        "/var/run/kubevirt-private/vmi-disks/other/disk.img",
        "/etc/shadow",
        "",
    ] {
        assert!(
            refused(&disk_of(path)).contains("is not a claim"),
            "{path} was taken"
        );
    }
    let block = plain().replace(r#"type="file""#, r#"type="block""#);
    assert!(refused(&block).contains("is not a claim"));
}

#[test]
fn domain_without_the_alias_is_refused_and_names_those_there_are() {
    let error = rewrite(FIRST, &volumes("data,gone")).unwrap_err();
    assert_eq!(
        error,
        DomainError::NoDisk {
            volume: "gone".into(),
            aliases: "ua-root, ua-data, ua-cloudinit".into()
        }
    );
}

#[test]
fn two_disks_of_one_alias_are_refused() {
    let two = plain().replace(
        "</devices>",
        "<disk><alias name='ua-data'/></disk></devices>",
    );
    assert_eq!(
        rewrite(&two, &volumes("data")).unwrap_err(),
        DomainError::TwoDisks {
            volume: "data".into()
        }
    );
}

#[test]
fn alias_outside_a_disk_of_the_domain_is_not_taken_for_one() {
    let elsewhere = "<domain><metadata><devices><disk><alias name='ua-data'/></disk></devices></metadata></domain>";
    assert!(refused(elsewhere).contains("no disk of the domain"));
    let comment =
        "<domain><devices><!-- <disk><alias name='ua-data'/></disk> --></devices></domain>";
    assert!(refused(comment).contains("no disk of the domain"));
}

#[test]
fn text_that_is_no_domain_is_refused_with_the_place() {
    let deep = format!("<domain>{}", "<a>".repeat(100));
    let cases: &[&str] = &[
        "",
        "data",
        "<domain>",
        "<domain><devices></domain>",
        "<domainsnapshot/>",
        "<domain/><domain/>",
        "<domain/>data",
        "<domain a='1' a='2'/>",
        "<domain a=1/>",
        "<domain",
        "</domain>",
        &deep,
    ];
    for xml in cases {
        let error = rewrite(xml, &volumes("data")).unwrap_err();
        assert!(
            matches!(error, DomainError::Malformed { .. }),
            "{xml:.40}: {error}"
        );
    }
}

#[test]
fn nesting_beyond_64_is_refused_however_well_formed() {
    let nested = |depth: usize| {
        let inner = "<a>".repeat(depth) + &"</a>".repeat(depth);
        plain().replace("<vcpu>", &format!("{inner}<vcpu>"))
    };
    // The domain itself is one of the 64.
    assert!(rewritten(&nested(63), "data").contains("v.sock"));
    assert!(refused(&nested(64)).contains("nested too deeply"));
}

#[test]
fn memory_that_is_described_twice_is_refused() {
    let twice = "<memoryBacking/><memoryBacking><hugepages/></memoryBacking><vcpu>";
    let xml = plain().replace("<vcpu>", twice);
    assert!(refused(&xml).contains("a second memoryBacking"));
}

#[test]
fn document_type_and_entities_are_refused() {
    let bomb = r#"<!DOCTYPE d [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><domain>&b;</domain>"#;
    assert!(refused(bomb).contains("a document type is not allowed, at byte 0"));
    assert!(refused("<domain>&b;</domain>").contains("an entity is not allowed"));
    assert!(refused("<domain a='&b;'/>").contains("cannot be used"));
    assert!(refused("<domain>&#0;</domain>").contains("cannot be used"));
    let escaped = plain().replace(
        "<vcpu>",
        "<title a='&quot;&#38;'>R&amp;D &#x41;</title><vcpu>",
    );
    assert!(rewritten(&escaped, "data").contains("<title a='&quot;&#38;'>R&amp;D &#x41;</title>"));
}

#[test]
fn large_text_is_rewritten_and_a_huge_one_refused() {
    let filled = |bytes: usize| {
        let comment = format!("<!--{}--><vcpu>", "x".repeat(bytes));
        plain().replace("<vcpu>", &comment)
    };
    let large = filled(5 << 20);
    assert!(rewritten(&large, "data").len() > large.len());
    assert!(refused(&filled(16 << 20)).contains("the limit is 16777216"));
    let crowd = plain().replace(
        "</devices>",
        &format!("{}</devices>", "<disk/>".repeat(70_000)),
    );
    assert!(refused(&crowd).contains("too many disks"));
}

/// Text that a domain may carry anywhere: none of it is a disk of ours.
fn other_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ \n\ta-z]{0,20}",
        "[a-z]{1,8}".prop_map(|name| format!("<x-{name} a='&lt;{name}&gt;'/>")),
        "[a-z ]{0,8}".prop_map(|text| format!("<!--{text}-->")),
        "[a-z<&]{0,8}".prop_map(|text| format!("<note><![CDATA[{text}]]></note>")),
        "[a-z]{1,8}".prop_map(|name| {
            format!("<disk type=\"file\"><alias name=\"ua-other-{name}\"/><serial>{name}</serial></disk>")
        }),
    ]
}

proptest! {
    #[test]
    fn rewriting_is_idempotent_and_keeps_the_rest(
        parts in prop::collection::vec(other_text(), 0..6),
        place in 0_usize..6,
        backing in prop::option::of("(<locked/>|<hugepages/>|<source type='anonymous'/>){0,2}"),
        cpus in 1_u32..300,
    ) {
        let backing = backing.map_or(String::new(), |inner| format!("<memoryBacking>{inner}</memoryBacking>"));
        let ours = disk(&plain(), "data").to_owned() + "</disk>";
        let mut devices = parts;
        let place = place.min(devices.len());
        devices.insert(place, ours.clone());
        let xml = format!("<domain><vcpu>{cpus}</vcpu>{backing}<devices>{}</devices></domain>", devices.concat());

        let once = rewritten(&xml, "data");

        prop_assert_eq!(&rewritten(&once, "data"), &once);
        let (before, after) = xml.split_once(&ours).unwrap();
        let (head, tail) = once.split_once(&format!("{}</disk>", disk(&once, "data"))).unwrap();
        prop_assert_eq!(without_backing(head), without_backing(before));
        prop_assert_eq!(without_backing(tail), without_backing(after));
    }

    #[test]
    fn no_text_at_all_makes_it_panic(xml in ".{0,200}", markup in "(<domain>|<devices>|<disk>|</disk>|<a b='c'|/>|>|&x;|]]>|<!--|-->|<\\?x|){0,12}") {
        let _ = rewrite(&xml, &volumes("data"));
        let _ = rewrite(&markup, &volumes("data"));
    }
}

/// The text without what is said about memory.
fn without_backing(text: &str) -> String {
    match text.split_once("<memoryBacking>") {
        None => text.to_owned(),
        Some((before, rest)) => {
            format!("{before}{}", rest.split_once("</memoryBacking>").unwrap().1)
        }
    }
}
