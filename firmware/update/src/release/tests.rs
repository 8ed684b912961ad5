//! Release manifests: what is read, and what contradicts itself.

use proptest::prelude::*;

use super::*;

pub(crate) fn digest(digit: char) -> Sha256Hex {
    Sha256Hex::try_from(digit.to_string().repeat(64)).unwrap()
}

pub(crate) fn image(digit: char) -> Image {
    let forms = vec![
        Form::Full(Object { sha256: digest('1'), bytes: 10 }),
        Form::Chunks {
            index: Object { sha256: digest('4'), bytes: 2 },
            pack: Object { sha256: digest('5'), bytes: 11 },
        },
        Form::Patch { from: digest('2'), from_bytes: 90, patch: Object { sha256: digest('3'), bytes: 3 } },
    ];
    Image { bytes: 100, sha256: digest(digit), forms }
}

pub(crate) fn release(version: &str) -> Release {
    Release {
        schema: SCHEMA,
        product: "branch".into(),
        version: version.parse().unwrap(),
        boards: vec!["generic-x86-64".into(), "qemu".into()],
        date: "2026-11-28".into(),
        epoch_s: 1_795_824_000,
        security_epoch: 1,
        from_minimum: "0.1.0".parse().unwrap(),
        state_schema: Span::default(),
        changelog: "- faster".into(),
        slot: image('a'),
        components: vec![Component { name: "samba".into(), verity: digest('c'), image: image('b') }],
        sbom: None,
    }
}

#[test]
fn what_is_written_is_read() {
    let release = release("0.2.0");
    assert_eq!(Release::parse(&release.to_json()), Ok(release.clone()));
    assert_eq!(Release::target("branch", release.version), "release/branch/0.2.0.json");
    assert_eq!(release.objects().count(), 8);
    assert_eq!(release.slot.chunks().map(|(index, pack)| (index.bytes, pack.bytes)), Some((2, 11)));
    assert_eq!(release.slot.patches().map(|(_, bytes, _)| bytes).collect::<Vec<_>>(), [90]);
}

#[test]
fn older_manifests_say_nothing_of_the_state() {
    let mut release = release("0.2.0");
    let text = String::from_utf8(release.to_json()).unwrap();
    assert!(!text.contains("state-schema"), "{text}");
    assert_eq!(Release::parse(text.as_bytes()).unwrap().state_schema, Span { oldest: 1, newest: 1 });
    release.state_schema.newest = 2;
    assert_eq!(Release::parse(&release.to_json()), Ok(release));
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Release), expected: &str) {
    let mut release = release("0.2.0");
    change(&mut release);
    let error = Release::parse(&release.to_json()).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn contradictions_are_named() {
    refused(|release| release.schema = 2, "schema 2; this firmware knows 1");
    refused(|release| release.state_schema.oldest = 2, "the state's schemas from 2 to 1");
    refused(|release| release.state_schema.oldest = 0, "from 0 to 1");
    refused(|release| release.product = "../x".into(), "\"../x\" is not a product's name");
    refused(|release| release.boards.clear(), "serves no board");
    refused(|release| release.components.push(release.components[0].clone()), "samba is there twice");
    refused(|release| release.components[0].name = "a/b".into(), "is not a component's name");
    refused(|release| release.slot.forms.truncate(0), "slot has no full form");
    refused(|release| release.slot.bytes = 0, "slot is empty");
    refused(|release| release.slot.bytes = MAX_IMAGE_BYTES + 1, "no image is longer than 4294967296");
    refused(|release| release.slot.sha256 = digest('2'), "slot has a patch from itself");
    let patch = |from_bytes, bytes| Form::Patch {
        from: digest('7'),
        from_bytes,
        patch: Object { sha256: digest('8'), bytes },
    };
    refused(|release| release.slot.forms.push(patch(0, 1)), "a patch from an image of 0 bytes");
    refused(|release| release.slot.forms.push(patch(MAX_IMAGE_BYTES + 1, 1)), "of 4294967297 bytes");
    refused(|release| release.slot.forms.push(patch(1, 0)), "slot has a form of 0 bytes, for 100 of");
    refused(|release| release.components[0].image.forms.push(patch(1, 65_638)), "samba has a form of 65638");
    refused(|release| release.slot.forms.extend(vec![patch(1, 1); 30]), "slot has 33 forms; the most is 32");
}

#[test]
fn later_firmwares_may_know_more() {
    let text = String::from_utf8(release("0.2.0").to_json()).unwrap();
    let other = text.replacen("\"chunks\"", "\"wavelet\"", 1);
    let release = Release::parse(other.as_bytes()).unwrap();
    assert!(release.slot.chunks().is_none() && release.slot.patches().count() == 1, "it is ignored");
    let text = text.replacen("\"full\"", "\"wavelet\"", 1).replacen('{', "{ \"poem\": 1,", 1);
    // The slot's full form became one that nobody knows.
    let error = Release::parse(text.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("slot has no full form"), "{error}");
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = Release::parse(&bytes);
    }

    #[test]
    fn a_damaged_manifest_never_panics(at in 0_usize..900, byte: u8) {
        let mut bytes = release("0.2.0").to_json();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Release::parse(&bytes);
    }
}
