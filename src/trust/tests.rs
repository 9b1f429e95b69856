use std::path::Path;

use super::*;
use crate::error::{Error, ErrorKind};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new("fixtures/keys").join(name)).unwrap()
}

fn private(name: &str, passphrase: &str) -> Result<PrivateKey> {
    PrivateKey::from_pem(&fixture(name), &|| Ok(Zeroizing::new(passphrase.as_bytes().to_vec())))
}

fn unencrypted(name: &str) -> PrivateKey {
    let ask = || Err(Error::new(ErrorKind::Bug, "asked for a passphrase"));
    PrivateKey::from_pem(&fixture(name), &ask).unwrap()
}

fn public(name: &str) -> PublicKey {
    PublicKey::from_pem(&fixture(name)).unwrap()
}

const PAIRS: [(&str, &str); 4] =
    [("ed25519.pem", "ed25519.pub"), ("p256.pem", "p256.pub"), ("p384.pem", "p384.pub"), ("rsa.pem", "rsa.pub")];

#[test]
fn pairs_fit_and_sign_the_same_twice() {
    for (secret, shown) in PAIRS {
        let (key, found) = (unencrypted(secret), public(shown));
        assert_eq!(key.public(), &found);
        let signature = key.sign(b"message").unwrap();
        assert_eq!(signature, unencrypted(secret).sign(b"message").unwrap(), "{secret}");
        assert!(found.verifies(b"message", &signature, SignatureHash::Sha256), "{secret}");
        assert!(!found.verifies(b"massage", &signature, SignatureHash::Sha256), "{secret}");
        let damaged: Vec<u8> = signature.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 9)).collect();
        assert!(!found.verifies(b"message", &damaged, SignatureHash::Sha256), "{secret}");
        for (_, other) in PAIRS.iter().filter(|(_, other)| *other != shown) {
            assert!(!public(other).verifies(b"message", &signature, SignatureHash::Sha256), "{secret}, {other}");
        }
        assert_eq!(PublicKey::from_spki(&found.to_spki().unwrap()).unwrap(), found);
    }
}

#[test]
fn nonces_are_those_of_rfc_6979() {
    // A.2.5: P-256, SHA-256, "sample".
    let secret = [
        0xc9, 0xaf, 0xa9, 0xd8, 0x45, 0xba, 0x75, 0x16, 0x6b, 0x5c, 0x21, 0x57, 0x67, 0xb1, 0xd6, 0x93, 0x4e, 0x50,
        0xc3, 0xdb, 0x36, 0xe8, 0x9b, 0x12, 0x7b, 0x8a, 0x62, 0x2b, 0x12, 0x0f, 0x67, 0x21,
    ];
    // SEC 1: version 1, the secret, the curve.
    let head = [0x30, 0x31, 0x02, 0x01, 0x01, 0x04, 0x20];
    let curve = [0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let der = [&head[..], &secret, &curve].concat();
    let text = pem_rfc7468::encode_string("EC PRIVATE KEY", pem_rfc7468::LineEnding::LF, &der).unwrap();
    let key = PrivateKey::from_pem(text.as_bytes(), &|| Ok(Zeroizing::new(Vec::new()))).unwrap();
    let hex: String = key.sign(b"sample").unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(hex.contains("efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"), "{hex}");
    assert!(hex.contains("f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"), "{hex}");
}

#[test]
fn keys_in_other_wrappings_are_the_same_keys() {
    assert_eq!(unencrypted("rsa-pkcs1.pem").public(), &public("rsa.pub"));
    let pem = String::from_utf8(fixture("rsa.pub")).unwrap();
    let spki = pkcs8::der::pem::decode_vec(pem.as_bytes()).unwrap().1;
    let bits = pkcs8::spki::SubjectPublicKeyInfoRef::try_from(&*spki).unwrap().subject_public_key.raw_bytes();
    let ending = pkcs8::der::pem::LineEnding::LF;
    let pkcs1 = pkcs8::der::pem::encode_string("RSA PUBLIC KEY", ending, bits).unwrap();
    assert_eq!(PublicKey::from_pem(pkcs1.as_bytes()).unwrap(), public("rsa.pub"));
    let cut = pkcs8::der::pem::encode_string("RSA PUBLIC KEY", ending, &bits[..bits.len() - 1]).unwrap();
    assert!(PublicKey::from_pem(cut.as_bytes()).unwrap_err().to_string().contains("malformed"));
    assert_eq!(private("p256-encrypted.pem", "secret").unwrap().public(), &public("p256.pub"));
    assert_eq!(private("ed25519-encrypted.pem", "secret").unwrap().public(), &public("ed25519.pub"));
    assert_eq!(private("cosign.key", "hunter2").unwrap().public(), &public("cosign.pub"));
    assert_eq!(unencrypted("p256-sec1.pem").public().algorithm(), "ECDSA P-256");
    for name in ["p256-encrypted.pem", "ed25519-encrypted.pem", "cosign.key"] {
        let error = private(name, "wrong").unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("wrong")), (ErrorKind::Usage, false), "{name}: {error}");
    }
}

#[test]
fn what_is_no_key_is_named() {
    for (text, message) in [
        (&b"hello"[..], "no line -----BEGIN"),
        (b"\xff\xfe", "not text"),
        (b"-----BEGIN PRIVATE KEY-----\n", "has no end"),
        (b"-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n", "malformed"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "malformed"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not one private key"),
        (
            b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
            "old way",
        ),
    ] {
        let error = PrivateKey::from_pem(text, &|| Ok(Zeroizing::new(Vec::new()))).unwrap_err();
        assert!(error.to_string().contains(message) && error.remedy().is_some(), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    assert!(PublicKey::from_pem(&fixture("p256.pem")).unwrap_err().to_string().contains("not a public key"));
    // Nothing that is shown of a key is secret.
    let shown = format!("{:?}", unencrypted("ed25519.pem"));
    assert_eq!(shown, format!("PrivateKey({})", public("ed25519.pub")));
}

#[test]
fn envelopes_bind_type_and_payload() {
    let key = unencrypted("ed25519.pem");
    let keys = [public("p256.pub"), key.public().clone()];
    let envelope = Envelope::sign("a/b", b"{}".to_vec(), &key).unwrap();
    let json = envelope.to_json().unwrap();
    assert_eq!(Envelope::parse(&json).unwrap(), envelope);
    assert_eq!(envelope.signed_by(&keys, SignatureHash::Sha256), Some(&keys[1]));
    assert_eq!(envelope.signed_by(&keys[..1], SignatureHash::Sha256), None);
    let text = String::from_utf8(json).unwrap();
    for (from, to) in [("a/b", "a/c"), ("e30=", "e30K"), ("\"sig\":\"", "\"sig\":\"AA")] {
        let other = Envelope::parse(text.replace(from, to).as_bytes());
        assert!(other.is_err() || other.unwrap().signed_by(&keys, SignatureHash::Sha256).is_none(), "{from}");
    }
    // Type and payload have lengths: no byte can move from one to the other.
    assert!(Envelope::parse(b"{}").is_err());
    assert!(Envelope::parse(br#"{"payloadType":"a","payload":"","signatures":[]}"#).is_err());
}

/// ring calls both TooSmall.
#[test]
fn what_is_too_small_about_an_rsa_key_is_said() {
    for (name, said) in [("rsa-exponent-3.pem", "public exponent"), ("rsa-1024.pem", "TooSmall")] {
        let error = private(name, "").unwrap_err();
        assert!(error.to_string().contains(said), "{name}: {error}");
    }
}
