//! What the controller does in a cluster beside answering calls, and what becomes of its calls when the API server goes away.
#![forbid(unsafe_code)]

#[path = "controller/calls.rs"]
mod calls;
#[path = "controller/garbage.rs"]
mod garbage;
#[path = "controller/leading.rs"]
mod leading;
#[path = "controller/lost_node.rs"]
mod lost_node;
#[path = "controller/stage.rs"]
mod stage;

use calls::{
    create_cut_short_by_a_killed_api_server_is_completed_by_its_repetition,
    growth_that_is_refused_is_withdrawn, wish_that_breaks_a_rule_is_invalid_and_leaves_nothing,
};
use garbage::{dry_run_tells_of_garbage_and_deletes_none, garbage_is_deleted_and_nothing_else};
use leading::{
    leader_that_cannot_renew_steps_down, leader_that_ends_hands_over_at_once,
    leader_that_is_killed_is_followed_by_the_other, only_one_of_two_replicas_leads,
};
use lost_node::{
    node_that_is_gone_is_finished_after_a_grace, node_that_is_not_ready_keeps_everything,
    node_that_is_out_of_service_is_finished_at_once,
};

holdfast_cluster::tests!(
    dry_run_tells_of_garbage_and_deletes_none,
    garbage_is_deleted_and_nothing_else,
    node_that_is_not_ready_keeps_everything,
    node_that_is_out_of_service_is_finished_at_once,
    node_that_is_gone_is_finished_after_a_grace,
    only_one_of_two_replicas_leads,
    leader_that_ends_hands_over_at_once,
    leader_that_is_killed_is_followed_by_the_other,
    leader_that_cannot_renew_steps_down,
    growth_that_is_refused_is_withdrawn,
    wish_that_breaks_a_rule_is_invalid_and_leaves_nothing,
    create_cut_short_by_a_killed_api_server_is_completed_by_its_repetition,
);
