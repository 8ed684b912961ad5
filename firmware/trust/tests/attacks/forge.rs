//! A repository made in the test, with keys made in the test; everything about it can be forged.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::Ed25519KeyPair;
use kontor_trust::tough::schema::decoded::{Decoded, Hex};
use kontor_trust::tough::schema::{
    Hashes, Metafile, Role, RoleKeys, RoleType, Root, Signature, Signed, Snapshot, Target, Targets, Timestamp,
};
use kontor_trust::tough::sign::Sign as _;
use kontor_trust::tough::{Bytes, TargetName, async_trait};
use kontor_trust::{
    Clock, Limits, Store, Transport, TransportError, TransportErrorKind, TransportStream, TrustError,
    Trusted, Url, refresh,
};
use kontor_update::channel::Current;
use kontor_update::release::{Form, Image, Object};
use kontor_update::{Channel, Release, Sha256Hex};

/// When the tests happen.
pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const DAY: u64 = 86_400;
pub(crate) const SPEC: &str = "1.0.0";

pub(crate) const ROLES: [RoleType; 4] =
    [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// The keys of one role; each is known by its seed.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) seeds: Vec<u8>,
    pub(crate) threshold: u64,
}

pub(crate) fn keys(seeds: &[u8], threshold: u64) -> Keys {
    Keys { seeds: seeds.to_vec(), threshold }
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn key_id(seed: u8) -> Decoded<Hex> {
    pair(seed).tuf_key().key_id().unwrap()
}

fn at(seconds: u64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap()
}

fn number(version: u64) -> NonZeroU64 {
    NonZeroU64::new(version).unwrap()
}

/// Signed by these keys, whether or not they may.
pub(crate) fn sign<T: Role>(role: T, seeds: &[u8]) -> Vec<u8> {
    let form = role.canonical_form().unwrap();
    let signature = |seed: &u8| {
        let sig = pair(*seed).sign(&form).as_ref().to_vec();
        Signature { keyid: key_id(*seed), sig: sig.into() }
    };
    let signatures = seeds.iter().map(signature).collect();
    serde_json::to_vec_pretty(&Signed { signed: role, signatures }).unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hashes(bytes: &[u8]) -> Hashes {
    Hashes { sha256: sha256(bytes).into(), _extra: HashMap::new() }
}

fn metafile(version: u64, bytes: &[u8]) -> Metafile {
    let (length, hashes) = (Some(bytes.len() as u64), Some(hashes(bytes)));
    Metafile { length, hashes, version: number(version), _extra: HashMap::new() }
}

/// A repository and everything its keepers know.
#[derive(Debug, Clone)]
pub(crate) struct Forge {
    pub(crate) keys: HashMap<RoleType, Keys>,
    pub(crate) versions: HashMap<RoleType, u64>,
    pub(crate) expires: HashMap<RoleType, u64>,
    pub(crate) targets: BTreeMap<String, Vec<u8>>,
    /// What signs instead of the role's own keys.
    pub(crate) forged: HashMap<RoleType, Vec<u8>>,
    pub(crate) server: Server,
}

impl Forge {
    /// One with a channel and a release, published once.
    pub(crate) fn new() -> Self {
        let own = [keys(&[1, 2, 3], 2), keys(&[11, 12], 2), keys(&[21], 1), keys(&[31], 1)];
        let mut forge = Self {
            keys: ROLES.into_iter().zip(own).collect(),
            versions: ROLES.map(|role| (role, 1)).into(),
            expires: ROLES.map(|role| (role, NOW + 20 * DAY)).into(),
            targets: BTreeMap::new(),
            forged: HashMap::new(),
            server: Server::default(),
        };
        forge.targets.insert(Channel::target("stable"), channel("0.2.0").to_json());
        let version = "0.2.0".parse().unwrap();
        forge.targets.insert(Release::target("branch", version), release("0.2.0").to_json());
        forge.put_root(&[1, 2]);
        forge.publish();
        forge
    }

    /// The root that the running release ships.
    pub(crate) fn shipped(&self) -> Vec<u8> {
        self.server.get("metadata/1.root.json").unwrap()
    }

    pub(crate) fn root(&self) -> Root {
        let seeds = self.keys.values().flat_map(|keys| keys.seeds.clone());
        let role_keys = |keys: &Keys| RoleKeys {
            keyids: keys.seeds.iter().map(|seed| key_id(*seed)).collect(),
            threshold: number(keys.threshold),
            _extra: HashMap::new(),
        };
        Root {
            spec_version: SPEC.to_owned(),
            consistent_snapshot: true,
            version: number(self.versions[&RoleType::Root]),
            expires: at(self.expires[&RoleType::Root]),
            keys: seeds.map(|seed| (key_id(seed), pair(seed).tuf_key())).collect(),
            roles: self.keys.iter().map(|(role, keys)| (*role, role_keys(keys))).collect(),
            _extra: HashMap::new(),
        }
    }

    /// Puts the root of the present version on the server.
    pub(crate) fn put_root(&self, seeds: &[u8]) {
        let name = format!("metadata/{}.root.json", self.versions[&RoleType::Root]);
        self.server.put(&name, sign(self.root(), seeds));
    }

    /// The next root, with these keys for a role, signed by old and new ones.
    pub(crate) fn rotate(&mut self, role: RoleType, with: Keys, seeds: &[u8]) {
        self.keys.insert(role, with);
        *self.versions.get_mut(&RoleType::Root).unwrap() += 1;
        self.put_root(seeds);
    }

    fn seeds(&self, role: RoleType) -> Vec<u8> {
        self.forged.get(&role).cloned().unwrap_or_else(|| self.keys[&role].seeds.clone())
    }

    pub(crate) fn targets_role(&self) -> Targets {
        let mut targets = Targets::new(
            SPEC.to_owned(),
            number(self.versions[&RoleType::Targets]),
            at(self.expires[&RoleType::Targets]),
        );
        for (name, bytes) in &self.targets {
            let target = Target {
                length: bytes.len() as u64,
                hashes: hashes(bytes),
                custom: HashMap::new(),
                _extra: HashMap::new(),
            };
            targets.add_target(TargetName::new(name.as_str()).unwrap(), target);
        }
        targets
    }

    /// Signs and serves everything but the root, with the present versions.
    pub(crate) fn publish(&self) {
        for (name, bytes) in &self.targets {
            self.server.put(&target_path(name, bytes), bytes.clone());
        }
        let targets = sign(self.targets_role(), &self.seeds(RoleType::Targets));
        let version = self.versions[&RoleType::Targets];
        self.server.put(&format!("metadata/{version}.targets.json"), targets.clone());
        let mut snapshot = Snapshot::new(
            SPEC.to_owned(),
            number(self.versions[&RoleType::Snapshot]),
            at(self.expires[&RoleType::Snapshot]),
        );
        snapshot.meta.insert("targets.json".to_owned(), metafile(version, &targets));
        self.publish_snapshot(snapshot);
    }

    /// The rest of [`Forge::publish`].
    pub(crate) fn publish_snapshot(&self, snapshot: Snapshot) {
        let version = snapshot.version.get();
        let snapshot = sign(snapshot, &self.seeds(RoleType::Snapshot));
        self.server.put(&format!("metadata/{version}.snapshot.json"), snapshot.clone());
        self.publish_timestamp(metafile(version, &snapshot));
    }

    /// The rest of [`Forge::publish_snapshot`].
    pub(crate) fn publish_timestamp(&self, snapshot: Metafile) {
        let mut timestamp = Timestamp::new(
            SPEC.to_owned(),
            number(self.versions[&RoleType::Timestamp]),
            at(self.expires[&RoleType::Timestamp]),
        );
        timestamp.meta.insert("snapshot.json".to_owned(), snapshot);
        self.server.put("metadata/timestamp.json", sign(timestamp, &self.seeds(RoleType::Timestamp)));
    }

    /// Everything but the root, one version on.
    pub(crate) fn publish_next(&mut self) {
        for role in [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
            *self.versions.get_mut(&role).unwrap() += 1;
        }
        self.publish();
    }
}

pub(crate) fn target_path(name: &str, bytes: &[u8]) -> String {
    format!("targets/{}.{name}", hex(&sha256(bytes)))
}

/// What is served; some of it may never end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    endless: Arc<Mutex<Option<String>>>,
}

impl Server {
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(name.to_owned(), bytes);
    }

    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.files.lock().unwrap().get(name).cloned()
    }

    pub(crate) fn remove(&self, name: &str) {
        self.files.lock().unwrap().remove(name).unwrap();
    }

    /// What is there now.
    pub(crate) fn copy(&self) -> Self {
        let files = self.files.lock().unwrap().clone();
        Self { files: Arc::new(Mutex::new(files)), endless: Arc::default() }
    }

    /// Back to what was there.
    pub(crate) fn restore(&self, copy: &Self) {
        *self.files.lock().unwrap() = copy.files.lock().unwrap().clone();
    }

    /// As a stick would have it.
    pub(crate) fn write_to(&self, folder: &Path) {
        for (name, bytes) in self.files.lock().unwrap().iter() {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub(crate) fn never_end(&self, name: &str) {
        *self.endless.lock().unwrap() = Some(name.to_owned());
    }

    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.files.lock().unwrap().get_mut(name).unwrap());
    }
}

#[async_trait]
impl Transport for Server {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let name = url.path().trim_start_matches('/').to_owned();
        if self.endless.lock().unwrap().as_ref() == Some(&name) {
            let chunks = std::iter::repeat_with(|| Ok(Bytes::from(vec![b' '; 4096])));
            return Ok(Box::pin(futures_util::stream::iter(chunks)));
        }
        let not_found = || TransportError::new(TransportErrorKind::FileNotFound, url.as_str());
        let bytes = self.get(&name).ok_or_else(not_found)?;
        // In small pieces, as from a network.
        let chunks: Vec<_> = bytes.chunks(1000).map(|chunk| Ok(Bytes::from(chunk.to_vec()))).collect();
        Ok(Box::pin(futures_util::stream::iter(chunks)))
    }
}

/// A box with a memory.
#[derive(Debug)]
pub(crate) struct Box_ {
    pub(crate) store: tempfile::TempDir,
    pub(crate) shipped: Vec<u8>,
    pub(crate) now: u64,
    pub(crate) floor: u64,
}

impl Box_ {
    pub(crate) fn new(forge: &Forge) -> Self {
        let store = tempfile::tempdir().unwrap();
        Self { store, shipped: forge.shipped(), now: NOW, floor: NOW - 100 * DAY }
    }

    pub(crate) fn path(&self) -> &Path {
        self.store.path()
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(self.path(), &self.shipped).unwrap()
    }

    /// Looks at the repository, as after a restart.
    pub(crate) fn look(&self, server: &Server) -> Result<Trusted, TrustError> {
        run(look(&mut self.open(), server, Clock { now: self.now, floor: self.floor }))
    }

    #[track_caller]
    pub(crate) fn accepts(&self, server: &Server) -> Trusted {
        self.look(server).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The whole message is compared: it names rule, role and versions.
    #[track_caller]
    pub(crate) fn refuses(&self, server: &Server, expected: &str) {
        let error = self.look(server).expect_err("it was accepted").to_string();
        assert_eq!(error, expected);
    }
}

pub(crate) async fn look(store: &mut Store, server: &Server, clock: Clock) -> Result<Trusted, TrustError> {
    let base = Url::parse("memory:///").unwrap();
    refresh(store, &base, server.clone(), clock, Limits::default()).await
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(crate) fn channel(version: &str) -> Channel {
    let mut channel = Channel::new("stable");
    let version = version.parse().unwrap();
    channel.current.push(Current {
        product: "branch".into(),
        version,
        start_at: NOW - DAY,
        waves: Vec::new(),
    });
    channel
}

pub(crate) fn release(version: &str) -> Release {
    let digest = |digit: &str| Sha256Hex::try_from(digit.repeat(64)).unwrap();
    Release {
        schema: 1,
        product: "branch".into(),
        version: version.parse().unwrap(),
        boards: vec!["generic-x86-64".into()],
        date: "2026-11-28".into(),
        epoch_s: 1_795_824_000,
        security_epoch: 2,
        from_minimum: "0.1.0".parse().unwrap(),
        state_schema: kontor_update::Span::default(),
        changelog: String::new(),
        slot: Image {
            bytes: 100,
            sha256: digest("a"),
            forms: vec![Form::Full(Object { sha256: digest("b"), bytes: 10 })],
        },
        components: Vec::new(),
        sbom: None,
    }
}
