use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::content::encrypted_bytes;
use super::*;
use crate::error::ErrorKind;

/// Made by gocryptfs 2.6.1 (`-init -deterministic-names -plaintextnames`), and a file that was written through its mount.
const CONFIG: &str = r#"{
	"Creator": "gocryptfs 2.6.1",
	"EncryptedKey": "yVMl7m3vbWEA9v0owwF8R0Q/aY24W35qC2H0Puulf1h8gQHweIqpQGMybEFlggo/lk5PIOMCzILh/PFTbOQXUg==",
	"ScryptObject": {
		"Salt": "vQHFK9E4Dueb3KM8k7cY3OJFPrdyNqH+AP+/LAyJVUs=",
		"N": 65536,
		"R": 8,
		"P": 1,
		"KeyLen": 32
	},
	"Version": 2,
	"FeatureFlags": [
		"HKDF",
		"GCMIV128",
		"PlaintextNames"
	]
}
"#;
const GREETING: &str = "AAI1fY+jlmpaW+fqvlt7kE1fHLvejRtRFIbcOTKm75jx33z8Cbn2Z/2s9s5Lmodz/0/NR3xx9rO7bQMdGu5xDX/t";

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.into()).unwrap()
}

fn encrypt(encryptor: &Encryptor, plain: &[u8]) -> Vec<u8> {
    let mut file = encryptor.header().to_vec();
    encryptor.encrypt(0, plain, &mut file).unwrap();
    file
}

fn decrypt(keys: &Keys, file: &[u8]) -> crate::Result<Vec<u8>> {
    let (header, blocks) = file.split_first_chunk().unwrap();
    let mut plain = Vec::new();
    Decryptor::new(keys, header)?.decrypt(0, blocks, &mut plain)?;
    Ok(plain)
}

#[test]
fn what_gocryptfs_wrote_is_read() {
    let keys = Keys::unlock(CONFIG.as_bytes(), &passphrase("secret\n")).unwrap();
    let file = STANDARD.decode(GREETING).unwrap();
    assert_eq!(decrypt(&keys, &file).unwrap(), b"hello, gocryptfs");
    for at in 2..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 4;
        assert_eq!(decrypt(&keys, &damaged).unwrap_err().kind(), ErrorKind::InvalidImage, "{at}");
    }
    let wrong = Keys::unlock(CONFIG.as_bytes(), &passphrase("Secret")).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Mismatch);
}

#[test]
fn configs_that_apptainer_does_not_write_are_refused_by_name() {
    for (from, to, said) in [
        ("\"HKDF\",", "\"HKDF\", \"AESSIV\",", "AESSIV"),
        ("\"PlaintextNames\"", "\"DirIV\"", "DirIV"),
        ("\"GCMIV128\",", "", "GCMIV128"),
        ("\"Version\": 2", "\"Version\": 3", "version 3"),
        ("65536", "4194304", "N=4194304"),
        ("65536", "65537", "N=65537"),
        ("65536", "0", "N=0"),
        ("\"KeyLen\": 32", "\"KeyLen\": 16", "key of 16"),
    ] {
        let error = Keys::unlock(CONFIG.replace(from, to).as_bytes(), &passphrase("secret")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{to}: {error}");
        assert!(error.to_string().contains(said), "{to}: {error}");
    }
    for (from, to) in [("yVMl", "yV"), ("vQHFK9E4Dueb", ""), ("{", "["), ("\"Salt\"", "\"Sold\"")] {
        let error = Keys::unlock(CONFIG.replace(from, to).as_bytes(), &passphrase("secret")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage, "{to}: {error}");
    }
}

#[test]
fn the_same_input_gives_the_same_bytes_and_other_input_other_nonces() {
    let (keys, config) = Keys::derive(&passphrase("secret"), b"image 1").unwrap();
    assert_eq!(Keys::derive(&passphrase("secret"), b"image 1").unwrap().1, config);
    assert_ne!(Keys::derive(&passphrase("secret"), b"image 2").unwrap().1, config);
    let unlocked = Keys::unlock(&config, &passphrase("secret")).unwrap();
    let plain: Vec<u8> = (0..3 * BLOCK_BYTES + 5).map(|at| (at / BLOCK_BYTES) as u8 & 1).collect();
    let encryptor = Encryptor::new(&keys, "a");
    let file = encrypt(&encryptor, &plain);
    assert_eq!(encrypt(&Encryptor::new(&unlocked, "a"), &plain), file);
    assert_eq!(decrypt(&unlocked, &file).unwrap(), plain);
    // Blocks 0 and 2 hold the same.
    let nonces = |file: &[u8]| -> Vec<Vec<u8>> {
        file[HEADER_BYTES..].chunks(BLOCK_BYTES + 32).map(|block| block[..16].to_vec()).collect()
    };
    let mut seen = nonces(&file);
    seen.extend(nonces(&encrypt(&Encryptor::new(&keys, "b"), &plain)));
    let mut other = plain.clone();
    other.iter_mut().step_by(BLOCK_BYTES).for_each(|byte| *byte ^= 0x80);
    seen.extend(nonces(&encrypt(&encryptor, &other)));
    let all = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((all, seen.len()), (12, 12), "a nonce was used twice");
}

#[test]
fn blocks_stay_where_they_are() {
    let (keys, _) = Keys::derive(&passphrase("secret"), b"").unwrap();
    let file = encrypt(&Encryptor::new(&keys, "a"), &[7; 2 * BLOCK_BYTES]);
    let (first, second) = file[HEADER_BYTES..].split_at(BLOCK_BYTES + 32);
    let swapped = [&file[..HEADER_BYTES], second, first].concat();
    assert!(decrypt(&keys, &swapped).unwrap_err().to_string().contains("block 0"));
    let other = [&Encryptor::new(&keys, "b").header(), &file[HEADER_BYTES..]].concat();
    assert!(decrypt(&keys, &other).is_err());
}

#[test]
fn lengths_are_those_of_gocryptfs() {
    assert_eq!((encrypted_bytes(0), encrypted_bytes(16)), (0, 66));
    for plain in [0, 1, 4095, 4096, 4097, 8192, 1 << 40] {
        assert_eq!(plain_bytes(encrypted_bytes(plain)), Some(plain));
    }
    for never in [1, 18, 19, 50, encrypted_bytes(4096) + 1, encrypted_bytes(4096) + 32] {
        assert_eq!(plain_bytes(never), None, "{never}");
    }
}

#[test]
fn passphrases_are_one_line_and_never_shown() {
    assert_eq!(passphrase("a b\r\n").bytes(), b"a b");
    assert_eq!(passphrase("a \n").bytes(), b"a ");
    for wrong in ["", "\n", "a\nb", "a\0b"] {
        assert_eq!(Passphrase::new(wrong.into()).unwrap_err().kind(), ErrorKind::Usage);
    }
    assert!(Passphrase::new(vec![b'x'; 2049]).is_err());
    let random = [Passphrase::random().unwrap(), Passphrase::random().unwrap()];
    assert!(random[0].bytes() != random[1].bytes() && random[0].bytes().len() == 32);
    let (keys, _) = Keys::random(&random[0]).unwrap();
    assert_eq!(format!("{:?} {keys:?}", random[0]), "Passphrase(…) Keys(…)");
}

/// Made with `openssl genrsa -traditional 2048`, for tests only.
const PRIVATE: &str = include_str!("../../fixtures/encryption/key.pem");
const PUBLIC: &str = include_str!("../../fixtures/encryption/public.pem");

#[test]
fn messages_open_with_the_private_key_and_no_other() {
    let private = PrivateKey::parse(PRIVATE).unwrap();
    let sealed = PublicKey::parse(PUBLIC).unwrap().seal(&passphrase("secret")).unwrap();
    assert!(sealed.starts_with(b"-----BEGIN MESSAGE-----\n"));
    assert_eq!(private.open(&sealed).unwrap().bytes(), b"secret");
    // Longer than one piece: 256 - 66 bytes.
    let long = passphrase(&"x".repeat(500));
    assert_eq!(private.open(&private.public().seal(&long).unwrap()).unwrap().bytes(), long.bytes());
    let text = String::from_utf8(sealed).unwrap();
    let other = text.replacen("MESSAGE", "MASSAGE", 2);
    assert_eq!(private.open(other.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidImage);
    for wrong in [PUBLIC, "", "x", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"] {
        assert_eq!(PrivateKey::parse(wrong).unwrap_err().kind(), ErrorKind::Usage);
    }
    assert_eq!(PublicKey::parse(PRIVATE).unwrap_err().kind(), ErrorKind::Usage);
}
