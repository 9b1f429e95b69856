//! What can be told from header and descriptors alone.

use std::collections::BTreeSet;

use crate::model::{Digest, Quoted};
use crate::sif::descriptor::{DESCRIPTOR_BYTES, Descriptor, GROUP_MARK, Link, at};
use crate::sif::finding::Finding;
use crate::sif::header::{self, Header, LAUNCH_SCRIPT};
use crate::sif::kind::{DataType, Extra};
use crate::sif::reader::Container;
use crate::sif::record::trimmed;

pub(super) fn check(container: &Container, findings: &mut Vec<Finding>) {
    check_header(container, findings);
    check_times(container, findings);
    check_primary(container, findings);
    let known = Known::of(container);
    for (slot, (offset, descriptor)) in container.slots().enumerate() {
        if descriptor.is_used() {
            check_descriptor(descriptor, offset, slot, findings);
            check_relations(descriptor, offset, &known, findings);
        } else if let Some(first) = descriptor.to_bytes().iter().position(|&byte| byte != 0) {
            let message = format!("slot {} is not in use but not all zero", slot + 1);
            findings.push(Finding::padding(offset + first as u64, "unused-slot", message));
        }
    }
    check_ids(container, findings);
}

fn check_header(container: &Container, findings: &mut Vec<Finding>) {
    let header = container.header();
    let script = header.launch_script();
    if !script.is_empty() && script != LAUNCH_SCRIPT {
        let message = format!("the launch script is {}, not the usual one", Quoted(script));
        findings.push(Finding::notice(header::at::LAUNCH as u64, "launch-script", message));
    }
    if !is_uuid(&header.uuid) {
        let message = "the UUID is neither nil nor of a form that RFC 4122 or RFC 9562 defines";
        findings.push(Finding::notice(header::at::UUID as u64, "uuid", message));
    }
    let used = container.descriptors().count() as i64;
    if header.descriptors_free != header.descriptors_total - used {
        let Header { descriptors_free: free, descriptors_total: total, .. } = header;
        let message = format!("{free} of {total} descriptors are said to be free, but {used} are in use");
        findings.push(Finding::error(header::at::DESCRIPTORS_FREE as u64, "descriptor-count", message));
    }
    // The total was checked when the container was opened: this cannot overflow.
    let size = header.descriptors_total * DESCRIPTOR_BYTES as i64;
    if header.descriptors_size != size {
        let stated = header.descriptors_size;
        let message = format!("the descriptor table is said to take {stated} bytes, its slots take {size}");
        findings.push(Finding::error(header::at::DESCRIPTORS_SIZE as u64, "descriptor-table", message));
    }
}

/// Nil, or variant 1 with a version from 1 to 8.
fn is_uuid(uuid: &[u8; 16]) -> bool {
    *uuid == [0; 16] || (uuid[8] >> 6 == 0b10 && (1..=8).contains(&(uuid[6] >> 4)))
}

/// Adding an object gives it and the header the same time, so the file and its objects span the same stretch of time.
fn check_times(container: &Container, findings: &mut Vec<Finding>) {
    let header = container.header();
    let (created, modified) = (header.created_seconds, header.modified_seconds);
    if modified < created {
        let message = "the file is said to have been modified before it was created";
        findings.push(Finding::notice(header::at::MODIFIED as u64, "times", message));
        return;
    }
    for (offset, descriptor) in container.slots().filter(|(_, descriptor)| descriptor.is_used()) {
        let Descriptor { id, created_seconds: from, modified_seconds: to, .. } = *descriptor;
        if from < created || to < from || modified < to {
            let message = format!(
                "the times of object {id}, {from} and {to}, are not within the file's, {created} and {modified}"
            );
            findings.push(Finding::notice(offset + at::CREATED as u64, "times", message));
        }
    }
    if container.descriptors().map(|it| it.created_seconds).min().is_some_and(|oldest| created < oldest) {
        let message = "the file was created before its oldest object was: an object may have been removed";
        findings.push(Finding::notice(header::at::CREATED as u64, "times", message));
    }
    if container.descriptors().map(|it| it.modified_seconds).max().is_some_and(|newest| newest < modified) {
        let message = "the file was modified after its newest object was: an object may have been removed";
        findings.push(Finding::notice(header::at::MODIFIED as u64, "times", message));
    }
}

fn check_primary(container: &Container, findings: &mut Vec<Finding>) {
    let header = container.header();
    let primaries = container.descriptors().filter(|descriptor| descriptor.is_primary()).count();
    if primaries > 1 {
        let message = format!("{primaries} partitions are said to be the primary one");
        findings.push(Finding::error(header::at::ARCHITECTURE as u64, "primary-partition", message));
    }
    let stated = header.architecture;
    let architecture = match container.primary().map(Descriptor::extra) {
        Some(Extra::Partition { architecture, .. }) => architecture,
        _ => crate::sif::Architecture::UNKNOWN,
    };
    if stated != architecture {
        let message = format!("the header says {stated:?}, the primary system partition {architecture:?}");
        findings.push(Finding::error(header::at::ARCHITECTURE as u64, "architecture", message));
    } else if primaries > 0 && stated.goarch().is_none() {
        let message = format!("the architecture is {stated:?}: runtimes do not check whether they can run it");
        findings.push(Finding::notice(header::at::ARCHITECTURE as u64, "architecture", message));
    }
    if primaries == 0 && !container.is_oci() {
        let message = "there is no primary system partition: the file holds data, it cannot be run";
        findings.push(Finding::notice(header::at::ARCHITECTURE as u64, "primary-partition", message));
    }
}

/// What stands in one descriptor and needs no other.
fn check_descriptor(descriptor: &Descriptor, offset: u64, slot: usize, findings: &mut Vec<Finding>) {
    let id = descriptor.id;
    let field = |at: usize| offset + at as u64;
    if descriptor.used != 1 {
        let message = format!("object {id} is marked as used with {}, not 1", descriptor.used);
        findings.push(Finding::error(field(at::USED), "used", message));
    }
    if let DataType::Unknown(code) = descriptor.data_type {
        let message = format!("object {id} is of the unknown type {code:#x}");
        findings.push(Finding::notice(field(at::DATA_TYPE), "data-type", message));
    }
    if usize::try_from(id).ok() != Some(slot + 1) {
        let message = format!("the object in slot {} has the number {id}", slot + 1);
        findings.push(Finding::notice(field(at::ID), "object-id", message));
    }
    if descriptor.uid != 0 || descriptor.gid != 0 {
        let message = format!("object {id} belongs to {}:{}, not to 0:0", descriptor.uid, descriptor.gid);
        findings.push(Finding::notice(field(at::UID), "owner", message));
    }
    check_name(descriptor, field(at::NAME), findings);
    check_extra(descriptor, field(at::EXTRA), findings);
}

fn check_name(descriptor: &Descriptor, offset: u64, findings: &mut Vec<Finding>) {
    let (id, name) = (descriptor.id, descriptor.name());
    if let Some(end) = name.iter().position(|&byte| byte == 0) {
        let message = format!("the name of object {id} has bytes behind its NUL: {}", Quoted(&name[end..]));
        findings.push(Finding::padding(offset + end as u64, "name", message));
    } else if !std::str::from_utf8(name).is_ok_and(|name| !name.chars().any(char::is_control)) {
        let message = format!("the name of object {id} is not printable text: {}", Quoted(name));
        findings.push(Finding::notice(offset, "name", message));
    }
}

fn check_extra(descriptor: &Descriptor, offset: u64, findings: &mut Vec<Finding>) {
    let (id, extra) = (descriptor.id, descriptor.extra());
    if !extra.is_known() {
        let message = format!("object {id} ({descriptor}) has a kind this version does not know");
        findings.push(Finding::error(offset, "extra", message));
    }
    if let Extra::Digest(text) = &extra {
        let digest = std::str::from_utf8(text).ok().and_then(|text| text.parse::<Digest>().ok());
        if digest.is_none() {
            let message = format!("object {id} has no SHA-256 digest but {}", Quoted(text));
            findings.push(Finding::error(offset, "extra", message));
        }
    }
    let used = extra.used_bytes();
    let unused = trimmed(&descriptor.extra_area[used..]);
    if let Some(first) = unused.iter().position(|&byte| byte != 0) {
        let message = format!("the extra area of object {id} is not zero behind its {used} bytes");
        findings.push(Finding::padding(offset + (used + first) as u64, "extra", message));
    }
}

/// What descriptors may refer to.
struct Known {
    ids: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    primary_group: Option<Option<u32>>,
}

impl Known {
    fn of(container: &Container) -> Self {
        Known {
            ids: container.descriptors().map(|descriptor| descriptor.id).collect(),
            groups: container.descriptors().filter_map(Descriptor::group).collect(),
            primary_group: container.primary().map(Descriptor::group),
        }
    }
}

/// Group and link of one descriptor.
fn check_relations(descriptor: &Descriptor, offset: u64, known: &Known, findings: &mut Vec<Finding>) {
    let (id, link) = (descriptor.id, descriptor.link());
    let group_at = offset + at::GROUP as u64;
    let alone = matches!(descriptor.data_type, DataType::Signature | DataType::OciRootIndex | DataType::OciBlob);
    if descriptor.group_field & GROUP_MARK != GROUP_MARK {
        let message = format!("the group of object {id} is {:#x}, without the mark of a group", descriptor.group_field);
        findings.push(Finding::error(group_at, "group", message));
    } else if !alone && known.primary_group.is_some_and(|group| group != descriptor.group()) {
        let message = format!(
            "object {id} ({descriptor}) is not in the group of the primary system partition: runtimes do not use it"
        );
        findings.push(Finding::notice(group_at, "group", message));
    } else if !alone && descriptor.group().is_none() {
        let message = format!("object {id} ({descriptor}) is in no group: a signature does not cover it");
        findings.push(Finding::notice(group_at, "group", message));
    }
    let leads_nowhere = match link {
        Link::None => false,
        Link::Object(other) => other == id || !known.ids.contains(&other),
        Link::Group(group) => !known.groups.contains(&group),
    };
    let link_at = offset + at::LINK as u64;
    if leads_nowhere {
        // A signature stays when what it signed is removed.
        let message = format!("object {id} is linked to {link}, which is not there");
        findings.push(Finding::notice(link_at, "link", message));
    } else if link != Link::None
        && !matches!(descriptor.data_type, DataType::Signature | DataType::CryptoMessage | DataType::Sbom)
    {
        let message = format!("object {id} ({descriptor}) is linked to {link}: such objects usually are not");
        findings.push(Finding::notice(link_at, "link", message));
    }
}

fn check_ids(container: &Container, findings: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (offset, descriptor) in container.slots().filter(|(_, descriptor)| descriptor.is_used()) {
        if descriptor.id == 0 || !seen.insert(descriptor.id) {
            let message = format!("more than one object has the number {}, or it is 0", descriptor.id);
            findings.push(Finding::error(offset + at::ID as u64, "object-id", message));
        }
    }
}
