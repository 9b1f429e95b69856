//! Owners that an unprivileged tool could not give to files and wrote down beside them: umoci, PRoot and rootlesskit keep
//! them in the extended attribute `user.rootlesscontainers`, a protobuf message of two numbers
//! (<https://github.com/rootless-containers/proto>).

use crate::model::{Metadata, Xattrs};

/// The attribute's name.
const NAME: &[u8] = b"user.rootlesscontainers";
/// "No owner recorded" in one of the numbers.
const NOOP: u32 = u32::MAX;

/// Gives a file the owner that is written down beside it, and takes the attribute away; whether there was one.
pub(super) fn apply(metadata: &mut Metadata) -> bool {
    let Some(xattrs) = metadata.xattrs.as_deref_mut() else { return false };
    let Some((uid, gid)) = xattrs.get(NAME).and_then(|value| decode(value)) else { return false };
    xattrs.remove(NAME);
    metadata.xattrs.take_if(|xattrs| Xattrs::is_empty(xattrs));
    if uid != NOOP {
        metadata.uid = uid;
    }
    if gid != NOOP {
        metadata.gid = gid;
    }
    true
}

/// Fields 1 and 2, both varints that are left out where they are 0. Anything else is not understood.
fn decode(mut bytes: &[u8]) -> Option<(u32, u32)> {
    let (mut uid, mut gid) = (0, 0);
    while let [tag, rest @ ..] = bytes {
        let (number, rest) = varint(rest)?;
        match tag {
            0x08 => uid = number,
            0x10 => gid = number,
            _ => return None,
        }
        bytes = rest;
    }
    Some((uid, gid))
}

fn varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut number = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(number).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn owners_are_decoded() {
        assert_eq!(decode(&[0x08, 0xe8, 0x07, 0x10, 0x05]), Some((1000, 5)));
        assert_eq!(decode(&[0x10, 0x05]), Some((0, 5)));
        assert_eq!(decode(&[]), Some((0, 0)));
        assert_eq!(decode(&[0x08, 0xff, 0xff, 0xff, 0xff, 0x0f]), Some((u32::MAX, 0)));
        for broken in [&[0x08][..], &[0x08, 0x80], &[0x18, 1], &[0x08, 0xff, 0xff, 0xff, 0xff, 0x7f]] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_recorded_owner_replaces_the_attribute() {
        let mut metadata = Metadata::root_owned(0o644, Timestamp::default());
        metadata.xattrs = Some(Box::new(Xattrs::from([(NAME.into(), [0x08, 7][..].into())])));
        assert!(apply(&mut metadata));
        assert_eq!((metadata.uid, metadata.gid, &metadata.xattrs), (7, 0, &None));
        assert!(!apply(&mut metadata));
    }
}
