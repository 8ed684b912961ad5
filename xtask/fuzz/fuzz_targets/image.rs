//! What is in packages of kernels and in images: ELF files, what modules say of themselves, the kernel package's tar, an
//! initramfs, and a disk image that is to be flashed.
//!
//! The first octet chooses. A disk image is a good one with a few places overwritten, whose check sums are then put right
//! or not.
#![no_main]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

use camino::Utf8PathBuf;
use kontor_boot::{BootState, PartitionKind, frame};
use libfuzzer_sys::fuzz_target;
use xtask::flash::Source;
use xtask::flash::source::HEAD;
use xtask::image::declaration::PartitionSizes;
use xtask::image::disk::{self, BiosBoot, Content};
use xtask::image::elf::Elf;
use xtask::image::kernel_archive::KernelArchive;
use xtask::image::module_file::{Form, section};
use xtask::image::modules::{ModuleIndex, ModuleInfo};
use xtask::image::{contributors, cpio};

const SECTOR: u64 = 512;

fn fuzz_elf(bytes: &[u8]) {
    let slim = Form::Slim.of(bytes.to_vec());
    assert!(slim.len() <= bytes.len());
    assert_eq!(Form::Signed.of(bytes.to_vec()), bytes);
    if let Some(info) = section(bytes, b".modinfo") {
        let _ = ModuleInfo::parse(info);
    }
    let Some(elf) = Elf::parse(bytes) else { return };
    let loaded = elf.sections.iter().filter(|section| section.loaded);
    let loaded: u64 = loaded.map(|section| section.content.len() as u64).sum();
    let parts: u64 = contributors::of(bytes).iter().map(|(_, size)| size).sum();
    assert_eq!(parts, loaded, "every byte once");
}

fn check_order(index: &ModuleIndex, wanted: &[String]) {
    let Ok(order) = index.load_order(wanted) else { return };
    let names: std::collections::BTreeSet<&String> = order.iter().map(|module| &module.name).collect();
    assert_eq!(names.len(), order.len(), "each once");
    assert_eq!(index.closure(wanted).expect("the same modules").len(), order.len());
}

/// Four texts with a zero octet in between; everything that has a name is wanted.
fn fuzz_index(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut texts = text.splitn(4, '\0');
    let [dep, softdep, alias, builtin] = [(); 4].map(|()| texts.next().unwrap_or_default());
    let paths = || dep.lines().filter_map(|line| line.split(':').next());
    let name =
        |path: &str| path.rsplit('/').next().and_then(|file| file.split(".ko").next()).map(str::to_owned);
    let wanted: Vec<String> = paths().filter_map(name).take(8).collect();
    check_order(&ModuleIndex::parse(dep, softdep, alias, builtin), &wanted);
    // Modules that say of themselves what the second and third text are.
    let info = ModuleInfo::parse(format!("depends={softdep}\0softdep={alias}\0alias={alias}").as_bytes());
    let read = |paths: &[String]| Ok(vec![info.clone(); paths.len()]);
    if let Ok(index) = ModuleIndex::explore(paths(), builtin, &wanted, read) {
        check_order(&index, &wanted);
    }
}

/// A folder with an open file in it that is written anew for each run.
struct Place {
    _folder: tempfile::TempDir,
    path: Utf8PathBuf,
    file: File,
}

impl Place {
    /// In memory where there is such a place.
    fn new() -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::tempdir_in(parent).expect("a folder");
        let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).expect("a path in UTF-8");
        let name = path.join("data.tar");
        let file = File::options().read(true).write(true).create_new(true).open(name).expect("a file");
        Self { _folder: folder, path, file }
    }
}

static PACKAGE: LazyLock<Place> = LazyLock::new(Place::new);

fn fuzz_kernel(bytes: &[u8]) {
    let mut tar = bytes.to_vec();
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let place = &*PACKAGE;
    place.file.set_len(0).and_then(|()| place.file.write_all_at(&tar, 0)).expect("space");
    if let Ok(archive) = KernelArchive::open(place.path.clone()) {
        assert!(!archive.version.contains('/'));
    }
}

fn fuzz_cpio(bytes: &[u8]) {
    if let Ok(entries) = xtask::reproduce::cpio::entries(bytes) {
        let content: usize = entries.iter().map(|entry| entry.content.len() + entry.header.len()).sum();
        assert!(content <= bytes.len());
    }
    // What is written is read.
    let mut writer = cpio::Writer::new(7);
    let parts: Vec<(String, &[u8])> =
        bytes.chunks(9).enumerate().map(|(number, chunk)| (format!("file{number}"), chunk)).collect();
    for (name, content) in &parts {
        writer.file(name, 0o644, content);
    }
    let written = writer.finish();
    let read = xtask::reproduce::cpio::entries(&written).expect("what was written");
    assert!(read.iter().map(|entry| (entry.name.clone(), entry.content)).eq(parts));
}

/// A good image, and what is in its places that are overwritten.
struct Template {
    image: File,
    path: Utf8PathBuf,
    length: u64,
    /// Offset and content.
    places: Vec<(u64, Vec<u8>)>,
}

static IMAGE: LazyLock<Template> = LazyLock::new(|| {
    let place = Place::new();
    let path = place.path.join("good.img");
    let table = disk::layout(&PartitionSizes { bios: 1, esp: 1, slot: 2, system: 2, data: 4 });
    let bios = BiosBoot { boot: vec![0xb0; 512], core: vec![0xc0; 2048] };
    let mut slot = vec![0x51; 3000];
    slot[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    let contents = [
        (PartitionKind::BootState, Content::Bytes(frame::bootstate(&BootState::fresh()))),
        (PartitionKind::SlotA, Content::Bytes(slot.clone())),
        (PartitionKind::SlotB, Content::Bytes(slot)),
    ];
    disk::write(&path, &table, &bios, &contents).expect("an image");
    let image = File::options().read(true).write(true).open(&path).expect("the image");
    let length = image.metadata().expect("its length").len();
    let at = |kind| table.find(kind).expect("a partition").offset();
    let offsets = [
        (SECTOR, 512),
        (2 * SECTOR, 2048),
        (table.alternate_lba * SECTOR, 512),
        (table.alternate_lba * SECTOR - 32 * SECTOR, 2048),
        (at(PartitionKind::BootState), 512),
        (at(PartitionKind::SlotA) + 1024, 512),
    ];
    let content = |(offset, length): (u64, usize)| {
        let mut content = vec![0; length];
        image.read_exact_at(&mut content, offset).expect("a part of the image");
        (offset, content)
    };
    let places = offsets.map(content).into();
    // The folder goes now; the file is there as long as it is open.
    let path = format!("/proc/self/fd/{}", image.as_raw_fd()).into();
    Template { image, path, length, places }
});

/// Both check sums of a header and the entries it names, as far as it names any in the image.
fn put_right(image: &File, header_at: u64) -> std::io::Result<()> {
    let mut header = [0; 92];
    image.read_exact_at(&mut header, header_at)?;
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight octets"));
    let size = |at: usize| u64::from(u32::from_le_bytes(header[at..at + 4].try_into().expect("four octets")));
    let length = size(80).saturating_mul(size(84)).min(1 << 15);
    let mut entries = vec![0; length as usize];
    if image.read_exact_at(&mut entries, number(72).saturating_mul(SECTOR).min(1 << 40)).is_ok() {
        header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
    }
    header[16..20].fill(0);
    let sum = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    image.write_all_at(&header, header_at)
}

fn fuzz_disk(bytes: &[u8]) {
    let template = &*IMAGE;
    let Some(([flags, larger], mut rest)) = bytes.split_first_chunk::<2>() else { return };
    while let Some(([place, high, low, length], after)) = rest.split_first_chunk::<4>() {
        let (patch, next) = after.split_at(usize::from(length % 32).min(after.len()));
        let (offset, content) = &template.places[usize::from(*place) % template.places.len()];
        let at = usize::from(u16::from_be_bytes([*high, *low])) % (content.len() - patch.len());
        template.image.write_all_at(patch, offset + at as u64).expect("space");
        rest = next;
    }
    if flags & 1 != 0 {
        let _ = put_right(&template.image, template.places[0].0);
        let _ = put_right(&template.image, template.places[2].0);
    }
    if let Ok(source) = Source::open(&template.path) {
        check_layout(&source, template.length + (u64::from(*larger) << 20), flags & 2 != 0);
    }
    for (offset, content) in &template.places {
        template.image.write_all_at(content, *offset).expect("space");
    }
}

/// What is to be written lies on the disk, behind the head and before the tail.
fn check_layout(source: &Source, size: u64, seeded: bool) {
    let Ok(layout) = source.layout(size, seeded.then(|| vec![7; 700])) else { return };
    assert_eq!(layout.head.len() as u64, HEAD);
    let tail = layout.tail.0;
    assert!(tail + layout.tail.1.len() as u64 <= size);
    let mut buffer = [0; 16];
    for segment in &layout.body {
        assert!(segment.offset >= HEAD && segment.offset + segment.length <= tail, "{segment:?}");
        assert!(!layout.place(segment.offset).is_empty());
        if segment.length >= 16 {
            source.read(segment, segment.length - 16, &mut buffer).expect("readable to its end");
        }
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, bytes) = input;
    match kind % 8 {
        0 | 1 => fuzz_elf(bytes),
        2 => drop(ModuleInfo::parse(bytes)),
        3 => fuzz_index(bytes),
        4 => fuzz_kernel(bytes),
        5 => fuzz_cpio(bytes),
        _ => fuzz_disk(bytes),
    }
});
