//! An image that is large enough to keep several threads at work, and in which every rule of the cases occurs.

use super::case::{self, Expected, Layer};
use super::entry::{Content, Entry, Kind};
use super::layer;
use super::random::noise;

/// The layers of an image: every case that makes a tree, one below the other in directories of their own, and files large enough to keep several
/// threads at work.
pub fn layers() -> Vec<Vec<u8>> {
    let mut layers: Vec<Layer> = Vec::new();
    for case in case::all() {
        // A path that is long already cannot go one deeper; what is said of the root cannot be moved below it.
        let unfit = |layer: &Layer| layer.entries().any(|entry| entry.path.len() > 90 || entry.is("v7"));
        if matches!(case.expected, Expected::Error { .. }) || case.layers.iter().any(unfit) {
            continue;
        }
        for (number, layer) in case.layers.iter().enumerate() {
            layers.resize(layers.len().max(number + 1), Layer::default());
            for entry in layer.entries() {
                let mut entry = entry.clone();
                let below = |path: &[u8]| [case.name.as_bytes(), b"/", path].concat();
                if let Kind::Link(target) = &mut entry.kind {
                    // Above the root there is the root; below a directory there is not.
                    let clean: Vec<&[u8]> = target.split(|&byte| byte == b'/').filter(|part| *part != b"..").collect();
                    *target = below(&clean.join(&b'/'));
                }
                let clean: Vec<&[u8]> = entry.path.split(|&byte| byte == b'/').filter(|part| *part != b"..").collect();
                entry.path = below(&clean.join(&b'/'));
                layers[number].items.push(case::Item::Entry(entry));
            }
        }
    }
    for (number, layer) in layers.iter_mut().enumerate() {
        let noise = Kind::File(Content::data(noise(3_000_000, number as u64)));
        layer.items.push(case::Item::Entry(Entry::new(format!("large-{number}"), noise)));
    }
    layers.iter().map(layer::tar).collect()
}
