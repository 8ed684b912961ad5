//! Boots and loads in a scratch directory.

use std::fs;
use std::path::PathBuf;

use kontor_config::{Board, Site};
use kontor_status::paths::Paths;
use kontor_status::{SiteOrigin, SiteStatus, StorageStatus};

use super::store::Info;
use super::{boot, in_force, load, store};

struct Machine {
    scratch: tempfile::TempDir,
    paths: Paths,
    board: Board,
}

impl Machine {
    /// A box whose storage has finished, with or without a state partition.
    fn new(state_mounted: bool) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut paths = Paths::default();
        paths.run = scratch.path().join("run");
        paths.state = scratch.path().join("state");
        let board = "schema = 1\nname = \"test\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n";
        let board = Board::parse("board.toml", board).unwrap();
        let this = Self { scratch, paths, board };
        this.storage(state_mounted);
        this
    }

    fn storage(&self, state_mounted: bool) {
        let status = StorageStatus { state_mounted, ..StorageStatus::default() };
        write(self.paths.storage_status(), &serde_json::to_string(&status).unwrap());
    }

    /// The boot disk's partition, as storage links it.
    fn bootstate(&self) {
        let file = self.scratch.path().join("bootstate");
        let device = fs::OpenOptions::new().create(true).append(true).open(&file).unwrap();
        device.set_len(4 << 20).unwrap();
        std::os::unix::fs::symlink(file, self.paths.run.join("storage/bootstate")).unwrap();
    }

    /// Power off and on: what was in RAM is gone.
    fn restart(&self, state_mounted: bool) {
        fs::remove_dir_all(self.scratch.path().join("run")).unwrap();
        self.storage(state_mounted);
    }

    fn boot(&self) -> SiteStatus {
        boot::boot(&self.paths, &self.board).unwrap()
    }

    fn load(&self, text: &str) -> anyhow::Result<load::Loaded> {
        load::load(&self.paths, &self.board, "new.toml", text.as_bytes(), &info())
    }

    fn in_force(&self) -> String {
        fs::read_to_string(self.paths.site()).unwrap()
    }
}

fn info() -> Info {
    Info { who: "operator".into(), when: "2026-11-21T18:03:09Z".into(), why: "new printer".into() }
}

fn write(path: PathBuf, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn site_of(office: &str) -> String {
    Site::default_text().replace("\"Kontor\"", &format!("{office:?}"))
}

#[test]
fn default_without_any_file() {
    let machine = Machine::new(true);
    let status = machine.boot();
    assert_eq!((status.origin, status.error, status.revision), (SiteOrigin::Default, None, 1));
    assert_eq!(machine.in_force(), Site::default_text());
    assert!(!machine.paths.state_site_good().exists(), "the default is never taken for an operator's site");
}

/// The way back to an older release: what a newer one has written it cannot read.
#[test]
fn the_newest_file_that_can_be_read_when_all_newer_ones_cannot() {
    let machine = Machine::new(true);
    for office in ["Huber", "Huber 2"] {
        machine.load(&site_of(office)).unwrap();
    }
    let newer = site_of("Huber 3").replace("schema = 1", "schema = 2");
    let history = machine.paths.state_site().with_file_name("history");
    for path in [history.join("0003.toml"), machine.paths.state_site(), machine.paths.state_site_good()] {
        write(path, &newer);
    }
    machine.restart(true);
    let status = machine.boot();
    assert_eq!((status.origin, status.office.as_str()), (SiteOrigin::LastGood, "Huber 2"));
    let error = status.error.unwrap();
    assert!(error.contains("the file has schema 2, which only newer releases read"), "{error}");
    assert_eq!(fs::read_to_string(machine.paths.state_site()).unwrap(), newer, "it stays");
}

#[test]
fn operators_file_is_taken_and_becomes_the_last_good_one() {
    let machine = Machine::new(true);
    write(machine.paths.state_site(), &site_of("Huber"));
    let status = machine.boot();
    assert_eq!((status.origin, status.office.as_str()), (SiteOrigin::File, "Huber"));
    assert_eq!(fs::read_to_string(machine.paths.state_site_good()).unwrap(), site_of("Huber"));
}

#[test]
fn last_good_site_when_the_operators_has_an_error() {
    let machine = Machine::new(true);
    write(machine.paths.state_site(), &site_of("Huber"));
    machine.boot();
    write(machine.paths.state_site(), &site_of("Neu").replace("port2", "port7"));
    machine.restart(true);
    let status = machine.boot();
    assert_eq!((status.origin, status.office.as_str()), (SiteOrigin::LastGood, "Huber"));
    let error = status.error.unwrap();
    assert!(error.contains("has no port `port7`") && error.contains("/site/site.toml:18:10"), "{error}");
    assert_eq!(machine.in_force(), site_of("Huber"));
}

#[test]
fn empty_or_binary_files_do_not_stop_a_boot() {
    let machine = Machine::new(true);
    write(machine.paths.state_site(), "");
    assert_eq!(machine.boot().error, None, "an empty file is what a power cut leaves: no file");
    fs::write(machine.paths.state_site(), [0xff; 600]).unwrap();
    write(machine.paths.state_site_good(), "also damaged");
    let status = machine.boot();
    assert_eq!(status.origin, SiteOrigin::Default);
    assert!(status.error.unwrap().contains("not UTF-8"));
}

#[test]
fn load_is_stored_with_who_when_why_and_survives() {
    let machine = Machine::new(true);
    machine.boot();
    let loaded = machine.load(&site_of("Huber")).unwrap();
    assert_eq!(loaded, load::Loaded { number: Some(1), revision: 2, warning: None });
    assert_eq!(machine.load(&site_of("Huber 2")).unwrap().number, Some(2));
    assert_eq!(store::numbers(&machine.paths).unwrap(), [1, 2]);
    assert_eq!(store::info(&machine.paths, 1), Some(info()));
    machine.restart(true);
    let status = machine.boot();
    assert_eq!((status.origin, status.office.as_str()), (SiteOrigin::File, "Huber 2"));
}

#[test]
fn refused_load_changes_nothing_and_is_told() {
    let machine = Machine::new(true);
    machine.load(&site_of("Huber")).unwrap();
    let error = machine.load(&site_of("Neu").replace("port2", "port7")).unwrap_err().to_string();
    assert!(error.contains("--> new.toml:"), "{error}");
    assert_eq!(machine.in_force(), site_of("Huber"));
    let status = in_force::status(&machine.paths);
    assert_eq!((status.office.as_str(), status.revision), ("Huber", 1));
    assert!(status.error.as_ref().unwrap().contains("port7"));
    assert_eq!(store::numbers(&machine.paths).unwrap(), [1]);
    // The second choice of the same boot forgets nothing; the next right file does.
    assert_eq!(machine.boot().error, status.error);
    machine.load(&site_of("Huber")).unwrap();
    assert_eq!(in_force::status(&machine.paths).error, None);
}

#[test]
fn load_without_a_disk_holds_until_the_disk_appears() {
    let machine = Machine::new(false);
    machine.boot();
    let loaded = machine.load(&site_of("Huber")).unwrap();
    assert_eq!(loaded.number, None);
    assert!(loaded.warning.unwrap().contains("NOT DURABLE"));
    assert_eq!(machine.boot().office, "Huber");
    // A disk with an older file appears: what the operator loaded wins, and is stored now.
    write(machine.paths.state_site(), &site_of("Old"));
    machine.storage(true);
    assert_eq!(machine.boot().office, "Huber");
    assert_eq!(fs::read_to_string(machine.paths.state_site()).unwrap(), site_of("Huber"));
    machine.restart(true);
    assert_eq!(machine.boot().office, "Huber");
}

#[test]
fn loaded_file_that_the_disk_cannot_take_stays_in_force() {
    let machine = Machine::new(false);
    machine.boot();
    machine.load(&site_of("Huber")).unwrap();
    write(machine.paths.state_site(), &site_of("Old"));
    // What a full or dying disk does to the history.
    write(machine.paths.state_site().with_file_name("history"), "not a directory");
    machine.storage(true);
    assert_eq!(machine.boot().office, "Huber");
    assert_eq!(machine.in_force(), site_of("Huber"));
    fs::remove_file(machine.paths.state_site().with_file_name("history")).unwrap();
    assert_eq!(machine.boot().office, "Huber");
    assert_eq!(fs::read_to_string(machine.paths.state_site()).unwrap(), site_of("Huber"));
}

#[test]
fn disk_that_takes_nothing_does_not_hold_up_a_change() {
    let machine = Machine::new(true);
    machine.load(&site_of("Huber")).unwrap();
    let history = machine.paths.state_site().with_file_name("history");
    fs::remove_dir_all(&history).unwrap();
    write(history.clone(), "not a directory");
    let loaded = machine.load(&site_of("Neu")).unwrap();
    assert_eq!(loaded.number, None);
    assert!(loaded.warning.unwrap().contains("NOT DURABLE"));
    assert_eq!(machine.in_force(), site_of("Neu"));
    // When it recovers, the next choice stores the file.
    fs::remove_file(&history).unwrap();
    assert_eq!(machine.boot().office, "Neu");
    assert_eq!(fs::read_to_string(machine.paths.state_site()).unwrap(), site_of("Neu"));
}

#[test]
fn history_that_cannot_be_pruned_does_not_refuse_a_stored_file() {
    let machine = Machine::new(true);
    machine.load(&site_of("Huber")).unwrap();
    let history = machine.paths.state_site().with_file_name("history");
    for number in 2..=200 {
        write(history.join(format!("{number:04}.toml")), "an old site");
    }
    fs::remove_file(history.join("0001.toml")).unwrap();
    fs::create_dir(history.join("0001.toml")).unwrap();
    assert_eq!(machine.load(&site_of("Neu")).unwrap().number, Some(201));
    assert_eq!(machine.in_force(), site_of("Neu"));
}

#[test]
fn loads_at_the_same_time_come_one_after_the_other() {
    let machine = Machine::new(true);
    let sites: Vec<_> = (0..8).map(|number| site_of(&format!("Office {number}"))).collect();
    std::thread::scope(|scope| {
        for site in &sites {
            scope.spawn(|| machine.load(site).unwrap());
            scope.spawn(|| machine.boot());
        }
    });
    assert_eq!(store::numbers(&machine.paths).unwrap(), (1..=8).collect::<Vec<_>>());
    assert_eq!(fs::read_to_string(machine.paths.state_site()).unwrap(), machine.in_force());
    assert_eq!(fs::read_to_string(machine.paths.state_site_good()).unwrap(), machine.in_force());
}

#[test]
fn copy_in_bootstate_outlives_the_data_partition() {
    let machine = Machine::new(true);
    machine.bootstate();
    machine.load(&site_of("Huber")).unwrap();
    machine.load(&site_of("Huber 2")).unwrap();
    fs::remove_dir_all(&machine.paths.state).unwrap();
    for state_mounted in [true, false] {
        machine.restart(state_mounted);
        machine.bootstate();
        let status = machine.boot();
        assert_eq!((status.origin, status.office.as_str()), (SiteOrigin::LastGood, "Huber 2"));
        // Without a state partition storage tells what is wrong; with an empty one nobody else would.
        assert_eq!(status.error.is_some(), state_mounted);
    }
    // A torn write of the newer copy leaves the older one.
    let device = fs::OpenOptions::new().write(true).open(machine.scratch.path().join("bootstate")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&device, &[0; 64], (320 << 10) + 100).unwrap();
    assert_eq!(machine.boot().office, "Huber");
}

#[test]
fn same_site_again_is_no_change() {
    let machine = Machine::new(true);
    let first = machine.boot();
    assert_eq!(machine.boot(), first);
}

#[test]
fn arguments_mix_with_the_options_of_paths() {
    let args = ["--run", "/x", "load", "-", "--why=new printer", "--who", "me"].map(str::to_owned);
    let arguments = super::Arguments::parse(&args).unwrap();
    assert_eq!(arguments.words, ["load", "-"]);
    assert_eq!((arguments.who.as_deref(), arguments.why.as_deref()), (Some("me"), Some("new printer")));
    assert!(super::Arguments::parse(&["--what".to_owned(), "x".to_owned()]).is_err());
}

#[test]
fn a_pipe_is_no_site_file() {
    let scratch = tempfile::tempdir().unwrap();
    let pipe = scratch.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(store::read_bounded(&pipe).unwrap_err().to_string(), "not a regular file");
}

#[test]
fn a_running_office_never_falls_back_to_the_built_in_site() {
    let machine = Machine::new(true);
    machine.load(&site_of("Huber")).unwrap();
    assert_eq!(machine.boot().origin, SiteOrigin::File);
    let site = machine.paths.state.join("site");
    fs::remove_dir_all(&site).unwrap();
    assert!(machine.boot().error.is_some(), "the disk came back empty");
    // What cannot be read, as on a disk that was pulled.
    fs::create_dir_all(site.join("site.toml")).unwrap();
    fs::create_dir_all(site.join("good.toml")).unwrap();
    let status = machine.boot();
    assert_eq!((status.origin, status.office.as_str()), (SiteOrigin::File, "Huber"));
    assert!(status.error.is_some_and(|error| error.contains("site.toml")));
    assert_eq!(machine.in_force(), site_of("Huber"));
}

#[test]
fn a_choice_without_the_disk_is_made_again() {
    let machine = Machine::new(false);
    machine.boot();
    assert!(!machine.paths.site_from_disk().exists());
    machine.storage(true);
    machine.boot();
    assert!(machine.paths.site_from_disk().exists());
    machine.storage(false);
    machine.boot();
    assert!(!machine.paths.site_from_disk().exists());
}

#[test]
fn of_earlier_files_the_one_of_the_seed_is_found_again() {
    let machine = Machine::new(true);
    machine.load(&site_of("Huber")).unwrap();
    assert_eq!(store::first_seeded(&machine.paths), None);
    for seeded in ["of the seed", "of a restored disk"] {
        store::note_unrecorded(&machine.paths, &site_of(seeded)).unwrap();
    }
    machine.load(&site_of("Neu")).unwrap();
    assert_eq!(store::first_seeded(&machine.paths).unwrap(), site_of("of the seed").as_bytes());
}
