//! Certificates of keys that signed SIF files: what is accepted is what Apptainer accepts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sif_convert::trust::{Certificate, Roots};

use crate::support::authority::AUTHORITY;
use crate::support::run::{self, Oracles, exit_code, program, scratch};

const MAKE: &str = r#"
itself root root "$always"; itself stranger root "$always"; itself server_root other_use_root "$always"
itself crl_root crl_root "$always"; itself short_root short "$always"
key signer
for name in itself_code itself_ca good expired future for_server for_any unsaid strange under_server under_crl \
    under_between under_long; do cp signer.key $name.key; done
itself itself_code code "$always"; itself itself_ca root "$always"
under root good code "$always"; under root expired code "$past"; under root future code "$future"
under root for_server server "$always"; under root for_any any_use "$always"; under root unsaid no_use "$always"
under stranger strange code "$always"; under server_root under_server code "$always"
under crl_root under_crl code "$always"
under root between short "$always"; under between under_between code "$always"
under short_root long root "$always"; under long under_long code "$always"
cp root.crt present.crt; itself root root "$past"; mv root.crt old_root.crt; mv present.crt root.crt
cat under_between.crt between.crt >chain.crt
"#;

/// Words after `verify`, and whether they lead to a verdict that is good.
const CASES: [(&str, bool); 23] = [
    ("--certificate good.crt --certificate-roots root.crt", true),
    ("--certificate for_any.crt --certificate-roots root.crt", true),
    ("--certificate unsaid.crt --certificate-roots root.crt", true),
    ("--certificate for_server.crt --certificate-roots root.crt", false),
    ("--certificate expired.crt --certificate-roots root.crt", false),
    ("--certificate future.crt --certificate-roots root.crt", false),
    ("--certificate strange.crt --certificate-roots root.crt", false),
    ("--certificate good.crt --certificate-roots stranger.crt", false),
    ("--certificate good.crt --certificate-roots old_root.crt", false),
    ("--certificate under_server.crt --certificate-roots server_root.crt", false),
    ("--certificate under_crl.crt --certificate-roots crl_root.crt", false),
    ("--certificate itself_code.crt --certificate-roots root.crt", false),
    ("--certificate itself_code.crt --certificate-roots itself_code.crt", true),
    ("--certificate itself_ca.crt --certificate-roots itself_ca.crt", true),
    ("--certificate good.crt --certificate-roots good.crt", true),
    ("--certificate under_between.crt --certificate-roots root.crt", false),
    ("--certificate under_between.crt --certificate-roots between.crt", true),
    ("--certificate under_between.crt --certificate-roots root.crt --certificate-intermediates between.crt", true),
    ("--certificate under_between.crt --certificate-roots stranger.crt --certificate-intermediates between.crt", false),
    ("--certificate under_between.crt --certificate-roots root.crt --certificate-intermediates strange.crt", false),
    ("--certificate under_long.crt --certificate-roots short_root.crt --certificate-intermediates long.crt", false),
    // Good certificates of keys that did not sign.
    ("--certificate between.crt --certificate-roots root.crt", false),
    ("--certificate other.crt --certificate-roots root.crt", false),
];

fn shell(oracles: &Oracles, directory: &Path, script: &str) -> String {
    let done = run::run(oracles.run(directory).args(["sh", "-c", script]));
    assert_eq!(done.code, 0, "{script}: {}", done.stderr);
    String::from_utf8(done.stdout).unwrap()
}

/// A directory with certificates and a SIF that `signer.key` signed.
fn place(oracles: &Oracles) -> tempfile::TempDir {
    let directory = scratch();
    shell(oracles, directory.path(), &format!("{AUTHORITY}\n{MAKE}\nunder root other code \"$always\""));
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");
    let convert = [archive, "--to", "sif", "-q", "-o", "x.sif", "--sign-key", "signer.key"];
    let done = run::run(program().current_dir(directory.path()).args(convert));
    assert_eq!(done.code, 0, "{}", done.stderr);
    directory
}

#[test]
fn verdicts_are_those_of_apptainer() {
    let Some(oracles) = run::oracles() else { return };
    let directory = place(&oracles);
    let directory = directory.path();
    for (words, is_good) in CASES {
        let words: Vec<&str> = words.split(' ').collect();
        let done = run::run(program().current_dir(directory).args(["verify", "x.sif"]).args(&words));
        let expected = if is_good { 0 } else { exit_code("Mismatch") };
        assert_eq!(done.code, expected, "{words:?}: {}", done.stderr);
        assert!(is_good || done.stdout.is_empty());
    }
    let script: String = CASES
        .iter()
        .map(|(words, _)| format!("apptainer verify {words} x.sif >/dev/null 2>&1 && echo true || echo false\n"))
        .collect();
    let said = shell(&oracles, directory, &script);
    for ((words, is_good), said) in CASES.iter().zip(said.lines()) {
        assert_eq!(said, is_good.to_string(), "apptainer, {words}");
    }
    // What leads to the roots may lie in the same file, behind the certificate.
    let chain = ["verify", "x.sif", "--certificate", "chain.crt", "--certificate-roots", "root.crt"];
    let done = run::run(program().current_dir(directory).args(chain));
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn one_flipped_bit_of_a_certificate_is_found() {
    let Some(oracles) = run::oracles() else { return };
    let directory = place(&oracles);
    let directory = directory.path();
    let read = |name: &str| fs::read(directory.join(name)).unwrap();
    shell(&oracles, directory, "openssl x509 -in good.crt -outform der -out good.der");
    let der = read("good.der");
    let roots = Roots::new(Certificate::all_from_pem(&read("root.crt")).unwrap(), Vec::new());
    let now = Duration::from_secs(1_750_000_000);
    let accepts = |der: &[u8]| Certificate::from_der(der).is_ok_and(|it| roots.vouch(&it, &[], now).is_ok());
    assert!(accepts(&der));
    for place in 0..der.len() {
        let mut flipped = der.clone();
        flipped[place] ^= 1 << (place % 8);
        assert!(!accepts(&flipped), "byte {place}");
        if place % 16 == 0 {
            fs::write(directory.join(format!("flip{place}.der")), &flipped).unwrap();
        }
    }
    let script = "for file in flip*.der; do
        { echo -----BEGIN CERTIFICATE-----; base64 $file; echo -----END CERTIFICATE-----; } >flipped.crt
        if apptainer verify --certificate flipped.crt --certificate-roots root.crt x.sif >/dev/null 2>&1; then
            echo $file; fi; done; echo all";
    assert_eq!(shell(&oracles, directory, script), "all\n");
}

#[test]
fn what_is_not_a_certificate_is_named() {
    let Some(oracles) = run::oracles() else { return };
    let directory = place(&oracles);
    let said = |words: &[&str], kind: &str, text: &str| {
        let done = run::run(program().current_dir(directory.path()).args(["verify", "x.sif"]).args(words));
        assert_eq!(done.code, exit_code(kind), "{}", done.stderr);
        assert!(done.stderr.contains(text), "{}", done.stderr);
    };
    said(&["--certificate", "good.crt"], "Usage", "no effect without --certificate-roots");
    said(&["--certificate-roots", "root.crt"], "Usage", "no effect without --certificate");
    said(&["--certificate", "signer.key", "--certificate-roots", "root.crt"], "Unsupported", "not a certificate");
    let of_strangers = ["--certificate", "strange.crt", "--certificate-roots", "root.crt"];
    said(&of_strangers, "Mismatch", "not issued under any of the roots");
    said(&["--certificate", "expired.crt", "--certificate-roots", "root.crt"], "Mismatch", "valid until 2021-01-01");
}
