use super::advice::absolute_workdir;
use super::runscript::Command;
use crate::model::Config;
use crate::tree::{InodeId, Kind, Tree};

/// Where programs are looked for when the image sets no `PATH`: what Docker sets then.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file that the image runs: the first word of `ENTRYPOINT` and `CMD`, looked up in `PATH` or from `WORKDIR` as Docker
/// does it. With its path from the root.
pub(crate) fn program(tree: &Tree, config: &Config) -> Option<(Vec<u8>, InodeId)> {
    let word = Command::of(config).words().next()?;
    let candidates: Vec<String> = match word {
        _ if word.starts_with('/') => vec![word.to_string()],
        _ if word.contains('/') => vec![format!("{}/{word}", absolute_workdir(config))],
        _ => search_path(config).split(':').map(|directory| format!("{directory}/{word}")).collect(),
    };
    candidates.into_iter().find_map(|path| {
        let resolution = tree.resolve(path.as_bytes()).ok()?;
        let inode = resolution.inode.filter(|&inode| matches!(tree.inode(inode).kind, Kind::File(_)))?;
        Some((resolution.parts.join(&b'/'), inode))
    })
}

fn search_path(config: &Config) -> &str {
    let mut values = config.env().iter().rev().filter_map(|entry| entry.strip_prefix("PATH="));
    values.next().unwrap_or(PATH_DEFAULT)
}
