use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::io::Region;
use crate::model::Digest;

const TIME: i64 = 1_700_000_000;

fn contents() -> Contents {
    let json = [("oci-config.json", "{\"Cmd\":[\"/bin/sh\"]}"), ("inspect-metadata.json", "{\"type\":\"container\"}")];
    Contents {
        architecture: Architecture::from_goarch("amd64").unwrap(),
        time_seconds: TIME,
        uuid: [0; 16],
        launch_script: LAUNCH_SCRIPT.to_vec(),
        definition: Some(b"bootstrap: docker\nfrom: alpine\n\n".to_vec()),
        file_system: FileSystem::Squashfs,
        key_message: None,
        sboms: Vec::new(),
        json: json.map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())).into(),
    }
}

/// A partition that begins like a squashfs, `sectors` long.
fn partition(sectors: usize) -> Vec<u8> {
    let mut bytes = b"hsqs".to_vec();
    bytes.resize(sectors * 512, 7);
    bytes
}

fn write(contents: Contents, partition: &[u8]) -> Vec<u8> {
    // What the store held before must not matter.
    let mut store = Cursor::new(vec![0xaa; 50_000]);
    let plan = Plan::new(contents).unwrap();
    plan.write_objects(&mut store).unwrap();
    assert_eq!(store.position(), plan.partition_offset());
    std::io::Write::write_all(&mut store, partition).unwrap();
    let size = plan.finish(&mut store, partition.len() as u64).unwrap();
    let mut bytes = store.into_inner();
    bytes.truncate(usize::try_from(size).unwrap());
    bytes
}

fn sample() -> Vec<u8> {
    write(contents(), &partition(8))
}

fn region(bytes: &[u8]) -> Region {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    Region::whole(Arc::new(file)).unwrap()
}

fn load(region: &Region) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(region.len).unwrap()];
    region.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn codes(bytes: &[u8]) -> Vec<(u64, Severity, &'static str)> {
    verify(&region(bytes)).unwrap().into_iter().map(|it| (it.offset, it.severity, it.code)).collect()
}

/// `bytes` with `change` put at `at`.
fn changed(bytes: &[u8], at: usize, change: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + change.len()].copy_from_slice(change);
    bytes
}

/// Independent of the code under test: offset, size and name of every field, as §3.1 and §3.2 list them.
const HEADER_FIELDS: [(usize, usize, &str); 13] = [
    (0, 32, "launch"),
    (32, 10, "magic"),
    (42, 3, "version"),
    (45, 3, "arch"),
    (48, 16, "uuid"),
    (64, 8, "created"),
    (72, 8, "modified"),
    (80, 8, "descriptors free"),
    (88, 8, "descriptors total"),
    (96, 8, "descriptors offset"),
    (104, 8, "descriptors size"),
    (112, 8, "data offset"),
    (120, 8, "data size"),
];
const DESCRIPTOR_FIELDS: [(usize, usize, &str); 17] = [
    (0, 4, "type"),
    (4, 1, "used"),
    (5, 4, "id"),
    (9, 4, "group"),
    (13, 4, "link"),
    (17, 8, "offset"),
    (25, 8, "size"),
    (33, 8, "size with padding"),
    (41, 8, "created"),
    (49, 8, "modified"),
    (57, 8, "uid"),
    (65, 8, "gid"),
    (73, 128, "name"),
    (201, 4, "extra: fstype"),
    (205, 4, "extra: parttype"),
    (209, 3, "extra: arch"),
    (212, 373, "extra: rest"),
];

fn disassemble(bytes: &[u8], start: usize, fields: &[(usize, usize, &str)]) -> String {
    let mut text = String::new();
    for &(at, size, name) in fields {
        let field = &bytes[start + at..start + at + size];
        let number = field.iter().rev().fold(0_u128, |sum, &byte| sum.wrapping_shl(8) | u128::from(byte));
        let end = field.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let value = match name {
            "type" | "group" | "link" => format!("{number:#x}"),
            "launch" | "magic" | "version" | "arch" | "uuid" | "name" | "extra: arch" | "extra: rest" => {
                format!("\"{}\" + {} NUL", field[..end].escape_ascii(), size - end)
            }
            _ => number.to_string(),
        };
        writeln!(text, "{} {name}: {value}", start + at).unwrap();
    }
    text
}

#[test]
fn a_file_byte_for_byte() {
    let bytes = sample();
    insta::assert_snapshot!(disassemble(&bytes, 0, &HEADER_FIELDS), @r##"
    0 launch: "#!/usr/bin/env run-singularity\n" + 1 NUL
    32 magic: "SIF_MAGIC" + 1 NUL
    42 version: "01" + 1 NUL
    45 arch: "02" + 1 NUL
    48 uuid: "" + 16 NUL
    64 created: 1700000000
    72 modified: 1700000000
    80 descriptors free: 44
    88 descriptors total: 48
    96 descriptors offset: 4096
    104 descriptors size: 28080
    112 data offset: 32176
    120 data size: 4688
    "##);
    insta::assert_snapshot!(disassemble(&bytes, 4096 + 585, &DESCRIPTOR_FIELDS), @r#"
    4681 type: 0x4006
    4685 used: 1
    4686 id: 2
    4690 group: 0xf0000001
    4694 link: 0x0
    4698 offset: 32208
    4706 size: 20
    4714 size with padding: 20
    4722 created: 1700000000
    4730 modified: 1700000000
    4738 uid: 0
    4746 gid: 0
    4754 name: "inspect-metadata.json" + 107 NUL
    4882 extra: fstype: 0
    4886 extra: parttype: 0
    4890 extra: arch: "" + 3 NUL
    4893 extra: rest: "" + 373 NUL
    "#);
    insta::assert_snapshot!(disassemble(&bytes, 4096 + 3 * 585, &DESCRIPTOR_FIELDS), @r#"
    5851 type: 0x4004
    5855 used: 1
    5856 id: 4
    5860 group: 0xf0000001
    5864 link: 0x0
    5868 offset: 32768
    5876 size: 4096
    5884 size with padding: 4617
    5892 created: 1700000000
    5900 modified: 1700000000
    5908 uid: 0
    5916 gid: 0
    5924 name: "" + 128 NUL
    6052 extra: fstype: 1
    6056 extra: parttype: 2
    6060 extra: arch: "02" + 1 NUL
    6063 extra: rest: "" + 373 NUL
    "#);
    assert!(bytes[128..4096].iter().chain(&bytes[4096 + 4 * 585..32_176]).all(|&byte| byte == 0));
    insta::assert_snapshot!(Digest::of(&bytes), @"sha256:04f2fd46e45fb5d6b96c268f4103c15cd83369ed6dc78aa16097995da7d904ef");
    assert_eq!(codes(&bytes), []);
}

/// §6 of the format notes, with L1 = 32, L2 = 20, L3 = 19.
#[test]
fn the_worked_example() {
    let bytes = sample();
    let container = Container::open(region(&bytes)).unwrap();
    let header = container.header();
    let partition_at = (32_176 + 32 + 20 + 19_i64 + 4095) / 4096 * 4096;
    let places: Vec<_> = container.descriptors().map(|it| (it.id, it.offset, it.size, it.size_with_padding)).collect();
    assert_eq!(
        places,
        [
            (1, 32_176, 32, 32),
            (2, 32_208, 20, 20),
            (3, 32_228, 19, 19),
            (4, partition_at, 4096, partition_at - 32_247 + 4096),
        ]
    );
    assert_eq!(header.data_size, partition_at + 4096 - 32_176);
    assert_eq!((header.descriptors_free, header.descriptors_total), (44, 48));
    assert_eq!(bytes.len() as i64, partition_at + 4096);
    assert!(bytes[32_247..usize::try_from(partition_at).unwrap()].iter().all(|&byte| byte == 0));
    // An end that is aligned already gets no padding.
    let mut exact = contents();
    exact.definition = Some(vec![b'x'; 36_864 - 32_176 - 39]);
    let bytes = write(exact, &partition(1));
    let container = Container::open(region(&bytes)).unwrap();
    let primary = container.primary().unwrap();
    assert_eq!((primary.offset, primary.size_with_padding), (36_864, 512));
    assert_eq!(codes(&bytes), []);
}

#[test]
fn objects_are_found_by_what_they_are() {
    let container = Container::open(region(&sample())).unwrap();
    let shown: Vec<String> = container.descriptors().map(ToString::to_string).collect();
    assert_eq!(shown, ["Def.FILE", "JSON.Generic", "JSON.Generic", "FS (Squashfs/*System/amd64)"]);
    let config = container.named(DataType::GenericJson, b"oci-config.json").unwrap();
    assert_eq!(load(&container.data(config).unwrap()), b"{\"Cmd\":[\"/bin/sh\"]}");
    assert_eq!(load(&container.data(container.primary().unwrap()).unwrap()), partition(8));
    assert!(container.named(DataType::Labels, b"oci-config.json").is_none() && !container.is_oci());
}

#[test]
fn what_does_not_fit_is_refused() {
    let refused = |contents: Contents| Plan::new(contents).unwrap_err().kind();
    assert_eq!(refused(Contents { launch_script: vec![b'x'; 32], ..contents() }), ErrorKind::Usage);
    let named = |name: String| Contents { json: BTreeMap::from([(name, Vec::new())]), ..contents() };
    assert_eq!(refused(named("n".repeat(129))), ErrorKind::Usage);
    let container = Container::open(region(&write(named("n".repeat(128)), &partition(1)))).unwrap();
    assert_eq!(container.descriptors().nth(1).unwrap().name(), "n".repeat(128).as_bytes());
    let many = |count: usize| (0..count).map(|n| (format!("{n:02}"), b"{}".to_vec())).collect();
    assert_eq!(refused(Contents { json: many(47), ..contents() }), ErrorKind::Usage);
    let full = write(Contents { json: many(46), ..contents() }, &partition(1));
    assert_eq!(Container::open(region(&full)).unwrap().header().descriptors_free, 0);
    assert_eq!(codes(&full), []);
    for size in [0, 1, 511, 4095] {
        let plan = Plan::new(contents()).unwrap();
        assert_eq!(plan.finish(&mut Cursor::new(Vec::new()), size).unwrap_err().kind(), ErrorKind::Bug);
    }
    let plan = Plan::new(contents()).unwrap();
    let most = u64::MAX / 512 * 512;
    assert_eq!(plan.finish(&mut Cursor::new(Vec::new()), most).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// Until the last step there is no magic, so nobody takes half a file for a whole one.
#[test]
fn an_unfinished_file_is_no_sif() {
    let mut store = Cursor::new(sample());
    Plan::new(contents()).unwrap().write_objects(&mut store).unwrap();
    let error = Container::open(region(store.get_ref())).unwrap_err();
    assert_eq!((error.kind(), error.remedy().is_some()), (ErrorKind::InvalidImage, true));
}

#[test]
fn every_truncation_is_found() {
    let bytes = sample();
    let whole = region(&bytes);
    for len in 0..bytes.len() as u64 {
        let cut = whole.slice(0, len).unwrap();
        let findings = verify(&cut).unwrap();
        assert!(findings.iter().any(|it| it.severity == Severity::Error), "{len}");
        if let Ok(container) = Container::open(cut) {
            assert!(container.descriptors().any(|it| container.data(it).is_err()), "{len}");
        }
    }
}

/// Every byte of header and table, damaged in three ways: found, and padding told from what matters. The one thing that
/// cannot be told is a name that became another name.
#[test]
fn every_damaged_byte_is_found() {
    let bytes = sample();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let file: Arc<File> = Arc::new(file);
    let names = [(4096 + 73, 0), (4096 + 585 + 73, 21), (4096 + 2 * 585 + 73, 15), (4096 + 3 * 585 + 73, 0)];
    let renamed = |at: usize| names.iter().any(|&(start, len)| (start..start + len).contains(&at));
    // One more byte makes another name, too.
    let lengthened = |at: usize| names.iter().any(|&(start, len)| start + len == at);
    let used_extra = 4096 + 3 * 585 + 201..4096 + 3 * 585 + 212;
    for (at, &byte) in bytes.iter().enumerate().take(32_176) {
        let in_slot = (at >= 4096).then(|| ((at - 4096) / 585, (at - 4096) % 585));
        let unread = match in_slot {
            None => at >= 128,
            Some((slot, _)) if slot >= 4 => true,
            Some((_, within)) => within >= 73 && !renamed(at) && !used_extra.contains(&at),
        };
        // Slots that are not in use are all alike.
        let flips: &[u8] = if at < 4096 + 5 * 585 { &[0x01, 0x80, 0xff] } else { &[0x40] };
        for &flip in flips {
            file.write_all_at(&[byte ^ flip], at as u64).unwrap();
            let findings = verify(&Region::whole(Arc::clone(&file)).unwrap()).unwrap();
            let worst = findings.iter().map(|it| it.severity).min();
            // A type may turn into another one that has the same form, and a name into another name.
            let other_name = (renamed(at) || lengthened(at)) && (byte ^ flip).is_ascii_graphic();
            let other_type = byte == 0x06 && flip == 1 && in_slot.is_some_and(|(_, within)| within == 0);
            // A slot that claims to be in use is more than padding.
            let more_than_padding = lengthened(at) || in_slot.is_some_and(|(slot, within)| slot >= 4 && within == 4);
            match worst {
                None => assert!(other_name || other_type, "{at} ^ {flip:#x}"),
                Some(worst) if unread && !more_than_padding => {
                    assert_eq!(worst, Severity::Padding, "{at} ^ {flip:#x}: {findings:?}");
                }
                Some(worst) => assert!(worst < Severity::Padding, "{at} ^ {flip:#x}: {findings:?}"),
            }
        }
        file.write_all_at(&[byte], at as u64).unwrap();
    }
}

#[test]
fn findings_name_the_byte() {
    let bytes = sample();
    let slot = |number: usize, at: usize| 4096 + (number - 1) * 585 + at;
    let partition_at = 32_768;
    for (change, want) in [
        (changed(&bytes, 32, b"X"), (32, Severity::Error, "magic")),
        (changed(&bytes, 42, b"02"), (42, Severity::Error, "version")),
        (changed(&bytes, 45, b"04"), (45, Severity::Error, "architecture")),
        (changed(&bytes, 60, b"u"), (48, Severity::Notice, "uuid")),
        (changed(&bytes, 88, &i64::MAX.to_le_bytes()), (88, Severity::Error, "descriptor-count")),
        (changed(&bytes, 88, &(-1_i64).to_le_bytes()), (88, Severity::Error, "descriptor-count")),
        (changed(&bytes, 96, &i64::MAX.to_le_bytes()), (96, Severity::Error, "descriptor-table")),
        (changed(&bytes, 96, &(-1_i64).to_le_bytes()), (96, Severity::Error, "descriptor-table")),
        (changed(&bytes, 200, b"x"), (200, Severity::Padding, "reserved-bytes")),
        (changed(&bytes, slot(2, 5), &[1]), (slot(2, 5) as u64, Severity::Error, "object-id")),
        (changed(&bytes, slot(3, 17), &32_210_i64.to_le_bytes()), (slot(3, 17) as u64, Severity::Error, "overlap")),
        (changed(&bytes, slot(4, 17), &i64::MAX.to_le_bytes()), (slot(4, 17) as u64, Severity::Error, "outside")),
        (changed(&bytes, slot(4, 17), &i64::MIN.to_le_bytes()), (slot(4, 17) as u64, Severity::Error, "outside")),
        (changed(&bytes, slot(2, 13), &[9]), (slot(2, 13) as u64, Severity::Notice, "link")),
        (changed(&bytes, slot(2, 13), &[2, 0, 0, 0xf0]), (slot(2, 13) as u64, Severity::Notice, "link")),
        (changed(&bytes, slot(2, 13), &[1, 0, 0, 0xf0]), (slot(2, 13) as u64, Severity::Notice, "link")),
        (changed(&bytes, slot(2, 9), &[2]), (slot(2, 9) as u64, Severity::Notice, "group")),
        (changed(&bytes, slot(9, 30), &[2]), (slot(9, 30) as u64, Severity::Padding, "unused-slot")),
        (changed(&bytes, 32_176, b"\xff"), (32_176, Severity::Notice, "text")),
        (changed(&bytes, 32_208, b"["), (32_208, Severity::Error, "json")),
        (changed(&bytes, 32_300, b"x"), (32_300, Severity::Padding, "padding")),
        (changed(&bytes, partition_at, b"x"), (partition_at as u64, Severity::Error, "file-system")),
        ([&bytes[..], b"more"].concat(), (bytes.len() as u64, Severity::Notice, "trailing-bytes")),
    ] {
        assert!(codes(&change).contains(&want), "{want:?} not in {:?}", codes(&change));
    }
}

/// What a descriptor says of the padding in front of its object.
#[test]
fn room_before_an_object_is_its_padding() {
    let bytes = sample();
    let partition =
        (0..8).map(|number| 4096 + number * 585).find(|at| bytes[at + 17..at + 25] == 32_768_i64.to_le_bytes());
    let partition = partition.unwrap();
    let size = i64::from_le_bytes(bytes[partition + 25..partition + 33].try_into().unwrap());
    let padded = i64::from_le_bytes(bytes[partition + 33..partition + 41].try_into().unwrap());
    assert!(padded > size, "{padded} {size}");
    for (padded, want) in [
        (size, ((partition + 17) as u64, Severity::Notice, "gap")),
        (padded - 1, ((partition + 17) as u64, Severity::Notice, "gap")),
        (padded + 1, ((partition + 33) as u64, Severity::Error, "size-with-padding")),
        (size - 1, ((partition + 33) as u64, Severity::Error, "size-with-padding")),
    ] {
        let found = codes(&changed(&bytes, partition + 33, &padded.to_le_bytes()));
        assert!(found.contains(&want), "{want:?} not in {found:?}");
    }
}

#[test]
fn one_unknown_number_makes_an_object_unknown() {
    let architecture = Architecture::from_goarch("amd64").unwrap();
    let partition = |file_system, kind| Extra::Partition { file_system, kind, architecture }.is_known();
    let (unknown_system, unknown_kind) = (FileSystem::from_code(99), PartitionKind::from_code(99));
    assert!(partition(FileSystem::from_code(1), PartitionKind::from_code(2)));
    assert!(!partition(unknown_system, PartitionKind::from_code(2)));
    assert!(!partition(FileSystem::from_code(1), unknown_kind));
    let message = |format, kind| Extra::CryptoMessage { format, kind }.is_known();
    let (format, kind) = (MessageFormat::from_code(1), MessageKind::from_code(0x100));
    assert!(message(format, kind));
    assert!(!message(MessageFormat::from_code(99), kind) && !message(format, MessageKind::from_code(99)));
}

/// A second primary partition is what Apptainer trips over; an overlay in another group is one that it does not see.
#[test]
fn partitions_get_on_with_each_other() {
    let bytes = sample();
    let third = 4096 + 2 * 585;
    let fourth = 4096 + 3 * 585;
    let mut second = bytes.clone();
    second.copy_within(fourth + 201..fourth + 212, third + 201);
    second[third] = 0x04;
    assert!(codes(&second).contains(&(45, Severity::Error, "primary-partition")));
    second[third + 205] = 4;
    second[third + 9] = 2;
    assert!(codes(&second).contains(&((third + 9) as u64, Severity::Notice, "group")));
}

/// Not by us: SingularityCE's OCI-SIF has no partition, no launch script, no groups, and digests in its extra areas.
#[test]
fn an_oci_sif_is_read() {
    let mut bytes = sample();
    bytes[..32].fill(0);
    bytes[45..48].copy_from_slice(b"00\0");
    let end = bytes.len();
    let objects = [(0x0b, 32_176, 32_208), (0x0a, 32_208, 32_228), (0x0b, 32_228, 32_247), (0x0b, 32_768, end)];
    for (slot, (code, start, end)) in objects.into_iter().enumerate() {
        let digest = Digest::of(&bytes[start..end]).to_string();
        let at = 4096 + slot * 585;
        bytes[at] = code;
        bytes[at + 9] = 0;
        bytes[at + 73..at + 585].fill(0);
        bytes[at + 201..at + 201 + digest.len()].copy_from_slice(digest.as_bytes());
    }
    assert_eq!(codes(&bytes), []);
    let container = Container::open(region(&bytes)).unwrap();
    assert!(container.is_oci() && container.primary().is_none());
    let index = container.descriptors().nth(1).unwrap();
    assert_eq!(index.to_string(), format!("OCI.RootIndex ({})", Digest::of(&bytes[32_208..32_228])));
    let damaged = changed(&bytes, 32_228, b"!");
    assert_eq!(codes(&damaged), [(32_228, Severity::Error, "digest")]);
}

/// sif v1 (Singularity up to 3.8): data from 32768 on, every object on its own page.
#[test]
fn the_old_layout_is_read() {
    let new = sample();
    let mut old = new[..32_768].to_vec();
    old[32_176..].fill(0);
    let mut end = 32_768_i64;
    for slot in 0..4 {
        let at = 4096 + slot * 585;
        let number = |at: usize| i64::from_le_bytes(new[at..at + 8].try_into().unwrap());
        let (start, size) = (number(at + 17), number(at + 25));
        let aligned = (end + 4095) / 4096 * 4096;
        old[at + 17..at + 25].copy_from_slice(&aligned.to_le_bytes());
        old[at + 33..at + 41].copy_from_slice(&(aligned - end + size).to_le_bytes());
        old.resize(usize::try_from(aligned).unwrap(), 0);
        old.extend_from_slice(&new[usize::try_from(start).unwrap()..][..usize::try_from(size).unwrap()]);
        end = aligned + size;
    }
    old[112..120].copy_from_slice(&32_768_i64.to_le_bytes());
    old[120..128].copy_from_slice(&(end - 32_768).to_le_bytes());
    assert_eq!(codes(&old), []);
    assert_eq!(load(&Container::open(region(&old)).unwrap().data_of_primary()), partition(8));
}

impl Container {
    fn data_of_primary(&self) -> Region {
        self.data(self.primary().unwrap()).unwrap()
    }
}

/// What the fuzzer starts from, and what it ever tripped over (fuzz/README.md).
#[test]
fn the_corpus_is_survived() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/corpus/sif_reader");
    let mut sound = Vec::new();
    for seed in std::fs::read_dir(corpus).unwrap() {
        let seed = seed.unwrap();
        let file = region(&std::fs::read(seed.path()).unwrap());
        let errors = verify(&file).unwrap().iter().any(|it| it.severity == Severity::Error);
        if !errors {
            sound.push(seed.file_name().into_string().unwrap());
        }
        if let Ok(container) = Container::open(file) {
            assert!(errors || container.descriptors().all(|it| container.data(it).is_ok()));
        }
    }
    sound.retain(|name| {
        ["container", "signed-with-overlay", "oci", "overlapping", "cut-short"].contains(&name.as_str())
    });
    sound.sort();
    assert_eq!(sound, ["container", "oci", "signed-with-overlay"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(
        definition in "\\PC{0,300}",
        json in prop::collection::btree_map("[a-z.]{1,20}", prop::collection::vec(0_u8..10, 0..50), 0..6),
        time_seconds in any::<i64>(),
        uuid in any::<[u8; 16]>(),
        sectors in 1_usize..20,
        architecture in prop::sample::select(vec!["386", "amd64", "arm64", "s390x", "loong64"]),
    ) {
        let json: BTreeMap<String, Vec<u8>> =
            json.into_iter().map(|(name, it)| (name, serde_json::to_vec(&it).unwrap())).collect();
        let contents = Contents {
            architecture: Architecture::from_goarch(architecture).unwrap(),
            time_seconds, uuid, definition: Some(definition.into_bytes()), json, ..contents()
        };
        let bytes = write(contents.clone(), &partition(sectors));
        let container = Container::open(region(&bytes)).unwrap();
        let read = |it: &Descriptor| load(&container.data(it).unwrap());
        let of = |data_type| container.descriptors().filter(move |it| it.data_type == data_type);
        let text = |it: &Descriptor| String::from_utf8(it.name().to_vec()).unwrap();
        let back = Contents {
            architecture: container.header().architecture,
            time_seconds: container.header().created_seconds,
            uuid: container.header().uuid,
            launch_script: container.header().launch_script().to_vec(),
            definition: of(DataType::Definition).map(read).next(),
            file_system: FileSystem::Squashfs,
            key_message: None,
            sboms: Vec::new(),
            json: of(DataType::GenericJson).map(|it| (text(it), read(it))).collect(),
        };
        prop_assert_eq!(format!("{back:?}"), format!("{contents:?}"));
        prop_assert_eq!(load(&container.data_of_primary()), partition(sectors));
        prop_assert_eq!(write(back, &partition(sectors)), bytes.clone());
        let unusual: Vec<_> = codes(&bytes).into_iter().filter(|it| it.2 != "uuid").collect();
        prop_assert_eq!(unusual, []);
    }

    #[test]
    fn records_lose_nothing(bytes in prop::collection::vec(any::<u8>(), DESCRIPTOR_BYTES), known in 0x4000..0x400d_i32) {
        let mut record: [u8; DESCRIPTOR_BYTES] = bytes.try_into().unwrap();
        prop_assert_eq!(Descriptor::parse(&record).to_bytes(), record);
        record[..4].copy_from_slice(&known.to_le_bytes());
        prop_assert_eq!(Descriptor::parse(&record).to_bytes(), record);
        // Anything a file can hold can be shown.
        let _shown = Descriptor::parse(&record).to_string();
        let mut header: [u8; HEADER_BYTES] = record[..HEADER_BYTES].try_into().unwrap();
        header[32..45].copy_from_slice(b"SIF_MAGIC\x0001\0");
        prop_assert_eq!(Header::parse(&header).unwrap().to_bytes(), header);
    }
}
