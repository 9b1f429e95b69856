//! Any bytes, taken for a SIF file: opened, checked, every object read. Nothing may panic, hang or allocate without bound,
//! and a file without an error must give all its objects.
#![no_main]

use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use sif_convert::io::Region;
use sif_convert::sif::{Container, Severity, verify};

thread_local! {
    /// One file in memory for all inputs: making one for each would take most of the time.
    static FILE: OnceCell<Arc<File>> = const { OnceCell::new() };
}

fn region(bytes: &[u8]) -> Region {
    let file = FILE.with(|file| {
        let made = || Arc::new(File::from(memfd_create("input", MemfdFlags::CLOEXEC).expect("a file in memory")));
        Arc::clone(file.get_or_init(made))
    });
    file.set_len(bytes.len() as u64).expect("its length can be set");
    file.write_all_at(bytes, 0).expect("it can be written");
    Region::whole(file).expect("its length can be read")
}

fuzz_target!(|bytes: &[u8]| {
    let file = region(bytes);
    let findings = verify(&file).expect("only trouble in reading is an error");
    assert!(findings.iter().all(|finding| finding.offset <= i64::MAX as u64 && !finding.to_string().is_empty()));
    let sound = findings.iter().all(|finding| finding.severity != Severity::Error);
    let Ok(container) = Container::open(file) else {
        assert!(!sound, "what cannot be opened must be an error");
        return;
    };
    for descriptor in container.descriptors() {
        let _shown = format!("{descriptor} {} {:?}", descriptor.link(), descriptor.extra());
        match container.data(descriptor) {
            Ok(data) => assert!(data.offset + data.len <= bytes.len() as u64),
            Err(_) => assert!(!sound, "an object outside of the file must be an error"),
        }
    }
    let named = container.primary().is_some_and(|primary| container.named(primary.data_type, primary.name()).is_some());
    assert_eq!(named, container.primary().is_some());
});
