//! Our resolver against `apt-get -s` on the same archive with an empty system: the same packages in the same versions.
//!
//! Needs apt and a mirror; where one is missing every comparison counts as ignored, and the reason is printed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use libtest_mimic::{Arguments, Trial};
use xtask::archive::cache::{Cache, FetchOptions};
use xtask::archive::repository::{Archive, COMPONENTS, Repository, SUITES};
use xtask::archive::resolver;

/// Requests whose closures are compared.
const REQUESTS: [&[&str]; 8] = [
    &["nftables"],
    &["chrony"],
    &["qemu-system-x86"],
    &["samba-ad-dc", "winbind"],
    &["postfix", "dovecot-imapd", "rspamd"],
    &["sogo"],
    &["bind9-dnsutils", "dhcpcd-base", "dnsmasq-base"],
    &["systemd", "network-manager", "default-mta"],
];

/// Packages that only one side may have, per request, and why.
const EXPLAINED: [(&str, &str, &str); 0] = [];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The comparisons share one apt state.
    arguments.test_threads.get_or_insert(1);
    let subject = Subject::prepare().map(Arc::new);
    if let Err(error) = &subject {
        eprintln!("SKIPPED: every comparison with apt: {error:#}");
    }
    let trials = REQUESTS.iter().map(|request| {
        let subject = subject.as_ref().ok().cloned();
        let ignored = subject.is_none();
        let name = format!("same as apt: {}", request.join(" "));
        let run = move || {
            subject.map_or(Ok(()), |subject| subject.compare(request).map_err(|e| format!("{e:#}").into()))
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

struct Subject {
    archive: Archive,
    _scratch: tempfile::TempDir,
    options: Vec<String>,
}

impl Subject {
    fn prepare() -> Result<Self> {
        let version = Command::new("apt-get").arg("--version").output().context("apt-get is not here")?;
        ensure!(version.status.success(), "apt-get does not run");
        let rootfs =
            Utf8Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?.join("rootfs");
        let cache = Cache::open(&FetchOptions { quiet: true, ..FetchOptions::default() })?;
        let archive = Repository::load(&rootfs)?.archive(&cache, None)?;
        let scratch = tempfile::tempdir()?;
        let root = Utf8PathBuf::try_from(scratch.path().to_owned())?;
        for folder in ["state/lists/partial", "cache/archives/partial", "etc"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        std::fs::write(root.join("status"), "")?;
        let mirrors = cache.mirrors()?;
        let keys: Vec<String> =
            rootfs.join("keys").read_dir_utf8()?.map(|e| Ok(e?.path().to_string())).collect::<Result<_>>()?;
        let line = |suite: &str| {
            let (uri, components) = (mirrors.for_suite(suite), COMPONENTS.join(" "));
            format!("deb [arch=amd64 signed-by={}] {uri} {suite} {components}\n", keys.join(","))
        };
        std::fs::write(root.join("sources.list"), SUITES.map(line).concat())?;
        let options = options(&root);
        let update = Command::new("apt-get").args(&options).arg("update").output()?;
        ensure!(update.status.success(), "apt-get update: {}", String::from_utf8_lossy(&update.stderr));
        Ok(Subject { archive, _scratch: scratch, options })
    }

    fn compare(&self, request: &[&str]) -> Result<()> {
        let theirs = self.apt(request)?;
        let numbers = resolver::resolve(&self.archive.index, request, &HashSet::new())?;
        let packages = numbers.iter().map(|number| self.archive.index.package(*number));
        let ours: BTreeMap<String, String> = packages.map(|p| (p.name.clone(), p.version.clone())).collect();
        let explained =
            |name: &str| EXPLAINED.iter().any(|(of, package, _)| *of == request[0] && *package == name);
        let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let different: Vec<String> = names
            .into_iter()
            .filter(|name| ours.get(*name) != theirs.get(*name) && !explained(name))
            .map(|name| format!("{name}: ours {:?}, apt's {:?}", ours.get(name), theirs.get(name)))
            .collect();
        ensure!(!theirs.is_empty(), "apt-get would install nothing");
        ensure!(different.is_empty(), "of {} packages, different:\n{}", theirs.len(), different.join("\n"));
        Ok(())
    }

    fn apt(&self, request: &[&str]) -> Result<BTreeMap<String, String>> {
        let output = Command::new("apt-get")
            .args(&self.options)
            .args(["--simulate", "--no-install-recommends", "install"])
            .args(request)
            .output()?;
        ensure!(output.status.success(), "apt-get: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        // `Inst name (version origin [architecture])`
        let parse = |line: &str| {
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(" (")?;
            Some((name.to_owned(), rest.split_whitespace().next()?.to_owned()))
        };
        Ok(text.lines().filter_map(parse).collect())
    }
}

fn options(root: &Utf8Path) -> Vec<String> {
    [
        format!("Dir::State={root}/state"),
        format!("Dir::State::status={root}/status"),
        format!("Dir::Cache={root}/cache"),
        format!("Dir::Etc={root}/etc"),
        format!("Dir::Etc::sourcelist={root}/sources.list"),
        "Dir::Cache::pkgcache=pkgcache.bin".to_owned(),
        "Dir::Cache::srcpkgcache=srcpkgcache.bin".to_owned(),
        "Acquire::GzipIndexes=false".to_owned(),
        "APT::Architecture=amd64".to_owned(),
        "APT::Architectures::=amd64".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
        "APT::Get::List-Cleanup=false".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "Debug::NoLocking=true".to_owned(),
    ]
    .into_iter()
    .flat_map(|option| ["-o".to_owned(), option])
    .collect()
}
