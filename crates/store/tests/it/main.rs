//! What a store promises, tested over its public interface.
//!
//! The functions of `suite` take an opened store and know nothing of SQLite; they run on every backend. What only
//! the files of SQLite can show stands in `sqlite`.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail the test")]

mod harness;
mod sqlite;
mod suite;

/// Makes a test of each behaviour on each backend. A behaviour that is not listed here is dead code, which the
/// compiler reports.
macro_rules! on_every_backend {
    ($($module:ident: [$($name:ident),* $(,)?],)*) => {
        mod on_sqlite {
            $(mod $module {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $name() {
                        crate::suite::$module::$name(crate::harness::World::on_sqlite().await).await;
                    }
                )*
            })*
        }
    };
}

on_every_backend! {
    events: [
        gives_back_every_byte,
        finds_an_event_by_its_whole_id_only,
        pages_both_ways,
        pages_one_endpoint_as_far_as_dispatch_has_come,
        reads_on_from_a_position_in_order,
        bounds_a_read_by_bytes,
        goes_along_the_log_without_reading_large_bodies,
        never_gives_a_position_twice,
        keeps_two_thousand_concurrent_appends,
        refuses_events_when_the_disk_is_short,
        wakes_who_waits_for_events,
        survives_reads_that_are_abandoned,
    ],
    dedupe: [
        stores_a_repeated_id_once_within_its_window,
        keeps_ids_of_endpoints_apart,
        gives_concurrent_duplicates_the_same_event,
        forgets_ids_with_retention,
    ],
    overload: [
        turns_events_away_when_too_many_bytes_wait,
        withdraws_an_event_that_missed_its_deadline,
    ],
    jobs: [
        makes_jobs_and_moves_the_position_together,
        refuses_a_dispatch_from_another_position,
        claims_oldest_first_and_each_job_once,
        gives_every_recipe_its_turn,
        calls_jobs_that_wait_for_a_connection,
        shows_a_deferred_job_when_its_condition_holds,
        keeps_what_is_held_whatever_the_clock_says,
        brings_jobs_nearer_when_the_clock_was_set_back,
        finds_the_jobs_of_a_recipe_that_was_deleted,
        gets_careful_where_several_processes_have_ended,
        tells_a_job_whose_worker_went_away_from_one_that_waited,
        shuts_out_a_worker_whose_lease_was_taken_over,
        counts_workers_that_went_away_since_the_last_step,
        renews_a_lease_before_it_runs_out,
        waits_until_the_time_of_the_next_attempt,
        gives_later_steps_the_whole_output_of_earlier_ones,
        replaces_what_an_attempt_left,
        removes_outputs_when_the_job_ends,
        cancels_a_running_job_under_its_worker,
        reruns_a_job_with_the_recipe_as_it_is_now,
        gives_a_job_back_as_if_it_was_not_taken,
        takes_up_running_jobs_after_a_restart,
        lists_jobs_by_recipe_status_and_event,
        fails_a_job_that_comes_to_no_step,
    ],
    documents: [
        applies_all_documents_or_none,
        names_the_fields_that_change,
        says_that_an_apply_takes_back_a_change_by_hand,
        plans_without_changing_anything,
        prunes_only_what_the_same_set_made,
        gives_an_unchanged_document_to_the_set_that_names_it_last,
        refuses_a_dangling_reference_with_a_near_match,
        lists_every_fault_of_every_document,
        refuses_two_syncs_into_one_table,
        keeps_what_is_referred_to,
        checks_preconditions,
        treats_another_name_as_another_document,
        pages_the_documents_of_a_kind,
        keeps_what_each_revision_of_a_recipe_said,
        starts_a_recipe_at_the_end_of_the_log,
        rotates_the_key_of_an_endpoint,
        shows_every_change_in_the_snapshot,
        shows_a_change_whose_caller_went_away,
        ends_with_the_newest_snapshot_after_concurrent_changes,
    ],
    secrets: [
        keeps_a_value_that_a_later_apply_leaves_out,
        reads_values_that_stand_elsewhere,
        replaces_and_forgets_values,
        seals_values_under_the_master_key,
        turns_requests_away_without_a_secret,
        verifies_with_the_secrets_that_have_a_value,
        keeps_only_the_newest_operator_token,
    ],
    refusals: [
        keeps_the_newest_thousand_of_each_endpoint,
        gives_a_refusal_back_cut,
    ],
    retention: [
        removes_what_is_old,
        keeps_events_that_dispatch_has_not_seen,
        keeps_events_that_a_sync_has_not_loaded,
        keeps_events_of_open_jobs,
        keeps_failed_jobs_longer,
        goes_in_small_rounds,
    ],
    syncs: [
        takes_up_the_batch_that_was_begun,
        refuses_a_second_open_batch,
        counts_a_loaded_batch_once,
        skips_a_stretch_without_events,
        answers_a_request_by_a_run_that_began_after_it,
        wakes_who_waits_for_requests,
        remembers_how_runs_ended,
        sets_a_batch_aside_and_goes_on,
        counts_attempts_that_did_not_end,
        names_few_of_the_keys_without_a_column,
    ],
    seats: [
        commits_on_the_threads_that_serve,
        lets_the_thread_go_on_when_a_seat_is_left,
        leaves_a_slow_disk_to_the_thread,
        ends_with_what_was_queued_by_who_went_away,
    ],
    model: [
        agrees_with_a_small_model_under_any_interleaving,
    ],
}
