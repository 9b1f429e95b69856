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
