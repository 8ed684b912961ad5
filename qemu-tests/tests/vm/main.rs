//! The real image, booted in QEMU between a simulated provider and a simulated office.
//!
//! `cargo xtask test` says which image (`KONTOR_IMAGE`); without one every test here is skipped.

mod boards;
mod boot;
mod clock;
mod disk_faults;
mod flash;
mod floods;
mod install;
mod kernel_faults;
mod migrate;
mod names;
mod net_faults;
mod net_faults_frames;
mod net_faults_neighbours;
mod office;
mod outside;
mod power_cut;
mod process_faults;
mod reset;
mod samba;
mod samba_faults;
mod samba_join;
mod scene;
mod share_cut;
mod site;
mod slots;
mod state_faults;
mod tunnel;
mod update;
mod update_cut;
mod update_line;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};
use qemu_tests::{Equipment, World, guard};

type Test = fn(&mut World) -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("boot-by-seabios", boot::by_seabios),
    ("boot-by-ovmf", boot::by_ovmf),
    ("power-button-switches-off-in-order", boot::power_button),
    ("data-grows-to-the-disk", boot::data_grows),
    ("one-image-boots-on-a-pcengines-apu2", boards::pcengines_apu2),
    ("one-image-boots-on-a-protectli-vp24x0", boards::protectli_vp24x0),
    ("one-image-boots-on-an-unknown-machine", boards::unknown_machine),
    ("a-flashed-disk-boots-with-its-site", flash::boots),
    ("a-stick-installs-to-the-internal-disk", install::by_order),
    ("a-page-through-nat", office::page_through_nat),
    ("leases-survive-a-reboot", office::leases_survive_a_reboot),
    ("leases-survive-a-power-cut", office::leases_survive_a_power_cut),
    ("leases-survive-a-power-cut-at-any-of-500-points", power_cut::leases_survive_any_cut),
    ("a-pulled-disk-costs-only-durability-and-comes-back", disk_faults::pulled_and_put_back),
    ("a-disk-that-answers-with-errors", disk_faults::answers_with_errors),
    ("a-disk-that-hangs", disk_faults::hangs),
    ("a-disk-that-crawls", disk_faults::crawls),
    ("a-data-partition-that-turns-read-only", disk_faults::is_read_only),
    ("data-zeroed-keeps-the-office-s-addresses", state_faults::data_zeroed),
    ("system-and-data-missing", state_faults::data_and_system_missing),
    ("system-and-data-overwritten", state_faults::data_and_system_garbage),
    ("a-damaged-state-file-system-is-mended", state_faults::state_mended),
    ("state-files-garbage-empty-truncated-directories", state_faults::state_files_damaged),
    ("a-wiped-boot-state-counts-tries-again", state_faults::boot_state_wiped),
    ("a-factory-reset-keeps-or-wipes-data", reset::keeps_or_wipes_data),
    ("a-pc-s-name-resolves-both-ways", names::of_a_pc),
    ("dns-by-udp-and-tcp-and-from-cache", names::forwarded_and_cached),
    ("nothing-unsolicited-gets-in-or-an-answer", outside::unsolicited),
    ("a-new-site-file-drops-no-connection", site::reload_keeps_connections),
    ("a-wrong-site-file-changes-nothing", site::error_changes_nothing),
    ("a-tunnel-to-headquarters", tunnel::to_headquarters),
    ("the-wan-cable-out-and-in-and-another-provider", net_faults::wan_cable_out_and_in),
    ("both-cables-in-one-switch-offer-nothing-outside", net_faults::both_cables_in_one_switch),
    ("the-same-network-on-both-sides-is-said", net_faults::the_same_network_on_both_sides),
    ("malformed-frames-on-both-ports", net_faults_frames::malformed_frames),
    ("an-impostor-and-another-dhcp-server-are-said", net_faults_neighbours::impostor_and_other_dhcp_server),
    ("the-wan-link-flaps-fifty-times", net_faults_neighbours::wan_link_flaps),
    ("every-daemon-killed-is-back", process_faults::every_daemon_killed),
    ("a-daemon-that-stands-still-is-restarted", process_faults::stopped_daemons),
    ("192-mb-of-ram-are-enough", process_faults::little_memory),
    ("a-fork-bomb-stays-in-its-group", process_faults::fork_bomb),
    ("a-memory-hog-stays-in-its-group", process_faults::memory_hog),
    ("a-clock-at-1970", clock::at_1970),
    ("a-clock-at-2099", clock::at_2099),
    ("a-clock-chip-from-the-future-is-forgotten", clock::from_the_future),
    ("a-flood-of-log-lines-is-bounded", floods::log),
    ("a-double-fork-ends-with-its-daemon", floods::double_fork),
    ("file-systems-in-ram-may-be-full", floods::full_file_systems),
    ("a-kernel-panic-is-a-reboot", kernel_faults::panic),
    ("a-frozen-process-1-is-reset-by-the-watchdog", kernel_faults::frozen_process_1),
    ("orderly-ends-consume-no-tries", kernel_faults::orderly_ends),
    // Two that keep a core busy for long, and beside them those that mostly wait, for a release to be given up.
    ("a-broken-samba-leaves-the-office-alone", samba_faults::leave_the_office_alone),
    ("a-share-survives-a-power-cut", share_cut::survives_a_power_cut),
    ("a-release-that-answers-no-names", update::names_are_not_answered),
    ("a-release-whose-tunnel-stays-down", tunnel::stays_down),
    ("a-release-that-fills-the-disk", update::fills_the_disk),
    ("a-release-that-finds-no-disk", update::finds_no_disk),
    ("a-release-that-hangs", update::hangs),
    ("a-domain-controller-on-the-box", samba::domain_controller),
    ("a-branch-joins-its-headquarters", samba_join::member),
    ("a-flipped-byte-in-a-component-s-image", samba::flipped_byte),
    ("a-release-comes-over-the-air", update::by_itself),
    ("a-release-comes-by-stick", update::by_stick),
    ("a-release-whose-kernel-panics", update::kernel_panics),
    ("a-release-whose-process-1-exits", update::init_exits),
    ("a-release-whose-component-is-corrupt", update::component_is_corrupt),
    ("a-release-migrates-state-and-back", migrate::there_and_back),
    ("an-update-over-a-line-that-drops", update_line::drops),
    ("a-second-attempt-fetches-the-rest", update_line::second_attempt),
    ("an-update-survives-a-power-cut-at-any-point", update_cut::survives_any_cut),
    ("an-erased-slot-is-passed-over", slots::erased),
    ("a-slot-that-panics-runs-out-of-tries", slots::panicking),
    ("without-tries-the-last-good-slot-boots", slots::out_of_tries),
];

/// Machines at a time: each one keeps a core busy while it boots, and much of the rest is waiting.
const PARALLEL: usize = 3;

fn main() -> ExitCode {
    if let Some(code) = guard::role() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(PARALLEL);
    let equipment = match Equipment::find() {
        Ok(equipment) => equipment.map(Arc::new),
        Err(error) => {
            eprintln!("the QEMU tests cannot be prepared: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    if equipment.is_none() && !arguments.list {
        println!("SKIPPED: every test in QEMU: there is no image; `cargo xtask test` builds one");
    }
    let trials = TESTS.iter().map(|(name, test)| trial(name, *test, equipment.clone())).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(name: &'static str, test: Test, equipment: Option<Arc<Equipment>>) -> Trial {
    let ignored = equipment.is_none();
    let run = move || run(name, test, equipment).map_err(|error| Failed::from(format!("{error:#}")));
    Trial::test(name, run).with_ignored_flag(ignored)
}

fn run(name: &str, test: Test, equipment: Option<Arc<Equipment>>) -> Result<()> {
    let start = Instant::now();
    let mut world = World::new(name, equipment)?;
    match test(&mut world) {
        Ok(()) => {
            println!("{name}: {} s", start.elapsed().as_secs());
            world.finish()
        }
        Err(error) => {
            let kept = world.artefacts().directory().display();
            Err(error.context(format!("console and captures are kept in {kept}")))
        }
    }
}
