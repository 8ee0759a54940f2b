//! The webhook on a real API server, with the chart's objects and the rights that the chart gives: a machine with a volume of
//! ours gets the hook, once; every other is created as it is, whatever happens.
#![allow(clippy::unwrap_used)]
#![forbid(unsafe_code)]

mod certificates;
mod install;
mod machines;
mod replica;
mod requests;
mod stage;

use certificates::{
    certificate_is_replaced_without_a_machine_left_out, replicas_share_one_certificate,
    secret_that_holds_nonsense_is_filled_anew,
};
use machines::{
    claims_and_data_volumes_not_yet_bound_are_judged_by_their_class, default_class_counts,
    list_that_cannot_be_read_is_left_with_a_warning, machine_with_our_volume_gets_the_hook_once,
    machine_without_our_volumes_is_untouched, machines_are_created_while_nobody_answers,
    of_two_default_classes_the_one_that_kubernetes_takes_counts, person_may_name_the_volumes,
    sidecars_of_others_are_kept,
};
use requests::{
    program_serves_the_webhook_with_the_rights_of_the_chart, slow_api_server_does_not_hold_it_up,
    time_to_answer_is_measured, what_is_no_review_is_refused,
};

holdfast_cluster::tests!(
    machine_with_our_volume_gets_the_hook_once,
    machine_without_our_volumes_is_untouched,
    claims_and_data_volumes_not_yet_bound_are_judged_by_their_class,
    default_class_counts,
    of_two_default_classes_the_one_that_kubernetes_takes_counts,
    person_may_name_the_volumes,
    sidecars_of_others_are_kept,
    list_that_cannot_be_read_is_left_with_a_warning,
    machines_are_created_while_nobody_answers,
    what_is_no_review_is_refused,
    slow_api_server_does_not_hold_it_up,
    time_to_answer_is_measured,
    replicas_share_one_certificate,
    secret_that_holds_nonsense_is_filled_anew,
    certificate_is_replaced_without_a_machine_left_out,
    program_serves_the_webhook_with_the_rights_of_the_chart,
);
