//! Compares the compiled csi.proto with the table of wire facts, both ways: nothing missing, nothing extra, nothing renumbered.

use protox::prost_reflect::{
    Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor,
};
use std::collections::BTreeSet;

const TABLE: &str = include_str!("csi-1.13-wire.tsv");
const PACKAGE: &str = "csi.v1.";

fn pool() -> DescriptorPool {
    let files = protox::compile(
        ["csi.proto"],
        [concat!(env!("CARGO_MANIFEST_DIR"), "/proto")],
    )
    .expect("csi.proto compiles");
    DescriptorPool::from_file_descriptor_set(files).expect("a complete descriptor set")
}

/// The facts of the table as lines, marks left out: they are comments on the wire contract, not part of it.
fn expected(kind: &str, columns: usize) -> BTreeSet<String> {
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|row| row[0] == kind)
        .map(|row| row[1..=columns].join(" "))
        .collect()
}

fn local(name: &str) -> String {
    name.strip_prefix(PACKAGE).unwrap_or(name).to_owned()
}

fn type_name(field: &FieldDescriptor) -> String {
    if field.is_map() {
        return "map<string,string>".to_owned();
    }
    match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(values) => values.full_name().to_owned(),
        Kind::String => "string".to_owned(),
        Kind::Bool => "bool".to_owned(),
        Kind::Int32 => "int32".to_owned(),
        Kind::Int64 => "int64".to_owned(),
        other => panic!(
            "{} has a kind the contract does not use: {other:?}",
            field.full_name()
        ),
    }
}

fn assert_map_of_strings(field: &FieldDescriptor) {
    let Kind::Message(entry) = field.kind() else {
        panic!("a map is an entry message")
    };
    for part in [entry.map_entry_key_field(), entry.map_entry_value_field()] {
        assert_eq!(part.kind(), Kind::String, "{}", field.full_name());
    }
}

fn describe(field: &FieldDescriptor) -> String {
    let label = match field.cardinality() {
        _ if field.is_map() => {
            assert_map_of_strings(field);
            "map"
        }
        Cardinality::Repeated => "repeated",
        _ => "singular",
    };
    let oneof = field
        .containing_oneof()
        .map_or("-".to_owned(), |group| group.name().to_owned());
    format!(
        "{} {} {} {} {label} {oneof}",
        local(field.parent_message().full_name()),
        field.number(),
        field.name(),
        type_name(field)
    )
}

fn messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    pool.all_messages()
        .filter(|message| message.full_name().starts_with(PACKAGE) && !message.is_map_entry())
        .collect()
}

fn assert_same(what: &str, expected: &BTreeSet<String>, built: &BTreeSet<String>) {
    assert!(
        expected.len() > 5 || what == "empty messages",
        "the table has {what}"
    );
    let missing: Vec<_> = expected.difference(built).collect();
    let extra: Vec<_> = built.difference(expected).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{what}: missing {missing:#?}, extra {extra:#?}"
    );
}

#[test]
fn fields_are_those_of_the_table() {
    let built = messages(&pool())
        .iter()
        .flat_map(|m| m.fields().collect::<Vec<_>>())
        .map(|f| describe(&f))
        .collect();
    assert_same("fields", &expected("field", 6), &built);
}

#[test]
fn empty_messages_are_those_of_the_table() {
    let built = messages(&pool())
        .iter()
        .filter(|m| {
            m.fields().len() == 0 && m.child_messages().len() == 0 && m.child_enums().len() == 0
        })
        .map(|m| format!("{} (empty)", local(m.full_name())))
        .collect();
    assert_same("empty messages", &expected("message", 2), &built);
}

#[test]
fn enum_values_are_those_of_the_table() {
    let built = pool()
        .all_enums()
        .filter(|e| e.full_name().starts_with(PACKAGE))
        .flat_map(|e| {
            e.values()
                .map(|v| (e.full_name().to_owned(), v.name().to_owned(), v.number()))
                .collect::<Vec<_>>()
        })
        .map(|(e, name, number)| format!("{} {name} {number}", local(&e)))
        .collect();
    assert_same("enum values", &expected("enum", 3), &built);
}

#[test]
fn calls_are_those_of_the_table() {
    let mut built = BTreeSet::new();
    for service in pool().services() {
        for method in service.methods() {
            assert!(!method.is_client_streaming(), "{}", method.full_name());
            let streaming = if method.is_server_streaming() {
                "server_streaming"
            } else {
                "unary"
            };
            built.insert(format!(
                "{} {} {} {} {streaming}",
                service.name(),
                method.name(),
                method.input().full_name(),
                method.output().full_name()
            ));
        }
    }
    assert_same("calls", &expected("rpc", 5), &built);
}
