//! A tiny Debian archive made by code, signed with a key made on the spot.

use std::io::Write;

use camino::{Utf8Path, Utf8PathBuf};
use pgp::composed::{
    CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey,
};
use pgp::types::Password;
use sha2::{Digest, Sha256};
use xtask::archive::cache::{Cache, FetchOptions};
use xtask::archive::http::Client;
use xtask::archive::keep::{Archive, Kept};
use xtask::archive::lock_file::LockFile;
use xtask::archive::repository::Repository;

use super::server::Server;

pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A package with one file.
pub(crate) fn deb(content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "./usr/share/content", content).unwrap();
    let data = xz(&tar.into_inner().unwrap());
    let mut archive = ar::Builder::new(Vec::new());
    for (name, bytes) in
        [("debian-binary", b"2.0\n".to_vec()), ("control.tar.xz", xz(b"")), ("data.tar.xz", data)]
    {
        archive.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}

pub(crate) fn key() -> SignedSecretKey {
    let mut parameters = SecretKeyParamsBuilder::default();
    parameters.key_type(KeyType::Ed25519).can_sign(true).can_certify(true).primary_user_id("test".into());
    parameters.build().unwrap().generate(rand::thread_rng()).unwrap()
}

/// A package as the tests name it: name, version, relation fields, and what is in its file.
pub(crate) struct Spec(
    pub(crate) &'static str,
    pub(crate) &'static str,
    pub(crate) &'static str,
    pub(crate) Vec<u8>,
);

impl Spec {
    pub(crate) fn path(&self) -> String {
        format!("pool/{}_{}.deb", self.0, self.1)
    }
}

pub(crate) fn inrelease(key: &SignedSecretKey, suite: &str, packages_xz: &[u8], fields: &str) -> Vec<u8> {
    let empty = xz(b"");
    let line = |component: &str, bytes: &[u8]| {
        format!(" {} {} {component}/binary-amd64/Packages.xz\n", hex(bytes), bytes.len())
    };
    let (main, firmware) = (line("main", packages_xz), line("non-free-firmware", &empty));
    let text = format!("Origin: Test\nCodename: {suite}\n{fields}SHA256:\n{main}{firmware}");
    let signed = CleartextSignedMessage::sign(rand::thread_rng(), &text, &**key, &Password::empty()).unwrap();
    signed.to_armored_string(Default::default()).unwrap().into_bytes()
}

/// The archive on a server, a repository that trusts its key, and an empty cache.
pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) key: SignedSecretKey,
    pub(crate) scratch: tempfile::TempDir,
}

impl Fixture {
    /// With these packages in `trixie`; the set `base` asks for `closure`.
    pub(crate) fn new(closure: &str, specs: &[Spec]) -> Self {
        let fixture = Fixture { server: Server::start(), key: key(), scratch: tempfile::tempdir().unwrap() };
        let rootfs = fixture.rootfs();
        std::fs::create_dir_all(rootfs.join("keys")).unwrap();
        std::fs::create_dir_all(rootfs.join("base")).unwrap();
        let public =
            SignedPublicKey::from(fixture.key.clone()).to_armored_string(Default::default()).unwrap();
        std::fs::write(rootfs.join("keys/test.asc"), public).unwrap();
        std::fs::write(rootfs.join("base/base.toml"), format!("[packages]\nclosure = [{closure}]\n"))
            .unwrap();
        fixture.publish(specs);
        fixture
    }

    /// Puts a state of the archive onto the server.
    pub(crate) fn publish(&self, specs: &[Spec]) {
        let mut packages = String::new();
        for spec in specs {
            let (Spec(name, version, relations, bytes), path) = (spec, spec.path());
            packages += &format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{relations}Filename: {path}\nSize: {}\nSHA256: {}\n\n",
                bytes.len(),
                hex(bytes)
            );
            self.server.put(&format!("/debian/{path}"), bytes.clone());
        }
        let fields = "Date: Sat, 12 Sep 2020 07:55:41 UTC\n";
        self.publish_suite("/debian/dists/trixie", "trixie", &xz(packages.as_bytes()), fields);
        self.publish_suite("/debian/dists/trixie-updates", "trixie-updates", &xz(b""), fields);
        self.publish_suite("/security/dists/trixie-security", "trixie-security", &xz(b""), fields);
    }

    pub(crate) fn publish_suite(&self, folder: &str, suite: &str, packages_xz: &[u8], fields: &str) {
        self.server.put(&format!("{folder}/InRelease"), inrelease(&self.key, suite, packages_xz, fields));
        self.server.put(&format!("{folder}/main/binary-amd64/Packages.xz"), packages_xz.to_vec());
        self.server.put(&format!("{folder}/non-free-firmware/binary-amd64/Packages.xz"), xz(b""));
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.scratch.path()).unwrap().join(name)
    }

    pub(crate) fn rootfs(&self) -> Utf8PathBuf {
        self.path("rootfs")
    }

    pub(crate) fn options(&self) -> FetchOptions {
        FetchOptions {
            mirror: Some(self.server.url("debian")),
            mirror_security: Some(self.server.url("security/")),
            quiet: true,
            ..FetchOptions::default()
        }
    }

    pub(crate) fn cache(&self) -> Cache {
        self.cache_with(&self.options())
    }

    pub(crate) fn cache_with(&self, options: &FetchOptions) -> Cache {
        let client = Client::new().unwrap().with_backoff(std::time::Duration::ZERO);
        let cache = Cache::open_at(&self.path("cache"), options).unwrap().with_client(client);
        cache.with_apt_configuration(&self.path("apt"))
    }

    /// Resolves against the server's state and saves the lock.
    pub(crate) fn lock(&self) -> anyhow::Result<LockFile> {
        let repository = Repository::load(&self.rootfs())?;
        let archive = repository.archive(&self.cache(), None)?;
        let lock = repository.lock(&archive, &self.rootfs().join("packages.lock"))?;
        lock.save()?;
        Ok(lock)
    }

    /// Keeps what the lock names in the folder `kept`.
    pub(crate) fn keep(&self, lock: &LockFile) -> anyhow::Result<Kept> {
        let archive = Archive::open(&self.path("kept"), &[])?;
        archive.keep(lock, &self.rootfs().join("keys"), &Repository::load(&self.rootfs())?, &self.cache())
    }

    /// Every file of the cache that has its final name.
    pub(crate) fn cached_debs(&self) -> usize {
        let folders = self.path("cache/deb").read_dir_utf8().unwrap().flatten();
        folders.map(|folder| folder.path().read_dir_utf8().unwrap().count()).sum()
    }
}
