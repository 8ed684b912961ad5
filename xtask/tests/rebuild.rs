//! What is kept of a release builds it again: the script, with a cargo that writes what it is told instead of compiling.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use camino::{Utf8Path, Utf8PathBuf};
use kontor_update::Release;
use xtask::archive::keep::Archive;
use xtask::publish::archive::{self, Asked};
use xtask::publish::objects;
use xtask::publish::release::{self, Folder, SourceFacts};

/// Beside the manifest it writes down what it was asked, and where.
const CARGO: &str = "#!/bin/sh
printf '%s\\n' \"$*\" \"$CARGO_HOME\" \"$CARGO_NET_OFFLINE\" \"$KONTOR_CACHE\" >asked
cat source.rs >>asked
while [ $# -gt 1 ]; do [ \"$1\" = --output ] && to=$2; shift; done
mkdir -p \"$to\" && cp \"$MANIFEST\" \"$to/branch.json\"
";

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    /// A repository with one commit, and a cargo.
    fn new() -> Self {
        let scene = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["tree", "bin"] {
            fs::create_dir(scene.path(folder)).unwrap();
        }
        fs::write(scene.path("tree/source.rs"), "fn main() {}\n").unwrap();
        fs::write(scene.path("bin/cargo"), CARGO).unwrap();
        fs::set_permissions(scene.path("bin/cargo"), fs::Permissions::from_mode(0o755)).unwrap();
        scene.git(&["-c", "init.defaultBranch=main", "init", "--quiet"]);
        scene.git(&["add", "."]);
        scene.git(&["-c", "user.name=A", "-c", "user.email=a@example.net", "commit", "--quiet", "-m", "x"]);
        scene
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path()).unwrap().join(name)
    }

    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git").current_dir(self.path("tree")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn archive(&self) -> Archive {
        let archive = Archive::open(&self.path("archive"), &[]).unwrap();
        fs::create_dir_all(self.path("archive/cargo")).unwrap();
        archive
    }

    /// A release with this in its slot.
    fn release(&self, slot: &str) -> Folder {
        let folder = self.path(&format!("release-{slot}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(self.path("slot"), slot).unwrap();
        let release = Release {
            schema: 1,
            product: "branch".into(),
            version: "0.2.0".parse().unwrap(),
            boards: vec!["qemu".into()],
            date: "2026-11-28".into(),
            epoch_s: 1_795_824_000,
            security_epoch: 1,
            from_minimum: "0.0.0".parse().unwrap(),
            state_schema: kontor_update::Span::default(),
            changelog: "- new\n".into(),
            slot: objects::compress(&self.path("slot"), &folder.join(objects::FOLDER)).unwrap(),
            components: Vec::new(),
            sbom: None,
        };
        release::write(&folder, &release).unwrap();
        Folder::open(&folder).unwrap()
    }

    fn keep(&self, built: &Folder) -> anyhow::Result<Utf8PathBuf> {
        let facts = SourceFacts {
            commit: Some(self.git(&["rev-parse", "HEAD"])),
            dirty: false,
            packages_lock: String::new(),
            cargo_lock: String::new(),
        };
        let asked = Asked {
            version: "0.2.0".parse().unwrap(),
            product: None,
            security_epoch: Some(1),
            from_minimum: "0.0.0".parse().unwrap(),
            changelog: "- new\n".into(),
            root: b"{}".to_vec(),
            from: vec![self.release("older")],
        };
        archive::keep(&self.archive(), &self.path("tree"), &facts, &asked, built)
    }

    fn rebuild(&self, built: &Folder, to: &str) -> Output {
        let path = format!("{}:{}", self.path("bin"), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.arg(self.path("archive/releases/0.2.0/rebuild.sh")).arg(self.path(to));
        command.env("PATH", path).env("MANIFEST", built.path.join("branch.json"));
        command.env("CARGO_TARGET_DIR", "/nowhere").output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_is_kept_builds_the_same_release() {
    let scene = Scene::new();
    let built = scene.release("first");
    let kept = scene.keep(&built).unwrap();
    assert!(kept.ends_with("archive/releases/0.2.0"), "{kept}");
    assert_eq!(scene.keep(&built).unwrap(), kept, "twice is once");
    let older = Folder::open(&kept.join("from/0")).unwrap();
    objects::check(older.releases[0].slot.full().unwrap(), &older.objects()).unwrap();
    fs::remove_dir_all(scene.path("tree")).unwrap();

    let output = scene.rebuild(&built, "again");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stdout), "branch.json and its objects: the same bytes\n");
    assert_eq!(text(&output.stderr), "");
    let (work, asked) = (scene.path("again"), fs::read_to_string(scene.path("again/kontor/asked")).unwrap());
    let line = format!(
        "xtask release 0.2.0 --from-minimum 0.0.0 --security-epoch 1 --from {kept}/from/0 --changelog {kept}/changelog.md --keys {kept} \
         --offline --locked --quiet --archive {} --output {work}/release",
        scene.path("archive")
    );
    assert_eq!(asked, format!("{line}\n{work}/cargo\ntrue\n{work}/packages\nfn main() {{}}\n"));

    let again = scene.rebuild(&built, "again");
    assert!(
        !again.status.success() && text(&again.stderr).contains("again"),
        "a folder that is there: {again:?}"
    );
}

#[test]
fn other_bytes_and_another_toolchain_are_said() {
    let scene = Scene::new();
    let kept = scene.keep(&scene.release("first")).unwrap();
    let other = scene.release("other");
    fs::write(kept.join("toolchain.txt"), "rustc 0.1\n").unwrap();
    let output = scene.rebuild(&other, "again");
    assert!(!output.status.success(), "{output:?}");
    let said = text(&output.stderr) + &text(&output.stdout);
    assert!(said.contains("branch.json") && said.contains("differ"), "{said}");
    assert!(said.contains("< rustc 0.1") && said.contains("warning: the toolchain"), "{said}");

    let error = format!("{:#}", scene.keep(&other).unwrap_err());
    assert!(error.contains("branch.json is of another release 0.2.0"), "{error}");
}
