//! PEM blocks ([RFC 7468](https://www.rfc-editor.org/rfc/rfc7468)) in a file that may hold others and text around them.

use pem_rfc7468::Decoder;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

/// One block.
pub(super) struct Block {
    pub(super) label: String,
    pub(super) der: Zeroizing<Vec<u8>>,
}

/// All blocks, in order. Text between them is skipped; OpenSSL writes some.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when there is none, or one is malformed or encrypted in the way of before PKCS#8.
pub(super) fn blocks(text: &[u8]) -> Result<Vec<Block>> {
    let text = std::str::from_utf8(text).map_err(|_| malformed("not a PEM file: it is not text"))?;
    let mut rest = text;
    let mut blocks = Vec::new();
    while let Some(start) = rest.find(BEGIN) {
        let block = &rest[start..];
        let end = block.find(END).ok_or_else(|| malformed("a PEM block has no end"))?;
        let line = block[end..].find('\n').map_or(block.len(), |line| end + line + 1);
        blocks.push(decode(&block[..line])?);
        rest = &block[line..];
    }
    if blocks.is_empty() {
        return Err(malformed("not a PEM file: there is no line -----BEGIN …-----"));
    }
    Ok(blocks)
}

fn decode(block: &str) -> Result<Block> {
    if block.lines().nth(1).is_some_and(|line| line.starts_with("Proc-Type:")) {
        let message = "the key is encrypted in OpenSSL's old way, which is not supported";
        return Err(Error::new(ErrorKind::Unsupported, message)
            .hint("convert it with: openssl pkcs8 -topk8 -in OLD.pem -out NEW.pem"));
    }
    let broken = |_| malformed("a PEM block is malformed");
    let mut decoder = Decoder::new_detect_wrap(block.trim_end().as_bytes()).map_err(broken)?;
    let label = decoder.type_label().to_string();
    let mut der = Zeroizing::new(vec![0; decoder.remaining_len()]);
    decoder.decode(&mut der).map_err(broken)?;
    Ok(Block { label, der })
}

fn malformed(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message).hint("name a key in PEM, for example one that openssl genpkey wrote")
}
