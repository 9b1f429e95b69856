use super::descriptor::Descriptor;
use super::kind::DataType;
use super::reader::Container;
use super::seal;

/// JSON objects that Apptainer writes when it builds.
const BUILT: [&[u8]; 2] = [b"inspect-metadata.json", b"oci-config.json"];

/// The objects that someone added to a finished container: overlays, signatures, bills of materials, anything. A seal
/// tells where the container ended at first; without one, all that a build of Apptainer's does not write is an addition.
pub fn additions(container: &Container) -> Vec<&Descriptor> {
    let end = seal::written_end(container);
    let is_added = |it: &Descriptor| match end {
        Some(end) => it.offset.unsigned_abs() >= end,
        None => !is_built(it),
    };
    container.descriptors().filter(|it| is_added(it)).collect()
}

/// Whether a build of Apptainer's, or of ours, writes an object like this.
pub fn is_built(descriptor: &Descriptor) -> bool {
    match descriptor.data_type {
        DataType::Definition | DataType::Environment | DataType::Labels | DataType::CryptoMessage => true,
        DataType::OciRootIndex | DataType::OciBlob => true,
        DataType::GenericJson => BUILT.contains(&descriptor.name()) || descriptor.name() == seal::SEAL_NAME.as_bytes(),
        DataType::Partition => descriptor.is_primary(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::descriptor::DESCRIPTOR_BYTES;
    use super::super::{Architecture, Extra, FileSystem};
    use super::*;

    #[test]
    fn what_a_build_writes_is_no_addition() {
        let empty = Descriptor::parse(&[0; DESCRIPTOR_BYTES]);
        let of = |data_type, name: &str| {
            let mut it = Descriptor { data_type, used: 1, ..empty.clone() };
            it.name_field[..name.len()].copy_from_slice(name.as_bytes());
            it
        };
        for built in [
            of(DataType::Definition, ""),
            of(DataType::Environment, ""),
            of(DataType::Labels, ""),
            of(DataType::CryptoMessage, ""),
            of(DataType::OciRootIndex, ""),
            of(DataType::OciBlob, ""),
            of(DataType::GenericJson, "inspect-metadata.json"),
            of(DataType::GenericJson, "oci-config.json"),
            of(DataType::GenericJson, seal::SEAL_NAME),
        ] {
            assert!(is_built(&built), "{built}");
        }
        for added in [
            of(DataType::GenericJson, ""),
            of(DataType::GenericJson, "mine.json"),
            of(DataType::Signature, ""),
            of(DataType::Generic, ""),
            of(DataType::Sbom, ""),
            of(DataType::Partition, ""),
        ] {
            assert!(!is_built(&added), "{added}");
        }
        let system = Extra::primary(FileSystem::Squashfs, Architecture::from_goarch("amd64").unwrap());
        assert!(is_built(&Descriptor { extra_area: system, ..of(DataType::Partition, "") }));
    }
}
