use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;

use crate::model::Digest;

/// The ID of a key as `ssh-keygen -l` shows it and Apptainer writes it into signatures: `SHA256:` and the unpadded base64
/// of the SHA-256 of the key in the encoding of SSH ([RFC 4253](https://www.rfc-editor.org/rfc/rfc4253) §6.6).
pub(super) fn of_fields(fields: &[&[u8]]) -> String {
    let mut encoded = Vec::new();
    for field in fields {
        encoded.extend(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        encoded.extend(*field);
    }
    format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(Digest::of(&encoded).as_bytes()))
}

/// A positive number as SSH has it: without leading zeros, but with one where the first bit would be a sign.
pub(super) fn positive(number: &[u8]) -> Vec<u8> {
    let number = &number[number.iter().take_while(|&&byte| byte == 0).count()..];
    let sign = number.first().filter(|&&first| first >= 0x80).map(|_| 0);
    sign.into_iter().chain(number.iter().copied()).collect()
}
