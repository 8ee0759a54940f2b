//! The Helm chart, judged by Helm, by a real API server, and by the programs whose arguments it writes.
#![forbid(unsafe_code)]

mod dry_run;
mod helm;
mod life;
mod machines;
mod metrics;
mod refused;
mod rights;
mod text;

use dry_run::every_object_of_every_value_set_is_taken_by_the_server;
use life::{
    first_install_tells_what_to_do_next, release_lives_through_upgrade_and_guarded_uninstall,
    second_install_finds_what_the_first_one_left,
};
use machines::controller_marks_machines_and_changes_nothing_else_of_them;
use metrics::alerts_and_dashboard_ask_for_metrics_that_exist;
use refused::{good_values_are_taken, values_that_mean_nothing_are_refused};
use rights::{accounts_may_what_they_must_and_nothing_else, node_token_is_held_to_its_own_node};
use text::{arguments_are_known_to_their_programs, made_files_are_up_to_date, unit_suites_pass};

// The order matters to the last ones: a release is installed, looked at, changed and taken away.
holdfast_cluster::tests!(
    unit_suites_pass,
    made_files_are_up_to_date,
    good_values_are_taken,
    values_that_mean_nothing_are_refused,
    arguments_are_known_to_their_programs,
    alerts_and_dashboard_ask_for_metrics_that_exist,
    every_object_of_every_value_set_is_taken_by_the_server,
    first_install_tells_what_to_do_next,
    accounts_may_what_they_must_and_nothing_else,
    node_token_is_held_to_its_own_node,
    controller_marks_machines_and_changes_nothing_else_of_them,
    release_lives_through_upgrade_and_guarded_uninstall,
    second_install_finds_what_the_first_one_left,
);
