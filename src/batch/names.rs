use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{Entry, Item, Make, origin};
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::io::Monitor;
use crate::model::Quoted;
use crate::output::Target;
use crate::source::Spec;

/// How many pairs of sources that share a name are shown.
const SHOWN_MAX: usize = 5;
/// The longest name of an output, in bytes: that of its record is longer.
const NAME_BYTES_MAX: usize = 200;
/// Names that a batch needs itself.
const RESERVED: [&str; 3] = ["summary.tsv", "summary.jsonl", "reports"];

/// What outputs are called where the list does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Names {
    /// As a conversion calls them: `NAME_TAG.sif`.
    #[default]
    Plain,
    /// As Nextflow looks for them in `singularity.cacheDir`: `HOST-NAME-TAG.img`.
    Nextflow,
    /// As cwltool before 3.3 looks for them in `CWL_SINGULARITY_CACHE`: `HOST_NAME:TAG.sif`. Later ones find most of them there, too,
    /// if they may make a link.
    Cwltool,
    /// As cwltool from 3.3 on does: `HOST_s_NAME:TAG.sif`.
    CwltoolNow,
    /// After the digest that the source names now: `sha256-HEX.sif`.
    Digest,
}

/// Gives each image its number and its output a name.
///
/// # Errors
/// [`ErrorKind::Usage`] when a name cannot be, or two sources would be written to one file; with [`Names::Digest`], whatever
/// asking for a digest fails with.
pub fn name(items: Vec<Item>, names: Names, target: &Target, make: &Make<'_>, monitor: &Monitor) -> Result<Vec<Entry>> {
    let suffix = suffix_of(target);
    let mut entries: Vec<Entry> = Vec::new();
    let mut places: BTreeMap<String, (String, bool)> = BTreeMap::new();
    let mut clashes = Vec::new();
    for item in items {
        let by_digest = item.name.is_none() && names == Names::Digest;
        let output = match &item.name {
            Some(name) if name.ends_with(&suffix) || suffix == ".sif" && name.ends_with(".img") => name.clone(),
            Some(name) => format!("{name}{suffix}"),
            None => usual(&item, names, &suffix, target, make, monitor).doing(|| item.place.clone())?,
        };
        check(&output).doing(|| item.place.clone())?;
        let this = format!("{} ({})", Quoted(item.source.as_bytes()), item.place);
        match places.get(&output) {
            // One image under two names; but where images are checked, each name is.
            Some((_, true)) if by_digest && !make(&item.source, Path::new(&output))?.open.checks_signatures() => {
                continue;
            }
            Some((other, _)) => clashes.push(format!("{other} and {this} would both be written to {output:?}")),
            None => drop(places.insert(output.clone(), (this, by_digest))),
        }
        let Item { source, spec, is_tag, access, .. } = item;
        entries.push(Entry { number: entries.len() + 1, source, spec, output, is_tag, access });
    }
    if clashes.is_empty() {
        return Ok(entries);
    }
    let more = clashes.len().saturating_sub(SHOWN_MAX);
    clashes.truncate(SHOWN_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(Error::new(ErrorKind::Usage, format!("{}{more}", clashes.join("; ")))
        .hint("in a list, write a name for the output after one of the two sources"))
}

fn suffix_of(target: &Target) -> String {
    let name = target.default_name(&Spec::Path("x".into())).and_then(|name| name.into_string().ok());
    name.and_then(|name| name.strip_prefix('x').map(str::to_string)).unwrap_or_default()
}

fn usual(
    item: &Item,
    names: Names,
    suffix: &str,
    target: &Target,
    make: &Make<'_>,
    monitor: &Monitor,
) -> Result<String> {
    let no_name = |why: &str| {
        let message = format!("{} {why}", Quoted(item.source.as_bytes()));
        Error::new(ErrorKind::Usage, message).hint("in a list, write a name for the output after the source")
    };
    match (names, &item.spec) {
        (Names::Plain, spec) => {
            let name = target.default_name(spec).ok_or_else(|| no_name("gives the output no name"))?;
            let safe = |character: char| character.is_alphanumeric() || "._-+@=,".contains(character);
            let name: String = name.to_string_lossy().chars().map(|each| if safe(each) { each } else { '_' }).collect();
            // What begins with a dot is hidden.
            Ok(if name.starts_with('.') { format!("image{name}") } else { name })
        }
        // SingularityCache.simpleName of Nextflow.
        (Names::Nextflow, Spec::Registry(name)) => Ok(format!("{}.img", name.replace([':', '/'], "-"))),
        // _normalize_sif_id of cwltool/singularity.py.
        (Names::Cwltool, Spec::Registry(name)) => {
            let latest = if name.contains(':') { "" } else { "_latest" };
            Ok(format!("{}{latest}.sif", name.replace('/', "_")))
        }
        // SingularityImagePuller.get_image_name of cwl_utils/image_puller.py: no two images have one name.
        (Names::CwltoolNow, Spec::Registry(name)) => {
            Ok(format!("{}.sif", name.replace('_', "___").replace('/', "_s_")))
        }
        (Names::Digest, Spec::Registry(_) | Spec::DockerDaemon(_)) => {
            let conversion = make(&item.source, Path::new("x"))?;
            let digest = origin::now(&item.spec, &item.access, &conversion.open, monitor)?;
            let digest = digest.ok_or_else(|| no_name("has no digest"))?;
            Ok(format!("{}{suffix}", digest.replace(':', "-")))
        }
        (Names::Digest, _) => Err(no_name("has no digest before it is read")),
        (Names::Nextflow | Names::Cwltool | Names::CwltoolNow, _) => {
            Err(no_name("is not an image on a registry, which workflows look for"))
        }
    }
}

fn check(name: &str) -> Result<()> {
    let refuse = |why: &str| {
        let message = format!("{} cannot be the name of an output: {why}", Quoted(name.as_bytes()));
        Err(Error::new(ErrorKind::Usage, message)
            .hint("give the output another name, without a directory, in a list: SOURCE NAME"))
    };
    match name {
        _ if name.contains('/') => refuse("it has a slash"),
        _ if name.starts_with(['.', '-']) => refuse("it begins with a dot or a dash"),
        _ if name.chars().any(char::is_control) => refuse("it has control characters"),
        _ if name.len() > NAME_BYTES_MAX => refuse("it is longer than 200 bytes"),
        _ if RESERVED.contains(&name) => refuse("the batch itself uses it"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::conversion::Conversion;
    use crate::output::{Rootfs, Sif};

    fn items(sources: &[&str]) -> Vec<Item> {
        let item = |(number, line): (usize, &&str)| {
            let (source, name) = line.split_once(' ').map_or((*line, None), |(source, name)| (source, Some(name)));
            Item {
                source: source.into(),
                spec: Spec::parse(source.as_ref()).unwrap(),
                name: name.map(str::to_string),
                is_tag: false,
                access: Arc::default(),
                place: format!("line {}", number + 1),
            }
        };
        sources.iter().enumerate().map(item).collect()
    }

    fn named(sources: &[&str], names: Names, target: impl Into<Target>) -> Result<Vec<String>> {
        let make: &Make<'_> = &|source, output| Ok(Conversion::new(Spec::parse(source)?, Sif::new(), output));
        let entries = name(items(sources), names, &target.into(), make, &Monitor::default())?;
        assert!(entries.iter().zip(1..).all(|(entry, number)| entry.number == number));
        Ok(entries.into_iter().map(|entry| entry.output).collect())
    }

    #[test]
    fn outputs_are_called_as_asked() {
        let sources = ["docker://quay.io/bio/x:1.0--h1", "docker://ubuntu"];
        assert_eq!(named(&sources, Names::Plain, Sif::new()).unwrap(), ["x_1.0--h1.sif", "ubuntu.sif"]);
        assert_eq!(named(&sources, Names::Nextflow, Sif::new()).unwrap(), ["quay.io-bio-x-1.0--h1.img", "ubuntu.img"]);
        assert_eq!(
            named(&sources, Names::Cwltool, Sif::new()).unwrap(),
            ["quay.io_bio_x:1.0--h1.sif", "ubuntu_latest.sif"]
        );
        assert_eq!(
            named(&["docker://quay.io/a_b/x:1.0--h1", "docker://ubuntu"], Names::CwltoolNow, Sif::new()).unwrap(),
            ["quay.io_s_a___b_s_x:1.0--h1.sif", "ubuntu.sif"]
        );
        let pinned = format!("docker://x@sha256:{}", "0".repeat(64));
        assert_eq!(named(&[&pinned], Names::Digest, Sif::new()).unwrap(), [format!("sha256-{}.sif", "0".repeat(64))]);
        let lines = ["a b.tar", "image.tar n", "x.tar n2.rootfs.tar", ".tar"];
        let files = named(&lines[1..], Names::Plain, Rootfs::new()).unwrap();
        assert_eq!(files, ["n.rootfs.tar", "n2.rootfs.tar", "image.tar.rootfs.tar"]);
    }

    #[test]
    fn two_sources_never_share_a_name() {
        for clash in [
            ["x/a-3.tar", "a.tar", "d/a.tar"],
            ["docker-archive:app.tar:app:1", "docker-archive:app.tar:app:2", "b.tar"],
            ["a.tar n", "b.tar n.sif", "c.tar"],
            ["docker://h/x:1", "docker://g/x:1", "c.tar"],
            ["a b.tar", "a.tar a_b", "c.tar"],
        ] {
            let error = named(
                &clash.map(|it| it.replace("a b", "a%b")).each_ref().map(String::as_str),
                Names::Plain,
                Sif::new(),
            )
            .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains("would both be written to") && error.remedy().is_some(), "{error}");
        }
        // One image under two tags is one image.
        let pinned = format!("docker://x@sha256:{}", "0".repeat(64));
        let other = pinned.replace("x@", "y@");
        assert_eq!(named(&[&pinned, &other], Names::Digest, Sif::new()).unwrap().len(), 1);
    }

    #[test]
    fn names_stay_in_the_directory() {
        for name in ["a.tar ../x", "a.tar /x", "a.tar .x", "a.tar -x", "a.tar x\u{7}", "a.tar reports/x"] {
            assert_eq!(named(&[name], Names::Plain, Sif::new()).unwrap_err().kind(), ErrorKind::Usage, "{name}");
        }
        for (source, names) in [("a.tar", Names::Nextflow), ("a.tar", Names::Digest), ("https://h/", Names::Plain)] {
            let error = named(&[source], names, Sif::new()).unwrap_err();
            assert!(error.kind() == ErrorKind::Usage && error.to_string().starts_with("line 1: "), "{error}");
        }
    }
}
